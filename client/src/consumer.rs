//! Reading by subscription: positions, credit, and deliveries lent out of the receive buffer. A state
//! machine over a [`Link`]; knows no socket.

use net::native::v1::{ArchivedFetchAnswer, ArchivedFetchResult, Credit, FetchPart, Subscribe};
use net::native::{Fault, Frame, Kind, read};
use storage::batch::{BatchView, split};
use storage::records::{RecordIter, RecordsScratch};

use crate::{Error, Link, TopicId};

/// What one batch may be decompressed to, at most, in bytes.
const UNCOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// How much may be on its way to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes of records that the broker may send ahead of what is worked off.
    pub credit_bytes: u32,
    /// Bytes of records in one delivery.
    pub delivery_bytes_max: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            credit_bytes: 8 << 20,
            delivery_bytes_max: 1 << 20,
        }
    }
}

/// Where a consumer is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// The next offset that is wanted.
    pub offset: i64,
}

/// Reads partitions from some offset on.
#[derive(Debug)]
pub struct Consumer {
    positions: Vec<Position>,
    window: Window,
    subscription: Option<u64>,
    /// Worked off, and not yet given back.
    worked_off_bytes: u32,
}

impl Consumer {
    /// A consumer that has not subscribed.
    pub fn new(positions: Vec<Position>, window: Window) -> Consumer {
        Consumer {
            positions,
            window,
            subscription: None,
            worked_off_bytes: 0,
        }
    }

    /// Where it is: what was delivered counts as read.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// Subscribes, from where it is; also after a lost connection.
    pub fn subscribe(&mut self, link: &mut Link) {
        let parts = self.positions.iter().map(|position| FetchPart {
            topic_id: position.topic_id,
            partition: position.partition,
            leader_epoch: -1,
            fetch_offset: position.offset,
            last_fetched_epoch: -1,
            bytes_max: self.window.delivery_bytes_max,
        });
        let body = Subscribe {
            parts: parts.collect(),
            credit_bytes: self.window.credit_bytes,
            bytes_max: self.window.delivery_bytes_max,
            heartbeat_ms: 0,
            isolation: 0,
        };
        self.subscription = Some(link.request(Kind::Subscribe, &body, []));
        self.worked_off_bytes = 0;
    }

    /// Gives back the credit of what was delivered before, if it is worth a frame.
    pub fn give_back(&mut self, link: &mut Link) {
        if let Some(subscription) = self.subscription
            && self.worked_off_bytes >= self.window.credit_bytes / 4
        {
            let bytes = std::mem::take(&mut self.worked_off_bytes);
            let body = Credit {
                subscription,
                bytes,
            };
            link.request(Kind::Credit, &body, []);
        }
    }

    /// Takes the frame that the link gave last; whether it is a delivery that has something.
    ///
    /// # Errors
    /// The subscription was refused, or the frame is malformed.
    pub fn on_frame(&mut self, frame: Frame<'_>) -> Result<bool, Error> {
        if Some(frame.correlation_id) != self.subscription {
            return Ok(false);
        }
        if frame.kind == Kind::SubscribeAnswer {
            let answer = read::<net::native::v1::ArchivedSubscribeAnswer>(frame.body)?;
            return match answer.error.to_native() {
                0 => Ok(false),
                code => Err(Error::of_code(code)),
            };
        }
        if frame.kind != Kind::Delivery {
            return Ok(false);
        }
        let delivery = Delivery::new(frame, &self.positions)?;
        let mut ends = Vec::new();
        for partition in delivery.partitions() {
            let Ok(partition) = partition else { continue };
            let mut end = None;
            for batch in partition.batches() {
                end = Some(batch?.view.header().offset_end().0);
            }
            if let Some(end) = end {
                ends.push((partition.part, end));
            }
        }
        let any = !delivery.rows.is_empty();
        for (part, end) in ends {
            self.positions[part].offset = end;
        }
        let bytes = u32::try_from(frame.records.len()).unwrap_or(u32::MAX);
        self.worked_off_bytes = self.worked_off_bytes.saturating_add(bytes);
        Ok(any)
    }

    /// What the frame that the link gave last delivers; after [`Consumer::on_frame`] said that it does.
    ///
    /// # Errors
    /// The frame is malformed.
    pub fn delivery<'f>(&'f self, frame: Frame<'f>) -> Result<Delivery<'f>, Error> {
        Delivery::new(frame, &self.positions)
    }
}

/// What came at once: batches of some partitions, where they were received.
#[derive(Debug)]
pub struct Delivery<'f> {
    rows: &'f [ArchivedFetchResult],
    records: &'f [u8],
    positions: &'f [Position],
}

impl<'f> Delivery<'f> {
    fn new(frame: Frame<'f>, positions: &'f [Position]) -> Result<Delivery<'f>, Error> {
        let answer = read::<ArchivedFetchAnswer>(frame.body)?;
        let rows = answer.results.as_slice();
        let stated: u64 = rows
            .iter()
            .map(|row| u64::from(row.records_bytes.to_native()))
            .sum();
        let known = |row: &ArchivedFetchResult| (row.part.to_native() as usize) < positions.len();
        if stated != frame.records.len() as u64 || !rows.iter().all(known) {
            return Err(Fault::Body.into());
        }
        Ok(Delivery {
            rows,
            records: frame.records,
            positions,
        })
    }

    /// Its partitions; an error where one cannot be read any more.
    pub fn partitions(&self) -> impl Iterator<Item = Result<PartitionDelivery<'f>, Error>> {
        let (records, positions) = (self.records, self.positions);
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let end = start + row.records_bytes.to_native() as usize;
            let own = &records[start..end];
            start = end;
            let part = row.part.to_native() as usize;
            match row.error.to_native() {
                0 => Ok(PartitionDelivery {
                    part,
                    topic_id: positions[part].topic_id,
                    partition: positions[part].partition,
                    high_watermark: row.high_watermark.to_native(),
                    records: own,
                }),
                code => Err(Error::of_code(code)),
            }
        })
    }
}

/// Batches of one partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionDelivery<'f> {
    /// Which of the positions it is.
    pub part: usize,
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// Everything below is safe; what is behind the last batch is the consumer's lag.
    pub high_watermark: i64,
    /// The batches as they came.
    pub records: &'f [u8],
}

impl<'f> PartitionDelivery<'f> {
    /// Its batches, each checked against its CRC.
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch<'f>, Error>> {
        split(self.records).map(|found| {
            let view = found.map_err(|error| Error::Records(format!("{error:?}")))?;
            view.verify_crc()
                .map_err(|error| Error::Records(format!("{error:?}")))?;
            Ok(Batch { view })
        })
    }
}

/// One batch where it was received.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'f> {
    view: BatchView<'f>,
}

impl<'f> Batch<'f> {
    /// Its bytes and header.
    pub fn view(&self) -> &BatchView<'f> {
        &self.view
    }

    /// Its records: in place where they are not compressed, else out of `scratch`. The first ones may lie
    /// before the offset that was asked for.
    ///
    /// # Errors
    /// [`Error::Records`], also for each single record.
    pub fn records<'s>(
        &'s self,
        scratch: &'s mut RecordsScratch,
    ) -> Result<impl Iterator<Item = Result<storage::records::Record<'s>, Error>>, Error> {
        let records: RecordIter<'s> = scratch
            .records(&self.view, UNCOMPRESSED_BYTES_MAX)
            .map_err(|error| Error::Records(format!("{error:?}")))?;
        Ok(records.map(|record| record.map_err(|error| Error::Records(format!("{error:?}")))))
    }
}
