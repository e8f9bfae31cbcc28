"""A client of the native protocol, written from docs/PROTOCOL.md alone and with the standard library alone.

It shows that the page is enough. Small and slow on purpose; knows no code of Millrace.
"""

import socket
import struct
import time

MASK = (1 << 64) - 1

# -- XXH3, 64 bits, seed 0: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md --

P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def _u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def _swap64(value):
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def _fold(a, b):
    product = a * b
    return (product & MASK) ^ (product >> 64)


def _avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & MASK
    return h ^ (h >> 32)


def _avalanche_xxh64(h):
    h ^= h >> 33
    h = h * P64[1] & MASK
    h ^= h >> 29
    h = h * P64[2] & MASK
    return h ^ (h >> 32)


def _mix16(data, at, secret_at):
    return _fold(_u64(data, at) ^ _u64(SECRET, secret_at), _u64(data, at + 8) ^ _u64(SECRET, secret_at + 8))


def xxh3(data):
    length = len(data)
    if length == 0:
        return _avalanche_xxh64(_u64(SECRET, 56) ^ _u64(SECRET, 64))
    if length <= 3:
        combined = data[length - 1] | length << 8 | data[0] << 16 | data[length >> 1] << 24
        return _avalanche_xxh64((_u32(SECRET, 0) ^ _u32(SECRET, 4)) ^ combined)
    if length <= 8:
        h = (_u64(SECRET, 8) ^ _u64(SECRET, 16)) ^ (_u32(data, length - 4) + (_u32(data, 0) << 32))
        h ^= ((h << 49 | h >> 15) ^ (h << 24 | h >> 40)) & MASK
        h = h * 0x9FB21C651E98DF25 & MASK
        h ^= (h >> 35) + length
        h = h * 0x9FB21C651E98DF25 & MASK
        return h ^ (h >> 28)
    if length <= 16:
        low = (_u64(SECRET, 24) ^ _u64(SECRET, 32)) ^ _u64(data, 0)
        high = (_u64(SECRET, 40) ^ _u64(SECRET, 48)) ^ _u64(data, length - 8)
        return _avalanche((length + _swap64(low) + high + _fold(low, high)) & MASK)
    if length <= 128:
        total = length * P64[0]
        for index in range((length - 1) // 32, -1, -1):
            total += _mix16(data, 16 * index, 32 * index) + _mix16(data, length - 16 * (index + 1), 32 * index + 16)
        return _avalanche(total & MASK)
    if length <= 240:
        total = length * P64[0]
        for index in range(8):
            total += _mix16(data, 16 * index, 16 * index)
        total = _avalanche(total & MASK)
        for index in range(8, length // 16):
            total += _mix16(data, 16 * index, 16 * (index - 8) + 3)
        total += _mix16(data, length - 16, 136 - 17)
        return _avalanche(total & MASK)
    lanes = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]

    def accumulate(at, secret_at):
        for lane in range(8):
            value = _u64(data, at + 8 * lane)
            key = value ^ _u64(SECRET, secret_at + 8 * lane)
            lanes[lane ^ 1] = lanes[lane ^ 1] + value & MASK
            lanes[lane] = lanes[lane] + (key & 0xFFFFFFFF) * (key >> 32) & MASK

    stripes = (len(SECRET) - 64) // 8
    blocks = (length - 1) // (64 * stripes)
    for block in range(blocks):
        for stripe in range(stripes):
            accumulate(64 * (block * stripes + stripe), 8 * stripe)
        for lane in range(8):
            value = lanes[lane] ^ lanes[lane] >> 47 ^ _u64(SECRET, len(SECRET) - 64 + 8 * lane)
            lanes[lane] = value * P32[0] & MASK
    done = blocks * stripes
    for stripe in range((length - 1 - 64 * done) // 64):
        accumulate(64 * (done + stripe), 8 * stripe)
    accumulate(length - 64, len(SECRET) - 64 - 7)
    total = length * P64[0]
    for pair in range(4):
        total += _fold(lanes[2 * pair] ^ _u64(SECRET, 11 + 16 * pair), lanes[2 * pair + 1] ^ _u64(SECRET, 11 + 16 * pair + 8))
    return _avalanche(total & MASK)


# -- CRC-32C --

_CRC = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC.append(_byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# -- Frames --

HEADER = struct.Struct("<Q4sBBHIIQ")
MAGIC = b"MLRC"
HELLO, PRODUCE, FETCH, SUBSCRIBE, UNSUBSCRIBE, CREDIT, METADATA, OFFSETS, PRODUCER_ID = range(1, 10)
DELIVERY, REFUSAL = 0x86, 0xFF
ANSWER = 0x80

# Fields of each row, as struct formats; "T:Name" is a table of such rows, "T" a table of bytes.
ROWS = {
    "Hello": "software:T features:Q version_min:B version_max:B",
    "HelloAnswer": "cluster_id:T message:T features:Q node_id:i frame_bytes_max:I error:h version:B version_min:B version_max:B",
    "Refusal": "message:T error:h",
    "Produce": "parts:T=ProducePart timeout_ms:I acks:b",
    "ProducePart": "topic_id:16s partition:i records_bytes:I",
    "ProduceAnswer": "results:T=ProduceResult remarks:T=ProduceRemark texts:T",
    "ProduceResult": "base_offset:q log_append_time_ms:q log_start_offset:q error:h",
    "ProduceRemark": "part:I record:i text_start:I text_bytes:I",
    "Fetch": "parts:T=FetchPart wait_ms_max:I bytes_min:I bytes_max:I isolation:B",
    "FetchPart": "topic_id:16s partition:i leader_epoch:i fetch_offset:q last_fetched_epoch:i bytes_max:I",
    "FetchAnswer": "results:T=FetchResult",
    "FetchResult": "high_watermark:q last_stable_offset:q log_start_offset:q diverging_end_offset:q diverging_epoch:i part:I records_bytes:I error:h",
    "Subscribe": "parts:T=FetchPart credit_bytes:I bytes_max:I heartbeat_ms:I isolation:B",
    "SubscribeAnswer": "error:h",
    "Unsubscribe": "subscription:Q",
    "UnsubscribeAnswer": "error:h",
    "Credit": "subscription:Q bytes:I",
    "Metadata": "topics:T=TopicQuery texts:T flags:B",
    "TopicQuery": "topic_id:16s name_start:I name_bytes:I",
    "MetadataAnswer": "topics:T=TopicRow partitions:T=PartitionRow brokers:T=BrokerRow texts:T controller_id:i",
    "TopicRow": "topic_id:16s name_start:I name_bytes:I partitions_start:I partitions_count:I error:h flags:B",
    "PartitionRow": "partition:i leader_id:i leader_epoch:i error:h",
    "BrokerRow": "node_id:i host_start:I host_bytes:I port:H",
    "Offsets": "questions:T=OffsetQuestion",
    "OffsetQuestion": "topic_id:16s partition:i leader_epoch:i at:q ask:B",
    "OffsetsAnswer": "results:T=OffsetResult",
    "OffsetResult": "offset:q timestamp_ms:q leader_epoch:i error:h",
    "ProducerId": "producer_id:q producer_epoch:h",
    "ProducerIdAnswer": "producer_id:q producer_epoch:h error:h",
}
BODIES = {
    HELLO: "Hello", HELLO | ANSWER: "HelloAnswer", REFUSAL: "Refusal", PRODUCE: "Produce", PRODUCE | ANSWER: "ProduceAnswer",
    FETCH: "Fetch", FETCH | ANSWER: "FetchAnswer", SUBSCRIBE: "Subscribe", SUBSCRIBE | ANSWER: "SubscribeAnswer",
    UNSUBSCRIBE: "Unsubscribe", UNSUBSCRIBE | ANSWER: "UnsubscribeAnswer", CREDIT: "Credit", DELIVERY: "FetchAnswer",
    METADATA: "Metadata", METADATA | ANSWER: "MetadataAnswer", OFFSETS: "Offsets", OFFSETS | ANSWER: "OffsetsAnswer",
    PRODUCER_ID: "ProducerId", PRODUCER_ID | ANSWER: "ProducerIdAnswer",
}


def _fields(row):
    for field in ROWS[row].split():
        name, kind = field.split(":")
        yield name, kind


def row_bytes(row):
    return sum(8 if kind[0] == "T" else struct.calcsize("<" + kind) for _, kind in _fields(row))


def encode_body(row, values):
    """Tables in the order of the root's fields, then the root."""
    out = bytearray()
    places = {}
    for name, kind in _fields(row):
        if kind[0] != "T":
            continue
        table = values.get(name, b"")
        places[name] = (len(out), len(table))
        if kind == "T":
            out += table
        else:
            for one in table:
                out += b"".join(struct.pack("<" + code, one[field]) for field, code in _fields(kind[2:]))
    for name, kind in _fields(row):
        if kind[0] == "T":
            start, count = places[name]
            out += struct.pack("<iI", start - len(out), count)
        else:
            out += struct.pack("<" + kind, values.get(name, 0))
    return bytes(out)


def decode_body(row, body):
    values = {}
    at = len(body) - row_bytes(row)
    for name, kind in _fields(row):
        if kind[0] != "T":
            (values[name],) = struct.unpack_from("<" + kind, body, at)
            at += struct.calcsize("<" + kind)
            continue
        offset, count = struct.unpack_from("<iI", body, at)
        start = at + offset
        at += 8
        if kind == "T":
            values[name] = body[start : start + count]
            continue
        rows = []
        for index in range(count):
            place = start + index * row_bytes(kind[2:])
            one = {}
            for field, code in _fields(kind[2:]):
                (one[field],) = struct.unpack_from("<" + code, body, place)
                place += struct.calcsize("<" + code)
            rows.append(one)
        values[name] = rows
    return values


def frame(kind, body, correlation_id, version=1, flags=0, records=b"", checksum=None):
    padding = bytes(-len(body) % 8)
    rest = HEADER.pack(0, MAGIC, version, kind, flags, len(body), len(records), correlation_id)[8:] + body + padding
    checksum = xxh3(rest) if checksum is None else checksum
    return struct.pack("<Q", checksum) + rest + records


class Closed(Exception):
    """The broker closed the connection."""


class Refused(Exception):
    """The broker refused a frame, and closes the connection."""

    def __init__(self, error, message):
        super().__init__(f"error {error}: {message}")
        self.error = error


class Answer(dict):
    """A body, with its frame's kind, flags, correlation id and records."""


class Connection:
    """To a host and port, or to the path of a Unix socket."""

    def __init__(self, host, port=None, versions=(1, 1), hello=True, features=1):
        if port is None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(20)
            self.socket.connect(host)
        else:
            self.socket = socket.create_connection((host, port), timeout=20)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next_id = 1
        self.deliveries = []
        if hello:
            self.hello = self.request(HELLO, {"software": b"page client 1", "features": features, "version_min": versions[0], "version_max": versions[1]}, version=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, kind, values, version=1, records=b""):
        correlation_id = self.next_id
        self.next_id += 1
        self.socket.sendall(frame(kind, encode_body(BODIES[kind], values), correlation_id, version, records=records))
        return correlation_id

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise Closed("in the middle of a frame" if data else "between frames")
            data += more
        return data

    def receive(self):
        """The next frame."""
        header = self._exactly(32)
        checksum, magic, version, kind, flags, body_bytes, records_bytes, correlation_id = HEADER.unpack(header)
        assert magic == MAGIC, magic
        front = self._exactly(body_bytes + -body_bytes % 8)
        assert xxh3(header[8:] + front) == checksum, "the checksum is wrong"
        assert not any(front[body_bytes:]), "padding is zero"
        answer = Answer(decode_body(BODIES[kind], front[:body_bytes]))
        answer.version, answer.kind, answer.flags, answer.correlation_id = version, kind, flags, correlation_id
        answer.records = self._exactly(records_bytes)
        if kind == REFUSAL:
            raise Refused(answer["error"], answer["message"].decode())
        return answer

    def answer(self, kind, correlation_id):
        """The answer to a request; deliveries on the way are kept."""
        while True:
            answer = self.receive()
            if answer.kind == DELIVERY:
                self.deliveries.append(answer)
                continue
            assert (answer.kind, answer.correlation_id) == (kind | ANSWER, correlation_id), (answer.kind, answer.correlation_id)
            return answer

    def request(self, kind, values, version=1, records=b""):
        return self.answer(kind, self.send(kind, values, version, records))

    def delivery(self):
        return self.deliveries.pop(0) if self.deliveries else self.receive()

    # -- what a client does --

    def metadata(self, *names, create=False, everything=False, ids=()):
        texts, topics = b"", []
        for name in names:
            topics.append({"topic_id": bytes(16), "name_start": len(texts), "name_bytes": len(name.encode())})
            texts += name.encode()
        for topic_id in ids:
            topics.append({"topic_id": topic_id, "name_start": 0, "name_bytes": 0})
        answer = self.request(METADATA, {"topics": topics, "texts": texts, "flags": 1 * everything + 2 * create})
        for topic in answer["topics"]:
            topic["name"] = answer["texts"][topic["name_start"] : topic["name_start"] + topic["name_bytes"]].decode()
            start = topic["partitions_start"]
            topic["partitions"] = answer["partitions"][start : start + topic["partitions_count"]]
        return answer

    def produce(self, batches, acks=-1):
        """Batches are (topic id, partition, bytes)."""
        parts = [{"topic_id": topic_id, "partition": partition, "records_bytes": len(data)} for topic_id, partition, data in batches]
        values = {"parts": parts, "timeout_ms": 30000, "acks": acks}
        records = b"".join(data for _, _, data in batches)
        if acks == 0:
            self.send(PRODUCE, values, records=records)
            return None
        answer = self.request(PRODUCE, values, records=records)
        for remark in answer["remarks"]:
            remark["text"] = answer["texts"][remark["text_start"] : remark["text_start"] + remark["text_bytes"]].decode()
        return answer

    def fetch(self, parts, wait_ms=0, bytes_min=1, bytes_max=50 << 20, isolation=0):
        return self.request(FETCH, {"parts": parts, "wait_ms_max": wait_ms, "bytes_min": bytes_min, "bytes_max": bytes_max, "isolation": isolation})

    def subscribe(self, parts, credit=1 << 20, bytes_max=1 << 20, heartbeat_ms=0):
        correlation_id = self.send(SUBSCRIBE, {"parts": parts, "credit_bytes": credit, "bytes_max": bytes_max, "heartbeat_ms": heartbeat_ms})
        return correlation_id, self.answer(SUBSCRIBE, correlation_id)["error"]

    def offsets(self, *questions):
        rows = [{"topic_id": topic_id, "partition": partition, "leader_epoch": -1, "at": at, "ask": ask} for topic_id, partition, ask, at in questions]
        return self.request(OFFSETS, {"questions": rows})["results"]


def part(topic_id, partition, offset, bytes_max=1 << 20, leader_epoch=-1):
    return {"topic_id": topic_id, "partition": partition, "leader_epoch": leader_epoch, "fetch_offset": offset, "last_fetched_epoch": -1, "bytes_max": bytes_max}


# -- Record batches --


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch(values, timestamp=None, producer_id=-1, producer_epoch=-1, base_sequence=-1):
    timestamp = int(time.time() * 1000) if timestamp is None else timestamp
    records = b""
    for index, value in enumerate(values):
        one = b"\0" + varint(0) + varint(index) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(one)) + one
    covered = struct.pack(">hiqqqhii", 0, len(values) - 1, timestamp, timestamp, producer_id, producer_epoch, base_sequence, len(values)) + records
    return struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c(covered)) + covered


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def values_of(records):
    """(offset, value) of every record in uncompressed batches, each checked."""
    found, at = [], 0
    while at < len(records):
        base, length, _, magic, checksum = struct.unpack_from(">qiibI", records, at)
        assert magic == 2, magic
        end = at + 12 + length
        assert end <= len(records), "a batch lies whole in the records"
        assert crc32c(records[at + 21 : end]) == checksum, "the checksum of a batch is wrong"
        (count,) = struct.unpack_from(">i", records, at + 57)
        place = at + 61
        for _ in range(count):
            size, place = read_varint(records, place)
            record_end = place + size
            _, place = read_varint(records, place + 1)
            delta, place = read_varint(records, place)
            key, place = read_varint(records, place)
            place += max(key, 0)
            value, place = read_varint(records, place)
            found.append((base + delta, records[place : place + value] if value >= 0 else None))
            place = record_end
        at = end
    return found
