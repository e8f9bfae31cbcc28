"""Record batches, format v2, built and walked by hand, so that a suite can also build them wrong. Knows no broker."""

import gzip
import struct
import time

import crc32c

# An hour ago, in whole seconds: old enough to be no future, young enough that retention leaves it alone.
T0 = int(time.time()) * 1000 - 3_600_000
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {"none": 0, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}


def zigzag(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(data):
    return zigzag(-1) if data is None else zigzag(len(data)) + data


def record(offset_delta, key, value, headers=(), timestamp_delta=0):
    body = b"\0" + zigzag(timestamp_delta) + zigzag(offset_delta) + _bytes(key) + _bytes(value) + zigzag(len(headers))
    for name, content in headers:
        body += zigzag(len(name)) + name + _bytes(content)
    return zigzag(len(body)) + body


def compress(codec, data):
    if codec == 0:
        return data
    if codec == GZIP:
        return gzip.compress(data, mtime=0)
    if codec == SNAPPY:
        import cramjam
        return bytes(cramjam.snappy.compress_raw(data))
    if codec == LZ4:
        import lz4.frame
        return lz4.frame.compress(data, block_linked=False)
    import zstandard
    return zstandard.compress(data)


def batch(
    records, base_offset=0, leader_epoch=-1, magic=2, codec=0, attributes=None, timestamp=T0, max_timestamp=None,
    producer_id=-1, producer_epoch=-1, base_sequence=-1, last_offset_delta=None, count=None, crc=None, length=None, body=None,
):
    """Records are bytes from `record`, or (key, value) pairs; every header field can be set wrong."""
    encoded = [one if isinstance(one, bytes) else record(index, *one) for index, one in enumerate(records)]
    content = compress(codec, b"".join(encoded)) if body is None else body
    covered = struct.pack(
        ">hiqqqhii",
        codec if attributes is None else attributes,
        len(encoded) - 1 if last_offset_delta is None else last_offset_delta,
        timestamp,
        timestamp if max_timestamp is None else max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(encoded) if count is None else count,
    ) + content
    checksum = crc32c.crc32c(covered) if crc is None else crc
    size = len(covered) + 9 if length is None else length
    return struct.pack(">qiibI", base_offset, size, leader_epoch, magic, checksum) + covered


def headers_of(data):
    """The batches in fetched bytes, as dicts; each must lie whole in them and have the right checksum."""
    found, position = [], 0
    while position + 61 <= len(data):
        base, size, epoch, magic, checksum = struct.unpack_from(">qiibI", data, position)
        if position + 12 + size > len(data):
            break
        covered = data[position + 21 : position + 12 + size]
        attributes, last_delta, first_ts, max_ts, pid, pepoch, seq, count = struct.unpack_from(">hiqqqhii", covered)
        found.append({
            "BaseOffset": base, "Length": size, "LeaderEpoch": epoch, "Magic": magic, "Attributes": attributes,
            "LastOffsetDelta": last_delta, "BaseTimestamp": first_ts, "MaxTimestamp": max_ts, "ProducerId": pid,
            "ProducerEpoch": pepoch, "BaseSequence": seq, "Count": count,
            "CrcOk": crc32c.crc32c(covered) == checksum, "Content": bytes(covered[40:]),
        })
        position += 12 + size
    return found
