//! A small blocking Kafka client for tools: one connection to each broker, one request at a time. Lives on the caller's thread, never on a data core; knows the protocol's requests and versions, and no tool.

mod call;
mod connection;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

pub use call::Call;

use crate::kafka::error::ErrorCode;
use crate::kafka::find_coordinator::FindCoordinatorRequest;
use crate::kafka::metadata::MetadataRequest;
use crate::kafka::{ApiKey, SUPPORTED};
use crate::wire::DecodeError;
use connection::Connection;

/// How the client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name for itself.
    pub client_id: String,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a call may take with all its retries.
    pub call_timeout: Duration,
    /// The pause before a retry.
    pub retry_backoff: Duration,
    /// Told when a broker cannot be reached.
    pub on_trouble: fn(&str),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            client_id: "adminclient-1".to_owned(),
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            on_trouble: |_| {},
        }
    }
}

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

/// Whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any broker.
    Any,
    /// The broker with this id.
    Broker(i32),
}

/// The versions of one API that a broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The API key; not necessarily one that this codec knows.
    pub api_key: i16,
    /// The oldest version.
    pub min: i16,
    /// The newest version.
    pub max: i16,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// No broker answered in time; the call's name follows.
    TimedOut(String),
    /// The broker serves no version of this API that this client speaks.
    Unsupported(ApiKey),
    /// The answer is not what the protocol says.
    Malformed(DecodeError),
    /// The broker answered with an error, and perhaps a sentence.
    Refused(ErrorCode, Option<String>),
    /// The cluster has no broker of this id.
    NoBroker(i32),
    /// The list of bootstrap servers has an entry that is no address.
    NoBootstrap(String),
    /// No name in the list of bootstrap servers is known.
    Unresolvable,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::TimedOut(call) => {
                write!(f, "Timed out waiting for a node assignment. Call: {call}")
            }
            ClientError::Unsupported(key) => write!(f, "The node does not support {}", key.name()),
            ClientError::Malformed(error) => write!(f, "The answer is malformed: {error}"),
            ClientError::Refused(_, Some(message)) => f.write_str(message),
            ClientError::Refused(code, None) => f.write_str(code.message()),
            ClientError::NoBroker(id) => write!(f, "The cluster has no broker {id}"),
            ClientError::NoBootstrap(servers) => {
                write!(f, "Invalid url in bootstrap.servers: {servers}")
            }
            ClientError::Unresolvable => {
                f.write_str("No resolvable bootstrap urls given in bootstrap.servers")
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// A failure of one attempt: most are worth another one.
#[derive(Debug)]
enum Attempt {
    /// The connection failed; the next attempt makes a new one.
    Broken(String),
    /// Trying again will not help.
    Final(ClientError),
}

impl From<std::io::Error> for Attempt {
    fn from(error: std::io::Error) -> Attempt {
        Attempt::Broken(error.to_string())
    }
}

impl From<DecodeError> for Attempt {
    fn from(error: DecodeError) -> Attempt {
        Attempt::Final(ClientError::Malformed(error))
    }
}

/// The client.
#[derive(Debug)]
pub struct Client {
    options: Options,
    bootstrap: Vec<String>,
    next_bootstrap: usize,
    any: Option<Connection>,
    brokers: Vec<Broker>,
    connections: BTreeMap<i32, Connection>,
}

impl Client {
    /// A client that will connect when it is first used. `servers` is a list like `host1:9092,host2:9092`.
    ///
    /// # Errors
    /// If an address has no port, or no name has an address.
    pub fn new(servers: &str, options: Options) -> Result<Client, ClientError> {
        let bootstrap: Vec<String> = servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
            .map(str::to_owned)
            .collect();
        let usable = |server: &String| {
            server
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        match bootstrap.iter().find(|server| !usable(server)) {
            Some(wrong) => Err(ClientError::NoBootstrap(wrong.clone())),
            None if bootstrap.is_empty() => Err(ClientError::NoBootstrap(servers.to_owned())),
            None if !resolvable(servers) => Err(ClientError::Unresolvable),
            None => Ok(Client {
                options,
                bootstrap,
                next_bootstrap: 0,
                any: None,
                brokers: Vec::new(),
                connections: BTreeMap::new(),
            }),
        }
    }

    /// The longest that a call may take, in milliseconds: what requests carry as their own time-out.
    pub fn call_timeout_ms(&self) -> i32 {
        i32::try_from(self.options.call_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Sends a request in the newest version that both sides speak, at most `version_max`, and hands the answer and
    /// its version to `read`. A broken connection is made anew until the call's time is over.
    pub fn call_up_to<R: Call, T>(
        &mut self,
        target: Target,
        request: &R,
        version_max: i16,
        mut read: impl FnMut(R::Response<'_>, i16) -> T,
    ) -> Result<T, ClientError> {
        let deadline = now() + self.options.call_timeout;
        let mut last_trouble = String::new();
        loop {
            let attempt = self.attempt(target, request, version_max, &mut read);
            let trouble = match attempt {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Broken(trouble)) => trouble,
            };
            self.forget(target);
            if trouble != last_trouble {
                (self.options.on_trouble)(&trouble);
                last_trouble = trouble;
            }
            if now() + self.options.retry_backoff >= deadline {
                return Err(ClientError::TimedOut(call_name(R::API)));
            }
            std::thread::sleep(self.options.retry_backoff);
        }
    }

    /// [`Client::call_up_to`] with the newest version of the codec.
    pub fn call<R: Call, T>(
        &mut self,
        target: Target,
        request: &R,
        read: impl FnMut(R::Response<'_>, i16) -> T,
    ) -> Result<T, ClientError> {
        self.call_up_to(target, request, i16::MAX, read)
    }

    /// Repeats `step` while its answer is an error that may pass, until the call's time is over.
    ///
    /// # Errors
    /// What `step` failed with, or the last error that it was answered.
    pub fn retry<T>(
        &mut self,
        mut step: impl FnMut(&mut Client) -> Result<Result<T, (ErrorCode, Option<String>)>, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = now() + self.options.call_timeout;
        loop {
            match step(self)? {
                Ok(answer) => return Ok(answer),
                Err((code, message)) => {
                    if !code.retriable() || now() + self.options.retry_backoff >= deadline {
                        return Err(ClientError::Refused(code, message));
                    }
                    std::thread::sleep(self.options.retry_backoff);
                }
            }
        }
    }

    /// The brokers of the cluster, asked anew.
    pub fn refresh_brokers(&mut self) -> Result<Vec<Broker>, ClientError> {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let brokers = self.call(Target::Any, &request, |response, _| {
            let broker = |broker: crate::kafka::metadata::MetadataResponseBroker<'_>| Broker {
                id: broker.node_id,
                host: broker.host.into_owned(),
                port: broker.port,
                rack: broker.rack.map(std::borrow::Cow::into_owned),
            };
            response.brokers.into_iter().map(broker).collect::<Vec<_>>()
        })?;
        self.brokers = brokers.clone();
        Ok(brokers)
    }

    /// The broker that coordinates a group.
    pub fn coordinator(&mut self, group: &str) -> Result<Broker, ClientError> {
        // Both forms are filled in: each version writes its own.
        let request = FindCoordinatorRequest {
            key: group.into(),
            key_type: 0,
            coordinator_keys: vec![group.into()],
        };
        self.retry(|client| {
            client.call(Target::Any, &request, |response, version| {
                let (code, message, id, host, port) = if version >= 4 {
                    match response.coordinators.into_iter().next() {
                        Some(found) => (
                            found.error_code,
                            found.error_message,
                            found.node_id,
                            found.host,
                            found.port,
                        ),
                        None => return Err((ErrorCode::CoordinatorNotAvailable, None)),
                    }
                } else {
                    (
                        response.error_code,
                        response.error_message,
                        response.node_id,
                        response.host,
                        response.port,
                    )
                };
                match error_of(code) {
                    ErrorCode::None => Ok(Broker {
                        id,
                        host: host.into_owned(),
                        port,
                        rack: None,
                    }),
                    code => Err((code, message.map(std::borrow::Cow::into_owned))),
                }
            })
        })
    }

    /// The versions that a broker serves, as it tells them.
    pub fn versions(&mut self, target: Target) -> Result<Vec<Versions>, ClientError> {
        let deadline = now() + self.options.call_timeout;
        loop {
            match self.connection(target) {
                Ok(connection) => return Ok(connection.versions().to_vec()),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Broken(trouble)) => {
                    (self.options.on_trouble)(&trouble);
                    if now() >= deadline {
                        return Err(ClientError::TimedOut("apiVersions".to_owned()));
                    }
                    std::thread::sleep(self.options.retry_backoff);
                }
            }
        }
    }

    fn attempt<R: Call, T>(
        &mut self,
        target: Target,
        request: &R,
        version_max: i16,
        read: &mut impl FnMut(R::Response<'_>, i16) -> T,
    ) -> Result<T, Attempt> {
        let client_id = self.options.client_id.clone();
        let connection = self.connection(target)?;
        let version = connection
            .choose(R::API, version_max)
            .ok_or(Attempt::Final(ClientError::Unsupported(R::API)))?;
        connection.exchange(&client_id, request, version, |response| {
            read(response, version)
        })
    }

    /// The connection to a target, made when missing.
    fn connection(&mut self, target: Target) -> Result<&mut Connection, Attempt> {
        match target {
            Target::Any => {
                if self.any.is_none() {
                    self.any = Some(self.connect_any()?);
                }
                Ok(self.any.as_mut().expect("made above"))
            }
            Target::Broker(id) => {
                if !self.connections.contains_key(&id) {
                    if !self.brokers.iter().any(|broker| broker.id == id) {
                        self.refresh_brokers().map_err(Attempt::Final)?;
                    }
                    let broker = self.brokers.iter().find(|broker| broker.id == id);
                    let broker = broker.ok_or(Attempt::Final(ClientError::NoBroker(id)))?;
                    let address = format!("{}:{}", broker.host, broker.port);
                    let connection = Connection::open(&address, &self.options)?;
                    self.connections.insert(id, connection);
                }
                Ok(self.connections.get_mut(&id).expect("made above"))
            }
        }
    }

    fn connect_any(&mut self) -> Result<Connection, Attempt> {
        let address = self.bootstrap[self.next_bootstrap % self.bootstrap.len()].clone();
        self.next_bootstrap += 1;
        Connection::open(&address, &self.options)
    }

    fn forget(&mut self, target: Target) {
        match target {
            Target::Any => self.any = None,
            Target::Broker(id) => {
                self.connections.remove(&id);
                // The broker may have moved.
                self.brokers.clear();
            }
        }
    }
}

/// Whether any of the servers in a list like `host1:9092,host2:9092` has an address. As Kafka's clients, those that call
/// this fail at once where none has; a single one may be unknown for now.
pub fn resolvable(servers: &str) -> bool {
    servers.split(',').map(str::trim).any(|server| {
        server
            .to_socket_addrs()
            .is_ok_and(|mut found| found.next().is_some())
    })
}

/// The error of a code; one that is not known counts as an unexpected error.
pub fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// A call as Kafka's admin client names it: mostly the API with a small first letter.
fn call_name(key: ApiKey) -> String {
    if key == ApiKey::Metadata {
        return "listTopics".to_owned();
    }
    let name = key.name();
    let (first, rest) = name.split_at(1);
    first.to_ascii_lowercase() + rest
}

/// The newest version that both sides speak.
fn common_version(key: ApiKey, versions: &[Versions], version_max: i16) -> Option<i16> {
    let ours = SUPPORTED.iter().find(|api| api.key == key)?;
    let theirs = versions
        .iter()
        .find(|served| served.api_key == key as i16)?;
    let version = ours.max.min(theirs.max).min(version_max);
    (version >= ours.served_min && version >= theirs.min).then_some(version)
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a tool's client reads the clock itself"
    )]
    let now = Instant::now();
    now
}
