"""Many at once: connections, partitions, members that come and go, large records, small segments under load with restarts.
Counts what is right; measures nothing but the start of a broker, which is printed.
"""

import argparse
import asyncio
import collections
import hashlib
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from harness import server, wire  # noqa: E402
from harness.report import Report  # noqa: E402

MIB = 1 << 20
SIZES = {
    # connections: idle and busy clients, slow readers, seconds; partitions: topics of 100;
    # large: sizes in MiB; groups: rounds of restarts; rebalancing: members; load: seconds, topics of ten partitions
    "small": {"idle": 300, "busy": 10, "slow": 5, "busy_s": 3, "topics": 10, "large": (1, 20), "group_rounds": 2, "members": 3, "load_s": 12, "load_topics": 5},
    "full": {"idle": 1000, "busy": 50, "slow": 40, "busy_s": 15, "topics": 100, "large": (1, 5, 25, 60, 95), "group_rounds": 8, "members": 7, "load_s": 120, "load_topics": 20},
}


def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})


def create(broker, *topics):
    client = admin(broker)
    for future in client.create_topics(list(topics), request_timeout=60, operation_timeout=60).values():
        future.result()


def connections(broker, size):
    """Idle and busy clients, readers that do not read, and garbage, on one core."""
    create(broker, NewTopic("busy", 20, 1))
    hello = wire.request_frame("ApiVersions", 0, {}, 7)

    def answered(connection):
        (length,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        return len(connection.recv(length, socket.MSG_WAITALL)) == length

    idle = [socket.create_connection(("127.0.0.1", broker.port), 30) for _ in range(size["idle"])]
    for connection in idle:
        connection.sendall(hello)
    assert all(answered(connection) for connection in idle)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20})
    for number in range(size["slow"] * 1000):
        producer.produce("busy", os.urandom(1000), partition=number % 20)
        producer.poll(0)
    assert producer.flush(60) == 0
    parts = [{"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": 50 * MIB} for index in range(20)]
    fetch = {"MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 50 * MIB, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": "busy", "Partitions": parts}]}
    slow = []
    for _ in range(size["slow"]):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", broker.port))
        connection.settimeout(60)
        for number in range(5):
            connection.sendall(wire.request_frame("Fetch", 11, fetch, number))
        slow.append(connection)
    stop, errors, done = threading.Event(), [], collections.Counter()

    def busy(index):
        client = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 0})
        while not stop.is_set():
            outcome = []
            client.produce("busy", b"x" * 100, partition=index % 20, on_delivery=lambda error, _: outcome.append(error))
            client.flush(30)
            if outcome != [None]:
                errors.append(f"busy client {index}: {outcome}")
            done[index] += 1
            time.sleep(0.005)

    threads = [threading.Thread(target=busy, args=(index,), daemon=True) for index in range(size["busy"])]
    for thread in threads:
        thread.start()
    chance = random.Random(5)
    end = time.monotonic() + size["busy_s"]
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", broker.port), 30) as connection:
            body = chance.randbytes(chance.randrange(1, 3000))
            connection.sendall(struct.pack(">i", chance.choice((len(body), -1, 0, 5, (1 << 31) - 1))) + body)
            connection.settimeout(0.02)
            try:
                connection.recv(1000)
            except OSError:
                pass
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not errors, "\n".join(errors[:5])
    assert len(done) == size["busy"], f"{size['busy'] - len(done)} busy clients did nothing"
    # One that reads late gets whole answers, or is closed because all of them together hold too much.
    whole = 0
    for connection in slow:
        try:
            for _ in range(5):
                (length,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
                while length:
                    piece = connection.recv(min(MIB, length))
                    if not piece:
                        raise ConnectionError
                    length -= len(piece)
            whole += 1
        except (OSError, struct.error):
            pass
        connection.close()
    assert whole, "no slow reader got its answers"
    for connection in idle:
        connection.sendall(hello)
    assert all(answered(connection) for connection in idle), "an idle connection is not answered any more"
    for connection in idle:
        connection.close()


def half_closed(broker, _size):
    """A client that says all it wants to say, and then listens."""
    create(broker, NewTopic("half", 1, 1))
    connection = socket.create_connection(("127.0.0.1", broker.port), 30)
    fetch = {"MaxWaitMs": 600_000, "MinBytes": 1, "MaxBytes": MIB, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": "half", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": MIB}]}]}
    frames = wire.request_frame("Metadata", 1, {"Topics": None}, 1) + wire.request_frame("ApiVersions", 0, {}, 2) + wire.request_frame("Fetch", 11, fetch, 3)
    connection.sendall(frames)
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(30)
    answers = b""
    while piece := connection.recv(65536):
        answers += piece
    found = []
    while answers:
        length, correlation = struct.unpack_from(">ii", answers)
        found.append(correlation)
        answers = answers[4 + length :]
    assert found == [1, 2, 3], f"expected the answers 1, 2 and 3 before the end, got {found}"


def limits(broker_of, _size):
    """max.connections, max.connections.per.ip and max.connection.creation.rate."""
    broker = broker_of({"max.connections.per.ip": "5", "max.connections.per.ip.overrides": "127.0.0.2:2"})

    def open_from(address, count):
        sockets = []
        for _ in range(count):
            connection = socket.socket()
            connection.bind((address, 0))
            connection.settimeout(30)
            connection.connect(("127.0.0.1", broker.port))
            sockets.append(connection)
        return sockets

    def served(connection, timeout_s=30):
        connection.settimeout(timeout_s)
        try:
            connection.sendall(wire.request_frame("ApiVersions", 0, {}, 1))
            return len(connection.recv(4, socket.MSG_WAITALL)) == 4
        except OSError:
            return False

    for address, most in (("127.0.0.1", 5), ("127.0.0.2", 2), ("127.0.0.3", 5)):
        deadline = time.monotonic() + 30
        # The end of a connection before these may not be seen yet.
        while True:
            sockets = open_from(address, most)
            if all([served(one) for one in sockets]):
                break
            assert time.monotonic() < deadline, f"{most} connections from {address} are allowed"
            for one in sockets:
                one.close()
        (more,) = open_from(address, 1)
        assert not served(more), f"{most + 1} connections from {address} are served"
        sockets[0].close()
        deadline = time.monotonic() + 30
        while not served(again := open_from(address, 1)[0]):
            assert time.monotonic() < deadline, f"no new connection from {address} after one was closed"
            again.close()
        for one in (*sockets, more, again):
            one.close()
    broker.kill()
    broker = broker_of({"max.connections": "3"})
    sockets = open_from("127.0.0.1", 3)
    assert all([served(one) for one in sockets]), "three connections are allowed"
    (fourth,) = open_from("127.0.0.2", 1)
    assert not served(fourth, 0.5), "a fourth connection is served"
    sockets[0].close()
    fourth.settimeout(30)
    assert len(fourth.recv(4, socket.MSG_WAITALL)) == 4, "the fourth is served when another ends"
    for one in (*sockets, fourth):
        one.close()
    broker.kill()
    broker = broker_of({"max.connection.creation.rate": "10"})
    began = time.monotonic()
    sockets = open_from("127.0.0.1", 150)
    for one in sockets:
        one.sendall(wire.request_frame("ApiVersions", 0, {}, 1))
    assert all(len(one.recv(4, socket.MSG_WAITALL)) == 4 for one in sockets), "connections that come too fast are delayed, not refused"
    took_s = time.monotonic() - began
    # The rate counts over ten seconds: a hundred come in at once.
    assert took_s > 2.5, f"150 connections at 10 a second are served in {took_s:.1f} s"
    with wire.Connection("127.0.0.1", broker.port, timeout_s=30) as connection:
        change = {"Name": "max.connection.creation.rate", "ConfigOperation": 0, "Value": "100000"}
        resource = {"ResourceType": 4, "ResourceName": "", "Configs": [change]}
        answer = connection.request("IncrementalAlterConfigs", 1, {"Resources": [resource]})
        assert answer["Responses"][0]["ErrorCode"] == 0, answer
    # At the old rate they would take six seconds.
    more = open_from("127.0.0.1", 60)
    began = time.monotonic()
    assert all([served(one) for one in more]) and time.monotonic() - began < 4, f"the rate of before holds: {time.monotonic() - began:.1f} s"
    for one in (*sockets, *more):
        one.close()


def partitions(broker, size):
    """Very many partitions, found again after kill -9 and after a clean stop."""
    topics = size["topics"]
    for first in range(0, topics, 10):
        create(broker, *(NewTopic(f"many-{index}", 100, 1) for index in range(first, min(first + 10, topics))))
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0, "linger.ms": 50})
    bad = []

    def value(topic, partition, number):
        return b"%d-%d-%d " % (topic, partition, number) * 10

    def write(number):
        for topic in range(topics):
            for partition in range(100):
                while True:
                    try:
                        producer.produce(f"many-{topic}", value(topic, partition, number), partition=partition, on_delivery=lambda error, _: error and bad.append(str(error)))
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(120) == 0 and not bad, f"not all is acknowledged: {bad[:3]}"

    def check(count):
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "many", "auto.offset.reset": "error", "log_level": 0, "enable.auto.commit": False})
        consumer.assign([TopicPartition(f"many-{topic}", partition, 0) for topic in range(topics) for partition in range(100)])
        seen, wrong = set(), []
        while len(seen) < topics * 100 * count:
            messages = consumer.consume(5000, 5)
            assert messages, f"{len(seen)} of {topics * 100 * count} records, then nothing"
            for message in messages:
                assert message.error() is None, str(message.error())
                topic = int(message.topic().split("-")[1])
                if message.value() != value(topic, message.partition(), message.offset()):
                    wrong.append((message.topic(), message.partition(), message.offset()))
                seen.add((topic, message.partition(), message.offset()))
        consumer.close()
        assert not wrong, f"wrong records at {wrong[:5]}"

    write(0)
    write(1)
    broker.kill()
    after_kill = broker.start()
    check(2)
    write(2)
    stopping = time.monotonic()
    code = broker.stop(120)
    stopping = time.monotonic() - stopping
    assert code == 0, f"SIGTERM: exit code {code}\n{broker.log_tail()}"
    after_stop = broker.start()
    check(3)
    print(f"NOTE  {topics * 100} partitions: start after kill -9 {after_kill:.2f} s; a clean stop {stopping:.1f} s, the start after it {after_stop:.2f} s")
    replays = broker.log_path.read_text().count("its journal is replayed")
    assert replays == 1, f"expected a replay after kill -9 and none after the stop, got {replays}"


def large(broker, size):
    """Records up to the largest request."""
    create(broker, NewTopic("large", 2, 1, config={"max.message.bytes": str(100 * MIB)}))
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 100 * MIB, "log_level": 0, "socket.timeout.ms": 60000, "message.timeout.ms": 120000})
    digests, errors = {}, []
    for mib in size["large"]:
        for partition in (0, 1):
            content = os.urandom(mib * MIB)
            digests[partition, len(content)] = hashlib.md5(content).digest()
            producer.produce("large", content, partition=partition, on_delivery=lambda error, _: error and errors.append(str(error)))
            assert producer.flush(120) == 0 and not errors, f"{mib} MiB to partition {partition}: {errors}"
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "large", "fetch.max.bytes": 100 * MIB, "message.max.bytes": 100 * MIB, "receive.message.max.bytes": 210 * MIB,
        "max.partition.fetch.bytes": 100 * MIB, "log_level": 0, "enable.auto.commit": False, "check.crcs": True,
    })
    consumer.assign([TopicPartition("large", 0, 0), TopicPartition("large", 1, 0)])
    while digests:
        message = consumer.poll(60)
        assert message is not None and message.error() is None, f"{len(digests)} records missing: {message and message.error()}"
        assert digests.pop((message.partition(), len(message.value()))) == hashlib.md5(message.value()).digest(), f"{len(message.value())} bytes differ"
    consumer.close()


def groups(broker, size):
    """Static and dynamic members while the broker is killed and stopped: all is consumed, commits never go back."""
    create(broker, NewTopic("grouped", 12, 1))
    produced, consumed, errors = set(), collections.Counter(), []
    stop, stop_members = threading.Event(), threading.Event()
    chance = random.Random(1)

    def produce():
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0, "linger.ms": 5, "message.timeout.ms": 120000, "reconnect.backoff.max.ms": 200})
        number = 0
        while not stop.is_set():
            value = b"%d" % number
            producer.produce("grouped", value, on_delivery=lambda error, _, value=value: errors.append(str(error)) if error else produced.add(value))
            number += 1
            producer.poll(0.001)
            time.sleep(0.002)
        if producer.flush(90):
            errors.append("records are not acknowledged 90 s after the last restart")

    def member(config):
        consumer = Consumer({
            "bootstrap.servers": broker.bootstrap, "group.id": "grouped", "auto.offset.reset": "earliest", "log_level": 0, "session.timeout.ms": 10000, "heartbeat.interval.ms": 1000,
            "auto.commit.interval.ms": 300, "reconnect.backoff.max.ms": 200, "partition.assignment.strategy": "cooperative-sticky", **config,
        })
        consumer.subscribe(["grouped"])
        while not stop_members.is_set():
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                consumed[message.value()] += 1
        consumer.close()

    producer = threading.Thread(target=produce, daemon=True)
    members = [threading.Thread(target=member, args=(config,), daemon=True) for config in ({"group.instance.id": "s0"}, {"group.instance.id": "s1"}, {})]
    for thread in (producer, *members):
        thread.start()
    last = {}
    for number in range(size["group_rounds"]):
        time.sleep(chance.uniform(3, 5))
        client = admin(broker)
        answer = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions("grouped")], request_timeout=30)["grouped"].result()
        for part in answer.topic_partitions:
            if part.offset < last.get(part.partition, -1):
                errors.append(f"the commit of partition {part.partition} went back from {last[part.partition]} to {part.offset}")
            last[part.partition] = part.offset
        if number % 2:
            code = broker.stop()
            assert code == 0, f"SIGTERM: exit code {code}"
        else:
            broker.kill()
        broker.start()
    stop.set()
    producer.join(120)
    deadline = time.monotonic() + 60
    while not produced <= consumed.keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    stop_members.set()
    for thread in members:
        thread.join(60)
    assert not errors, "\n".join(errors[:5])
    assert produced and produced <= consumed.keys(), f"{len(produced - consumed.keys())} of {len(produced)} records were consumed by nobody"


def rebalancing(broker, size):
    """aiokafka members that come and go under load."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    create(broker, NewTopic("rebalanced", 8, 1))

    async def run():
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, compression_type="lz4", enable_idempotence=True)
        await producer.start()
        seen, stop, sent = set(), asyncio.Event(), 0

        async def produce():
            nonlocal sent
            while not stop.is_set():
                await asyncio.gather(*[producer.send("rebalanced", b"%d" % (sent + index)) for index in range(20)])
                sent += 20
                await asyncio.sleep(0.02)

        async def member(until):
            consumer = AIOKafkaConsumer("rebalanced", bootstrap_servers=broker.bootstrap, group_id="rebalanced", auto_offset_reset="earliest", heartbeat_interval_ms=300, session_timeout_ms=6000, auto_commit_interval_ms=200)
            await consumer.start()
            while not until():
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    seen.update(message.value for message in messages)
            await consumer.stop()

        producing = asyncio.create_task(produce())

        def everything():
            return stop.is_set() and producing.done() and len(seen) >= sent or time.monotonic() > deadline

        deadline = time.monotonic() + 120
        members = [asyncio.create_task(member(everything))]
        chance = random.Random(3)
        for _ in range(size["members"] - 1):
            await asyncio.sleep(1)
            end = time.monotonic() + chance.uniform(2, 6)
            members.append(asyncio.create_task(member(lambda end=end: time.monotonic() > end)))
        await asyncio.sleep(3)
        stop.set()
        await producing
        await producer.flush()
        await asyncio.gather(*members)
        await producer.stop()
        assert len(seen) == sent, f"{sent - len(seen)} of {sent} records were consumed by nobody"

    asyncio.run(run())


def load(broker, size):
    """Small segments, retention, compaction, readers that lag, all codecs, kill -9 and SIGTERM."""
    chance = random.Random(9)
    plain = [f"load-{index}" for index in range(size["load_topics"])]
    count = {"retained": 4, "compacted": 4, "big": 2, **{topic: 10 for topic in plain}}
    small = {"segment.bytes": str(MIB)}
    configs = {
        "retained": {**small, "retention.bytes": str(4 * MIB)}, "compacted": {**small, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "5000"},
        "big": {"max.message.bytes": str(20 * MIB), "segment.bytes": str(4 * MIB)},
    }
    create(broker, *(NewTopic(topic, parts, 1, config=configs.get(topic, small)) for topic, parts in count.items()))
    acknowledged, keys, lock, errors, stop = collections.defaultdict(dict), collections.defaultdict(dict), threading.Lock(), [], threading.Event()

    def digest(value, key):
        return hashlib.md5((b"null" if value is None else value) + (key or b"")).digest()

    def produce(index):
        chance = random.Random(index)
        producer = Producer({
            "bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 5, "compression.type": ("none", "lz4", "zstd", "gzip", "snappy")[index % 5], "message.timeout.ms": 300000,
            "message.max.bytes": 21 * MIB, "log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200,
        })
        waiting = 0

        def delivered(error, message, wanted, key):
            nonlocal waiting
            waiting -= 1
            if error:
                errors.append(f"{message.topic()}-{message.partition()}: {error}")
                return
            with lock:
                part = acknowledged[message.topic(), message.partition()]
                if part.setdefault(message.offset(), wanted) != wanted:
                    errors.append(f"{message.topic()}-{message.partition()}: offset {message.offset()} was acknowledged twice")
                if message.topic() == "compacted":
                    keys[message.partition()][message.offset()] = key

        number = 0
        while not stop.is_set():
            kind = chance.random()
            if kind < 0.25:
                topic, key, value = "compacted", b"k%d" % chance.randrange(200), None if chance.random() < 0.1 else chance.randbytes(chance.randrange(2000))
            elif kind < 0.5:
                topic, key, value = "retained", None, chance.randbytes(chance.randrange(20000))
            elif kind < 0.502:
                topic, key, value = "big", None, chance.randbytes(chance.randrange(MIB, 12 * MIB))
            else:
                topic, key, value = chance.choice(plain), b"%d" % number, chance.randbytes(chance.randrange(3000))
            while waiting > 800 and not stop.is_set():
                producer.poll(0.05)
            wanted = digest(value, key)
            try:
                producer.produce(topic, value, key, partition=chance.randrange(count[topic]), on_delivery=lambda error, message, wanted=wanted, key=key: delivered(error, message, wanted, key), headers=[("a", b"1"), ("a", None)])
                waiting += 1
            except BufferError:
                producer.poll(0.1)
            producer.poll(0)
            number += 1
        if producer.flush(120):
            errors.append("records are not acknowledged 120 s after the last restart")

    def lag(index):
        chance = random.Random(100 + index)
        while not stop.is_set():
            consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": f"lag{index}", "enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 0, "check.crcs": True,
                                 "message.max.bytes": 21 * MIB, "fetch.max.bytes": 50 * MIB, "receive.message.max.bytes": 100 * MIB, "max.partition.fetch.bytes": chance.choice((1000, 50000, MIB))})
            topics = chance.sample(plain, min(3, len(plain))) + ["retained", "compacted", "big"]
            consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for topic in topics for part in range(count[topic])])
            end, position = time.monotonic() + chance.uniform(3, 10), {}
            while time.monotonic() < end and not stop.is_set():
                for message in consumer.consume(200, 0.2):
                    place = (message.topic(), message.partition())
                    if message.error():
                        errors.append(f"reading {place}: {message.error()}")
                        continue
                    expected, offset = position.get(place, message.offset()), message.offset()
                    if offset < expected or offset > expected and place[0] not in ("compacted", "retained"):
                        errors.append(f"reading {place}: after {expected - 1} comes {offset}")
                    position[place] = offset + 1
                    known = acknowledged[place].get(offset)
                    if known is not None and known != digest(message.value(), message.key()):
                        errors.append(f"reading {place}: offset {offset} has another content")
            consumer.close()

    threads = [threading.Thread(target=produce, args=(index,), daemon=True) for index in range(3)] + [threading.Thread(target=lag, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + size["load_s"]
    while time.monotonic() < end:
        time.sleep(chance.uniform(3, 7))
        if chance.random() < 0.5:
            broker.kill()
        else:
            code = broker.stop()
            assert code == 0, f"SIGTERM: exit code {code}\n{broker.log_tail()}"
        broker.start()
    stop.set()
    for thread in threads:
        thread.join(200)
    assert not errors, "\n".join(errors[:10])
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "check", "enable.auto.commit": False, "auto.offset.reset": "error", "log_level": 0, "check.crcs": True,
                         "fetch.max.bytes": 50 * MIB, "receive.message.max.bytes": 100 * MIB, "message.max.bytes": 21 * MIB, "enable.partition.eof": True})
    places = sorted(acknowledged)

    def bounds_of(place):
        return consumer.get_watermark_offsets(TopicPartition(*place), timeout=30)

    bounds = {place: bounds_of(place) for place in places}
    consumer.assign([TopicPartition(*place, bounds[place][0]) for place in places])
    found, ended = collections.defaultdict(dict), set()
    while len(ended) < len(places):
        messages = consumer.consume(1000, 20)
        assert messages, f"reading stops; not at their end: {[place for place in places if place not in ended][:5]}"
        for message in messages:
            place = (message.topic(), message.partition())
            if message.error() and message.error().name() == "_AUTO_OFFSET_RESET" and place[0] == "retained":
                # Retention passed between the question for the bounds and the reading. What was refused must be below the log now.
                refused, now = message.offset(), bounds_of(place)
                assert refused < now[0], f"{place}: {refused} is refused, and the log starts at {now[0]}: {message.error()}"
                if refused < bounds[place][0]:
                    continue  # An answer to the reading before this one.
                bounds.update((place, bounds_of(place)) for place in places if place[0] == "retained")
                found, ended = collections.defaultdict(dict), set()
                consumer.assign([TopicPartition(*place, bounds[place][0]) for place in places])
                break
            if message.error():
                assert message.error().name() == "_PARTITION_EOF", f"{place}: {message.error()}"
                ended.add(place)
                continue
            found[place][message.offset()] = digest(message.value(), message.key())
    consumer.close()
    wrong = []
    for place in places:
        start, _ = bounds[place]
        offsets = sorted(found[place])
        if place[0] != "compacted" and offsets and (offsets[0] != start or offsets[-1] - offsets[0] + 1 != len(offsets)):
            wrong.append(f"{place}: gaps between {offsets[0]} and {offsets[-1]}: {len(offsets)} records")
        if start and place[0] != "retained":
            wrong.append(f"{place} starts at {start}")
        for offset, wanted in acknowledged[place].items():
            got = found[place].get(offset)
            if got is None and offset >= start and place[0] != "compacted":
                wrong.append(f"{place}: offset {offset} is lost")
            elif got is not None and got != wanted:
                wrong.append(f"{place}: offset {offset} has another content")
        if place[0] == "compacted":
            newest = {key: offset for offset, key in sorted(keys[place[1]].items())}
            wrong += [f"{place}: compaction lost the newest record of {key!r}, at {offset}" for key, offset in newest.items() if offset not in found[place]]
    assert not wrong, f"{len(wrong)} mistakes:\n" + "\n".join(wrong[:10])


def early_stop(broker, _size):
    """SIGTERM at any moment of a start ends it with exit code 0."""
    broker.stop()
    for after_ms in (30, 60, 100, 150, 200, 300, 400):
        process = subprocess.Popen(broker._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=server.die_with_parent)
        # Its handlers are its first act; only what is not yet a broker at all may die of the signal.
        deadline = time.monotonic() + 30
        while not has_handler(process.pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(after_ms / 1000)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        assert code == 0, f"SIGTERM {after_ms} ms after the start: exit code {code}"
    broker.start()


def has_handler(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace"], default="millrace")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--filter")
    options = parser.parse_args()
    report = Report(options.filter)
    size = SIZES[options.size]
    overrides = {"log.retention.check.interval.ms": "2000", "log.cleaner.backoff.ms": "500"}
    for name, cores, work in (
        ("half-closed connections get their answers", 1, half_closed), ("SIGTERM during the start", 2, early_stop), ("limits of connections", 2, limits),
        (f"{size['idle']} idle and {size['busy']} busy connections, slow readers and garbage on one core", 1, connections),
        (f"{size['topics'] * 100} partitions", 2, partitions), ("large records", 2, large), ("groups through restarts", 2, groups),
        ("members that come and go", 1, rebalancing), ("load with small segments, retention, compaction and restarts", 2, load),
    ):
        if not report.wants(name):
            continue
        directory = server.INTEROP / "run" / f"scale-{work.__name__}"
        brokers = []

        def broker_of(more):
            brokers.append(server.Server("millrace", directory, cores, {**overrides, **more}))
            brokers[-1].start()
            return brokers[-1]

        def run():
            if work is limits:
                limits(broker_of, size)
                return
            broker = broker_of({})
            try:
                work(broker, size)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{broker.log_tail(8)}") from None
            assert broker.alive(), f"the broker died:\n{broker.log_tail()}"

        report.case(name, run)
        for broker in brokers:
            broker.kill()
        shutil.rmtree(directory / "data", ignore_errors=True)
    report.finish()


if __name__ == "__main__":
    main()
