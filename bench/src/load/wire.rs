//! What a protocol is to the load generator: how a request is made before the run, where an answer ends, and whether it says yes. The generator's thread; knows no socket and no clock.

use client::stream::Stream;
use storage::batch::Compression;
use storage::builder::BatchBuilder;

use crate::Failure;
use crate::payload::Random;

/// A request, ready to be sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// All of its bytes, its number among them.
    pub bytes: Vec<u8>,
    /// The partitions that get a batch each, in the order of the request.
    pub partitions: Vec<i32>,
    /// Records in all batches.
    pub records: u64,
    /// Bytes of those records' values.
    pub value_bytes: u64,
}

/// The form of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many records.
    pub records: u32,
    /// Bytes of each record's value.
    pub value_bytes: u32,
}

impl Batch {
    /// A whole record batch with random values, which no codec makes smaller, and a correct checksum.
    pub fn build(self, timestamp_ms: i64, random: &mut Random) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        let mut value = vec![0; self.value_bytes as usize];
        for _ in 0..self.records {
            for piece in value.chunks_mut(8) {
                piece.copy_from_slice(&random.bits().to_le_bytes()[..piece.len()]);
            }
            builder.push(timestamp_ms, None, Some(&value));
        }
        builder.build()
    }
}

/// A protocol.
pub trait Wire {
    /// Its name in reports.
    const NAME: &'static str;
    /// Whether answers come in the order of the requests.
    const IN_ORDER: bool;

    /// What must be said on a new connection before the first request; the stream still blocks.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn open(&self, _stream: &mut Stream) -> Result<(), Failure> {
        Ok(())
    }

    /// The request with this number, bringing a batch to each of these partitions.
    fn prepare(&self, number: u32, partitions: &[i32], random: &mut Random) -> Prepared;

    /// How long the answer is that starts here; None while too little of it has come to tell.
    ///
    /// # Errors
    /// What is wrong with it.
    fn answer_bytes(&self, head: &[u8]) -> Result<Option<usize>, String>;

    /// The number of the request that a whole answer belongs to.
    ///
    /// # Errors
    /// What is wrong with it.
    fn number(&self, answer: &[u8]) -> Result<u32, String>;

    /// Whether the answer says that every batch of the request was taken.
    ///
    /// # Errors
    /// Which was not, and why.
    fn check(&self, answer: &[u8], request: &Prepared) -> Result<(), String>;
}
