"""Log directories that fill up or break under load: a forgetful file system with little room or with EIO, and a small ext4.
What is refused must be refused clearly, what was acknowledged stays, the rest goes on, and room that comes back is used
without a restart.
"""

import argparse
import contextlib
import errno
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import batch, forgetful, server, wire  # noqa: E402
from harness.report import Report  # noqa: E402

OFFSET_OUT_OF_RANGE = 1
KAFKA_STORAGE_ERROR = 56
MIB = 1 << 20
PATIENCE_S = 60


class Client:
    """One batch at a time, remembered when it is acknowledged."""

    def __init__(self, broker):
        self.broker = broker
        self.acknowledged = {}
        self.chance = random.Random(5)
        self.connect()

    def connect(self):
        self.wire = wire.Connection("127.0.0.1", self.broker.port, timeout_s=PATIENCE_S)

    def create(self, name, partitions, **configs):
        configs = [{"Name": key.replace("_", "."), "Value": str(value)} for key, value in configs.items()]
        answer = self.wire.request("CreateTopics", 7, {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs}], "TimeoutMs": 20000})
        return answer["Topics"][0]["ErrorCode"]

    def produce(self, topic, partition, length):
        """(error, message)"""
        value = self.chance.randbytes(length)
        body = {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": partition, "Records": batch.batch([(None, value)])}]}]}
        answer = self.wire.request("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
        if answer["ErrorCode"] == 0:
            self.acknowledged[topic, partition, answer["BaseOffset"]] = value
        return answer["ErrorCode"], answer["ErrorMessage"]

    def fetch(self, topic, partition, offset):
        part = {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 4 * MIB}
        answer = self.wire.request("Fetch", 11, {"MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 4 * MIB, "SessionEpoch": -1, "ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [part]}]})
        one = answer["Responses"][0]["Partitions"][0]
        return one["ErrorCode"], one["LogStartOffset"], batch.headers_of(one["Records"] or b"")

    def missing(self, topics):
        """What is acknowledged, not below the log's start, and not there, in words."""
        wrong, values = [], {}
        for topic, partition in sorted({key[:2] for key in self.acknowledged if key[0] in topics}):
            start = self.offset(topic, partition, -2)
            offset, end = start, self.offset(topic, partition, -1)
            while offset < end:
                code, _, found = self.fetch(topic, partition, offset)
                if code == OFFSET_OUT_OF_RANGE:
                    # Retention may have moved the start since it was asked for.
                    moved = self.offset(topic, partition, -2)
                    if moved > offset:
                        start = offset = moved
                        continue
                if code or not found:
                    wrong.append(f"{topic}-{partition}: reading at {offset} of {end} gives error {code} and {len(found)} batches")
                    break
                for one in found:
                    if not one["CrcOk"] or one["BaseOffset"] != offset:
                        wrong.append(f"{topic}-{partition}: at {offset} comes a batch at {one['BaseOffset']}, checksum {'right' if one['CrcOk'] else 'WRONG'}")
                    values[topic, partition, one["BaseOffset"]] = one["Content"]
                    offset = one["BaseOffset"] + one["LastOffsetDelta"] + 1
            for key, value in self.acknowledged.items():
                if key[:2] == (topic, partition) and key[2] >= start and value not in values.get(key, b""):
                    wrong.append(f"{topic}-{partition}: what was acknowledged at {key[2]} is not there")
        return wrong

    def offset(self, topic, partition, timestamp):
        answer = self.wire.request("ListOffsets", 1, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Timestamp": timestamp}]}]})
        one = answer["Topics"][0]["Partitions"][0]
        assert one["ErrorCode"] == 0, f"offset {timestamp} of {topic}-{partition}: error {one['ErrorCode']}"
        return one["Offset"]

    def alter(self, topic, name, value):
        change = {"Name": name, "ConfigOperation": 0, "Value": str(value)}
        answer = self.wire.request("IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": 2, "ResourceName": topic, "Configs": [change]}]})
        assert answer["Responses"][0]["ErrorCode"] == 0, str(answer)

    def log_dirs(self):
        """Directory -> (error, partitions)."""
        answer = self.wire.request("DescribeLogDirs", 4, {"Topics": None})
        return {one["LogDir"]: (one["ErrorCode"], {(topic["Name"], part["PartitionIndex"]) for topic in one["Topics"] for part in topic["Partitions"]}) for one in answer["Results"]}


def until(what, condition, timeout_s=PATIENCE_S):
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.1)


class SmallExt4:
    """An ext4 in a file, mounted by loop; room is taken by a file beside the data."""

    def __init__(self, mountpoint, image, size=640 * MIB):
        self.mountpoint, self.image = pathlib.Path(mountpoint), pathlib.Path(image)
        with open(image, "wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True, text=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mountpoint)], check=True, capture_output=True, text=True)
        self.data = self.mountpoint / "data"
        self.data.mkdir()

    def leave_free(self, free_bytes):
        filler = self.mountpoint / "filler"
        filler.unlink(missing_ok=True)
        about = os.statvfs(self.mountpoint)
        take = about.f_bavail * about.f_frsize - free_bytes
        if take > 0:
            with open(filler, "wb") as file:
                # The filler's own extents take room too.
                os.posix_fallocate(file.fileno(), 0, max(take - MIB, 1))
                if free_bytes == 0:
                    with contextlib.suppress(OSError):
                        while True:
                            os.pwrite(file.fileno(), bytes(4096), os.fstat(file.fileno()).st_size)

    def close(self):
        subprocess.run(["umount", "-l", str(self.mountpoint)], check=False)
        self.image.unlink()


def full_disk(report, name, broker, disk):
    """The disk has little room from the start; it fills, and is given room in three ways."""
    broker.start()
    client = Client(broker)
    assert client.create("kept", 4) == 0 and client.create("short", 2) == 0 and client.create("goes", 2) == 0
    for topic in ("kept", "short", "goes"):
        for number in range(8):
            assert client.produce(topic, number % 2, 700_000)[0] == 0
    disk.leave_free(60 * MIB)

    def fill(topic, partitions):
        for number in range(2000):
            code, message = client.produce(topic, number % partitions, 400_000)
            if code:
                return code, message
        raise AssertionError(f"800 MB were taken by a disk with room for 60: {os.statvfs(broker.data)}")

    def refused():
        code, message = fill("short", 2)
        assert code == KAFKA_STORAGE_ERROR and "full" in (message or ""), f"expected error {KAFKA_STORAGE_ERROR} that says full, got {code}, {message!r}"

    def comes_back(how):
        until(how, lambda: client.produce("kept", 1, 1000)[0] == 0)

    def reads():
        wrong = client.missing(("kept", "short", "goes"))
        assert not wrong, "\n".join(wrong[:10])

    def retention():
        client.alter("short", "retention.bytes", 8 * MIB)
        comes_back("room from retention")

    def deletion():
        assert fill("goes", 2)[0] == KAFKA_STORAGE_ERROR
        client.wire.request("DeleteTopics", 5, {"TopicNames": ["goes"], "TimeoutMs": 20000})
        for key in [key for key in client.acknowledged if key[0] == "goes"]:
            del client.acknowledged[key]
        comes_back("room from deleting a topic")

    def crash():
        fill("kept", 4)
        broker.kill()
        broker.start()
        client.connect()
        wrong = client.missing(("kept", "short"))
        assert not wrong, "\n".join(wrong[:10])

    def room():
        disk.leave_free(200 * MIB)
        comes_back("room from elsewhere")

    def stop():
        code = broker.stop()
        assert code == 0, f"SIGTERM: exit code {code}\n{broker.log_tail()}"
        broker.start()
        client.connect()
        wrong = client.missing(("kept", "short"))
        assert not wrong, "\n".join(wrong[:10])

    for what, work in (
        ("produce is refused with KAFKA_STORAGE_ERROR", refused), ("all that was acknowledged can be read", reads),
        ("retention frees, and produce goes on", retention), ("filled again, deleting a topic frees, and produce goes on", deletion),
        ("filled again, kill -9 and a start on the full disk: all is there", crash), ("room from elsewhere is used", room),
        ("a clean stop, and all is there", stop),
    ):
        report.case(f"{name}: {what}", work)
        if not broker.alive():
            report.fail(f"{name}: {what}: the broker lives", broker.log_tail())
            return


def unwritable_log(report, name, broker):
    """Where the broker's own log lines go, nothing can be written: it serves and stops all the same."""
    broker.log_path, broker.log_tail = pathlib.Path("/dev/full"), lambda lines=30: "(its log cannot be written)"

    def serves():
        broker.start()
        client = Client(broker)
        code = client.create("unlogged", 2)
        assert code == 0, f"a topic is not created: error {code}"
        # A client that breaks the protocol is a line in the log.
        with wire.Connection("127.0.0.1", broker.port, timeout_s=PATIENCE_S) as rude:
            rude.socket.sendall(b"\x7f\xff\xff\xff garbage")
        assert client.produce("unlogged", 0, 1000)[0] == 0, "a batch is refused"
        missing = client.missing(["unlogged"])
        assert not missing, "\n".join(missing)
        return True

    def stops():
        code = broker.stop()
        assert code == 0, f"exit code {code} after SIGTERM"

    if report.case(f"{name}: the broker serves", serves):
        report.case(f"{name}: it stops with exit code 0", stops)


def no_room_at_all(report, name, broker, disk):
    """Not a byte is free when the broker starts: it serves from what it kept in reserve, or says at once what lacks."""

    data = pathlib.Path(getattr(disk, "data", disk.mountpoint))

    def ends(what):
        """Starts a broker that must not start; what it says."""
        process = broker.spawn()
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{what}: it neither serves nor ends within 30 s:\n{broker.log_tail()}") from None
        said = broker.log_tail(3)
        assert code == 1, f"{what}: exit code {code}, expected 1\n{said}"
        assert str(data) in said and "full" in said.lower().replace("no space left", "full"), f"{what}: the directory and the reason are not told:\n{said}"
        return said

    def new_directory():
        disk.leave_free(0)
        said = ends("a new directory on a full disk")
        assert "log.dirs" in said, f"no remedy is told:\n{said}"

    def fill():
        disk.leave_free(400 * MIB)
        broker.start()
        client = Client(broker)
        assert client.create("kept", 4) == 0
        for number in range(40):
            assert client.produce("kept", number % 4, 300_000)[0] == 0
        return client

    def holds(client, what):
        client.connect()
        wrong = client.missing(("kept",))
        assert not wrong, f"{what}:\n" + "\n".join(wrong[:10])

    def reserve_serves(client, end):
        end()
        disk.leave_free(0)
        took_s = broker.start()
        assert took_s < 10, f"the start took {took_s:.1f} s"
        holds(client, "on the full disk")
        code, message = client.produce("kept", 0, 5000)
        # The old journals go when the new ones are there, and may be room enough.
        assert code == 0 or code == KAFKA_STORAGE_ERROR and "full" in (message or ""), f"produce gives error {code}, {message!r}"
        disk.leave_free(400 * MIB)
        until("room is used", lambda: client.produce("kept", 0, 5000)[0] == 0)
        holds(client, "with room again")

    def reserve_gone(client):
        broker.kill()
        for path in data.glob(".millrace/reserve-*"):
            path.unlink()
        disk.leave_free(0)
        said = ends("no room and no reserve")
        assert re.search(r"needs \d+ bytes", said) and "Free some" in said, f"what is needed and the remedy are not told:\n{said}"
        disk.leave_free(400 * MIB)
        broker.start()
        holds(client, "after the start that was refused")

    report.case(f"{name}: a new directory is refused, with the reason", new_directory)
    client = fill()
    report.case(f"{name}: after a clean stop it starts from its reserve", lambda: reserve_serves(client, broker.stop))
    report.case(f"{name}: after kill -9 it starts from its reserve", lambda: reserve_serves(client, broker.kill))
    report.case(f"{name}: without its reserve it says how much it needs, and nothing is lost", lambda: reserve_gone(client))


def broken_directory(report, name, broker, disks, kinds, cut):
    """Two directories under load; one answers EIO."""
    broker.start()
    client = Client(broker)
    assert client.create("spread", 8) == 0
    for number in range(64):
        assert client.produce("spread", number % 8, random.Random(number).choice((50, 5000, 300_000)))[0] == 0
    dirs = client.log_dirs()
    assert len(dirs) == 2, str(dirs)
    # The log of the metadata was made first, in the first directory; without it nothing could be made or changed.
    broken = list(disks)[1]
    living = next(path for path in disks if path != broken)
    lost = {part for topic, part in dirs[broken][1] if topic == "spread"}
    kept = {part for topic, part in dirs[living][1] if topic == "spread"}
    report.check(f"{name}: partitions are spread over the directories", len(lost) == len(kept) == 4, f"{lost} and {kept}")
    stop, errors = threading.Event(), []

    def load():
        other = Client(broker)
        other.acknowledged = client.acknowledged
        while not stop.is_set():
            for part in kept:
                code, message = other.produce("spread", part, 2000)
                if code:
                    errors.append(f"spread-{part} in the living directory: error {code}, {message}")

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    disks[broken].fail(errno.EIO, *kinds)

    def refused():
        for part in lost:
            until(f"spread-{part} is refused", lambda: client.produce("spread", part, 2000)[0] == KAFKA_STORAGE_ERROR)

    def told():
        code, _ = client.log_dirs()[broken]
        assert code == KAFKA_STORAGE_ERROR, f"DescribeLogDirs answers {code} for the broken directory"
        code, _ = client.log_dirs()[living]
        assert code == 0, f"DescribeLogDirs answers {code} for the living directory"

    def lives():
        time.sleep(1)
        for part in kept:
            code, message = client.produce("spread", part, 2000)
            assert code == 0, f"spread-{part}: error {code}, {message}"
        assert not errors, "\n".join(errors[:5])
        code = client.create("later", 3)
        assert code == 0, f"a new topic: error {code}"
        for part in range(3):
            until(f"later-{part} takes records", lambda: client.produce("later", part, 2000)[0] == 0, 10)

    def back():
        if cut:
            broker.kill()
            for seed, disk in enumerate(disks.values()):
                disk.fail(0)
                disk.cut(seed)
        else:
            disks[broken].fail(0)
            code = broker.stop()
            assert code == 0, f"SIGTERM: exit code {code}\n{broker.log_tail()}"
        broker.start()
        client.connect()
        wrong = client.missing(("spread", "later"))
        assert not wrong, "\n".join(wrong[:10]) + broker.log_tail()
        for part in lost:
            code, message = client.produce("spread", part, 2000)
            assert code == 0, f"spread-{part} after the restart: error {code}, {message}"

    for what, work in (
        ("its partitions answer KAFKA_STORAGE_ERROR, on all cores", refused), ("DescribeLogDirs says so", told),
        ("the other directory lives, and takes new partitions", lives),
    ):
        report.case(f"{name}: {what}", work)
    stop.set()
    thread.join(PATIENCE_S)
    report.check(f"{name}: the broker is alive", broker.alive(), broker.log_tail)
    if broker.alive():
        report.case(f"{name}: {'a power cut' if cut else 'a stop'}, the disk is mended, and everything is there", back)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace"], default="millrace")
    parser.add_argument("--filter")
    options = parser.parse_args()
    report = Report(options.filter)
    why = forgetful.why_not()
    if why is not None:
        report.fail("a file system can be mounted here", why)
        report.finish()
    forgetful.private_mounts()
    overrides = {"log.segment.bytes": str(4 * MIB), "log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "0"}

    @contextlib.contextmanager
    def broker_in(name, cores, **more):
        directory = server.INTEROP / "run" / f"disks-{name}"
        subprocess.run(["umount", "-l", str(directory / "data")], check=False, capture_output=True)
        broker = server.Server("millrace", directory, cores, {**overrides, **more}, memory="128MiB")
        disks = []
        try:
            yield broker, disks
        except AssertionError as error:
            report.fail(f"{name}: the broker serves", error)
        finally:
            broker.kill()
            for disk in disks:
                disk.close()
            shutil.rmtree(directory / "data", ignore_errors=True)

    for cores in (1, 2):
        name = f"a full disk, {cores} core{'s' if cores > 1 else ''}"
        if report.wants(name):
            with broker_in(f"full-{cores}", cores) as (broker, disks):
                disks.append(forgetful.Forgetful(broker.data))
                full_disk(report, name, broker, disks[0])
    name = "a full ext4"
    if report.wants(name):
        with broker_in("ext4", 2) as (broker, disks):
            try:
                disks.append(SmallExt4(broker.data, broker.directory / "image"))
            except (OSError, subprocess.CalledProcessError) as error:
                report.note(f"SKIPPED, NOT CHECKED: {name}: no ext4 can be mounted here: {getattr(error, 'stderr', '') or error}")
            else:
                broker.properties.write_text(broker.properties.read_text().replace(str(broker.data), str(disks[0].data)))
                full_disk(report, name, broker, disks[0])
    name = "a log that cannot be written"
    if report.wants(name):
        with broker_in("unlogged", 2) as (broker, _):
            unwritable_log(report, name, broker)
    for kind, mounted in (("forgetful", lambda broker: forgetful.Forgetful(broker.data)), ("ext4", lambda broker: SmallExt4(broker.data, broker.directory / "image"))):
        name = f"no room at all on {kind}"
        if report.wants(name):
            with broker_in(f"none-{kind}", 2) as (broker, disks):
                try:
                    disks.append(mounted(broker))
                except (OSError, subprocess.CalledProcessError) as error:
                    report.note(f"SKIPPED, NOT CHECKED: {name}: it cannot be mounted here: {getattr(error, 'stderr', '') or error}")
                else:
                    broker.properties.write_text(broker.properties.read_text().replace(f"log.dirs={broker.data}", f"log.dirs={getattr(disks[0], 'data', disks[0].mountpoint)}"))
                    no_room_at_all(report, name, broker, disks[0])
    for kinds, cut in ((("write", "sync"), False), (("sync",), True), (("write",), True)):
        name = f"EIO on {' and '.join(kinds)}"
        if report.wants(name):
            with broker_in("eio", 2) as (broker, disks):
                paths = [broker.directory / "data" / part for part in ("one", "two")]
                broker.properties.write_text(broker.properties.read_text().replace(f"log.dirs={broker.data}", f"log.dirs={paths[0]},{paths[1]}"))
                disks += [forgetful.Forgetful(path) for path in paths]
                broken_directory(report, name, broker, {str(path): disk for path, disk in zip(paths, disks)}, kinds, cut)
    report.finish()


if __name__ == "__main__":
    main()
