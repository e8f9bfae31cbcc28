"""Load with acks=all whose every acknowledged record is remembered, and the check that all of it is there: what the suites
that end brokers roughly share. Knows no signal and no disk.

Three kinds of load run at once: an idempotent producer that lives through all rounds, plain producers that write one batch
after another and never retry, and commits of a group. A fourth runs when it is asked for: a producer of batches so large that
each is written straight to its segment. What a producer saw acknowledged is checked by reading all partitions.
"""

import collections
import hashlib
import random
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition

from . import batch, wire

TOPIC = "load"
PARTITIONS = 6
PLAIN_PRODUCERS = 3
GROUP = "crash-group"
MAX_IDEMPOTENT_IN_FLIGHT = 2000
# Of plain producers, in equal parts.
VALUE_BYTES = (10, 10, 100, 100, 500, 1000, 1000, 4000, 4096, 30000, 30000, 30000, 200000)

# Of the producer of large batches: each batch is above the size from which batches go straight to their segments.
LARGE_BATCH_BYTES = (540 << 10, 900 << 10)
LARGE_IN_FLIGHT = 3


class Acknowledged:
    """What was promised: (partition, offset) -> digest of the value."""

    def __init__(self):
        self.lock = threading.Lock()
        self.records = {}
        self.mistakes = []
        self.topics = {}
        self.deleted = set()
        self.commit = None

    def add(self, partition, offset, value, who):
        digest = hashlib.md5(value).digest()
        with self.lock:
            before = self.records.get((partition, offset))
            if before is not None and before != digest:
                self.mistakes.append(f"{who}: offset {offset} of partition {partition} was acknowledged for two records")
            self.records[partition, offset] = digest

    def snapshot(self):
        with self.lock:
            return dict(self.records), list(self.mistakes), dict(self.topics), self.commit


class Load:
    def __init__(self, broker, promised, seed):
        self.broker, self.promised, self.seed = broker, promised, seed
        self.stopping = threading.Event()
        self.running = threading.Event()
        self.running.set()
        # How many bytes of large batches are still to be written.
        self.large_bytes = 0
        self.fatal = []
        self.threads = [threading.Thread(target=self.idempotent, daemon=True), threading.Thread(target=self.commits, daemon=True), threading.Thread(target=self.large, daemon=True)]
        self.threads += [threading.Thread(target=self.plain, args=(index,), daemon=True) for index in range(PLAIN_PRODUCERS)]
        for thread in self.threads:
            thread.start()

    def verified(self):
        """`verify`, while nothing is written: reading it all back takes long enough."""
        self.running.clear()
        try:
            return verify(self.broker, self.promised)
        finally:
            self.running.set()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                self.fatal.append("a producer does not end within 120 s of the last restart")

    def idempotent(self):
        """Every record of it must be there exactly once, whatever happened to the connection."""
        waiting = collections.Counter()

        def fatal(error):
            self.fatal.append(f"the idempotent producer: {error}")

        producer = Producer({
            "bootstrap.servers": self.broker.bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 2, "message.timeout.ms": 300000,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20, "retry.backoff.max.ms": 100, "error_cb": lambda error: error.fatal() and fatal(error), "log_level": 0,
        })

        def delivered(error, message):
            waiting["open"] -= 1
            if error is not None:
                fatal(error)
            else:
                self.promised.add(message.partition(), message.offset(), message.value(), "idempotent producer")

        number = 0
        while not self.stopping.is_set() and not self.fatal:
            if self.running.is_set() and waiting["open"] < MAX_IDEMPOTENT_IN_FLIGHT:
                for _ in range(20):
                    value = b"idempotent %d " % number + b"x" * (number % 700)
                    producer.produce(TOPIC, value, partition=number % PARTITIONS, on_delivery=delivered)
                    number += 1
                    waiting["open"] += 1
            producer.poll(0.005)
            # Enough to keep every core busy, not so much that reading it all back takes over.
            time.sleep(0.015)
        left = producer.flush(90)
        if left:
            fatal(f"{left} records are neither acknowledged nor failed 90 s after the last restart")

    def plain(self, index):
        """One batch at a time over a raw connection; what is not acknowledged is never sent again."""
        chance = random.Random(self.seed * 100 + index)
        number = 0
        while not self.stopping.is_set():
            try:
                with wire.Connection("127.0.0.1", self.broker.port, timeout_s=20, client_id=f"plain-{index}") as connection:
                    while not self.stopping.is_set():
                        self.running.wait()
                        number += 1
                        partition = chance.randrange(PARTITIONS)
                        values = [b"plain %d %d %d " % (index, number, one) + chance.randbytes(chance.choice(VALUE_BYTES)) for one in range(chance.randint(1, 4))]
                        data = batch.batch([(None, value) for value in values], codec=chance.choice((0, 0, 1, 3, 4)), timestamp=int(time.time() * 1000))
                        body = {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": TOPIC, "PartitionData": [{"Index": partition, "Records": data}]}]}
                        answer = connection.request("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
                        if answer["ErrorCode"] == 0:
                            for place, value in enumerate(values):
                                self.promised.add(partition, answer["BaseOffset"] + place, value, f"plain producer {index}")
                        else:
                            time.sleep(0.02)
            except (OSError, wire.Closed, wire.Malformed):
                time.sleep(0.02)

    def large(self):
        """Several large batches under way at once, to one partition for a while; what is not acknowledged is never sent again."""
        chance = random.Random(self.seed * 100 + 99)
        number = 0
        while not self.stopping.is_set():
            if self.large_bytes <= 0:
                time.sleep(0.02)
                continue
            partition = chance.randrange(PARTITIONS)
            try:
                with wire.Connection("127.0.0.1", self.broker.port, timeout_s=20, client_id="large") as connection:
                    waiting = collections.deque()
                    for _ in range(chance.randint(4, 24)):
                        if self.large_bytes <= 0 or not self.running.is_set() or self.stopping.is_set():
                            break
                        number += 1
                        each = chance.randrange(*LARGE_BATCH_BYTES) // 4
                        values = [b"large %d %d " % (number, one) + chance.randbytes(each) for one in range(4)]
                        self.large_bytes -= 4 * each
                        data = batch.batch([(None, value) for value in values], codec=0, timestamp=int(time.time() * 1000))
                        body = {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": TOPIC, "PartitionData": [{"Index": partition, "Records": data}]}]}
                        waiting.append((connection.send("Produce", 9, body), values))
                        if len(waiting) >= LARGE_IN_FLIGHT:
                            self.take_large(connection, waiting, partition)
                    while waiting:
                        self.take_large(connection, waiting, partition)
            except (OSError, wire.Closed, wire.Malformed):
                time.sleep(0.02)

    def take_large(self, connection, waiting, partition):
        asked, values = waiting.popleft()
        correlation_id, answer = wire.decode_response("Produce", 9, connection.receive_payload())
        if correlation_id != asked:
            raise wire.Malformed(f"answer to {correlation_id}, expected {asked}")
        answer = answer["Responses"][0]["PartitionResponses"][0]
        if answer["ErrorCode"] == 0:
            for place, value in enumerate(values):
                self.promised.add(partition, answer["BaseOffset"] + place, value, "producer of large batches")

    def commits(self):
        number = 0
        while not self.stopping.is_set():
            try:
                with wire.Connection("127.0.0.1", self.broker.port, timeout_s=20) as connection:
                    while not self.stopping.is_set():
                        self.running.wait()
                        number += 1
                        one = {"PartitionIndex": 0, "CommittedOffset": number, "CommittedMetadata": ""}
                        answer = connection.request("OffsetCommit", 8, {"GroupId": GROUP, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": [{"Name": TOPIC, "Partitions": [one]}]})
                        if answer["Topics"][0]["Partitions"][0]["ErrorCode"] == 0:
                            self.promised.commit = number
                        time.sleep(0.005)
            except (OSError, wire.Closed, wire.Malformed):
                time.sleep(0.02)


def create(broker, name, partitions):
    with wire.Connection("127.0.0.1", broker.port) as connection:
        answer = connection.request("CreateTopics", 7, {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1}], "TimeoutMs": 20000})
    (one,) = answer["Topics"]
    assert one["ErrorCode"] == 0, f"cannot create {name}: {one}"
    return one["TopicId"]


def configure(broker, name, key, value):
    """Sets one configuration of a topic."""
    one = {"ResourceType": 2, "ResourceName": name, "Configs": [{"Name": key, "ConfigOperation": 0, "Value": str(value)}]}
    with wire.Connection("127.0.0.1", broker.port) as connection:
        answer = connection.request("IncrementalAlterConfigs", 1, {"Resources": [one], "ValidateOnly": False})
    code = answer["Responses"][0]["ErrorCode"]
    assert code == 0, f"cannot set {key} of {name}: error {code}"


def delete(broker, name):
    with wire.Connection("127.0.0.1", broker.port) as connection:
        answer = connection.request("DeleteTopics", 5, {"TopicNames": [name], "TimeoutMs": 20000})
    code = answer["Responses"][0]["ErrorCode"]
    assert code == 0, f"cannot delete {name}: error {code}"


def read_all(broker):
    """Every record up to the ends that are there now: partition -> [(offset, value)]."""
    with wire.Connection("127.0.0.1", broker.port) as connection:
        def ends(timestamp):
            asked = [{"PartitionIndex": index, "Timestamp": timestamp} for index in range(PARTITIONS)]
            deadline = time.monotonic() + 30
            while True:
                answer = connection.request("ListOffsets", 1, {"ReplicaId": -1, "Topics": [{"Name": TOPIC, "Partitions": asked}]})
                parts = answer["Topics"][0]["Partitions"]
                if all(one["ErrorCode"] == 0 for one in parts):
                    return {one["PartitionIndex"]: one["Offset"] for one in parts}
                assert time.monotonic() < deadline, f"the partitions do not serve 30 s after the restart: {parts}"
                time.sleep(0.05)
        starts, ends_now = ends(-2), ends(-1)
    found = {}
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "checker", "enable.auto.commit": False, "check.crcs": True, "fetch.wait.max.ms": 50,
        "auto.offset.reset": "error", "log_level": 0,
    })
    for partition in range(PARTITIONS):
        records = []
        consumer.assign([TopicPartition(TOPIC, partition, starts[partition])])
        while (records[-1][0] + 1 if records else starts[partition]) < ends_now[partition]:
            left = ends_now[partition] - (records[-1][0] + 1 if records else starts[partition])
            messages = consumer.consume(min(10000, left), 10)
            assert messages, f"partition {partition}: offset {records[-1][0] + 1 if records else starts[partition]} of {ends_now[partition]}, then nothing for 10 s"
            for message in messages:
                assert message.error() is None, f"partition {partition}: {message.error()}"
                records.append((message.offset(), message.value()))
        found[partition] = records
    consumer.close()
    return found, starts


def verify(broker, promised):
    """All that is wrong, in words."""
    records, wrong, topics, commit = promised.snapshot()
    found, starts = read_all(broker)
    once = collections.Counter()
    there = {}
    for partition, content in found.items():
        for expected, (offset, value) in enumerate(content, start=starts[partition]):
            if offset != expected:
                wrong.append(f"partition {partition}: a gap: after offset {expected - 1} comes {offset}")
                break
        for offset, value in content:
            once[value] += 1
            there[partition, offset] = value
        if starts[partition] != 0:
            wrong.append(f"partition {partition} starts at {starts[partition]}, expected 0")
    missing = [place for place in records if place not in there]
    other = [place for place, digest in records.items() if place in there and hashlib.md5(there[place]).digest() != digest]
    twice = [value[:40] for value, count in once.items() if count > 1]
    if missing:
        wrong.append(f"{len(missing)} of {len(records)} acknowledged records are missing; the first: partition, offset {sorted(missing)[:5]}")
    if other:
        wrong.append(f"{len(other)} acknowledged records have another content; the first: {[(place, there[place][:40]) for place in sorted(other)[:3]]}")
    if twice:
        wrong.append(f"{len(twice)} records are there twice; the first: {twice[:3]}")
    with wire.Connection("127.0.0.1", broker.port) as connection:
        answer = connection.request("Metadata", 12, {"Topics": None})
        ids = {one["Name"]: one["TopicId"] for one in answer["Topics"]}
        for name, topic_id in topics.items():
            if ids.get(name) != topic_id:
                wrong.append(f"topic {name} was created with id {topic_id}; now it has {ids.get(name)}")
        for name in promised.deleted & ids.keys():
            wrong.append(f"topic {name} was deleted; now it is there again")
        if commit is not None:
            deadline = time.monotonic() + 20
            while True:
                fetched = connection.request("OffsetFetch", 7, {"GroupId": GROUP, "Topics": [{"Name": TOPIC, "PartitionIndexes": [0]}]})
                if fetched["ErrorCode"] not in (14, 15, 16) or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            now = fetched["Topics"][0]["Partitions"][0]["CommittedOffset"] if fetched["Topics"] else -1
            if fetched["ErrorCode"] or now < commit:
                wrong.append(f"offset {commit} was committed; now the answer is error {fetched['ErrorCode']}, offset {now}")
    return len(records), wrong
