//! The control thread: HTTP for health and metrics, and the signals that stop the broker. Not pinned, with
//! tokio; it talks to the cores by message only and knows nothing of what they hold.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use storage::types::CoreId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::event::{ControlMessage, ControlReply};
use crate::metrics::{BrokerGauges, ShardMetrics, encode};
use crate::room;

/// Longest that a scrape waits for the cores: Prometheus itself waits ten seconds by default.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// A start that waits so long for room on a full disk is given up.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// A way to a core: puts the message into its queue and wakes it.
pub type ToCore = Box<dyn Fn(ControlMessage) + Send>;

/// What is done when every core serves.
pub type OnReady = Box<dyn FnOnce(&BTreeSet<String>) + Send>;

/// What the control thread is started with.
pub struct ControlConfig {
    /// The bound socket for HTTP; `None`: no HTTP.
    pub http: Option<TcpListener>,
    /// Ways to the cores, in their order.
    pub cores: Vec<ToCore>,
    /// What the cores tell. It ends when every core is gone, and with it the control thread.
    pub replies: UnboundedReceiver<(CoreId, ControlReply)>,
    /// Called once, when every core serves, with the log directories that are lost by then.
    pub on_ready: OnReady,
    /// When the process started, in seconds since 1970.
    pub start_time_seconds: u64,
}

/// Runs the control thread until every core is gone.
///
/// # Errors
/// The system refuses the event loop, the signals or the socket; or, of the kind `StorageFull`, the start
/// finds no room on the disk: then the error is the whole sentence for the operator.
pub fn run(config: ControlConfig) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(config))
}

/// Whether a signal still ends the process at once.
static STARTING: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// From here on SIGTERM and SIGINT end the process with exit code 0, until [`run`] takes them over: what
/// is started by then has promised nothing, and what lies on disk is safe at any moment.
///
/// # Errors
/// The system refuses the handlers.
pub fn exit_on_signals_until_served() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        register_conditional_shutdown(signal, 0, Arc::clone(&STARTING))?;
    }
    Ok(())
}

/// What HTTP asks of the loop below.
enum Question {
    Ready(oneshot::Sender<bool>),
    Metrics(oneshot::Sender<(Vec<ShardMetrics>, BrokerGauges)>),
}

/// What the control thread knows.
struct Control {
    cores: Vec<ToCore>,
    ready: BTreeSet<CoreId>,
    on_ready: Option<OnReady>,
    stopping: bool,
    /// Cores that are stopping and have no connections any more.
    quiet: BTreeSet<CoreId>,
    dirs_offline: BTreeSet<String>,
    /// A log directory that was full before every core served, and until when room may come.
    lacks_room: Option<(String, Instant)>,
    start_time_seconds: u64,
    /// Who waits for the metrics that are being gathered; nothing is gathered while nobody waits.
    scrapes: Vec<oneshot::Sender<(Vec<ShardMetrics>, BrokerGauges)>>,
    gathered: Vec<Option<ShardMetrics>>,
}

async fn serve(config: ControlConfig) -> io::Result<()> {
    let ControlConfig {
        http,
        cores,
        mut replies,
        on_ready,
        start_time_seconds,
    } = config;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    STARTING.store(false, Ordering::SeqCst);
    let (ask, mut questions) = unbounded_channel();
    if let Some(http) = http {
        http.set_nonblocking(true)?;
        let http = tokio::net::TcpListener::from_std(http)?;
        let routes = router(ask.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(http, routes).await {
                tracing::error!(%error, "HTTP has stopped");
            }
        });
    }
    let mut control = Control {
        gathered: cores.iter().map(|_| None).collect(),
        cores,
        ready: BTreeSet::new(),
        on_ready: Some(on_ready),
        stopping: false,
        quiet: BTreeSet::new(),
        dirs_offline: BTreeSet::new(),
        lacks_room: None,
        start_time_seconds,
        scrapes: Vec::new(),
    };
    loop {
        let give_up = control.lacks_room.as_ref().map(|(_, until)| *until);
        tokio::select! {
            () = until(give_up) => {
                if let Some((dir, _)) = control.lacks_room.take()
                    && control.on_ready.is_some()
                {
                    return Err(io::Error::new(io::ErrorKind::StorageFull, room::lacking(&dir)));
                }
            }
            reply = replies.recv() => match reply {
                Some((core, reply)) => control.on_reply(core, reply),
                None => return Ok(()),
            },
            // `ask` above lives as long as this loop, so there is always a next question.
            Some(question) = questions.recv() => control.on_question(question),
            _ = terminate.recv() => control.on_stop("SIGTERM"),
            _ = interrupt.recv() => control.on_stop("SIGINT"),
        }
    }
}

/// Never, where there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Control {
    fn on_reply(&mut self, core: CoreId, reply: ControlReply) {
        match reply {
            ControlReply::Ready => {
                self.ready.insert(core);
                if self.all_ready()
                    && let Some(on_ready) = self.on_ready.take()
                {
                    on_ready(&self.dirs_offline);
                }
            }
            ControlReply::Quiet => {
                self.quiet.insert(core);
                if self.quiet.len() == self.cores.len() {
                    self.tell(ControlMessage::Settle);
                }
            }
            ControlReply::Metrics(metrics) => {
                if let Some(place) = self.gathered.get_mut(usize::from(core.0)) {
                    *place = Some(*metrics);
                }
                if self.gathered.iter().all(Option::is_some) {
                    let cores: Vec<ShardMetrics> =
                        self.gathered.iter_mut().filter_map(Option::take).collect();
                    for scrape in self.scrapes.drain(..) {
                        let broker = BrokerGauges {
                            log_dirs_offline: self.dirs_offline.len() as u64,
                            start_time_seconds: self.start_time_seconds,
                        };
                        // A scrape that gave up waiting needs no answer.
                        let _ = scrape.send((cores.clone(), broker));
                    }
                }
            }
            ControlReply::DirFull { dir } => {
                if self.on_ready.is_some() && self.lacks_room.is_none() {
                    self.lacks_room = Some((dir, Instant::now() + ROOM_TIMEOUT));
                }
            }
            ControlReply::DirOffline { dir, why } => {
                if self.dirs_offline.insert(dir.clone()) {
                    tracing::error!(dir, why, "a log directory is offline");
                }
            }
        }
    }

    fn all_ready(&self) -> bool {
        self.ready.len() == self.cores.len()
    }

    fn on_question(&mut self, question: Question) {
        match question {
            Question::Ready(answer) => {
                let _ = answer.send(self.all_ready() && !self.stopping);
            }
            Question::Metrics(answer) => {
                self.scrapes.retain(|scrape| !scrape.is_closed());
                if self.scrapes.is_empty() {
                    self.gathered.fill_with(|| None);
                    self.tell(ControlMessage::Metrics);
                }
                self.scrapes.push(answer);
            }
        }
    }

    fn on_stop(&mut self, why: &str) {
        if self.stopping {
            tracing::info!(signal = why, "already stopping");
            return;
        }
        tracing::info!(signal = why, "stopping");
        self.stopping = true;
        self.tell(ControlMessage::Shutdown);
    }

    fn tell(&self, message: ControlMessage) {
        for core in &self.cores {
            core(message);
        }
    }
}

fn router(ask: UnboundedSender<Question>) -> Router {
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(health_ready))
        .route("/metrics", get(metrics))
        .with_state(ask)
}

async fn health_ready(State(ask): State<UnboundedSender<Question>>) -> Response {
    let (answer, answered) = oneshot::channel();
    let _ = ask.send(Question::Ready(answer));
    match answered.await {
        Ok(true) => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

async fn metrics(State(ask): State<UnboundedSender<Question>>) -> Response {
    let (answer, answered) = oneshot::channel();
    let _ = ask.send(Question::Metrics(answer));
    match tokio::time::timeout(SCRAPE_TIMEOUT, answered).await {
        Ok(Ok((cores, broker))) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], encode(cores, broker)).into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the cores do not answer\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::mpsc;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    #[test]
    fn health_metrics_and_the_end() {
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = http.local_addr().unwrap();
        let (replies, received) = unbounded_channel();
        let (told, heard) = mpsc::channel();
        let cores = (0..2u16)
            .map(|core| {
                let replies = replies.downgrade();
                let send = move |message| {
                    if message == ControlMessage::Metrics
                        && let Some(replies) = replies.upgrade()
                    {
                        let metrics = Box::new(ShardMetrics::new(CoreId(core)));
                        let _ = replies.send((CoreId(core), ControlReply::Metrics(metrics)));
                    }
                };
                Box::new(send) as ToCore
            })
            .collect();
        let config = ControlConfig {
            http: Some(http),
            cores,
            replies: received,
            on_ready: Box::new(move |_| told.send(()).unwrap()),
            start_time_seconds: 9,
        };
        let thread = std::thread::spawn(|| run(config));
        assert_eq!(get(address, "/health/live"), (200, "live\n".to_owned()));
        assert_eq!(get(address, "/health/ready").0, 503);
        replies.send((CoreId(0), ControlReply::Ready)).unwrap();
        replies.send((CoreId(0), ControlReply::Ready)).unwrap();
        assert_eq!(
            get(address, "/health/ready").0,
            503,
            "one of two cores is not enough"
        );
        replies.send((CoreId(1), ControlReply::Ready)).unwrap();
        heard.recv().unwrap();
        assert_eq!(get(address, "/health/ready"), (200, "ready\n".to_owned()));
        for _ in 0..2 {
            let (status, body) = get(address, "/metrics");
            assert_eq!(status, 200);
            assert!(
                body.contains("millrace_received_bytes_total{core=\"1\"} 0"),
                "{body}"
            );
            assert!(body.contains("millrace_start_time_seconds 9"), "{body}");
        }
        assert_eq!(get(address, "/nothing").0, 404);
        drop(replies);
        thread.join().unwrap().unwrap();
    }
}
