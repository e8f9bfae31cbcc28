//! The loop of one data core: a pinned executor that serves the shard, runs slow work beside it, and
//! sleeps when there is nothing to do. One thread per core; the only file that names glommio. Knows no
//! protocol and no log.
//!
//! The serving task yields to background tasks only while one of them can go on, and then after every
//! turn; the scheduler gives each side its share of the time. Preemption by timer is off (a day): a turn
//! is bounded, and background tasks pause by themselves. The executor never parks: all that a task waits
//! for comes through the core's ring, so the serving task sleeps on that, which takes fewer system calls.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use ring::{Listener, Ring, RingConfig, Waker, clock};
use storage::open_files::OpenFiles;
use storage::types::CoreId;

use crate::connection_limits::ConnectionLimits;
use crate::core_io::{CoreIo, CoreLinks, Machine};
use crate::event::Task;
use crate::ring_disk::RingDisk;
use crate::task_queue::TaskQueue;

/// Memory that glommio registers for its own I/O, of which there is none; more would only be locked.
const EXECUTOR_MEMORY_BYTES: usize = 1 << 20;

/// Locked memory that one core needs, in bytes: the executor's, and its rings.
pub const LOCKED_BYTES_PER_CORE: u64 = EXECUTOR_MEMORY_BYTES as u64 + (512 << 10);

/// No preemption by timer.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Shares of the serving loop and of slow work, where both want the core.
const SERVING_SHARES: usize = 800;
const BACKGROUND_SHARES: usize = 200;

/// Turns without work before a core sleeps, or lets others have the processor between its looks for more.
const IDLE_ROUNDS: u32 = 4;

/// A core looks for work longer where that saves a lone request its waking. One that lately had more requests
/// waiting than these, or a turn that took longer, has enough to do at each waking: there the time is better
/// left to the kernel.
const POLLED_REQUESTS_MAX: usize = 2;
const POLLED_TURN_US_MAX: u64 = 50;
const LATELY_US: u64 = 1_000;

/// How much later than a core that looks a sleeping one meets its work, in microseconds, about.
const WAKING_US: u64 = 50;

/// What a core needs to run.
pub struct CoreConfig {
    /// Which core of the broker.
    pub core: CoreId,
    /// Which CPU it is pinned to; `None`: none.
    pub cpu: Option<usize>,
    /// Sizes of its ring.
    pub ring: RingConfig,
    /// Wakes it; known to the other cores and the control thread.
    pub waker: Waker,
    /// One per configured listener, in their order.
    pub listeners: Vec<Listener>,
    /// The places among them of those that speak native frames.
    pub native_listeners: Range<usize>,
    /// Memory for requests that are being received, in bytes.
    pub frame_memory_bytes: usize,
    /// Memory for journal and segments that is made ready before it is needed, about, in bytes.
    pub memory_ahead_bytes: usize,
    /// How many connections there may be, on all cores together.
    pub limits: Arc<ConnectionLimits>,
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Log files that are kept open.
    pub open_files_max: usize,
}

/// Starts the thread of a core. `machine` is made on it. Returns when its ring stands; the machine then
/// says by itself when it is ready.
///
/// # Errors
/// A sentence for the operator: what this machine lacks for a core.
pub fn start<M, F>(
    config: CoreConfig,
    links: CoreLinks,
    machine: F,
) -> Result<JoinHandle<()>, String>
where
    M: Machine + 'static,
    F: FnOnce() -> M + Send + 'static,
{
    let name = format!("core-{}", config.core.0);
    let (started, starting) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || run(config, links, machine, &started))
        .map_err(|error| format!("cannot start the thread {name}: {error}"))?;
    match starting.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(format!("{name} cannot start: {error}")),
        Err(_) => Err(format!("{name} stopped while it started")),
    }
}

fn run<M: Machine + 'static>(
    config: CoreConfig,
    links: CoreLinks,
    machine: impl FnOnce() -> M,
    started: &Sender<Result<(), String>>,
) {
    let placement = config.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("core")
        .io_memory(EXECUTOR_MEMORY_BYTES)
        .preempt_timer(NEVER)
        .make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            let _ = started.send(Err(format!(
                "{error}. Each core needs {} KiB of locked memory (`ulimit -l`, LimitMEMLOCK=) and a \
                 CPU that this process may use.",
                LOCKED_BYTES_PER_CORE >> 10
            )));
            return;
        }
    };
    executor.run(async move {
        match Ring::with_waker(config.ring, config.waker.clone()) {
            Ok(ring) => {
                if let Err(error) = ring::make_memory_ahead(config.memory_ahead_bytes) {
                    tracing::warn!(%error, "no thread makes memory ready ahead: first uses of it take longer");
                }
                let _ = started.send(Ok(()));
                if let Err(error) = serve(config, links, ring, machine()).await {
                    // Nothing can be served, written or acknowledged without the ring.
                    panic!("the core's io_uring is broken: {error}");
                }
            }
            Err(error) => {
                let _ = started.send(Err(format!("io_uring: {error}")));
            }
        }
    });
}

async fn serve<M: Machine + 'static>(
    config: CoreConfig,
    links: CoreLinks,
    ring: Ring,
    machine: M,
) -> io::Result<()> {
    let executor = glommio::executor();
    let serving = executor.create_task_queue(
        Shares::Static(SERVING_SHARES),
        Latency::Matters(NEVER),
        "serving",
    );
    let background = executor.create_task_queue(
        Shares::Static(BACKGROUND_SHARES),
        Latency::NotImportant,
        "background",
    );
    let ring = Rc::new(RefCell::new(ring));
    let tasks = TaskQueue::default();
    let runnable = Rc::new(Cell::new(0));
    let pausing = Rc::clone(&runnable);
    let pause = Rc::new(move || {
        let pausing = Rc::clone(&pausing);
        let pause: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            pausing.update(|count| count + 1);
            glommio::executor().yield_task_queue_now().await;
            pausing.update(|count| count - 1);
        });
        pause
    });
    let outcomes = RingDisk::new(Rc::clone(&ring), pause);
    let disk = outcomes.clone();
    let core = CoreIo::new(
        config.core,
        machine,
        Rc::clone(&ring),
        disk.clone(),
        tasks.clone(),
        links,
        config.listeners,
        config.frame_memory_bytes,
        config.frame_bytes_max,
        config.limits,
    )
    .with_native_listeners(config.native_listeners);
    let work = Work {
        ring,
        tasks,
        disk: OpenFiles::new(disk, config.open_files_max),
        background,
        outcomes,
        runnable,
    };
    glommio::spawn_local_into(serve_turns(core, work), serving)
        .map_err(|error| io::Error::other(error.to_string()))?
        .await
}

struct Work {
    ring: Rc<RefCell<Ring>>,
    tasks: TaskQueue,
    disk: OpenFiles<RingDisk>,
    background: TaskQueueHandle,
    /// Knows the tasks that got what they waited for.
    outcomes: RingDisk,
    /// Tasks that have not begun, or that let others run.
    runnable: Rc<Cell<usize>>,
}

async fn serve_turns<M: Machine>(mut core: CoreIo<M>, work: Work) -> io::Result<()> {
    let mut polling = Polling::new(core.machine().idle_poll_us());
    loop {
        let worked = core.turn()?;
        while let Some(task) = work.tasks.next() {
            work.spawn(task)?;
        }
        if core.is_stopped() {
            return Ok(());
        }
        let (began_us, now_us) = (core.turned_us(), clock::monotonic_us());
        if worked {
            polling.worked(began_us, now_us, core.machine().waiting_count());
            polling.look_us = core.machine().idle_poll_us();
        } else {
            polling.idle_rounds += 1;
        }
        if work.can_go_on() {
            glommio::executor().yield_task_queue_now().await;
        } else if polling.idle_rounds <= IDLE_ROUNDS {
            std::hint::spin_loop();
        } else if polling.goes_on(now_us) {
            // What finishes a flush may need this very processor: a worker of the kernel's.
            std::thread::yield_now();
        } else if core.prepare_sleep() {
            polling.slept = true;
            work.ring.borrow_mut().wait_blocking(-1)?;
        } else {
            work.ring.borrow_mut().woke();
        }
    }
}

/// Whether a core that has nothing to do goes on looking. It does where work came soon the last time: after
/// requests that wait for their flush, as after none, which are told apart.
#[derive(Debug)]
struct Polling {
    /// How long it looks, at most.
    look_us: u64,
    /// Turns without work since the last with some.
    idle_rounds: u32,
    /// When the last turn with work ended.
    worked_us: u64,
    /// When there last was enough to do at once.
    crowded_us: u64,
    /// Whether something waited then to be durable.
    waits: bool,
    /// Whether the core has slept since.
    slept: bool,
    /// Whether work came soon the last time: when nothing waited, and when something did.
    soon: [bool; 2],
}

impl Polling {
    fn new(look_us: u64) -> Polling {
        Polling {
            look_us,
            idle_rounds: 0,
            worked_us: 0,
            crowded_us: 0,
            waits: false,
            slept: false,
            soon: [false; 2],
        }
    }

    /// A turn had work, from `began_us` to `now_us`, and leaves so many requests waiting.
    fn worked(&mut self, began_us: u64, now_us: u64, waiting_count: usize) {
        if self.idle_rounds > 0 {
            // What a core that looks would meet in time: else one that once slept would go on sleeping.
            let waking_us = if self.slept { WAKING_US } else { 0 };
            let looked_us = self.worked_us + self.look_us;
            self.soon[usize::from(self.waits)] = began_us < looked_us + waking_us;
        }
        self.slept = false;
        if waiting_count > POLLED_REQUESTS_MAX || now_us > began_us + POLLED_TURN_US_MAX {
            self.crowded_us = now_us;
        }
        self.idle_rounds = 0;
        self.worked_us = now_us;
        self.waits = waiting_count > 0;
    }

    fn goes_on(&self, now_us: u64) -> bool {
        self.soon[usize::from(self.waits)]
            && now_us < self.worked_us + self.look_us
            && now_us >= self.crowded_us + LATELY_US
    }
}

impl Work {
    /// Whether a background task has something to do that it need not wait for.
    fn can_go_on(&self) -> bool {
        self.runnable.get() + self.outcomes.done_count() > 0
    }

    fn spawn(&self, task: Task) -> io::Result<()> {
        let disk = self.disk.clone();
        let tasks = self.tasks.clone();
        let runnable = Rc::clone(&self.runnable);
        runnable.update(|count| count + 1);
        let work = async move {
            runnable.update(|count| count - 1);
            tasks.finish(task.run(disk).await);
        };
        glommio::spawn_local_into(work, self.background)
            .map_err(|error| io::Error::other(error.to_string()))?
            .detach();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle time of so long, which a turn without work begins.
    fn idle(polling: &mut Polling, from_us: u64, idle_us: u64, waiting_count: usize) -> u64 {
        polling.idle_rounds += 1;
        let began_us = from_us + idle_us;
        polling.worked(began_us, began_us + 5, waiting_count);
        began_us + 5
    }

    #[test]
    fn a_core_looks_longer_where_work_came_soon_the_last_time() {
        let mut polling = Polling::new(200);
        polling.worked(10_000, 10_005, 0);
        assert!(!polling.goes_on(10_006), "nothing is known yet");
        // Requests come a millisecond apart, and their flushes take a tenth of that.
        let mut now_us = 10_005;
        for round in 0..3 {
            now_us = idle(&mut polling, now_us, 1_000, 1);
            assert_eq!(polling.goes_on(now_us + 199), round > 0, "a flush");
            assert!(!polling.goes_on(now_us + 200), "not for ever");
            now_us = idle(&mut polling, now_us, 100, 0);
            assert!(!polling.goes_on(now_us), "no request");
        }
        // Now they come one upon the other.
        now_us = idle(&mut polling, now_us, 50, 1);
        now_us = idle(&mut polling, now_us, 100, 0);
        assert!(polling.goes_on(now_us));
    }

    #[test]
    fn what_a_sleeping_core_met_a_little_late_came_soon() {
        let mut polling = Polling::new(200);
        for (idle_us, slept, soon) in [
            (100, true, true),
            (249, true, true),
            (250, true, false),
            (199, false, true),
            (200, false, false),
        ] {
            polling.slept = slept;
            let now_us = idle(&mut polling, 10_000, idle_us, 1);
            polling.slept = slept;
            let now_us = idle(&mut polling, now_us, idle_us, 1);
            assert_eq!(polling.goes_on(now_us), soon, "{idle_us} us, {slept}");
        }
    }

    #[test]
    fn a_core_with_enough_to_do_at_once_does_not_look_longer() {
        let mut polling = Polling::new(200);
        let mut now_us = idle(&mut polling, 10_000, 100, 1);
        now_us = idle(&mut polling, now_us, 100, 1);
        assert!(polling.goes_on(now_us));
        polling.worked(now_us, now_us + 5, POLLED_REQUESTS_MAX + 1);
        assert!(!polling.goes_on(now_us + 5));
        polling.worked(now_us + 900, now_us + 905, 1);
        assert!(!polling.goes_on(now_us + 905), "a moment ago");
        polling.worked(now_us + 1_100, now_us + 1_105, 1);
        assert!(polling.goes_on(now_us + 1_105));
        polling.worked(now_us + 2_000, now_us + 2_001 + POLLED_TURN_US_MAX, 1);
        assert!(!polling.goes_on(now_us + 2_100), "a long turn");
    }
}
