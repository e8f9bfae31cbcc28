"""What the three Python clients share: how they are asked, how they answer, and the group scenario. Knows no client library.

A client is started as `program MODE PLAN.json` and prints JSON lines: {"step", "ok", "error"} or {"record", "topic"}.
"""

import base64
import hashlib
import json
import sys
import threading
import time
import traceback


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def step(name, work):
    """One check; True if it passed."""
    try:
        work()
    except Exception as error:
        emit({"step": name, "ok": False, "error": str(error) if isinstance(error, AssertionError) else traceback.format_exc()})
        return False
    emit({"step": name, "ok": True})
    return True


def plan():
    with open(sys.argv[2]) as file:
        return json.load(file)


def jobs_records(job):
    """The records of a job as (key, value, headers, timestamp)."""
    with open(job["records"]) as file:
        for one in json.load(file):
            headers = [(name, decoded(content)) for name, content in one["headers"]]
            yield decoded(one["key"]), decoded(one["value"]), headers, one["timestamp"]


def decoded(text):
    return None if text is None else base64.b64decode(text)


def show_record(topic, offset, key, value, headers, timestamp):
    emit({
        "topic": topic,
        "record": {
            "offset": offset,
            "key": encoded(key),
            "value": None if value is None else hashlib.sha256(value).hexdigest(),
            "size": -1 if value is None else len(value),
            "headers": [[name, encoded(content)] for name, content in headers or []],
            "timestamp": timestamp,
        },
    })


def encoded(data):
    return None if data is None else base64.b64encode(bytes(data)).decode()


def equal(what, expected, got):
    assert expected == got, f"{what}: expected {expected!r}, got {got!r}"


def until(what, condition, timeout_s=40):
    """Waits until condition() is true; what it last returned is told when it never is."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s; last seen: {value!r}"
        time.sleep(0.05)


class Member(threading.Thread):
    """A group member that polls in a thread of its own. Subclasses wrap a library's consumer."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = []  # (partition, offset)
        self.partitions = set()
        self.failed = None
        self.leaving = threading.Event()
        self.to_commit = None
        self.committed = threading.Event()

    def run(self):
        try:
            self.open()
            while not self.leaving.is_set():
                self.seen.extend(self.poll())
                self.partitions = self.assigned()
                if self.to_commit is not None:
                    self.commit(self.to_commit)
                    self.to_commit = None
                    self.committed.set()
            self.close()
        except Exception:
            self.failed = traceback.format_exc()

    def check(self):
        assert self.failed is None, self.failed

    def leave(self):
        self.leaving.set()
        self.join(60)
        assert not self.is_alive(), "closing the consumer takes more than 60 s"
        self.check()


def group_scenario(job, member):
    """member() makes one; the topic holds job["per_partition"] records in each of job["partitions"] partitions."""
    everything = set(range(job["partitions"]))
    half = job["per_partition"] // 2
    first = member()

    def alone():
        first.start()
        until("the only member gets every partition", lambda: first.check() or first.partitions == everything)
        until("it reads every record", lambda: first.check() or len(set(first.seen)) == job["partitions"] * job["per_partition"])
        equal("records read twice", len(first.seen), len(set(first.seen)))

    def commit():
        first.to_commit = {partition: half for partition in everything}
        assert first.committed.wait(30), f"no answer to a commit: {first.failed}"

    def second_member():
        second = member()
        second.start()
        until(
            "two members share the partitions",
            lambda: (first.check(), second.check(), first.partitions | second.partitions == everything
                     and not first.partitions & second.partitions and len(first.partitions) == len(second.partitions))[2],
        )
        second.leave()
        until("the first gets back what the second leaves", lambda: first.check() or first.partitions == everything)
        first.leave()

    def resume():
        later = member()
        later.start()
        wanted = {(partition, offset) for partition in everything for offset in range(half, job["per_partition"])}
        until("a later member reads from the commits on", lambda: later.check() or wanted <= set(later.seen))
        equal("what it reads", sorted(wanted), sorted(later.seen))
        later.leave()

    for name, work in (("a member alone", alone), ("commit", commit), ("rebalance with a second member", second_member), ("resume from the commit", resume)):
        if not step(name, work):
            return
