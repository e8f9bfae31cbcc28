//! Starts the broker and keeps it until it has stopped: configuration, what the machine lacks, recovery,
//! one thread per core, the control thread. Runs on the main thread; knows no protocol.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ring::probe::{probe_direct, probe_ring, raise_descriptor_limit};
use ring::{BACKLOG_USUAL, Listener, RingConfig, Waker, clock};
use storage::blocking_disk::{BlockingDisk, block_on};
use storage::recovery::{self, CoreImage};
use storage::store::{Store, StoreConfig};
use storage::types::{CoreId, Now};
use uuid::Uuid;

use crate::boot::{Booted, boot};
use crate::config::listener::HostPort;
use crate::config::{BrokerConfig, log_dir};
use crate::connection_limits::ConnectionLimits;
use crate::control::{ControlConfig, ToCore};
use crate::core_io::CoreLinks;
use crate::core_loop::{self, CoreConfig, LOCKED_BYTES_PER_CORE};
use crate::mesh_link::MeshLinks;
use crate::metadata::MetadataImage;
use crate::room;
use crate::shard::{Shard, ShardConfig};
use crate::unix_socket::{self, BindError, SocketFile};

/// Memory of a core where nothing else is asked for, at most, in bytes.
const CORE_MEMORY_BYTES_DEFAULT_MAX: u64 = 192 << 20;

/// The least memory that a core can work with, in bytes.
const CORE_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Messages that fit between two cores before the sender waits.
const LINK_CAPACITY: usize = 1024;

/// Log files that a core keeps open, at most: more are rarely in use at a time.
const OPEN_FILES_MAX: usize = 1000;

/// After so long, in microseconds, start-up says what it was doing.
const PATIENCE_US: u64 = 1_000_000;

/// Which CPUs get a data core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// So many, the first that this process may use.
    Count(usize),
    /// Exactly these, in this order.
    List(Vec<usize>),
}

/// How often a port that is taken is tried again, and the pause before each: about two seconds.
const PORT_TRIES: usize = 40;
const PORT_PAUSE: Duration = Duration::from_millis(50);

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// A properties file with Kafka's keys.
    pub config_file: Option<PathBuf>,
    /// `key=value`, over the file.
    pub overrides: Vec<String>,
    /// Which CPUs get a data core; all that this process may use when absent.
    pub cores: Option<Cores>,
    /// Memory of the whole broker, in bytes.
    pub memory_bytes: Option<u64>,
}

/// Runs the broker until it has stopped.
///
/// # Errors
/// A sentence for the operator: what is wrong, and what to do about it. Nothing was touched if the
/// configuration is at fault.
pub fn run(options: &StartOptions) -> Result<(), String> {
    let began_us = clock::monotonic_us();
    let (mut broker, warnings) =
        BrokerConfig::read(options.config_file.as_deref(), &options.overrides)
            .map_err(|error| error.to_string())?;
    for warning in warnings {
        tracing::warn!(key = warning.key, "{}", warning.why);
    }
    if options.config_file.is_some() && !broker.statics().contains_key("http.listener") {
        // The default is for who tries the broker without a file; Kafka's own file opens no HTTP.
        broker.http_listener = None;
    }
    if options.config_file.is_some() && !broker.statics().contains_key("native.listener") {
        broker.native_listener = None;
    }
    let cpus = choose_cpus(options.cores.as_ref())?;
    let cores = u16::try_from(cpus.len()).map_err(|_| "too many cores".to_owned())?;
    let core_memory_bytes = core_memory(options.memory_bytes, cores)?;
    storage::crc::self_test().map_err(|error| {
        format!(
            "this machine computes CRC-32C wrongly ({error:?}): its batches could not be trusted"
        )
    })?;
    let descriptors = raise_descriptor_limit()
        .map_err(|error| format!("cannot read the limit of open files: {error}"))?;
    let ring_config = RingConfig::default();
    probe_ring(ring_config, cpus.len(), LOCKED_BYTES_PER_CORE).map_err(|lack| lack.to_string())?;

    let mut listeners: Vec<Vec<Listener>> = cpus.iter().map(|_| Vec::new()).collect();
    // Kafka's default of 50 would turn away clients that all come at once, after a restart.
    let backlog = if broker.statics().contains_key("socket.listen.backlog.size") {
        broker.listen_backlog
    } else {
        BACKLOG_USUAL
    };
    for listener in &mut broker.listeners {
        let address = resolve(&listener.bind)?;
        let group = listen(address, cpus.len(), backlog).map_err(|error| {
            format!(
                "cannot listen on {}://{}:{}: {error}",
                listener.name, listener.bind.host, listener.bind.port
            )
        })?;
        for (of_core, one) in listeners.iter_mut().zip(group) {
            // Port 0 is any free port: clients are told which.
            listener.bind.port = one.local().port();
            if listener.advertised.port == 0 {
                listener.advertised.port = listener.bind.port;
            }
            of_core.push(one);
        }
    }
    open_native(&mut broker, &mut listeners)?;
    let unix_socket = open_unix(&broker, &mut listeners)?;
    let native_listeners = broker.listeners.len()..listeners[0].len();
    let http = open_http(&mut broker)?;

    let log_dirs = log_dir::open(&broker.log_dirs, broker.node_id, Uuid::new_v4)
        .map_err(|error| error.to_string())?;
    let store_sizes = store_config(&broker, CoreId(0), cores, core_memory_bytes, 0);
    room::make(&broker.log_dirs, |_| {
        room::needed_bytes(&store_sizes, &vec![0; usize::from(cores)], 0)
    })?;
    for dir in &broker.log_dirs {
        probe_direct(dir).map_err(|lack| lack.to_string())?;
    }
    let image = MetadataImage::new(log_dirs.cluster_id.clone(), broker.clone());
    let recovery_began_us = clock::monotonic_us();
    let Booted { image, recovered } =
        block_on(boot(&BlockingDisk::new(), &broker.log_dirs, cores, image))
            .map_err(|error| error.to_string())?;
    for (dir, why) in &recovered.offline {
        tracing::error!(dir = %broker.log_dirs[*dir].display(), why, "a log directory is offline");
    }
    for (from, to) in &recovered.strays {
        tracing::warn!(from = %from.display(), to = %to.display(), "nobody knows this partition: set aside");
    }
    if recovered.unclean && recovered.epoch > 1 {
        tracing::info!(
            bytes = recovered.dirty_bytes,
            "the last run ended without a clean stop: its journal is replayed"
        );
    }
    let images = &recovered.cores;
    room::make(&broker.log_dirs, |dir| {
        let carried_bytes: Vec<u64> = images
            .iter()
            .map(|image| image.carried_bytes(dir))
            .collect();
        let partitions = images.iter().map(|image| image.partitions().count()).sum();
        room::needed_bytes(&store_sizes, &carried_bytes, partitions)
    })?;
    let recovery_us = clock::monotonic_us() - recovery_began_us;
    if recovery_us > PATIENCE_US {
        tracing::info!(ms = recovery_us / 1000, "recovered");
    }

    let config = Arc::new(ShardConfig {
        cores,
        memory_bytes: usize::try_from(core_memory_bytes).unwrap_or(usize::MAX),
        broker: broker.clone(),
        seed: Uuid::new_v4().as_u64_pair().0,
    });
    let epoch = recovered.epoch;
    let offline: Vec<usize> = recovered.offline.iter().map(|(dir, _)| *dir).collect();
    let dirs: Vec<PathBuf> = broker
        .log_dirs
        .iter()
        .enumerate()
        .filter(|(index, _)| !offline.contains(index))
        .map(|(_, dir)| dir.clone())
        .collect();
    let wakers: Vec<Waker> = cpus
        .iter()
        .map(|_| Waker::new())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("cannot make an eventfd: {error}"))?;
    let meshes = MeshLinks::full_mesh(&wakers, LINK_CAPACITY);
    let (replies, reply_receiver) = tokio::sync::mpsc::unbounded_channel();
    let limits = Arc::new(ConnectionLimits::new(&broker));
    let mut threads = Vec::with_capacity(cpus.len());
    let mut to_cores: Vec<ToCore> = Vec::with_capacity(cpus.len());
    let parts = recovered.cores.into_iter().zip(&cpus).zip(&wakers);
    for (((core_image, cpu), waker), (mesh, listeners)) in
        parts.zip(meshes.into_iter().zip(listeners))
    {
        let core = core_image.core;
        let (control, control_receiver) = std::sync::mpsc::channel();
        let control_waker = waker.clone();
        to_cores.push(Box::new(move |message| {
            // A core that is gone needs no message.
            let _ = control.send(message);
            control_waker.wake();
        }));
        let core_config = CoreConfig {
            core,
            cpu: Some(*cpu),
            ring: ring_config,
            waker: waker.clone(),
            listeners,
            native_listeners: native_listeners.clone(),
            frame_memory_bytes: config.memory_bytes / 4,
            memory_ahead_bytes: config.memory_bytes / 8,
            limits: Arc::clone(&limits),
            frame_bytes_max: usize::try_from(broker.socket_request_bytes_max).unwrap_or(0),
            open_files_max: open_files_max(descriptors, cores),
        };
        let links = CoreLinks {
            mesh,
            control: control_receiver,
            replies: replies.clone(),
        };
        let store_config = store_config(&broker, core, cores, core_memory_bytes, epoch);
        let shard_config = Arc::clone(&config);
        let image = image.clone();
        let machine = move || make_shard(core_image, shard_config, store_config, image);
        threads.push(core_loop::start(core_config, links, machine)?);
    }
    drop(replies);

    let ready = ready_line(&broker, &cpus, &log_dirs.cluster_id);
    let control = ControlConfig {
        http,
        cores: to_cores,
        replies: reply_receiver,
        on_ready: Box::new(move |lost| {
            tracing::info!(
                start_ms = (clock::monotonic_us() - began_us) / 1000,
                "{ready}"
            );
            // What a lost directory's old journals hold is nowhere else.
            let kept: Vec<PathBuf> = dirs
                .into_iter()
                .filter(|dir| !lost.contains(&dir.display().to_string()))
                .collect();
            if let Err(error) =
                block_on(recovery::discard_older(&BlockingDisk::new(), &kept, epoch))
            {
                tracing::warn!(%error, "journals of earlier starts could not be removed");
            }
        }),
        start_time_seconds: u64::try_from(clock::wall_ms() / 1000).unwrap_or(0),
    };
    crate::control::run(control).map_err(|error| match error.kind() {
        ErrorKind::StorageFull => error.to_string(),
        _ => format!("the control thread: {error}"),
    })?;
    for thread in threads {
        thread
            .join()
            .map_err(|_| "a core stopped with a panic".to_owned())?;
    }
    drop(unix_socket);
    tracing::info!("stopped");
    Ok(())
}

/// Listens, and waits a little where the port is taken: the kernel may still be closing the sockets of
/// a broker that was killed a moment ago, because a ring is taken down after its process has ended.
fn listen(address: SocketAddr, count: usize, backlog: i32) -> io::Result<Vec<Listener>> {
    for _ in 0..PORT_TRIES {
        match Listener::bind_group_with(address, count, backlog) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => thread::sleep(PORT_PAUSE),
            done => return done,
        }
    }
    Listener::bind_group_with(address, count, backlog)
}

/// Opens the HTTP listener. One that nobody asked for is no reason not to start: where its port is
/// taken, by another broker of this machine perhaps, HTTP stays off.
fn open_http(broker: &mut BrokerConfig) -> Result<Option<TcpListener>, String> {
    let Some(place) = broker.http_listener.clone() else {
        return Ok(None);
    };
    match TcpListener::bind(resolve(&place)?) {
        Ok(listener) => Ok(Some(listener)),
        Err(error)
            if error.kind() == ErrorKind::AddrInUse
                && !broker.statics().contains_key("http.listener") =>
        {
            tracing::warn!(
                "HTTP is off: its default place {}:{} is taken; set http.listener",
                place.host,
                place.port
            );
            broker.http_listener = None;
            Ok(None)
        }
        Err(error) => Err(format!(
            "cannot listen on http.listener={}:{}: {error}",
            place.host, place.port
        )),
    }
}

/// Opens the native listener on every core, behind the others. As with HTTP, the default is no reason not
/// to start.
fn open_native(broker: &mut BrokerConfig, listeners: &mut [Vec<Listener>]) -> Result<(), String> {
    let asked_for = broker.statics().contains_key("native.listener");
    let Some(place) = &mut broker.native_listener else {
        return Ok(());
    };
    let address = resolve(place)?;
    let bound = if asked_for {
        listen(address, listeners.len(), BACKLOG_USUAL)
    } else {
        Listener::bind_group(address, listeners.len())
    };
    match bound {
        Ok(group) => {
            for (of_core, one) in listeners.iter_mut().zip(group) {
                place.port = one.local().port();
                of_core.push(one);
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse && !asked_for => {
            tracing::warn!(
                "the native protocol is off: its default place {place} is taken; set native.listener"
            );
            broker.native_listener = None;
            Ok(())
        }
        Err(error) => Err(format!("cannot listen on native.listener={place}: {error}")),
    }
}

/// Opens the Unix socket of the native protocol for every core, behind all others. A live one may be that
/// of a broker that was killed a moment ago, as in [`listen`].
fn open_unix(
    broker: &BrokerConfig,
    listeners: &mut [Vec<Listener>],
) -> Result<Option<SocketFile>, String> {
    let Some(path) = &broker.native_unix_socket else {
        return Ok(None);
    };
    let bind = || unix_socket::bind(path, listeners.len(), BACKLOG_USUAL);
    let mut bound = bind();
    for _ in 0..PORT_TRIES {
        if !matches!(bound, Err(BindError::Served | BindError::Busy)) {
            break;
        }
        thread::sleep(PORT_PAUSE);
        bound = bind();
    }
    let (group, file) = bound.map_err(|error| {
        format!(
            "cannot listen on native.unix.socket={}: {error}",
            path.display()
        )
    })?;
    for (of_core, one) in listeners.iter_mut().zip(group) {
        of_core.push(one);
    }
    Ok(Some(file))
}

fn store_config(
    broker: &BrokerConfig,
    core: CoreId,
    cores: u16,
    memory_bytes: u64,
    epoch: u64,
) -> StoreConfig {
    let mut store = StoreConfig::new(
        core,
        cores,
        broker.log_dirs.clone(),
        epoch,
        Uuid::new_v4().as_u64_pair().1,
        memory_bytes,
    );
    store.retention_check_ms =
        u64::try_from(broker.retention_check_interval_ms).unwrap_or(u64::MAX);
    store
}

fn make_shard(
    core_image: CoreImage,
    config: Arc<ShardConfig>,
    store_config: StoreConfig,
    image: MetadataImage,
) -> Shard {
    let core = core_image.core;
    let now = Now {
        monotonic_us: clock::monotonic_us(),
        wall_ms: clock::wall_ms(),
    };
    let store = Store::new(store_config, core_image);
    Shard::new(core, config, image, store, now)
}

/// The CPUs that the cores are pinned to: those asked for, out of those that this process may use.
fn choose_cpus(asked: Option<&Cores>) -> Result<Vec<usize>, String> {
    let usable: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    if usable.is_empty() {
        return Err("cannot tell which CPUs this process may use".to_owned());
    }
    match asked {
        None => Ok(usable),
        Some(Cores::Count(count)) if *count == 0 || *count > usable.len() => Err(format!(
            "--cores {count}: this process may use {} CPUs",
            usable.len()
        )),
        Some(Cores::Count(count)) => Ok(usable[..*count].to_vec()),
        Some(Cores::List(cpus)) => match cpus.iter().find(|cpu| !usable.contains(cpu)) {
            Some(cpu) => Err(format!("--cores: CPU {cpu} is not one of {usable:?}")),
            None => Ok(cpus.clone()),
        },
    }
}

/// Log files that a core keeps open: a quarter of the process's descriptors are for them, the rest
/// for connections.
fn open_files_max(descriptors: u64, cores: u16) -> usize {
    let share = descriptors / 4 / u64::from(cores);
    usize::try_from(share)
        .unwrap_or(usize::MAX)
        .clamp(16, OPEN_FILES_MAX)
}

/// Memory of each core: its share of what was asked for, or of an eighth of the machine.
fn core_memory(asked_bytes: Option<u64>, cores: u16) -> Result<u64, String> {
    let cores = u64::from(cores);
    match asked_bytes {
        Some(bytes) if bytes / cores < CORE_MEMORY_BYTES_MIN => Err(format!(
            "--memory: {bytes} bytes for {cores} cores are too few; each needs at least {CORE_MEMORY_BYTES_MIN}"
        )),
        Some(bytes) => Ok(bytes / cores),
        None => {
            let eighth = machine_memory_bytes()? / 8;
            Ok((eighth / cores).clamp(CORE_MEMORY_BYTES_MIN, CORE_MEMORY_BYTES_DEFAULT_MAX))
        }
    }
}

fn machine_memory_bytes() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/meminfo")
        .map_err(|error| format!("cannot read /proc/meminfo: {error}; say --memory"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| "/proc/meminfo has no MemTotal; say --memory".to_owned())
}

fn resolve(place: &HostPort) -> Result<SocketAddr, String> {
    let host = if place.host.is_empty() {
        "0.0.0.0"
    } else {
        &place.host
    };
    (host, place.port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve {host}: {error}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))
}

fn ready_line(broker: &BrokerConfig, cpus: &[usize], cluster_id: &str) -> String {
    let native = broker.native_listener.iter();
    let unix = broker.native_unix_socket.iter();
    let listeners: Vec<String> = broker
        .listeners
        .iter()
        .map(|listener| {
            format!(
                "{}://{}:{}",
                listener.name, listener.bind.host, listener.bind.port
            )
        })
        .chain(native.map(|place| format!("native://{place}")))
        .chain(unix.map(|path| format!("unix:{}", path.display())))
        .collect();
    let http = broker.http_listener.as_ref().map_or_else(
        || "off".to_owned(),
        |place| format!("http://{}:{}", place.host, place.port),
    );
    let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    let dirs: Vec<String> = broker
        .log_dirs
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    format!(
        "ready: {} (http {http}), cores {}, data in {}, cluster {cluster_id}",
        listeners.join(","),
        cpus.join(","),
        dirs.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::{Cores, choose_cpus, core_memory, open_http};
    use crate::config::BrokerConfig;

    #[test]
    fn a_taken_port_is_an_error_only_where_it_was_asked_for() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = taken.local_addr().expect("its address").to_string();
        let asked = format!("http.listener={place}");
        let (mut broker, _) = BrokerConfig::read(None, &[asked]).expect("a good configuration");
        assert!(open_http(&mut broker).is_err());
        let by_default = broker.http_listener.clone();
        let (mut broker, _) = BrokerConfig::read(None, &[]).expect("a good configuration");
        broker.http_listener = by_default;
        assert!(
            open_http(&mut broker)
                .expect("a start without it")
                .is_none()
        );
        assert_eq!(broker.http_listener, None);
    }

    #[test]
    fn only_usable_cpus_get_a_core() {
        let all = choose_cpus(None).expect("some CPU");
        let count = all.len();
        assert_eq!(choose_cpus(Some(&Cores::Count(1))), Ok(vec![all[0]]));
        assert_eq!(
            choose_cpus(Some(&Cores::List(vec![all[0]]))),
            Ok(vec![all[0]])
        );
        assert!(choose_cpus(Some(&Cores::Count(count + 1))).is_err());
        assert!(choose_cpus(Some(&Cores::Count(0))).is_err());
        assert!(choose_cpus(Some(&Cores::List(vec![99_999]))).is_err());
    }

    #[test]
    fn memory_is_divided_and_has_a_floor() {
        assert_eq!(core_memory(Some(1 << 30), 2), Ok(1 << 29));
        assert!(core_memory(Some(1 << 20), 1).is_err());
        assert!(core_memory(None, 1).expect("some memory") >= 16 << 20);
    }
}
