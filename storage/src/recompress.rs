//! The same batch in another compression, for topics whose compression.type says so. As a stream with
//! bounds on both sides, in steps, on the owning core or in its task; looks at no record, for a
//! compressed batch differs from another only in its attributes and what follows its header.

use crate::batch::{
    BatchView, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, header_mut, stamp_crc,
};
use crate::compression::{Decoder, EncodedTooLarge, Encoder};
use crate::records::{RecordsError, RecordsScratch};
use crate::walk::{WINDOW_BYTES, output_bytes_max};

impl From<EncodedTooLarge> for RecordsError {
    fn from(_: EncodedTooLarge) -> RecordsError {
        RecordsError::TooLarge
    }
}

/// Recompressing in progress. Holds a window of the records and what has come out so far.
pub struct Recompress<'a> {
    decoder: Option<Decoder<'a>>,
    encoder: Option<Encoder>,
    window: &'a mut [u8],
    compression: Compression,
}

impl<'a> Recompress<'a> {
    /// Prepares to turn `batch` into one of at most `batch_bytes_max` bytes; its records have been
    /// walked. Offsets, timestamps, producer fields and flags stay.
    pub fn new(
        batch: &BatchView<'a>,
        compression: Compression,
        level: i32,
        batch_bytes_max: u64,
        scratch: &'a mut RecordsScratch,
    ) -> Result<Recompress<'a>, RecordsError> {
        let from = batch
            .header()
            .attributes()
            .compression()
            .ok_or(RecordsError::UnknownCompression)?;
        let (codec, window) = scratch.parts();
        window.resize(WINDOW_BYTES, 0);
        // A batch without records has no compressed stream either.
        let decoder = match batch.payload() {
            [] => None,
            payload => {
                let bytes_max = output_bytes_max(batch.len_bytes());
                Some(Decoder::new(from, payload, codec, bytes_max)?)
            }
        };
        let header = batch.bytes()[..HEADER_BYTES].to_vec();
        let to = if decoder.is_some() {
            compression
        } else {
            Compression::None
        };
        let bytes_max = usize::try_from(batch_bytes_max).unwrap_or(usize::MAX);
        let encoder = Encoder::new(to, level, header, bytes_max, None);
        Ok(Recompress {
            decoder,
            encoder: Some(encoder),
            window,
            compression,
        })
    }

    /// Works on for about `budget_bytes` of uncompressed records. Some: the whole new batch; None:
    /// there is more to do. [`RecordsError::TooLarge`] if it does not fit into its bound.
    ///
    /// Panics if called again after it has ended.
    pub fn step(&mut self, budget_bytes: u64) -> Result<Option<Vec<u8>>, RecordsError> {
        let encoder = self.encoder.as_mut().expect("not stepped after its end");
        let mut done_bytes = 0_u64;
        while let Some(decoder) = &mut self.decoder {
            match decoder.fill(self.window)? {
                0 => self.decoder = None,
                filled => {
                    encoder.write(&self.window[..filled])?;
                    done_bytes += filled as u64;
                }
            }
            if self.decoder.is_some() && done_bytes >= budget_bytes {
                return Ok(None);
            }
        }
        let encoder = self.encoder.take().expect("taken only here");
        let mut batch = encoder.finish()?;
        let length = i32::try_from(batch.len() - LENGTH_OVERHEAD_BYTES)
            .map_err(|_| RecordsError::TooLarge)?;
        let header = header_mut(&mut batch);
        header.batch_length.set(length);
        header
            .attributes
            .set(header.attributes().with_compression(self.compression).0);
        stamp_crc(&mut batch);
        Ok(Some(batch))
    }
}

/// Recompresses a batch at once. See [`Recompress`] for doing it in steps.
pub fn recompress(
    batch: &BatchView<'_>,
    compression: Compression,
    level: i32,
    batch_bytes_max: u64,
    scratch: &mut RecordsScratch,
) -> Result<Vec<u8>, RecordsError> {
    let mut work = Recompress::new(batch, compression, level, batch_bytes_max, scratch)?;
    loop {
        if let Some(batch) = work.step(u64::MAX)? {
            return Ok(batch);
        }
    }
}

#[cfg(test)]
mod tests;
