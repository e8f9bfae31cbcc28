"""Metadata, Produce, Fetch, ListOffsets, epochs, producer ids, DeleteRecords, DescribeProducers."""

import struct
import time
import uuid

from harness import batch
from sides import case, simple

UNKNOWN_ID = uuid.UUID("00000000-0000-0000-0000-0000deadbeef")
T0 = batch.T0

# -- Metadata --


def metadata(names, **more):
    return lambda side, version: {"Topics": [{"Name": name} for name in names], "AllowAutoTopicCreation": False, **more}


@case("Metadata", "one topic")
def _(side, version):
    side.topic("meta", 3)
    return side.ask("Metadata", version, metadata(["meta"])(side, version))


simple("Metadata", "unknown topic", metadata(["nowhere"]), first=4)
simple("Metadata", "unknown topic, creation allowed by the request only", {"Topics": [{"Name": "nowhere"}], "AllowAutoTopicCreation": True})
simple("Metadata", "bad names", metadata(["bad/name", "", ".", "..", "x" * 250]), first=4)
simple("Metadata", "a name twice", metadata(["meta", "meta", "nowhere", "nowhere"]), first=4)
simple("Metadata", "no topics", {"Topics": []}, first=1)
simple("Metadata", "authorized operations", metadata(["meta"], IncludeClusterAuthorizedOperations=True, IncludeTopicAuthorizedOperations=True), first=8)
simple("Metadata", "by id", lambda side, version: {"Topics": [{"Name": None, "TopicId": side.id("meta")}]}, first=10)
simple("Metadata", "by unknown id", {"Topics": [{"Name": None, "TopicId": UNKNOWN_ID}]}, first=10)
simple("Metadata", "name and id", lambda side, version: {"Topics": [{"Name": "meta", "TopicId": side.id("meta")}]}, first=10)
simple("Metadata", "neither name nor id", {"Topics": [{"Name": None}]}, first=10)


@case("Metadata", "all topics")
def _(side, version):
    answer = side.ask("Metadata", version, {"Topics": [] if version == 0 else None})
    # Other cases made topics meanwhile, the same on both sides.
    return answer


# -- Produce --


def produced(name, records, acks=-1, partition=0, **more):
    """One partition's produce by name or id."""

    def body(side, version):
        data = records(side) if callable(records) else records
        return {"Acks": acks, "TimeoutMs": 10000, "TopicData": [{"Name": name, "TopicId": side.id(name), "PartitionData": [{"Index": partition, "Records": data}]}], **more}

    return body


def fetched(side, name, offset=0, version=12):
    return side.ask("Fetch", version, fetch_body(side, name, offset, MaxWaitMs=0))


def fetch_body(side, name, offset=0, partition=0, epoch=-1, partition_bytes=1 << 20, **more):
    one = {"Partition": partition, "FetchOffset": offset, "CurrentLeaderEpoch": epoch, "PartitionMaxBytes": partition_bytes}
    body = {"MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": name, "TopicId": side.id(name), "Partitions": [one]}]}
    return {**body, **more}


PAIRS = [(b"k%d" % index, b"v%d" % index) for index in range(5)]


def produce_case(title, make, first=None, last=None, read=True, acks=-1, **configs):
    """Produces make(side) into a topic of the version's own, then reads what is there."""

    @case("Produce", title, first, last)
    def _(side, version):
        name = side.topic(f"produce-{title.replace(' ', '-').replace(',', '')}-v{version}", **configs)
        answer = side.ask("Produce", version, produced(name, make, acks)(side, version))
        return {"answer": answer, "there": fetched(side, name)} if read else answer


for codec_name, codec in batch.CODECS.items():
    produce_case(f"compressed {codec_name}", lambda side, codec=codec: batch.batch(PAIRS, codec=codec))
produce_case("acks 1", batch.batch(PAIRS), acks=1)
produce_case("acks 2", batch.batch(PAIRS), acks=2)
produce_case("acks -2", batch.batch(PAIRS), acks=-2)
produce_case("null records", None)
produce_case("empty records", b"")
produce_case("too short for a header", b"\0" * 20)
produce_case("batch of no records", lambda side: batch.batch([], last_offset_delta=-1))
produce_case("batch of no records, delta 0", lambda side: batch.batch([], last_offset_delta=0))
produce_case("two batches", batch.batch(PAIRS) + batch.batch(PAIRS))
produce_case("base offset 5", batch.batch(PAIRS, base_offset=5))
produce_case("base offset -1", batch.batch(PAIRS, base_offset=-1))
produce_case("count too high", batch.batch(PAIRS, count=6, last_offset_delta=5))
produce_case("count too low", batch.batch(PAIRS, count=4, last_offset_delta=3))
produce_case("last delta wrong", batch.batch(PAIRS, last_offset_delta=7))
produce_case("negative count", batch.batch(PAIRS, count=-1))
produce_case("deltas wrong", lambda side: batch.batch([batch.record(0, b"a", b"b"), batch.record(2, b"a", b"b")]))
produce_case("deltas wrong, compressed", lambda side: batch.batch([batch.record(0, b"a", b"b"), batch.record(2, b"a", b"b")], codec=1))
produce_case("count too high, compressed", lambda side: batch.batch(PAIRS, codec=1, count=6, last_offset_delta=5))
produce_case("wrong crc", batch.batch(PAIRS, crc=1))
produce_case("magic 0", batch.batch(PAIRS, magic=0))
produce_case("magic 1", batch.batch(PAIRS, magic=1))
produce_case("magic 3", batch.batch(PAIRS, magic=3))
produce_case("control batch", batch.batch(PAIRS, attributes=0x20))
produce_case("garbage for records", lambda side: batch.batch(PAIRS, body=b"\xff" * 40))
produce_case("garbage for compressed records", lambda side: batch.batch(PAIRS, attributes=1, body=b"\xff" * 40))
produce_case("unknown codec", lambda side: batch.batch(PAIRS, attributes=5))
produce_case("length too long", lambda side: batch.batch(PAIRS, length=5000))
produce_case("length too short", lambda side: batch.batch(PAIRS, length=30))
produce_case("idempotent without sequence", batch.batch(PAIRS, producer_id=5, producer_epoch=0, base_sequence=-1))
produce_case("idempotent with negative epoch", batch.batch(PAIRS, producer_id=5, producer_epoch=-1, base_sequence=0))
produce_case("sequence without producer", batch.batch(PAIRS, base_sequence=4))
produce_case("wrong max timestamp", batch.batch(PAIRS, max_timestamp=T0 + 500))
produce_case("timestamp type bit of the broker", batch.batch(PAIRS, attributes=8))
produce_case("leader epoch of the client", batch.batch(PAIRS, leader_epoch=77))
produce_case("headers", lambda side: batch.batch([batch.record(0, b"a", b"b", [(b"h", b"1"), (b"h", None), (b"", b"")])]))
produce_case("null key on a compacted topic", lambda side: batch.batch([(b"a", b"b"), (None, b"c"), (None, b"d")]), cleanup_policy="compact")
produce_case("null key on a compacted topic, compressed", lambda side: batch.batch([(b"a", b"b"), (None, b"c")], codec=1), cleanup_policy="compact")
produce_case("too large", lambda side: batch.batch([(b"k", b"x" * 1200)]), max_message_bytes=1000)
produce_case("largest that fits", lambda side: batch.batch([(b"k", b"x" * (1000 - 61 - 12 + 1))]), max_message_bytes=1000)
produce_case("from the future", lambda side: batch.batch(PAIRS, timestamp=(time.time_ns() // 1_000_000) + 7_200_000), read=False)
produce_case("from before what is allowed", lambda side: batch.batch(PAIRS), read=False, message_timestamp_before_max_ms=1000)
produce_case("negative timestamp", batch.batch(PAIRS, timestamp=-1))
produce_case("min.insync.replicas above the replicas", batch.batch(PAIRS), min_insync_replicas=2)


@case("Produce", "log append time")
def _(side, version):
    name = side.topic(f"append-time-v{version}", message_timestamp_type="LogAppendTime")
    answer = side.ask("Produce", version, produced(name, batch.batch(PAIRS))(side, version))
    read = fetched(side, name)
    (found,) = batch.headers_of(read["Responses"][0]["Partitions"][0]["Records"])
    age_ms = time.time_ns() // 1_000_000 - found["MaxTimestamp"]
    return {"answer": answer, "attributes": found["Attributes"], "crc": found["CrcOk"], "base": found["BaseTimestamp"], "recent": 0 <= age_ms < 60000}


@case("Produce", "the topic's own compression")
def _(side, version):
    results = []
    for wanted in ("gzip", "uncompressed", "lz4", "producer"):
        name = side.topic(f"recompress-{wanted}-v{version}", compression_type=wanted)
        results.append(side.ask("Produce", version, produced(name, batch.batch(PAIRS, codec=batch.GZIP))(side, version)))
        (found,) = batch.headers_of(fetched(side, name)["Responses"][0]["Partitions"][0]["Records"])
        results.append([found["Attributes"], found["Count"], found["CrcOk"], found["LastOffsetDelta"]])
    return {str(index): one for index, one in enumerate(results)}


simple("Produce", "unknown topic", produced("nowhere", batch.batch(PAIRS)), last=12)
simple("Produce", "bad topic name", produced("bad/name", batch.batch(PAIRS)), last=12)
simple("Produce", "unknown id", lambda side, version: {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"TopicId": UNKNOWN_ID, "PartitionData": [{"Index": 0, "Records": batch.batch(PAIRS)}]}]}, first=13)
simple("Produce", "no topics", {"Acks": -1, "TimeoutMs": 1000, "TopicData": []})
simple("Produce", "transactional id", produced("meta", batch.batch(PAIRS), TransactionalId="t"))


@case("Produce", "unknown partition")
def _(side, version):
    name = side.topic("produce-partition")
    return [side.ask("Produce", version, produced(name, batch.batch(PAIRS), partition=one)(side, version)) for one in (1, -1, 1000)]


@case("Produce", "the internal topic")
def _(side, version):
    side.ask("FindCoordinator", 1, {"Key": "g", "KeyType": 0})
    for _ in range(100):
        side.learn("__consumer_offsets")
        if "__consumer_offsets" in side.ids:
            break
        time.sleep(0.05)
    return side.ask("Produce", version, produced("__consumer_offsets", batch.batch(PAIRS))(side, version))


@case("Produce", "good and bad partitions in one request")
def _(side, version):
    name = side.topic(f"produce-mixed-v{version}", 3)
    parts = [{"Index": 0, "Records": batch.batch(PAIRS)}, {"Index": 1, "Records": batch.batch(PAIRS, crc=3)}, {"Index": 9, "Records": batch.batch(PAIRS)}]
    answer = side.ask("Produce", version, {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"Name": name, "TopicId": side.id(name), "PartitionData": parts}]})
    return {"answer": answer, "there": fetched(side, name)}


@case("Produce", "acks 0 without and with an error")
def _(side, version):
    name = side.topic(f"acks-0-v{version}")
    results = {}
    for title, data in (("good", batch.batch(PAIRS)), ("bad", batch.batch(PAIRS, crc=1))):
        with side.connect() as connection:
            connection.send("Produce", version, produced(name, data, acks=0)(side, version))
            side.requests += 2
            try:
                results[title] = connection.request("ApiVersions", 0, {})["ErrorCode"]
            except Exception as error:
                results[title] = type(error).__name__
    # Nobody was promised when the good batch can be read; it waits for that, and for no more than there is.
    results["there"] = side.ask("Fetch", 12, fetch_body(side, name, MaxWaitMs=5000))
    return results


@case("Produce", "idempotent sequences")
def _(side, version):
    name = side.topic(f"idempotent-v{version}")
    producer = side.producer_id()

    def send(sequence, epoch=0, count=2):
        data = batch.batch(PAIRS[:count], producer_id=producer, producer_epoch=epoch, base_sequence=sequence)
        return side.ask("Produce", version, produced(name, data)(side, version))

    # In order, a duplicate, a gap, a partial overlap, more batches, a duplicate older than five, a new epoch not at 0, a new epoch, the old one.
    script = [(0,), (2,), (0,), (2,), (6,), (3,), (4,), (6,), (8,), (10,), (0,), (4,), (5, 1), (0, 1), (0, 1), (2, 0), (2, 1, 5), (2, 1, 3)]
    return {f"{index:02}: sequence, epoch, count {step}": send(*step) for index, step in enumerate(script)}


@case("Produce", "sequences wrap, and any first one is taken")
def _(side, version):
    name = side.topic(f"wrap-v{version}")
    producer = side.producer_id()
    results = {}
    for index, sequence in enumerate((2147483646, 0, 2147483646, 1, 2)):
        data = batch.batch(PAIRS[:2], producer_id=producer, producer_epoch=0, base_sequence=sequence)
        results[f"{index}: sequence {sequence}"] = side.ask("Produce", version, produced(name, data)(side, version))
    return results


@case("DescribeProducers", "a producer, an unknown topic, an unknown partition")
def _(side, version):
    name = side.topic("producers")
    producer = side.producer_id()
    side.produce(name, batch.batch(PAIRS, producer_id=producer, producer_epoch=0, base_sequence=0))
    asked = [{"Name": name, "PartitionIndexes": [0, 5]}, {"Name": "nowhere", "PartitionIndexes": [0]}, {"Name": "meta", "PartitionIndexes": [0]}]
    return side.ask("DescribeProducers", version, {"Topics": asked})


# -- Fetch --


def fetch_case(title, first=None, last=None, **how):
    @case("Fetch", title, first, last)
    def _(side, version):
        return side.ask("Fetch", version, fetch_body(side, side.filled("fetch"), **how))


fetch_case("from the start")
fetch_case("from the middle of a batch", offset=5)
fetch_case("at the end", offset=12)
fetch_case("past the end", offset=13)
fetch_case("negative offset", offset=-1)
fetch_case("unknown partition", partition=3)
fetch_case("one byte of a partition", partition_bytes=1)
fetch_case("no byte of a partition", partition_bytes=0)
fetch_case("one byte in all", MaxBytes=1)
fetch_case("no byte in all", MaxBytes=0)
fetch_case("no wait", MaxWaitMs=0)
fetch_case("no minimum", MinBytes=0, offset=12)
fetch_case("read committed", IsolationLevel=1)
fetch_case("read committed at the end", IsolationLevel=1, offset=12)
fetch_case("unknown isolation level", IsolationLevel=9)
fetch_case("current leader epoch", epoch=0, first=9)
fetch_case("newer leader epoch", epoch=7, first=9)
fetch_case("no topics", Topics=[])
fetch_case("two batches fit", partition_bytes=220)


@case("Fetch", "unknown topic")
def _(side, version):
    body = fetch_body(side, "nowhere")
    body["Topics"][0]["TopicId"] = UNKNOWN_ID
    return side.ask("Fetch", version, body)


@case("Fetch", "two topics, one empty, one twice")
def _(side, version):
    names = [side.topic("fetch-empty"), side.filled("fetch"), "nowhere"]
    parts = [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}]
    body = fetch_body(side, "fetch")
    body["Topics"] = [{"Topic": name, "TopicId": side.id(name) if name != "nowhere" else UNKNOWN_ID, "Partitions": parts} for name in names]
    return side.ask("Fetch", version, body)


@case("Fetch", "the start when records were deleted")
def _(side, version):
    name = side.filled("fetch-deleted")
    side.ask("DeleteRecords", 1, {"Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": 6}]}], "TimeoutMs": 5000})
    return [side.ask("Fetch", version, fetch_body(side, name, offset)) for offset in (0, 5, 6)]


@case("Fetch", "compressed as it came")
def _(side, version):
    name = "fetch-zstd"
    if name not in side.ids:
        side.topic(name)
        side.produce(name, batch.batch(PAIRS, codec=batch.ZSTD))
    return side.ask("Fetch", version, fetch_body(side, name))


@case("Fetch", "sessions", first=7)
def _(side, version):
    side.filled("fetch")
    side.topic("fetch-empty")
    results = {}

    def ask(title, session, epoch, names=(), forget=()):
        parts = [{"Partition": 0, "FetchOffset": 0 if name == "fetch-empty" else 12, "PartitionMaxBytes": 1000} for name in names]
        answer = side.ask("Fetch", version, {
            "MaxWaitMs": 10, "MinBytes": 1, "MaxBytes": 10000, "ReplicaId": -1, "SessionId": session, "SessionEpoch": epoch,
            "Topics": [{"Topic": name, "TopicId": side.id(name), "Partitions": [part]} for name, part in zip(names, parts)],
            "ForgottenTopicsData": [{"Topic": name, "TopicId": side.id(name), "Partitions": [0]} for name in forget],
        })
        results[f"{len(results)}: {title}"] = answer
        return answer["SessionId"] if isinstance(answer, dict) else 0

    session = ask("a new one", 0, 0, ["fetch", "fetch-empty"])
    ask("nothing changed", session, 1)
    side.produce("fetch-empty", batch.batch(PAIRS))
    ask("one changed", session, 2)
    ask("again", session, 3)
    ask("forget one", session, 4, forget=["fetch-empty"])
    ask("a wrong epoch", session, 9)
    ask("an unknown session", 123456, 1)
    ask("close it", session, -1)
    ask("closed", session, 5)
    ask("a new one without topics", 0, 0)
    # Leave the topic as the next version expects it.
    side.ask("DeleteTopics", 4, {"TopicNames": ["fetch-empty"], "TimeoutMs": 5000})
    side.topics.pop(side.ids.pop("fetch-empty"))
    while side.ask("Metadata", 4, {"Topics": [{"Name": "fetch-empty"}], "AllowAutoTopicCreation": False})["Topics"][0]["ErrorCode"] == 0:
        time.sleep(0.02)
    return results


@case("Fetch", "a waiting fetch is woken by a produce")
def _(side, version):
    name = side.topic(f"fetch-wait-v{version}")
    started = time.monotonic()
    with side.connect() as connection:
        side.requests += 1
        connection.send("Fetch", version, fetch_body(side, name, MaxWaitMs=8000))
        time.sleep(0.05)
        side.produce(name, batch.batch(PAIRS))
        answer = connection.receive("Fetch", version)
    return {"answer": answer, "woken": time.monotonic() - started < 4}


# -- ListOffsets, OffsetForLeaderEpoch, InitProducerId, DeleteRecords --


def offsets_case(title, name_of, timestamps, first=None, partition=0, epoch=-1, **more):
    @case("ListOffsets", title, first)
    def _(side, version):
        name = name_of(side)
        results = {}
        for timestamp in timestamps:
            one = {"PartitionIndex": partition, "Timestamp": timestamp, "CurrentLeaderEpoch": epoch}
            results[str(timestamp)] = side.ask("ListOffsets", version, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [one]}], **more})
        return results


SPECIAL = [-1, -2, -3, -4, -5, -6, -7, -100]
TIMES = [0, T0 - 1, T0, T0 + 1, T0 + 10, T0 + 15, T0 + 30, T0 + 31, T0 + 1000, T0 + 2030, T0 + 2031, 1 << 62]
offsets_case("special timestamps", lambda side: side.filled("offsets"), SPECIAL)
offsets_case("special timestamps of an empty topic", lambda side: side.topic("offsets-empty"), SPECIAL)
offsets_case("by time", lambda side: side.filled("offsets"), TIMES)
offsets_case("by time in an empty topic", lambda side: side.topic("offsets-empty"), TIMES[:2])
offsets_case("read committed", lambda side: side.filled("offsets"), [-1, -2, T0], first=2, IsolationLevel=1)
offsets_case("unknown topic", lambda side: "nowhere", [-1, -2])
offsets_case("unknown partition", lambda side: side.filled("offsets"), [-1, -2], partition=4)
offsets_case("current epoch", lambda side: side.filled("offsets"), [-1, -2, T0], first=4, epoch=0)
offsets_case("newer epoch", lambda side: side.filled("offsets"), [-1, -2, T0], first=4, epoch=3)


def compressed_offsets(side):
    name = "offsets-compressed"
    if name not in side.ids:
        side.topic(name)
        for index, codec in enumerate(batch.CODECS.values()):
            records = [batch.record(one, b"k", b"v", timestamp_delta=one * 10) for one in range(4)]
            side.produce(name, batch.batch(records, codec=codec, timestamp=T0 + index * 1000, max_timestamp=T0 + index * 1000 + 30))
    return name


offsets_case("inside compressed batches", compressed_offsets, [-3, T0 + 11, T0 + 1011, T0 + 2011, T0 + 3011, T0 + 4011, T0 + 4030, T0 + 4031])


@case("OffsetForLeaderEpoch", "epochs")
def _(side, version):
    name = side.filled("offsets")
    results = {}
    for current, asked, topic, partition in ((-1, 0, name, 0), (0, 0, name, 0), (-1, 5, name, 0), (-1, -1, name, 0), (4, 0, name, 0), (-1, 0, "nowhere", 0), (-1, 0, name, 9)):
        one = {"Partition": partition, "CurrentLeaderEpoch": current, "LeaderEpoch": asked}
        results[f"{current} {asked} {topic} {partition}"] = side.ask("OffsetForLeaderEpoch", version, {"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [one]}]})
    return results


simple("InitProducerId", "idempotent", lambda side, version: {"ready": side.producer_id()} and {"TransactionalId": None, "TransactionTimeoutMs": 60000})
simple("InitProducerId", "empty id", {"TransactionalId": "", "TransactionTimeoutMs": 60000})
simple("InitProducerId", "transactional id", {"TransactionalId": "t", "TransactionTimeoutMs": 60000})
simple("InitProducerId", "negative timeout", {"TransactionalId": None, "TransactionTimeoutMs": -1})
simple("InitProducerId", "with a producer id and epoch", {"TransactionalId": None, "TransactionTimeoutMs": 60000, "ProducerId": 5, "ProducerEpoch": 1}, first=3)
simple("InitProducerId", "with an epoch only", {"TransactionalId": None, "TransactionTimeoutMs": 60000, "ProducerId": -1, "ProducerEpoch": 1}, first=3)


@case("DeleteRecords", "every place")
def _(side, version):
    name = side.filled(f"delete-records-v{version}")
    results = {}
    for offset in (-2, 0, 5, 4, 13, -1, 100):
        asked = {"Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": offset}]}], "TimeoutMs": 5000}
        results[f"{len(results)}: {offset}"] = side.ask("DeleteRecords", version, asked)
    asked = {"Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 7, "Offset": 1}]}, {"Name": "nowhere", "Partitions": [{"PartitionIndex": 0, "Offset": 1}]}], "TimeoutMs": 5000}
    results["unknown"] = side.ask("DeleteRecords", version, asked)
    results["start"] = side.ask("ListOffsets", 5, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -2}]}]})
    compacted = side.topic("delete-records-compacted", cleanup_policy="compact")
    results["compacted"] = side.ask("DeleteRecords", version, {"Topics": [{"Name": compacted, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}], "TimeoutMs": 5000})
    return results
