//! A simulated client's connection: requests encoded as a real client does, answers taken in the order of
//! the requests. Knows the wire's headers, and no API.

use std::collections::VecDeque;

use engine::event::ConnId;
use net::kafka::{ApiKey, RequestHeader, ResponseHeader};
use net::wire::{Reader, Writer};
use storage::sim_disk::SimRng;

use super::model::{BatchId, Fate, Model, TopicRef};
use super::world::World;

/// KAFKA_STORAGE_ERROR.
pub const STORAGE_ERROR: i16 = 56;

/// What an actor may touch while it has its turn.
pub struct Context<'a> {
    /// The broker and its machine.
    pub world: &'a mut World,
    /// What must hold.
    pub model: &'a mut Model,
    /// Decides what is asked.
    pub rng: &'a mut SimRng,
}

impl Context<'_> {
    /// Whether the state of the disk lets the broker refuse this partition with this error.
    pub fn may_refuse(&self, topic: TopicRef, partition: i32, error: i16) -> bool {
        let known = &self.model.topics[topic];
        error == STORAGE_ERROR && self.world.may_refuse(&known.name, known.id, partition)
    }

    /// A batch was acknowledged at `base`, now.
    pub fn acknowledge(
        &mut self,
        topic: TopicRef,
        partition: i32,
        batch: BatchId,
        base: i64,
    ) -> Result<(), String> {
        let now_us = self.world.time_us();
        self.model
            .acknowledge(topic, partition, batch, base, now_us)
    }

    /// As [`Context::may_refuse`], for a batch. A full disk took nothing of it; a broken one may have.
    pub fn refused(&mut self, topic: TopicRef, partition: i32, batch: BatchId, error: i16) -> bool {
        let refused = self.may_refuse(topic, partition, error);
        if refused && !self.world.is_broken() {
            self.model.batches[batch].fate = Fate::Refused;
        }
        refused
    }
}

/// Chooses an element.
pub fn pick<T: Copy>(rng: &mut SimRng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

/// A number from `low` to `high`, both included.
pub fn between(rng: &mut SimRng, low: i64, high: i64) -> i64 {
    low + rng.below((high - low + 1) as u64) as i64
}

/// A request on its way, with what its sender wants to remember.
#[derive(Debug)]
pub struct Asked<W> {
    correlation_id: i32,
    /// The API.
    pub api: ApiKey,
    /// The version it was asked in.
    pub version: i16,
    /// When, in the world's microseconds.
    pub sent_us: u64,
    /// Until when its sender, or that of a request before it, was ready to wait.
    due_us: u64,
    answered: bool,
    /// What it was.
    pub what: W,
}

impl<W> Asked<W> {
    /// Says how late an answer is, or would be now.
    fn lateness(&self, world: &World) -> Option<String> {
        let late_us = world.late_us(self.due_us)?;
        Some(format!(
            "{} {} of {} us, {late_us} us after the last moment for it",
            self.api.name(),
            self.version,
            self.sent_us
        ))
    }
}

/// An answer with its request.
pub struct Answer<W> {
    /// The request.
    pub asked: Asked<W>,
    frame: Vec<u8>,
}

impl<W> Answer<W> {
    /// Reads the body; nothing may follow it.
    pub fn body<'a, T>(
        &'a self,
        decode: impl FnOnce(&mut Reader<'a>, i16) -> Result<T, net::wire::DecodeError>,
    ) -> Result<T, String> {
        let mut reader = Reader::new(&self.frame);
        let (api, version) = (self.asked.api, self.asked.version);
        let told = |error| format!("the answer to {} {version}: {error:?}", api.name());
        ResponseHeader::decode(&mut reader, api, version).map_err(told)?;
        let body = decode(&mut reader, version).map_err(told)?;
        if reader.remaining() > 0 {
            return Err(format!(
                "the answer to {} {version} goes on after its end",
                api.name()
            ));
        }
        Ok(body)
    }
}

/// A client with at most one connection.
#[derive(Debug)]
pub struct Client<W> {
    conn: Option<ConnId>,
    asked: VecDeque<Asked<W>>,
    next_correlation_id: i32,
}

impl<W> Default for Client<W> {
    fn default() -> Client<W> {
        Client {
            conn: None,
            asked: VecDeque::new(),
            next_correlation_id: 0,
        }
    }
}

impl<W> Client<W> {
    /// Connects to a core of the client's luck, unless connected.
    pub fn connect(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.conn.is_none() {
            let core = cx.rng.below(cx.world.core_count() as u64) as usize;
            self.conn = Some(cx.world.connect(core)?);
        }
        Ok(())
    }

    /// Goes away without a word.
    pub fn disconnect(&mut self, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn {
            cx.world.disconnect(conn);
        }
    }

    /// How many requests have no answer yet.
    pub fn open_count(&self) -> usize {
        self.asked.len()
    }

    /// Whether every request that gets an answer has it.
    pub fn is_quiet(&self) -> bool {
        !self.asked.iter().any(|asked| asked.answered)
    }

    /// Names the oldest request without an answer.
    pub fn oldest(&self) -> String {
        self.asked.front().map_or(String::new(), |asked| {
            format!(
                "{} {} since {} us",
                asked.api.name(),
                asked.version,
                asked.sent_us
            )
        })
    }

    /// Sends a request. `answered` is false where the protocol has no answer.
    pub fn ask(
        &mut self,
        cx: &mut Context<'_>,
        api: ApiKey,
        version: i16,
        what: W,
        answered: bool,
        write: impl FnOnce(&mut Writer, i16),
    ) -> Result<(), String> {
        self.ask_to_wait(cx, (api, version), what, answered, 0, write)
    }

    /// Sends a request that lets the broker wait for `wait_us` before it answers.
    pub fn ask_to_wait(
        &mut self,
        cx: &mut Context<'_>,
        (api, version): (ApiKey, i16),
        what: W,
        answered: bool,
        wait_us: u64,
        write: impl FnOnce(&mut Writer, i16),
    ) -> Result<(), String> {
        self.connect(cx)?;
        let Some(conn) = self.conn else {
            return Ok(());
        };
        self.next_correlation_id += 1;
        let correlation_id = self.next_correlation_id;
        let mut writer = Writer::new();
        let header = RequestHeader {
            api_key: api,
            api_version: version,
            correlation_id,
            client_id: Some("sim".into()),
        };
        header.encode(&mut writer);
        write(&mut writer, version);
        cx.world.send(conn, writer.into_bytes());
        let before_us = self.asked.back().map_or(0, |asked| asked.due_us);
        self.asked.push_back(Asked {
            correlation_id,
            api,
            version,
            sent_us: cx.world.time_us(),
            due_us: before_us.max(cx.world.time_us() + wait_us),
            answered,
            what,
        });
        Ok(())
    }

    /// The oldest request whose answer should have come.
    pub fn overdue(&self, world: &World) -> Option<String> {
        let mut open = self.asked.iter().filter(|asked| asked.answered);
        open.next()?.lateness(world)
    }

    /// The next answer that has come.
    pub fn answer(&mut self, cx: &mut Context<'_>) -> Result<Option<Answer<W>>, String> {
        let Some(conn) = self.conn else {
            return Ok(None);
        };
        let Some(frame) = cx.world.answer(conn) else {
            return Ok(None);
        };
        let correlation_id = frame
            .first_chunk::<4>()
            .map_or(-1, |id| i32::from_be_bytes(*id));
        while let Some(asked) = self.asked.pop_front() {
            if !asked.answered {
                continue;
            }
            if asked.correlation_id != correlation_id {
                return Err(format!(
                    "answer {correlation_id} came where {} {} (request {}) is next",
                    asked.api.name(),
                    asked.version,
                    asked.correlation_id
                ));
            }
            if let Some(late) = asked.lateness(cx.world) {
                return Err(format!("the answer came too late to {late}"));
            }
            return Ok(Some(Answer { asked, frame }));
        }
        Err(format!("answer {correlation_id} came to no request"))
    }

    /// Where the connection is gone: the requests that were on it.
    pub fn lost(&mut self, cx: &Context<'_>) -> Option<Vec<Asked<W>>> {
        let conn = self.conn?;
        if cx.world.is_open(conn) {
            return None;
        }
        self.conn = None;
        Some(self.asked.drain(..).collect())
    }
}
