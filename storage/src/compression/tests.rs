use super::*;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn text(bytes: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|n| format!("{n} sheep, ").into_bytes())
        .take(bytes)
        .collect()
}

fn compressed(compression: Compression, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(compression, default_level(compression), input, &mut out);
    out
}

fn decompressed(
    compression: Compression,
    payload: &[u8],
    output_bytes_max: u64,
) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    decompress(
        compression,
        payload,
        &mut CodecScratch::new(),
        output_bytes_max,
        &mut out,
    )?;
    Ok(out)
}

#[test]
fn what_goes_in_comes_out() {
    for compression in CODECS {
        for bytes in [0, 1, 100, 32 * 1024, 64 * 1024 + 1, 300_000] {
            let input = text(bytes);
            let payload = compressed(compression, &input);
            let output = decompressed(compression, &payload, bytes as u64);
            assert!(output == Ok(input), "{compression:?} {bytes}");
        }
    }
}

#[test]
fn one_scratch_serves_batch_after_batch() {
    let mut scratch = CodecScratch::new();
    for round in 0..3 {
        for compression in CODECS {
            let payload = compressed(compression, &text(50_000 + round));
            // A broken payload before a good one must leave nothing behind.
            let broken = &payload[..payload.len() / 2];
            let mut out = Vec::new();
            let _ = decompress(compression, broken, &mut scratch, u64::MAX, &mut out);
            out.clear();
            decompress(compression, &payload, &mut scratch, u64::MAX, &mut out).expect("good");
            assert!(out == text(50_000 + round), "{compression:?}");
        }
    }
}

#[test]
fn the_bound_is_exact() {
    let input = text(200_000);
    for compression in CODECS {
        let payload = compressed(compression, &input);
        assert!(decompressed(compression, &payload, 200_000).is_ok());
        let cut = decompressed(compression, &payload, 199_999);
        assert_eq!(cut, Err(DecompressError::TooLarge), "{compression:?}");
    }
}

#[test]
fn a_bomb_stops_at_the_bound() {
    let zeros = vec![0; 16 * 1024 * 1024];
    for compression in [
        Compression::Gzip,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Snappy,
    ] {
        let bomb = compressed(compression, &zeros);
        let mut scratch = CodecScratch::new();
        let mut out = Vec::new();
        let result = decompress(compression, &bomb, &mut scratch, 1 << 20, &mut out);
        assert_eq!(result, Err(DecompressError::TooLarge), "{compression:?}");
        assert!(
            out.len() <= 1 << 20 && out.capacity() <= 4 << 20,
            "{compression:?}"
        );
    }
}

#[test]
fn a_snappy_length_that_cannot_be_is_not_believed() {
    // A raw block that claims 2^32 - 1 bytes, then holds none.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    assert_eq!(
        decompressed(Compression::Snappy, &claim, u64::MAX),
        Err(DecompressError::Corrupt)
    );
}

#[test]
fn cut_payloads_are_corrupt() {
    let input = text(100_000);
    for compression in [
        Compression::Gzip,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Snappy,
    ] {
        let payload = compressed(compression, &input);
        for length in [1, 3, 7, 20, payload.len() / 2, payload.len() - 1] {
            let result = decompressed(compression, &payload[..length], u64::MAX);
            // A cut of framed snappy at a block's end is not one that its format can see.
            assert!(result.is_err(), "{compression:?} {length}");
        }
    }
}

#[test]
fn raw_snappy_and_joined_xerial_streams_are_read() {
    let input = text(100_000);
    let raw = snap::raw::Encoder::new()
        .compress_vec(&input)
        .expect("compresses");
    assert!(decompressed(Compression::Snappy, &raw, 100_000) == Ok(input.clone()));

    let xerial = compressed(Compression::Snappy, &input);
    assert_eq!(&xerial[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let joined = [&xerial[..], &xerial[..]].concat();
    let both = decompressed(Compression::Snappy, &joined, 200_000).expect("joined");
    assert!(both == [&input[..], &input[..]].concat());
}

#[test]
fn gzip_of_several_members_and_zstd_of_several_frames_are_read() {
    let input = text(70_000);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let one = compressed(compression, &input);
        let joined = [&one[..], &one[..]].concat();
        let both = decompressed(compression, &joined, u64::MAX).expect("joined");
        assert!(both == [&input[..], &input[..]].concat(), "{compression:?}");
    }
}

#[test]
fn lz4_blocks_must_not_depend_on_each_other() {
    let input = text(200_000);
    let ours = compressed(Compression::Lz4, &input);
    assert_eq!(&ours[..4], &[0x04, 0x22, 0x4d, 0x18]);
    assert_ne!(ours[4] & 0x20, 0, "independent blocks");

    let info = FrameInfo::new().block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&input).expect("in memory");
    let linked = encoder.finish().expect("in memory");
    assert_eq!(
        decompressed(Compression::Lz4, &linked, u64::MAX),
        Err(DecompressError::Corrupt)
    );
}

#[test]
fn names_and_ids_are_kafkas() {
    for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"]
        .into_iter()
        .enumerate()
    {
        let compression = Compression::from_id(id as i16).expect("known");
        assert_eq!((compression.name(), compression.id()), (name, id as i16));
        assert_eq!(Compression::from_name(name), Some(compression));
    }
    assert_eq!(Compression::from_id(5), None);
    assert_eq!(Compression::from_name("brotli"), None);
}
