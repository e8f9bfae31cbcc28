"""Hostile frames from many connections, while a good client works and must not notice; memory stays bounded.

The good client is a process of its own, so that the attack does not slow it down from inside.
"""

import argparse
import gzip
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import batch, server, wire  # noqa: E402
from harness.report import Report  # noqa: E402
from native import client as native  # noqa: E402

TARGET = "hostile-target"
ATTACKERS = 4
ATTACKERS_NATIVE = 2
MEMORY = "256MiB"
# The budget, and what a process needs beside it: code, stacks, the control thread, the allocator's slack.
RESIDENT_BYTES_MAX = (256 + 160) << 20
STALLED_CONNECTIONS = 12
# Requests that would take the target itself away.
NEVER = {"DeleteTopics", "DeleteRecords", "AlterConfigs", "IncrementalAlterConfigs", "CreateTopics", "CreatePartitions", "DeleteGroups", "OffsetDelete"}


def sample(message, version, chance, depth=0):
    """A valid body of any message, with odd values."""
    return {field.name: _value(field, version, chance, depth) for field in message.fields if wire._within(field.versions, version)}


def _value(field, version, chance, depth):
    if wire._within(field.nullable, version) and chance.random() < 0.2:
        return None
    if field.element is not None:
        count = chance.choice((0, 1, 1, 2)) if depth < 3 else 0
        return [_one(field, field.element, version, chance, depth) for _ in range(count)]
    return _one(field, field.type, version, chance, depth)


def _one(field, kind, version, chance, depth):
    if field.fields is not None:
        return {one.name: _value(one, version, chance, depth + 1) for one in field.fields if wire._within(one.versions, version)}
    bits = {"int8": 7, "int16": 15, "uint16": 15, "int32": 31, "uint32": 31, "int64": 63}.get(kind)
    if bits:
        return chance.choice((0, 1, 1, (1 << bits) - 1, chance.getrandbits(bits)) + (() if kind.startswith("u") else (-1, -(1 << bits))))
    if kind == "bool":
        return chance.random() < 0.5
    if kind == "float64":
        return chance.uniform(-1e300, 1e300)
    if kind == "uuid":
        return wire.uuid.UUID(int=chance.getrandbits(128))
    if kind == "string":
        return chance.choice((TARGET, "", "a", "\u0000", "é" * 200, "../x", "nobody"))
    return chance.randbytes(chance.choice((0, 5, 300)))


def bomb(chance):
    """A small compressed batch that claims, and gives, very much."""
    return chance.choice(list(BOMBS.values()))


def make_bombs():
    plain = b"\0" * (80 << 20)
    bombs = {codec: batch.batch([], attributes=codec, count=1000000, last_offset_delta=999999, body=batch.compress(codec, plain)) for codec in (batch.ZSTD, batch.LZ4)}
    # Snappy shrinks less; more would be refused for its size alone.
    bombs[batch.SNAPPY] = batch.batch([], attributes=batch.SNAPPY, count=1, last_offset_delta=0, body=batch.compress(batch.SNAPPY, plain[: 18 << 20]))
    bombs[batch.GZIP] = batch.batch([], attributes=batch.GZIP, count=1, last_offset_delta=0, body=gzip.compress(plain, 1))
    assert all(len(data) < 1_048_000 for data in bombs.values()), {codec: len(data) for codec, data in bombs.items()}
    return bombs


BOMBS = {}


class Attacker(threading.Thread):
    def __init__(self, port, frames, seed):
        super().__init__(daemon=True)
        self.port, self.frames, self.chance = port, frames, random.Random(seed)
        self.sent = 0
        self.refused = 0
        self.apis = [(name, message) for name, message in wire.schemas().requests.items() if name not in NEVER and message.api_key is not None]
        self.kinds = [self.noise, self.truncated, self.lying_size, self.flipped, self.flipped, self.absurd_counts, self.odd_values, self.bad_produce, self.bad_produce]

    # -- frames --

    def valid(self):
        name, message = self.chance.choice(self.apis)
        version = self.chance.randint(*message.valid)
        return bytearray(wire.request_frame(name, version, sample(message, version, self.chance), self.chance.getrandbits(31)))

    def noise(self):
        body = self.chance.randbytes(self.chance.choice((1, 8, 60, 1000)))
        return struct.pack(">i", len(body)) + body

    def truncated(self):
        frame = self.valid()
        body = frame[4 : self.chance.randint(5, len(frame))]
        return struct.pack(">i", len(body)) + body

    def lying_size(self):
        return struct.pack(">i", self.chance.choice((-1, 0, 1, 3, -(1 << 31), (1 << 31) - 1, 104857601, 104857600, 5000))) + self.valid()[4:]

    def flipped(self):
        frame = self.valid()
        for _ in range(self.chance.choice((1, 2, 8))):
            frame[self.chance.randrange(4, len(frame))] ^= 1 << self.chance.randrange(8)
        return frame

    def absurd_counts(self):
        frame = self.valid()
        place = self.chance.randrange(4, len(frame))
        frame[place : place + 4] = self.chance.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xfe", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80"))
        return struct.pack(">i", len(frame) - 4) + frame[4:]

    def odd_values(self):
        return self.valid()

    def bad_produce(self):
        pairs = [(b"k", self.chance.randbytes(self.chance.choice((1, 100, 5000)))) for _ in range(self.chance.randint(1, 4))]
        how = self.chance.randrange(9)
        codec = self.chance.choice((0, 1, 2, 3, 4))
        if how == 0:
            data = batch.batch(pairs, crc=self.chance.getrandbits(32))
        elif how == 1:
            data = bytearray(batch.batch(pairs, codec=codec))
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        elif how == 2:
            data = bomb(self.chance)
        elif how == 3:
            data = batch.batch(pairs, count=self.chance.choice((0, -1, 1 << 30, (1 << 31) - 1)), last_offset_delta=self.chance.choice((-1, 0, 1 << 30)))
        elif how == 4:
            data = batch.batch(pairs, length=self.chance.choice((0, -1, 10, 48, (1 << 31) - 1)))
        elif how == 5:
            data = batch.batch(pairs, attributes=self.chance.randrange(1, 8), body=self.chance.randbytes(200))
        elif how == 6:
            data = batch.batch(pairs)[: self.chance.randrange(80)]
        elif how == 7:
            # A good one, so that there is something between the bad ones to be read back.
            data = batch.batch(pairs, codec=codec)
        else:
            data = batch.batch([b"\xff\xff\xff\xff\x0f" + bytes(20)] * 2, codec=codec)
        body = {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"Name": TARGET, "PartitionData": [{"Index": 0, "Records": bytes(data)}]}]}
        return wire.request_frame("Produce", self.chance.randint(3, 12), body)

    # -- sending --

    def connect(self):
        connection = socket.socket()
        connection.settimeout(10)
        # Many source addresses and no lingering: the attack must not run out of ports.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.bind((f"127.0.0.{self.chance.randint(2, 250)}", 0))
        connection.connect(("127.0.0.1", self.port))
        connection.settimeout(self.chance.choice((0.001, 0.001, 0.02)))
        return connection

    def run(self):
        connection = None
        for _ in range(self.frames):
            if connection is None:
                try:
                    connection = self.connect()
                except OSError:
                    self.refused += 1
                    time.sleep(0.05)
                    continue
            closed = False
            try:
                connection.sendall(self.chance.choice(self.kinds)())
                self.sent += 1
                closed = not connection.recv(65536)
            except socket.timeout:
                closed = self.chance.random() < 0.05
            except OSError:
                closed = True
            if closed:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


class NativeAttacker(Attacker):
    """The same against the native listener."""

    def __init__(self, port, frames, seed, topic_id):
        super().__init__(port, frames, seed)
        self.topic_id = topic_id
        self.kinds = [self.noise, self.truncated, self.lying_lengths, self.flipped, self.flipped, self.mended, self.mended, self.wrong_version, self.odd_values, self.bad_produce]

    def connect(self):
        connection = super().connect()
        if self.chance.random() < 0.9:
            hello = {"software": b"hostile", "version_min": 1, "version_max": 1}
            connection.sendall(native.frame(native.HELLO, native.encode_body("Hello", hello), 0, version=0))
        return connection

    def row(self, name):
        values = {}
        for field, kind in native._fields(name):
            if kind == "T":
                values[field] = self.chance.randbytes(self.chance.choice((0, 4, 300)))
            elif kind[0] == "T":
                values[field] = [self.row(kind[2:]) for _ in range(self.chance.choice((0, 1, 1, 3)))]
            elif kind == "16s":
                values[field] = self.chance.choice((bytes(16), self.topic_id, self.chance.randbytes(16)))
            else:
                bits = 8 * struct.calcsize("<" + kind)
                value = self.chance.choice((0, 1, (1 << bits) - 1, 1 << (bits - 1), self.chance.getrandbits(bits)))
                values[field] = struct.unpack("<" + kind, value.to_bytes(bits // 8, "little"))[0]
        return values

    def valid(self):
        kind = self.chance.choice([kind for kind in native.BODIES if kind < 0x80])
        body = native.encode_body(native.BODIES[kind], self.row(native.BODIES[kind]))
        records = self.chance.randbytes(self.chance.choice((0, 0, 7, 200)))
        return bytearray(native.frame(kind, body, self.chance.getrandbits(64), version=int(kind != native.HELLO), records=records))

    def noise(self):
        return self.chance.randbytes(self.chance.choice((1, 8, 60, 1000)))

    def truncated(self):
        frame = self.valid()
        return frame[: self.chance.randint(1, len(frame))]

    def lying_lengths(self):
        frame = self.valid()
        place = self.chance.choice((16, 20))
        frame[place : place + 4] = self.chance.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x06", bytes(4), b"\x01\x00\x00\x00"))
        return frame

    def flipped(self):
        frame = self.valid()
        for _ in range(self.chance.choice((1, 2, 8))):
            frame[self.chance.randrange(len(frame))] ^= 1 << self.chance.randrange(8)
        return frame

    def mended(self):
        """Damage behind a checksum that is right."""
        frame = self.valid()
        _, _, version, kind, flags, body_bytes, records_bytes, correlation_id = native.HEADER.unpack_from(frame)
        body = bytearray(frame[32 : 32 + body_bytes])
        for _ in range(self.chance.choice((1, 2, 8))):
            body[self.chance.randrange(len(body))] = self.chance.choice((0, 1, 0x7F, 0x80, 0xFF, self.chance.getrandbits(8)))
        if self.chance.random() < 0.2:
            body = body[: self.chance.randrange(len(body))]
        return native.frame(kind, bytes(body), correlation_id, version, flags, bytes(frame[len(frame) - records_bytes :]) if records_bytes else b"")

    def wrong_version(self):
        frame = self.valid()
        _, _, _, kind, flags, body_bytes, _, correlation_id = native.HEADER.unpack_from(frame)
        return native.frame(self.chance.getrandbits(8), bytes(frame[32 : 32 + body_bytes]), correlation_id, self.chance.getrandbits(8), flags)

    def bad_produce(self):
        data = bytearray(batch.batch([(b"k", self.chance.randbytes(100))]))
        how = self.chance.randrange(4)
        if how == 0:
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        elif how == 1:
            data = data[: self.chance.randrange(len(data))]
        elif how == 2:
            data = data + data
        parts = [{"topic_id": self.topic_id, "partition": self.chance.choice((0, 0, 0, 5, -1)), "records_bytes": len(data)}]
        body = native.encode_body("Produce", {"parts": parts, "acks": self.chance.choice((-1, 1, 0))})
        return native.frame(native.PRODUCE, body, 5, records=bytes(data))


def good_client(bootstrap, port):
    """Runs as a process of its own until its input ends: writes, reads back, and says how it went."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    errors, latencies, written = [], [], []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "message.timeout.ms": 30000, "log_level": 0, "error_cb": lambda error: errors.append(str(error))})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "good", "check.crcs": True, "enable.auto.commit": False, "fetch.wait.max.ms": 20, "log_level": 0})
    consumer.assign([TopicPartition("good", 0, 0)])
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    number = 0
    while not done.is_set():
        value = b"good %d" % number
        started = time.monotonic()
        producer.produce("good", value, partition=0, on_delivery=lambda error, _: error and errors.append(str(error)))
        if producer.flush(30):
            errors.append(f"record {number} is not acknowledged within 30 s")
            break
        message = consumer.poll(30)
        latencies.append(time.monotonic() - started)
        if message is None or message.error() or message.value() != value or message.offset() != number:
            errors.append(f"record {number}: wrote {value!r} and read {message and (message.error() or (message.offset(), message.value()))}")
            break
        number += 1
        time.sleep(0.002)
    latencies.sort()
    for error in errors[:10]:
        print(f"error: {error}")
    worst = latencies[-1] * 1000 if latencies else 0
    median = latencies[len(latencies) // 2] * 1000 if latencies else 0
    print(f"{number} round trips, p50 {median:.1f} ms, longest {worst:.1f} ms")
    sys.exit(1 if errors or not number else 0)


def stalled(port, count):
    """Connections that announce the largest frame, send a little of it, and stop."""
    sockets = []
    for index in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(struct.pack(">i", 104857600) + b"\0\0\0\x09" + b"\0" * 20000 * index)
        sockets.append(connection)
    return sockets


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--good-client", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.good_client:
        good_client(options.good_client[0], int(options.good_client[1]))
    report = Report()
    report.note(f"seed {options.seed}")
    BOMBS.update(make_bombs())
    overrides = {"auto.create.topics.enable": "false"}
    native_port = server.free_port()
    if options.broker == "millrace":
        overrides["native.listener"] = f"127.0.0.1:{native_port}"
    broker = server.Server(options.broker, server.INTEROP / "run" / f"hostile-{options.broker}", options.cores, overrides, memory=MEMORY)
    try:
        broker.start()
        with wire.Connection("127.0.0.1", broker.port) as connection:
            wanted = [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1} for name in (TARGET, "good")]
            answer = connection.request("CreateTopics", 5, {"Topics": wanted, "TimeoutMs": 10000})
            assert all(one["ErrorCode"] == 0 for one in answer["Topics"]), str(answer)
        time.sleep(0.5)
        good = subprocess.Popen(
            [sys.executable, __file__, "--good-client", broker.bootstrap, str(broker.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=server.die_with_parent,
        )
        # Kafka reserves what each announces; a dozen of them stop it.
        held = stalled(broker.port, STALLED_CONNECTIONS if options.broker == "millrace" else 1)
        attackers = [Attacker(broker.port, options.frames // ATTACKERS, options.seed * 10 + index) for index in range(ATTACKERS)]
        expected = options.frames
        if options.broker == "millrace":
            with native.Connection("127.0.0.1", native_port) as connection:
                (topic,) = connection.metadata(TARGET)["topics"]
            count = options.frames // ATTACKERS // 2
            attackers += [NativeAttacker(native_port, count, options.seed * 10 + ATTACKERS + index, topic["topic_id"]) for index in range(ATTACKERS_NATIVE)]
            expected += ATTACKERS_NATIVE * count
        started = time.monotonic()
        for attacker in attackers:
            attacker.start()
        resident_max = 0
        while any(attacker.is_alive() for attacker in attackers) and broker.alive():
            resident_max = max(resident_max, broker.resident_bytes())
            time.sleep(0.2)
        sent = sum(attacker.sent for attacker in attackers)
        report.note(f"{sent} hostile frames in {time.monotonic() - started:.0f} s, {sum(attacker.refused for attacker in attackers)} connections refused; at most {resident_max >> 20} MiB resident")
        report.check("the broker is alive", broker.alive(), broker.log_tail)
        report.check("the frames were sent", sent >= expected * 0.9, f"expected {expected}, sent {sent}")
        if options.broker == "millrace":
            report.check("memory stays within the budget", resident_max <= RESIDENT_BYTES_MAX, f"expected at most {RESIDENT_BYTES_MAX >> 20} MiB, got {resident_max >> 20} MiB")
        for connection in held:
            connection.close()
        output, _ = good.communicate("", timeout=90)
        report.check(f"the good client noticed nothing ({output.strip().splitlines()[-1] if output.strip() else 'it said nothing'})", good.returncode == 0, output)
        count = 0
        with wire.Connection("127.0.0.1", broker.port) as connection:
            offset, bad = 0, []
            while True:
                part = {"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20}
                answer = connection.request("Fetch", 11, {"MaxWaitMs": 10, "MinBytes": 1, "MaxBytes": 10 << 20, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": TARGET, "Partitions": [part]}]})
                (one,) = answer["Responses"][0]["Partitions"]
                found = batch.headers_of(one["Records"] or b"")
                if one["ErrorCode"] or not found:
                    if one["ErrorCode"]:
                        bad.append(f"fetching at {offset}: error {one['ErrorCode']}")
                    break
                for header in found:
                    count += 1
                    if not header["CrcOk"] or header["BaseOffset"] != offset:
                        bad.append(f"at {offset}: a batch at {header['BaseOffset']}, checksum {'right' if header['CrcOk'] else 'WRONG'}")
                    offset = header["BaseOffset"] + header["LastOffsetDelta"] + 1
        report.check(f"each of the {count} batches that got in is whole, has the right checksum and the next offset", not bad, "\n".join(bad[:10]))
        with wire.Connection("127.0.0.1", broker.port) as connection:
            report.equal("a new connection is served", 0, connection.request("ApiVersions", 0, {})["ErrorCode"])
        if options.broker == "millrace":
            with native.Connection("127.0.0.1", native_port) as connection:
                report.equal("a new native connection is served", 0, connection.metadata(TARGET)["topics"][0]["error"])
    except AssertionError as error:
        report.fail("the broker serves", error)
    finally:
        broker.kill()
    report.finish()


if __name__ == "__main__":
    main()
