//! Runs what simulated stores ask for, on one thread, in an order that a seed decides. Knows no model and
//! no disk's inside.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::open_files::OpenFiles;
use crate::sim_disk::{SimDisk, SimRng};
use crate::store::{Store, StoreAction};
use crate::tasks::StoreTaskDone;
use crate::types::Now;

enum Finished {
    Task(StoreTaskDone),
    Write(u64, io::Result<()>),
}

type Running = Pin<Box<dyn Future<Output = Finished>>>;

/// Polls what stores have asked for in an order that the seed decides.
pub struct Executor {
    running: Vec<(usize, Running)>,
    disk: OpenFiles<SimDisk>,
}

impl Executor {
    /// An executor over a disk.
    pub fn new(disk: SimDisk) -> Executor {
        Executor {
            running: Vec::new(),
            disk: OpenFiles::new(disk, 16),
        }
    }

    /// Takes up all actions of a store.
    pub fn take_actions(&mut self, core: usize, store: &mut Store) {
        while let Some(action) = store.poll_action() {
            let disk = self.disk.clone();
            let future: Running = match action {
                StoreAction::DurableWrite(write) => Box::pin(async move {
                    let (token, result) = write.run(disk).await;
                    Finished::Write(token, result)
                }),
                StoreAction::Spawn(task) => {
                    Box::pin(async move { Finished::Task(task.run(disk).await) })
                }
            };
            self.running.push((core, future));
        }
    }

    /// Polls one future, chosen by `rng`, and gives its result to its store. False if there is none.
    pub fn step(&mut self, now: Now, rng: &mut SimRng, stores: &mut [Store]) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let at = rng.below(self.running.len() as u64) as usize;
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(finished) = self.running[at].1.as_mut().poll(&mut context) else {
            return true;
        };
        let (core, _) = self.running.swap_remove(at);
        match finished {
            Finished::Task(done) => stores[core].on_task_done(now, done),
            Finished::Write(token, result) => stores[core].on_write_done(now, token, result),
        }
        stores[core].end_turn(now);
        self.take_actions(core, &mut stores[core]);
        true
    }
}
