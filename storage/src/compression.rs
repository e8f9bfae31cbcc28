//! The codecs of record batches: a decoder that streams with a bound on what comes out, and an encoder
//! for what the broker itself writes. Lives with whoever walks or rewrites a batch, on its core or in
//! its task; knows no record.

use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DCtx;

use crate::batch::Compression;

/// Why a payload cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecompressError {
    /// The payload is not what its codec's format says.
    Corrupt,
    /// More comes out than was allowed.
    TooLarge,
}

impl From<io::Error> for DecompressError {
    fn from(_: io::Error) -> DecompressError {
        DecompressError::Corrupt
    }
}

/// Start of xerial's framing of snappy: magic, then two version numbers of four bytes each.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// What one frame of ours holds uncompressed; xerial's own default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// The densest element of snappy, a copy, takes 3 bytes and yields 64: nothing honest expands more.
const SNAPPY_EXPANSION_MAX: usize = 22;
/// What is kept between batches, at most, in bytes: one odd batch must not pin memory for ever.
pub(crate) const KEEP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// zstd's own default bound of a window is 2^27; below 2^23 its levels up to 19 would break.
const ZSTD_WINDOW_BYTES: std::ops::RangeInclusive<u64> = 1 << 23..=1 << 27;

/// Memory that decoders use again from batch to batch. Starts empty.
#[derive(Default)]
pub struct CodecScratch {
    snappy_block: Vec<u8>,
    zstd: Option<DCtx<'static>>,
}

impl CodecScratch {
    /// Empty; grows with use.
    pub fn new() -> CodecScratch {
        CodecScratch::default()
    }

    fn trim(&mut self) {
        self.snappy_block.clear();
        self.snappy_block.shrink_to(KEEP_BYTES_MAX);
        if self
            .zstd
            .as_ref()
            .is_some_and(|context| context.sizeof() > KEEP_BYTES_MAX)
        {
            self.zstd = None;
        }
    }
}

impl std::fmt::Debug for CodecScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodecScratch")
            .field("snappy_bytes", &self.snappy_block.len())
            .finish()
    }
}

/// Decompresses a payload piece by piece; memory stays within the codec's window, and the output
/// within the bound given at the start.
pub struct Decoder<'a> {
    codec: Codec<'a>,
    left_bytes: u64,
}

enum Codec<'a> {
    None(&'a [u8]),
    Gzip(Box<MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyReader<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd(ZstdReader<'a>),
}

impl<'a> Decoder<'a> {
    /// Prepares to decompress `payload`, of which at most `output_bytes_max` may come out.
    pub fn new(
        compression: Compression,
        payload: &'a [u8],
        scratch: &'a mut CodecScratch,
        output_bytes_max: u64,
    ) -> Result<Decoder<'a>, DecompressError> {
        scratch.trim();
        let codec = match compression {
            Compression::None => Codec::None(payload),
            Compression::Gzip => Codec::Gzip(Box::new(MultiGzDecoder::new(payload))),
            Compression::Snappy => {
                let block = &mut scratch.snappy_block;
                Codec::Snappy(SnappyReader::new(payload, block, output_bytes_max)?)
            }
            Compression::Lz4 => Codec::Lz4(Box::new(FrameDecoder::new(lz4_frame(payload)?))),
            Compression::Zstd => {
                let context = scratch.zstd.get_or_insert_with(DCtx::create);
                Codec::Zstd(ZstdReader::new(payload, context, output_bytes_max)?)
            }
        };
        Ok(Decoder {
            codec,
            left_bytes: output_bytes_max,
        })
    }

    /// Fills the front of `out` and says with how many bytes; 0 is the end of the payload.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<usize, DecompressError> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.left_bytes == 0 {
            // At the bound: fine if the payload ends here too.
            let mut probe = [0; 1];
            return match self.read(&mut probe)? {
                0 => Ok(0),
                _ => Err(DecompressError::TooLarge),
            };
        }
        let room = out
            .len()
            .min(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
        let filled = self.read(&mut out[..room])?;
        self.left_bytes -= filled as u64;
        Ok(filled)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, DecompressError> {
        Ok(match &mut self.codec {
            Codec::None(payload) => payload.read(out)?,
            Codec::Gzip(reader) => reader.read(out)?,
            Codec::Snappy(reader) => reader.read(out)?,
            Codec::Lz4(reader) => reader.read(out)?,
            Codec::Zstd(reader) => reader.read(out)?,
        })
    }
}

/// Decompresses a whole payload to the end of `out`. On an error `out` keeps what came before it.
pub fn decompress(
    compression: Compression,
    payload: &[u8],
    scratch: &mut CodecScratch,
    output_bytes_max: u64,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    const STEP_BYTES: usize = 64 * 1024;
    let mut decoder = Decoder::new(compression, payload, scratch, output_bytes_max)?;
    let mut end = out.len();
    loop {
        if out.len() < end + STEP_BYTES / 2 {
            out.resize(end + STEP_BYTES, 0);
        }
        let filled = decoder.fill(&mut out[end..]);
        match filled {
            Ok(0) => {
                out.truncate(end);
                return Ok(());
            }
            Ok(bytes) => end += bytes,
            Err(error) => {
                out.truncate(end);
                return Err(error);
            }
        }
    }
}

/// The first LZ4 frame of `payload`, by its block lengths up to its end mark: the decoder takes a frame
/// that stops early for a finished one. Like Kafka, which its clients have to agree with, takes no
/// frame whose blocks depend on each other, no skippable and no legacy one, and nothing behind the first.
fn lz4_frame(payload: &[u8]) -> Result<&[u8], DecompressError> {
    const FRAME_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
    const BLOCKS_INDEPENDENT_BIT: u8 = 0x20;
    const BLOCK_CHECKSUM_BIT: u8 = 0x10;
    const CONTENT_SIZE_BIT: u8 = 0x08;
    const CONTENT_CHECKSUM_BIT: u8 = 0x04;
    const DICTIONARY_BIT: u8 = 0x01;
    const UNCOMPRESSED_BLOCK_BIT: u32 = 1 << 31;

    let rest = payload
        .strip_prefix(&FRAME_MAGIC)
        .ok_or(DecompressError::Corrupt)?;
    let flags = *rest.first().ok_or(DecompressError::Corrupt)?;
    if flags & BLOCKS_INDEPENDENT_BIT == 0 || flags & DICTIONARY_BIT != 0 {
        return Err(DecompressError::Corrupt);
    }
    let has = |bit: u8, bytes: usize| if flags & bit != 0 { bytes } else { 0 };
    // Flags, block descriptor, content size, header checksum.
    let mut rest = rest
        .get(3 + has(CONTENT_SIZE_BIT, 8)..)
        .ok_or(DecompressError::Corrupt)?;
    loop {
        let (length, blocks) = rest
            .split_first_chunk::<4>()
            .ok_or(DecompressError::Corrupt)?;
        let length = u32::from_le_bytes(*length) & !UNCOMPRESSED_BLOCK_BIT;
        let skip = match length {
            0 => has(CONTENT_CHECKSUM_BIT, 4),
            length => length as usize + has(BLOCK_CHECKSUM_BIT, 4),
        };
        rest = blocks.get(skip..).ok_or(DecompressError::Corrupt)?;
        if length == 0 {
            return Ok(&payload[..payload.len() - rest.len()]);
        }
    }
}

/// snappy as Java's library writes it (a header, then length-prefixed blocks), or one raw block.
struct SnappyReader<'a> {
    input: &'a [u8],
    framed: bool,
    block: &'a mut Vec<u8>,
    block_position: usize,
    decoder: snap::raw::Decoder,
    block_bytes_max: u64,
}

impl<'a> SnappyReader<'a> {
    fn new(
        payload: &'a [u8],
        block: &'a mut Vec<u8>,
        block_bytes_max: u64,
    ) -> Result<SnappyReader<'a>, DecompressError> {
        let framed = payload.starts_with(&XERIAL_MAGIC);
        let input = if framed {
            payload
                .get(XERIAL_HEADER_BYTES..)
                .ok_or(DecompressError::Corrupt)?
        } else {
            payload
        };
        Ok(SnappyReader {
            input,
            framed,
            block,
            block_position: 0,
            decoder: snap::raw::Decoder::new(),
            block_bytes_max,
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, DecompressError> {
        while self.block_position == self.block.len() {
            if self.input.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let part = &self.block[self.block_position..];
        let part = &part[..part.len().min(out.len())];
        out[..part.len()].copy_from_slice(part);
        self.block_position += part.len();
        Ok(part.len())
    }

    fn next_block(&mut self) -> Result<(), DecompressError> {
        let compressed = if self.framed {
            // Streams may be joined: a header can stand where a block's length is expected.
            if self.input.starts_with(&XERIAL_MAGIC) {
                self.input = self
                    .input
                    .get(XERIAL_HEADER_BYTES..)
                    .ok_or(DecompressError::Corrupt)?;
                return Ok(());
            }
            let (length, rest) = self
                .input
                .split_first_chunk::<4>()
                .ok_or(DecompressError::Corrupt)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (compressed, rest) = rest
                .split_at_checked(length)
                .ok_or(DecompressError::Corrupt)?;
            self.input = rest;
            compressed
        } else {
            std::mem::take(&mut self.input)
        };
        let expanded =
            snap::raw::decompress_len(compressed).map_err(|_| DecompressError::Corrupt)?;
        if expanded > compressed.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
            return Err(DecompressError::Corrupt);
        }
        if expanded as u64 > self.block_bytes_max {
            return Err(DecompressError::TooLarge);
        }
        self.block.clear();
        self.block.resize(expanded, 0);
        self.block_position = 0;
        self.decoder
            .decompress(compressed, self.block)
            .map_err(|_| DecompressError::Corrupt)
            .map(drop)
    }
}

struct ZstdReader<'a> {
    input: &'a [u8],
    decoder: zstd::stream::raw::Decoder<'a>,
    frame_ended: bool,
}

impl<'a> ZstdReader<'a> {
    fn new(
        payload: &'a [u8],
        context: &'a mut DCtx<'static>,
        output_bytes_max: u64,
    ) -> Result<ZstdReader<'a>, DecompressError> {
        let window_bytes =
            output_bytes_max.clamp(*ZSTD_WINDOW_BYTES.start(), *ZSTD_WINDOW_BYTES.end());
        let window_log = window_bytes.next_power_of_two().ilog2();
        let mut decoder = zstd::stream::raw::Decoder::with_context(context);
        decoder.reinit()?;
        decoder.set_parameter(DParameter::WindowLogMax(window_log))?;
        Ok(ZstdReader {
            input: payload,
            decoder,
            frame_ended: false,
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, DecompressError> {
        loop {
            if self.input.is_empty() && self.frame_ended {
                return Ok(0);
            }
            let mut input = InBuffer::around(self.input);
            let mut output = OutBuffer::around(&mut *out);
            let hint = self.decoder.run(&mut input, &mut output)?;
            let (consumed, produced) = (input.pos(), output.pos());
            self.input = &self.input[consumed..];
            self.frame_ended = hint == 0;
            if produced > 0 {
                return Ok(produced);
            }
            if consumed == 0 && !self.frame_ended {
                return Err(DecompressError::Corrupt);
            }
        }
    }
}

/// Compresses `input` to the end of `out`. `level` is the codec's own scale (gzip 1-9 or -1 for its
/// default, zstd's levels); LZ4 and snappy have one way here.
pub fn compress(compression: Compression, level: i32, input: &[u8], out: &mut Vec<u8>) {
    let begin = std::mem::take(out);
    let length = Some(input.len() as u64);
    let mut encoder = Encoder::new(compression, level, begin, usize::MAX, length);
    *out = encoder
        .write(input)
        .and_then(|()| encoder.finish())
        .expect("compressing into memory without a bound does not fail");
}

/// More came out of an encoder than was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedTooLarge;

/// Compresses piece by piece behind what `begin` holds, up to a bound.
pub(crate) enum Encoder {
    None(Sink),
    Gzip(Box<flate2::write::GzEncoder<Sink>>),
    Snappy(Box<XerialWriter>),
    Lz4(Box<FrameEncoder<Sink>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Sink>>),
}

impl Encoder {
    /// `out_bytes_max` bounds everything, `begin` included. `input_bytes`, if known, goes into the
    /// frame where the codec has a place for it.
    pub(crate) fn new(
        compression: Compression,
        level: i32,
        begin: Vec<u8>,
        out_bytes_max: usize,
        input_bytes: Option<u64>,
    ) -> Encoder {
        let sink = Sink {
            out: begin,
            out_bytes_max,
        };
        match compression {
            Compression::None => Encoder::None(sink),
            Compression::Gzip => {
                let level = u32::try_from(level).map_or(flate2::Compression::default(), |level| {
                    flate2::Compression::new(level.min(9))
                });
                Encoder::Gzip(Box::new(flate2::write::GzEncoder::new(sink, level)))
            }
            Compression::Snappy => Encoder::Snappy(Box::new(XerialWriter::new(sink))),
            Compression::Lz4 => {
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Independent)
                    .block_size(BlockSize::Max64KB);
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(info, sink)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, level)
                    .expect("zstd clamps its levels and only fails without memory");
                encoder
                    .set_pledged_src_size(input_bytes)
                    .expect("a frame that has not begun takes a size");
                Encoder::Zstd(Box::new(encoder))
            }
        }
    }

    pub(crate) fn write(&mut self, input: &[u8]) -> Result<(), EncodedTooLarge> {
        let written = match self {
            Encoder::None(sink) => sink.write_all(input),
            Encoder::Gzip(encoder) => encoder.write_all(input),
            Encoder::Snappy(writer) => writer.write(input),
            Encoder::Lz4(encoder) => encoder.write_all(input),
            Encoder::Zstd(encoder) => encoder.write_all(input),
        };
        // The sink's bound is the only way in which writing to memory fails.
        written.map_err(|_| EncodedTooLarge)
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, EncodedTooLarge> {
        let sink = match self {
            Encoder::None(sink) => Ok(sink),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Snappy(writer) => writer.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Encoder::Zstd(encoder) => encoder.finish(),
        };
        sink.map(|sink| sink.out).map_err(|_| EncodedTooLarge)
    }
}

/// A vector with a bound.
pub(crate) struct Sink {
    out: Vec<u8>,
    out_bytes_max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.out_bytes_max.saturating_sub(self.out.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes xerial's framing of snappy in blocks of 32 KiB.
pub(crate) struct XerialWriter {
    sink: Sink,
    started: bool,
    block: Vec<u8>,
    compressed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl XerialWriter {
    fn new(sink: Sink) -> XerialWriter {
        XerialWriter {
            sink,
            started: false,
            block: Vec::with_capacity(XERIAL_BLOCK_BYTES),
            compressed: vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)],
            encoder: snap::raw::Encoder::new(),
        }
    }

    fn write(&mut self, mut input: &[u8]) -> io::Result<()> {
        while !input.is_empty() {
            let room = XERIAL_BLOCK_BYTES - self.block.len();
            let (part, rest) = input.split_at(room.min(input.len()));
            self.block.extend_from_slice(part);
            input = rest;
            if self.block.len() == XERIAL_BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.started, true) {
            self.sink.write_all(&XERIAL_MAGIC)?;
            self.sink.write_all(&1_i32.to_be_bytes())?;
            self.sink.write_all(&1_i32.to_be_bytes())?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.begin()?;
        let written = self.encoder.compress(&self.block, &mut self.compressed)?;
        let length = u32::try_from(written).expect("a block of 32 KiB stays small");
        self.sink.write_all(&length.to_be_bytes())?;
        self.sink.write_all(&self.compressed[..written])?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Sink> {
        self.begin()?;
        if !self.block.is_empty() {
            self.end_block()?;
        }
        Ok(self.sink)
    }
}

/// The level that stands for "the codec's default" in Kafka's configs.
pub fn default_level(compression: Compression) -> i32 {
    match compression {
        Compression::Gzip => -1,
        Compression::Lz4 => 9,
        Compression::Zstd => 3,
        Compression::None | Compression::Snappy => 0,
    }
}

#[cfg(test)]
mod tests;
