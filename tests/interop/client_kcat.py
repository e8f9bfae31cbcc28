"""kcat as a client of the suite: this drives the command line and reads its JSON. It cannot set timestamps."""

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import client_common as common

KCAT = shutil.which("kcat") or str(pathlib.Path(os.environ["MILLRACE_INTEROP_DIR"]) / "kcat" / "kcat")
END_OF_KEY = b"<end of key>"
END_OF_RECORD = b"<end of record>"


def kcat(plan, *arguments, stdin=b""):
    done = subprocess.run([KCAT, "-b", plan["bootstrap"], "-q", *arguments], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, f"kcat {arguments} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def shown(output):
    """Its JSON holds the bytes as they are, whatever they are: read as Latin-1, each is one character."""
    for line in output.split(b"\n"):
        if line:
            yield json.loads(line.decode("latin-1"))


def content(text):
    return None if text is None else text.encode("latin-1")


def produce_one(plan, job):
    arguments = [
        "-P", "-t", job["topic"], "-p", "0", "-z", job["codec"], "-D", END_OF_RECORD, "-K", END_OF_KEY,
        "-X", f"enable.idempotence={str(job['idempotent']).lower()}",
    ]

    def at_once(record):
        # One run of kcat has one set of headers, and an empty key or value means the same for all of its records.
        key, value, headers, _ = record
        return headers, key is None or value is None

    for (headers, null), records in itertools.groupby(common.jobs_records(job), at_once):
        flags = [piece for name, value in headers for piece in ("-H", name.encode() + b"=" + value)] + (["-Z"] if null else [])
        lines = [(key or b"") + END_OF_KEY + (value or b"") + END_OF_RECORD for key, value, _, _ in records]
        kcat(plan, *arguments, *flags, stdin=b"".join(lines))


def consume_one(plan, job):
    output = kcat(plan, "-C", "-t", job["topic"], "-p", "0", "-o", "beginning", "-c", str(job["count"]), "-J", "-X", "check.crcs=true")
    for one in shown(output):
        flat = one.get("headers", [])
        headers = [(content(name).decode(), content(value)) for name, value in zip(flat[::2], flat[1::2])]
        common.show_record(job["topic"], one["offset"], content(one["key"]), content(one["payload"]), headers, one["ts"])


def group(plan):
    total = plan["partitions"] * plan["per_partition"]
    seen = []

    def member():
        arguments = ["-G", plan["group"], "-c", str(total // 2), "-J", "-X", "auto.offset.reset=earliest", plan["topic"]]
        seen.extend((one["partition"], one["offset"]) for one in shown(kcat(plan, *arguments)))

    def alone():
        member()
        common.equal("records", total // 2, len(set(seen)))

    def resume():
        member()
        wanted = [(partition, offset) for partition in range(plan["partitions"]) for offset in range(plan["per_partition"])]
        common.equal("records of both members", wanted, sorted(seen))

    common.step("a member alone", alone)
    common.step("resume from the commit", resume)


def admin(plan):
    topic = plan["group_topic"]

    def metadata():
        (answer,) = shown(kcat(plan, "-L", "-J", "-t", topic))
        (found,) = answer["topics"]
        common.equal("partitions", list(range(plan["partitions"])), sorted(one["partition"] for one in found["partitions"]))

    def offsets():
        for time, wanted in ((-2, 0), (-1, plan["per_partition"])):
            text = kcat(plan, "-Q", "-t", f"{topic}:0:{time}").decode()
            common.equal(f"offset at {time}", [str(wanted)], re.findall(r" \[0\] offset (\d+)", text))

    common.step("metadata", metadata)
    common.step("offsets", offsets)


if __name__ == "__main__":
    the_plan = common.plan()
    if sys.argv[1] in ("group", "admin"):
        {"group": group, "admin": admin}[sys.argv[1]](the_plan)
    else:
        one_job = {"produce": produce_one, "consume": consume_one}[sys.argv[1]]
        for the_job in the_plan["jobs"]:
            common.step(the_job["step"], lambda: one_job(the_plan, the_job))
