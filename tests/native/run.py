"""The native protocol against a broker: a client written from docs/PROTOCOL.md alone does everything that the page says.

Knows the page's client, and Kafka's protocol to look at the same log from the other side.
"""

import argparse
import os
import pathlib
import re
import select
import socket
import stat
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import client  # noqa: E402
from client import ANSWER, CREDIT, DELIVERY, FETCH, HELLO, METADATA, OFFSETS, PRODUCE, PRODUCER_ID, REFUSAL, SUBSCRIBE, UNSUBSCRIBE, Closed, Connection, Refused, batch, part, values_of  # noqa: E402
from harness import server  # noqa: E402
from harness.report import Report  # noqa: E402

PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "PROTOCOL.md"
NOWHERE = bytes(range(16))


def examples():
    """The frames that the page shows."""
    found = re.findall(r"```hex (\S+)\n(.*?)```", PAGE.read_text(), re.S)
    return {name: bytes.fromhex("".join(line.split("  ", 1)[1] for line in block.strip().split("\n"))) for name, block in found}


class Suite:
    """Over TCP, or over the Unix socket at `path`. Topics of the one are not those of the other."""

    def __init__(self, port, path=None):
        self.port = port
        self.path = path

    def connect(self, **how):
        if self.path is not None:
            return Connection(self.path, **how)
        return Connection("127.0.0.1", self.port, **how)

    def named(self, name):
        return name if self.path is None else f"{name}-unix"

    def topic(self, connection, name, partitions=1):
        (topic,) = connection.metadata(self.named(name), create=True)["topics"]
        assert topic["error"] == 0, topic
        return topic["topic_id"]

    def expect_refusal(self, error, send, **how):
        """`send` makes the broker refuse with this error and close."""
        connection = self.connect(**how)
        send(connection)
        try:
            answer = connection.receive()
        except Refused as refused:
            assert refused.error == error, refused
        else:
            raise AssertionError(f"expected a refusal with {error}, got {answer}")
        try:
            more = connection.receive()
        except Closed:
            return
        raise AssertionError(f"expected the end of the connection, got {more}")

    def expect_close(self, send, **how):
        connection = self.connect(**how)
        send(connection)
        try:
            answer = connection.receive()
        except Closed:
            return
        raise AssertionError(f"expected the end of the connection, got {answer}")

    # -- cases --

    def page_examples(self):
        for name, data in examples().items():
            checksum, magic, version, kind, flags, body_bytes, records_bytes, correlation_id = client.HEADER.unpack_from(data)
            front = 32 + body_bytes + -body_bytes % 8
            assert client.xxh3(data[8:front]) == checksum, name
            assert len(data) == front + records_bytes, name
            row = client.BODIES[kind]
            body = data[32 : 32 + body_bytes]
            values = client.decode_body(row, body)
            assert client.encode_body(row, values) == body, name
            again = client.frame(kind, body, correlation_id, version, flags, data[front:])
            assert again == data, name

    def negotiation(self):
        with self.connect() as connection:
            assert connection.hello["error"] == 0 and connection.hello["version"] == 1, connection.hello
            assert connection.hello["features"] == 1 and connection.hello["frame_bytes_max"] == 104857600, connection.hello
        with self.connect(versions=(1, 200)) as connection:
            assert connection.hello["version"] == 1, connection.hello
        for asked, there in ((0, 0), (2, 2), (2**64 - 1, 3)):
            with self.connect(features=asked) as connection:
                assert connection.hello["features"] == there, connection.hello
                assert connection.metadata(everything=True)["brokers"]

    def newer_client_is_told_both_ranges(self):
        with self.connect(versions=(7, 9)) as connection:
            hello = connection.hello
            assert (hello["error"], hello["version"], hello["version_min"], hello["version_max"]) == (35, 0, 1, 1), hello
            assert b"7 to 9" in hello["message"] and b"1 to 1" in hello["message"], hello
            try:
                connection.receive()
            except Closed:
                return
            raise AssertionError("the connection stays open")

    def metadata(self):
        with self.connect() as connection:
            meta = self.named("meta")
            topic_id = self.topic(connection, "meta")
            answer = connection.metadata(meta, "missing", meta, "b@d")
            assert [(one["name"], one["error"]) for one in answer["topics"]] == [(meta, 0), ("missing", 3), ("b@d", 17)], answer
            (broker,) = answer["brokers"]
            assert broker["port"] == self.port and broker["node_id"] == answer["controller_id"] == 1, answer
            assert len(answer["topics"][0]["partitions"]) == 1, answer
            leader = answer["topics"][0]["partitions"][0]
            assert (leader["partition"], leader["leader_id"], leader["error"]) == (0, 1, 0), leader
            answer = connection.metadata(ids=[topic_id, NOWHERE])
            assert [(one["name"], one["error"]) for one in answer["topics"]] == [(meta, 0), ("", 100)], answer
            assert meta in [one["name"] for one in connection.metadata(everything=True)["topics"]]

    def produce_and_fetch(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "data")
            first = batch([b"one", b"two"])
            answer = connection.produce([(topic_id, 0, first)])
            assert answer["results"] == [{"base_offset": 0, "log_append_time_ms": -1, "log_start_offset": 0, "error": 0}], answer
            answer = connection.produce([(topic_id, 0, batch([b"three"])), (topic_id, 0, batch([b"four"]))])
            assert [one["base_offset"] for one in answer["results"]] == [2, 3], answer
            answer = connection.fetch([part(topic_id, 0, 0)])
            assert values_of(answer.records) == [(0, b"one"), (1, b"two"), (2, b"three"), (3, b"four")], answer
            assert answer["results"][0]["high_watermark"] == 4, answer
            # The batch comes back as it was sent, but for its offset and epoch.
            assert answer.records[16 : len(first)] == first[16:], "the batch is changed"
            answer = connection.fetch([part(topic_id, 0, 1)])
            assert values_of(answer.records)[0] == (0, b"one"), "a batch comes whole"
            answer = connection.fetch([part(topic_id, 0, 0, bytes_max=1)])
            assert values_of(answer.records) == [(0, b"one"), (1, b"two")], "at least one batch"
            answer = connection.fetch([part(topic_id, 0, 4)])
            assert answer["results"] == [] and answer.records == b"", answer

    def errors(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "errors")
            good = batch([b"x"])
            answer = connection.produce([(NOWHERE, 0, good), (topic_id, 7, good), (topic_id, -1, good), (topic_id, 0, good)])
            assert [one["error"] for one in answer["results"]] == [100, 3, 3, 0], answer
            bad = bytearray(good)
            bad[-1] ^= 1
            answer = connection.produce([(topic_id, 0, bytes(bad))])
            assert [one["error"] for one in answer["results"]] == [2], answer
            answer = connection.produce([(topic_id, 0, b"")])
            assert [one["error"] for one in answer["results"]] == [87], answer
            answer = connection.produce([(topic_id, 0, good + good)])
            assert [one["error"] for one in answer["results"]] == [87], answer
            answer = connection.produce([(topic_id, 0, good), (topic_id, 0, batch([b"early"], timestamp=int(time.time() * 1000) + 36000000))])
            assert [one["error"] for one in answer["results"]] == [0, 32], answer
            assert all(one["part"] == 1 and one["text"] for one in answer["remarks"]) and {one["record"] for one in answer["remarks"]} == {-1, 0}, answer
            answer = connection.produce([(topic_id, 0, batch([bytes(1100000)]))])
            assert [one["error"] for one in answer["results"]] == [10], answer
            answer = connection.produce([(topic_id, 0, good)], acks=7)
            assert [one["error"] for one in answer["results"]] == [21], answer
            found = connection.fetch([part(topic_id, 0, 99), part(NOWHERE, 0, 0), part(topic_id, 5, 0), part(topic_id, 0, 0, leader_epoch=99)])
            assert [(one["part"], one["error"], one["high_watermark"]) for one in found["results"]] == [(0, 1, -1), (1, 100, -1), (2, 3, -1), (3, 75, -1)], found

    def acks_zero(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "quiet")
            connection.produce([(topic_id, 0, batch([b"a"]))], acks=0)
            connection.produce([(topic_id, 0, batch([b"b"]))], acks=0)
            answer = connection.fetch([part(topic_id, 0, 0)], wait_ms=5000, bytes_min=130)
            assert values_of(answer.records) == [(0, b"a"), (1, b"b")], answer
        self.expect_close(lambda connection: connection.produce([(NOWHERE, 0, batch([b"a"]))], acks=0))

    def long_poll(self):
        with self.connect() as reader, self.connect() as writer:
            topic_id = self.topic(reader, "poll")
            started = time.monotonic()
            answer = reader.fetch([part(topic_id, 0, 0)], wait_ms=300)
            waited = time.monotonic() - started
            assert answer["results"] == [] and 0.25 < waited < 5, (answer, waited)
            waiting = reader.send(FETCH, {"parts": [part(topic_id, 0, 0)], "wait_ms_max": 20000, "bytes_min": 1, "bytes_max": 1 << 20})
            time.sleep(0.05)
            writer.produce([(topic_id, 0, batch([b"now"]))])
            started = time.monotonic()
            assert values_of(reader.answer(FETCH, waiting).records) == [(0, b"now")]
            assert time.monotonic() - started < 10, "woken by the append"

    def pipelining(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "pipe")
            sent = []
            for index in range(50):
                data = batch([b"%d" % index])
                sent.append(connection.send(PRODUCE, {"parts": [{"topic_id": topic_id, "partition": 0, "records_bytes": len(data)}], "acks": -1}, records=data))
            offsets = [connection.answer(PRODUCE, one)["results"][0]["base_offset"] for one in sent]
            assert offsets == list(range(50)), offsets
            # A fetch behind produces sees them all.
            assert [value for _, value in values_of(connection.fetch([part(topic_id, 0, 0)]).records)] == [b"%d" % index for index in range(50)]

    def idempotence(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "once")
            given = connection.request(PRODUCER_ID, {"producer_id": -1, "producer_epoch": -1})
            assert given["error"] == 0 and given["producer_epoch"] == 0 and given["producer_id"] >= 0, given
            assert connection.request(PRODUCER_ID, {"producer_id": 5, "producer_epoch": -1})["error"] == 42
            send = lambda sequence, epoch=0: connection.produce([(topic_id, 0, batch([b"s%d" % sequence], producer_id=given["producer_id"], producer_epoch=epoch, base_sequence=sequence))])["results"][0]
            assert send(0)["base_offset"] == 0
            assert send(1)["base_offset"] == 1
            assert send(1)["base_offset"] == 1, "a repeated batch has its first offset"
            assert send(5)["error"] == 45
            assert send(0, epoch=1)["base_offset"] == 2
            assert send(2)["error"] == 47
            assert len(values_of(connection.fetch([part(topic_id, 0, 0)]).records)) == 3

    def offsets(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "places")
            t0 = int(time.time() * 1000) - 100000
            for index in range(4):
                connection.produce([(topic_id, 0, batch([b"x"], timestamp=t0 + index * 1000))])
            earliest, latest, by_time, highest, none, unknown, ranged, epoch, odd = connection.offsets(
                (topic_id, 0, 0, -2), (topic_id, 0, 0, -1), (topic_id, 0, 0, t0 + 1500), (topic_id, 0, 0, -3), (topic_id, 0, 0, t0 + 50000),
                (NOWHERE, 0, 0, -1), (topic_id, 9, 0, -1), (topic_id, 0, 1, 0), (topic_id, 0, 0, -77),
            )
            assert (earliest["offset"], latest["offset"]) == (0, 4), (earliest, latest)
            assert (by_time["offset"], by_time["timestamp_ms"]) == (2, t0 + 2000), by_time
            assert (highest["offset"], highest["timestamp_ms"]) == (3, t0 + 3000), highest
            assert (none["offset"], none["error"]) == (-1, 0), none
            assert (unknown["error"], ranged["error"], odd["error"]) == (100, 3, 35), (unknown, ranged, odd)
            assert (epoch["leader_epoch"], epoch["offset"], epoch["error"]) == (latest["leader_epoch"], 4, 0) or epoch["leader_epoch"] < latest["leader_epoch"], epoch

    def subscription(self):
        with self.connect() as reader, self.connect() as writer:
            topic_id = self.topic(reader, "stream")
            writer.produce([(topic_id, 0, batch([b"before"]))])
            name, error = reader.subscribe([part(topic_id, 0, 0)])
            assert error == 0
            delivery = reader.delivery()
            assert (delivery.kind, delivery.correlation_id, delivery.flags) == (DELIVERY, name, 0), delivery
            got = values_of(delivery.records)
            for index in range(20):
                writer.produce([(topic_id, 0, batch([b"%d" % index]))])
            while len(got) < 21:
                delivery = reader.delivery()
                assert delivery["results"][0]["part"] == 0, delivery
                got += values_of(delivery.records)
            assert got == [(0, b"before")] + [(index + 1, b"%d" % index) for index in range(20)], got
            # Requests go on beside it.
            assert reader.offsets((topic_id, 0, 0, -1))[0]["offset"] == 21
            assert reader.request(UNSUBSCRIBE, {"subscription": name})["error"] == 0
            assert reader.request(UNSUBSCRIBE, {"subscription": name})["error"] == 42
            writer.produce([(topic_id, 0, batch([b"after"]))])
            reader.offsets((topic_id, 0, 0, -1))
            assert reader.deliveries == [], "nothing after the end"

    def credit(self):
        with self.connect() as reader, self.connect() as writer:
            topic_id = self.topic(reader, "credit")
            data = batch([bytes(1000)])
            for _ in range(10):
                writer.produce([(topic_id, 0, data)])
            name, error = reader.subscribe([part(topic_id, 0, 0)], credit=len(data) * 2, heartbeat_ms=300)
            assert error == 0
            got = b""
            while len(got) < 2 * len(data):
                got += reader.delivery().records
            assert len(got) == 2 * len(data), len(got)
            quiet = reader.delivery()
            assert quiet["results"] == [] and quiet.records == b"" and quiet.correlation_id == name, quiet
            reader.send(CREDIT, {"subscription": name, "bytes": 1})
            reader.send(CREDIT, {"subscription": 999, "bytes": 1})
            delivery = reader.delivery()
            while not delivery.records:
                delivery = reader.delivery()
            assert len(delivery.records) == len(data), "one whole batch, however little credit"
            reader.send(CREDIT, {"subscription": name, "bytes": 1 << 20})
            got += delivery.records
            while len(got) < 10 * len(data):
                got += reader.delivery().records
            assert [offset for offset, _ in values_of(got)] == list(range(10))

    def subscription_errors(self):
        with self.connect() as reader:
            topic_id = self.topic(reader, "partly")
            reader.produce([(topic_id, 0, batch([b"x"]))])
            name, error = reader.subscribe([part(topic_id, 0, 0), part(NOWHERE, 0, 0)])
            assert error == 0
            errors, got = {}, b""
            while not got or not errors:
                delivery = reader.delivery()
                assert delivery.flags == 0
                got += delivery.records
                errors.update({one["part"]: one["error"] for one in delivery["results"] if one["error"]})
            assert errors == {1: 100} and values_of(got) == [(0, b"x")], (errors, got)
            other = reader.send(SUBSCRIBE, {"parts": [part(topic_id, 0, 77)], "credit_bytes": 100, "bytes_max": 100})
            reader.answer(SUBSCRIBE, other)
            delivery = reader.delivery()
            assert (delivery.correlation_id, delivery.flags, delivery["results"][0]["error"]) == (other, 1, 1), delivery
            assert reader.request(UNSUBSCRIBE, {"subscription": other})["error"] == 42, "it has ended"
            errors = [reader.subscribe([])[1] for _ in range(20)]
            assert errors == [0] * 15 + [42] * 5, errors

    def refusals(self):
        good = client.encode_body("Offsets", {"questions": []})
        self.expect_refusal(42, lambda connection: connection.send(OFFSETS, {"questions": []}), hello=False)
        self.expect_refusal(42, lambda connection: connection.send(HELLO, {"software": b"", "version_min": 1, "version_max": 1}, version=0))
        self.expect_refusal(35, lambda connection: connection.send(OFFSETS, {"questions": []}, version=2))
        self.expect_refusal(2, lambda connection: connection.socket.sendall(client.frame(OFFSETS, good, 5, checksum=1)))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(0x55, good, 5)))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(DELIVERY, good, 5)))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(OFFSETS, good[:-1], 5)))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(OFFSETS, struct.pack("<iI", 0, 1 << 31), 5)))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(OFFSETS, good, 5, records=b"12345678")))
        self.expect_refusal(42, lambda connection: connection.send(PRODUCE, {"parts": [{"topic_id": NOWHERE, "partition": 0, "records_bytes": 5}], "acks": -1}, records=b"1234"))
        self.expect_refusal(42, lambda connection: connection.send(FETCH, {"parts": [], "isolation": 2}))
        self.expect_refusal(42, lambda connection: connection.socket.sendall(client.frame(CREDIT, b"", 5)))
        self.expect_close(lambda connection: connection.socket.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"))
        huge = client.HEADER.pack(0, client.MAGIC, 1, FETCH, 0, (1 << 32) - 1, (1 << 32) - 1, 1)
        self.expect_close(lambda connection: connection.socket.sendall(huge))

    def large_frames(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "large")
            batches = [(topic_id, 0, batch([bytes([index]) * 300000])) for index in range(3)]
            answer = connection.produce(batches)
            assert [one["error"] for one in answer["results"]] == [0, 0, 0], answer
            answer = connection.fetch([part(topic_id, 0, 0, bytes_max=50 << 20)])
            assert [(offset, value[:1], len(value)) for offset, value in values_of(answer.records)] == [(0, b"\0", 300000), (1, b"\1", 300000), (2, b"\2", 300000)]

    def byte_by_byte(self):
        with self.connect() as connection:
            topic_id = self.topic(connection, "slow")
            data = batch([b"slow"])
            parts = [{"topic_id": topic_id, "partition": 0, "records_bytes": len(data)}]
            whole = client.frame(PRODUCE, client.encode_body("Produce", {"parts": parts, "acks": -1}), 77, records=data) * 2
            for byte in whole:
                connection.socket.sendall(bytes([byte]))
            for offset in range(2):
                answer = connection.receive()
                assert (answer.correlation_id, answer["results"][0]["base_offset"]) == (77, offset), answer

    def both_protocols_share_the_log(self, kafka_port):
        from harness import batch as kafka_batch, wire

        with self.connect() as native, wire.Connection("127.0.0.1", kafka_port) as kafka:
            topic_id = self.topic(native, "shared")
            native.produce([(topic_id, 0, batch([b"from native"]))])
            part_data = {"Index": 0, "Records": kafka_batch.batch([(None, b"from kafka")])}
            answer = kafka.request("Produce", 9, {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"Name": self.named("shared"), "PartitionData": [part_data]}]})
            assert answer["Responses"][0]["PartitionResponses"][0]["BaseOffset"] == 1, answer
            assert values_of(native.fetch([part(topic_id, 0, 0)]).records) == [(0, b"from native"), (1, b"from kafka")]
            asked = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
            answer = kafka.request("Fetch", 11, {"MaxWaitMs": 10, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": self.named("shared"), "Partitions": [asked]}]})
            (one,) = answer["Responses"][0]["Partitions"]
            assert values_of(one["Records"]) == [(0, b"from native"), (1, b"from kafka")]


def served(report, cases, cores, path):
    """All cases over TCP and over a Unix socket, and what becomes of the socket's file."""
    port = server.free_port()
    overrides = {"native.listener": f"127.0.0.1:{port}", "native.unix.socket": path}
    broker = server.Server("millrace", server.INTEROP / "run" / f"native-{cores}", int(cores), overrides)
    try:
        broker.start()
        for way, suite in (("TCP", Suite(port)), ("Unix", Suite(port, path))):
            for name in cases:
                report.case(f"native, {cores} cores, {way}: {name}", getattr(suite, name))
            report.case(f"native, {cores} cores, {way}: both_protocols_share_the_log", lambda: suite.both_protocols_share_the_log(broker.port))
        report.case(f"native, {cores} cores, Unix: sent_descriptors_are_dropped", lambda: sent_descriptors_are_dropped(path))
        report.check(f"native, {cores} cores: the broker is alive", broker.alive(), broker.log_tail)
        report.case(f"native, {cores} cores: the file of the Unix socket", lambda: the_file(broker, path))
    except AssertionError as error:
        report.fail(f"native, {cores} cores: the broker serves", error)
    finally:
        broker.kill()


def sent_descriptors_are_dropped(path):
    """Whoever sends descriptors beside a frame gets his answer, and the broker keeps none of them."""
    reader, writer = os.pipe()
    with Connection(path) as connection, open(reader, "rb") as ours:
        whole = client.frame(OFFSETS, client.encode_body("Offsets", {"questions": []}), 5)
        assert socket.send_fds(connection.socket, [whole], [writer]) == len(whole)
        os.close(writer)
        answer = connection.answer(OFFSETS, 5)
        assert answer["results"] == [], answer
        # The end of the pipe: nobody has its other side any more.
        (readable, _, _) = select.select([ours], [], [], 20)
        assert readable and ours.read() == b"", "the broker holds a descriptor"


def the_file(broker, path):
    """It outlives a kill, is replaced by the next start (with no other native listener), and goes with a stop."""
    broker.kill()
    mode = os.stat(path).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660, oct(mode)
    broker.change({"native.listener": ""})
    broker.start()
    with Connection(path) as connection:
        (one,) = connection.metadata()["brokers"]
        assert (one["node_id"], one["host_bytes"], one["port"]) == (connection.hello["node_id"], 0, 0), one
    assert broker.stop() == 0, broker.log_tail()
    assert not os.path.exists(path), "the file is left"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--cores", default="1,2")
    parser.add_argument("--filter")
    parser.add_argument("--port", type=int, help="the native port of a broker that runs already")
    parser.add_argument("--socket", help="the native Unix socket of that broker")
    options = parser.parse_args()
    report = Report(options.filter)
    cases = [
        "page_examples", "negotiation", "newer_client_is_told_both_ranges", "metadata", "produce_and_fetch", "errors", "acks_zero", "long_poll", "pipelining",
        "idempotence", "offsets", "subscription", "credit", "subscription_errors", "refusals", "large_frames", "byte_by_byte",
    ]
    if options.broker == "kafka":
        report.ok("Kafka does not speak the native protocol")
        report.finish()
    if options.port:
        for name in cases:
            report.case(name, getattr(Suite(options.port, options.socket), name))
        report.finish()
    for cores in options.cores.split(","):
        with tempfile.TemporaryDirectory(prefix="millrace-") as directory:
            # Where the suites keep their files, a path may be longer than a socket's can be.
            served(report, cases, cores, str(pathlib.Path(directory) / "native.sock"))
    report.finish()


if __name__ == "__main__":
    main()
