"""Rounds of load with acks=all, `kill -9` or SIGTERM, restart; after each, everything acknowledged must be there.

Three kinds of load run at once: an idempotent producer that lives through all rounds, plain producers that write one batch
after another and never retry, and commits of a group. What a producer saw acknowledged is checked by reading all partitions.
"""

import argparse
import collections
import hashlib
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from harness import batch, server, wire  # noqa: E402
from harness.report import Report  # noqa: E402

TOPIC = "load"
PARTITIONS = 6
PLAIN_PRODUCERS = 3
GROUP = "crash-group"
MAX_IDEMPOTENT_IN_FLIGHT = 2000


class Acknowledged:
    """What was promised: (partition, offset) -> digest of the value."""

    def __init__(self):
        self.lock = threading.Lock()
        self.records = {}
        self.mistakes = []
        self.topics = {}
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
        self.fatal = []
        self.threads = [threading.Thread(target=self.idempotent, daemon=True), threading.Thread(target=self.commits, daemon=True)]
        self.threads += [threading.Thread(target=self.plain, args=(index,), daemon=True) for index in range(PLAIN_PRODUCERS)]
        for thread in self.threads:
            thread.start()

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
            if waiting["open"] < MAX_IDEMPOTENT_IN_FLIGHT:
                for _ in range(50):
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
                        number += 1
                        partition = chance.randrange(PARTITIONS)
                        values = [b"plain %d %d %d " % (index, number, one) + chance.randbytes(chance.choice((10, 100, 1000, 30000))) for one in range(chance.randint(1, 4))]
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

    def commits(self):
        number = 0
        while not self.stopping.is_set():
            try:
                with wire.Connection("127.0.0.1", self.broker.port, timeout_s=20) as connection:
                    while not self.stopping.is_set():
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
            messages = consumer.consume(10000, 10)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    report = Report()
    chance = random.Random(options.seed)
    report.note(f"seed {options.seed}")
    overrides = {"log.segment.bytes": str(4 << 20)}
    broker = server.Server(options.broker, server.INTEROP / "run" / f"crash-{options.broker}", options.cores, overrides)
    promised = Acknowledged()
    broker.start()
    promised.topics[TOPIC] = create(broker, TOPIC, PARTITIONS)
    time.sleep(0.5)
    load = Load(broker, promised, options.seed)
    try:
        for number in range(1, options.rounds + 1):
            how = "SIGTERM" if number % 3 == 0 else "kill -9"
            name = f"round {number}: {how}"
            time.sleep(chance.uniform(1.0, 3.0))
            before = len(promised.records)
            if not report.check(f"{name}: the broker lived until then", broker.alive(), broker.log_tail):
                break
            promised.topics[f"made-in-round-{number}"] = create(broker, f"made-in-round-{number}", 2)
            if how == "SIGTERM":
                code = broker.stop()
                report.check(f"{name}: exit code", code == (0 if options.broker == "millrace" else 143), f"expected 0, got {code}\n{broker.log_tail()}")
            else:
                broker.kill()
                if number % 4 == 1:
                    # A crash during recovery.
                    broker.start()
                    time.sleep(chance.uniform(0.0, 0.2))
                    broker.kill()
            seconds = broker.start()
            try:
                count, wrong = verify(broker, promised)
            except AssertionError as error:
                count, wrong = len(promised.records), [str(error)]
            report.check(
                f"{name}: all {count} acknowledged records ({count - before} new) are there once, at their offsets; the restart took {seconds:.2f} s",
                not wrong, "\n".join(wrong) + f"\nseed {options.seed}\n{broker.log_tail(10)}",
            )
            if load.fatal:
                break
        load.stop()
        report.check("the producers went on through every round", not load.fatal, "\n".join(load.fatal))
        count, wrong = verify(broker, promised)
        report.check(f"in the end all {count} acknowledged records are there", not wrong and count > 0, "\n".join(wrong))
    except AssertionError as error:
        report.fail("the broker serves", f"{error}\nseed {options.seed}")
    finally:
        load.stopping.set()
        broker.kill()
    report.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
