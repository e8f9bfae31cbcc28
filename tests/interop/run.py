"""Real clients against one broker: each writes with every codec, each reads what every other wrote, groups, administration,
Kafka's command-line tools, and franz-go's own suite. Knows the clients by the command that starts them.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import records  # noqa: E402
from harness import batch, server, wire  # noqa: E402
from harness.report import Report, short  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
GROUP_PARTITIONS = 4
GROUP_PER_PARTITION = 50
CLIENT_TIMEOUT_S = 240

GROUP_STEPS = ["a member alone", "commit", "rebalance with a second member", "resume from the commit"]

# `headers` is how it holds them: "ordered", "grouped" by name, or "map", of one value a name. `group_steps` may be empty.
Client = collections.namedtuple("Client", "name command headers both_null nul_in_headers timestamps group_steps", defaults=(True, True, GROUP_STEPS))


def clients():
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp", f"{server.INTEROP / 'java-client'}:{server.KAFKA_CLASSPATH}"]
    return [
        Client("confluent-kafka", [sys.executable, str(HERE / "client_confluent.py")], "ordered", True),
        Client("kafka-python", [sys.executable, str(HERE / "client_kafka_python.py")], "ordered", False),
        Client("aiokafka", [sys.executable, str(HERE / "client_aiokafka.py")], "ordered", False),
        Client("kafkajs", ["node", "--no-warnings", str(HERE / "node" / "client.mjs")], "grouped", True),
        Client("franz-go", [str(server.INTEROP / "franz" / "client")], "ordered", True),
        Client("java", java + ["JavaClient"], "ordered", True),
        Client("rskafka", [str(server.INTEROP / "rskafka" / "debug" / "interop-rskafka")], "map", True, group_steps=[]),
        # Its headers are arguments of a command, which hold no NUL; it stamps records itself; each member commits when it ends.
        Client("kcat", [sys.executable, str(HERE / "client_kcat.py")], "ordered", True, False, False, ["a member alone", "resume from the commit"]),
    ]


class Suite:
    def __init__(self, report, broker, label, work):
        self.report, self.broker, self.label, self.work = report, broker, label, work
        self.wire = wire.Connection("127.0.0.1", broker.port, client_id="orchestrator")

    def named(self, *parts):
        return f"{self.label}: " + ": ".join(parts)

    def create_topic(self, name, partitions=1):
        answer = self.wire.request("CreateTopics", 5, {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1}]})
        code = answer["Topics"][0]["ErrorCode"]
        assert code == 0, f"the suite cannot create topic {name}: error {code}"

    def run_client(self, client, mode, plan):
        """Starts a client; returns its JSON lines, and what it printed otherwise when it failed as a whole."""
        plan_path = self.work / f"{client.name}-{mode}.json"
        plan_path.write_text(json.dumps(plan))
        lines, trouble = [], None
        try:
            done = subprocess.run(
                client.command + [mode, str(plan_path)], capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S,
                cwd=self.work, preexec_fn=server.die_with_parent, env={**os.environ, "MILLRACE_INTEROP_DIR": str(server.INTEROP)},
            )
            output, errors = done.stdout, done.stderr
            if done.returncode != 0:
                trouble = f"{client.name} {mode} ended with {done.returncode}:\n{errors[-3000:]}"
        except subprocess.TimeoutExpired as late:
            output = (late.stdout or b"").decode(errors="replace")
            errors = (late.stderr or b"").decode(errors="replace")
            trouble = f"{client.name} {mode} does not end within {CLIENT_TIMEOUT_S} s\n{errors[-3000:]}"
        for line in output.splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                errors += "\n" + line
        if not self.broker.alive():
            trouble = f"the broker died:\n{self.broker.log_tail()}"
        return lines, trouble

    def report_steps(self, client, group, lines, trouble, wanted):
        """One case for each step; a step that never came is a failure too."""
        said = {line["step"]: line for line in lines if "step" in line}
        for step in wanted or said:
            name = self.named(client.name, group, step) if group else self.named(client.name, step)
            line = said.get(step)
            if line is None:
                self.report.fail(name, trouble or "the client ended before this step")
            else:
                self.report.check(name, line["ok"], line.get("error", "") + (f"\n{trouble}" if trouble else ""))
        if not wanted and (trouble or not said):
            self.report.fail(self.named(client.name, group or "all"), trouble or "no step was reported")
        return said

    def matrix(self, chosen):
        """Every client writes with every codec, plain and idempotent; every client reads all of it."""
        written = {}
        for client in chosen:
            content = records.build(client.headers, client.both_null, client.nul_in_headers)
            path = self.work / f"records-{client.name}.json"
            path.write_text(records.to_json(content))
            jobs = []
            for codec in CODECS:
                topic = f"from-{client.name}-{codec}"
                # zstd travels idempotent everywhere, so that each codec and each producer mode is seen without doubling the matrix.
                jobs.append({"step": f"writes {codec}", "topic": topic, "codec": codec, "idempotent": codec in ("none", "zstd"), "records": str(path)})
                self.create_topic(topic)
            lines, trouble = self.run_client(client, "produce", {"bootstrap": self.broker.bootstrap, "prefix": "w", "jobs": jobs})
            said = self.report_steps(client, None, lines, trouble, [job["step"] for job in jobs])
            for job in jobs:
                if said.get(job["step"], {}).get("ok"):
                    written[job["topic"]] = (client, job["codec"], content)
        for reader in chosen:
            jobs = [
                {"step": topic, "topic": topic, "count": len(content), "codec": codec} for topic, (_, codec, content) in written.items()
            ]
            lines, trouble = self.run_client(reader, "consume", {"bootstrap": self.broker.bootstrap, "prefix": f"r-{reader.name}", "jobs": jobs})
            by_topic = collections.defaultdict(list)
            for line in lines:
                if "record" in line:
                    by_topic[line["topic"]].append(line["record"])
            said = {line["step"]: line for line in lines if "step" in line}
            for topic, (writer, codec, content) in written.items():
                name = self.named(reader.name, f"reads {codec} of {writer.name}")
                line = said.get(topic)
                if line is None or not line["ok"]:
                    self.report.fail(name, (line or {}).get("error") or trouble or "the client ended before this step")
                else:
                    self.report.check(name, *compared(records.expected(content, writer.timestamps), by_topic[topic], reader.headers))

    def fill(self, topic, partitions, per_partition):
        self.create_topic(topic, partitions)
        for partition in range(partitions):
            data = batch.batch([(b"%d" % index, b"value %d" % index) for index in range(per_partition)])
            body = {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": partition, "Records": data}]}]}
            # Kafka answers a creation before the partition leads; only it needs the second try.
            for _ in range(40 if self.broker.kind == "kafka" else 1):
                code = self.wire.request("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]["ErrorCode"]
                if code not in (3, 6):
                    break
                time.sleep(0.05)
            assert code == 0, f"the suite cannot fill {topic}-{partition}: error {code}"

    def groups_and_admin(self, client):
        topic, group = f"group-{client.name}", f"the-group-of-{client.name}"
        self.fill(topic, GROUP_PARTITIONS, GROUP_PER_PARTITION)
        plan = {
            "bootstrap": self.broker.bootstrap, "topic": topic, "group": group, "partitions": GROUP_PARTITIONS,
            "per_partition": GROUP_PER_PARTITION, "prefix": client.name, "group_topic": topic,
        }
        if client.group_steps:
            lines, trouble = self.run_client(client, "group", plan)
            self.report_steps(client, "group", lines, trouble, client.group_steps)
        lines, trouble = self.run_client(client, "admin", plan)
        self.report_steps(client, "admin", lines, trouble, None)


def compared(expected, got, headers):
    """(equal, why not), naming the first record that differs."""
    got = sorted(got, key=lambda one: one["offset"])
    for wanted, found in zip(expected, got):
        wanted = {**wanted, "headers": records.arranged(wanted["headers"], headers)}
        different = [key for key in wanted if wanted[key] != found.get(key)]
        if different:
            return False, "\n".join(
                f"record {wanted['offset']}, {key}: expected {short(wanted[key])}, got {short(found.get(key))}" for key in different
            )
    if len(expected) != len(got):
        return False, f"expected {len(expected)} records, got {len(got)}"
    return True, ""


class JavaTools:
    """Kafka's command-line tools, by the class that each script starts."""

    CLASSES = {
        "topics": "org.apache.kafka.tools.TopicCommand",
        "configs": "kafka.admin.ConfigCommand",
        "console-producer": "org.apache.kafka.tools.ConsoleProducer",
        "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
        "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
        "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
        "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
        "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
        "e2e-latency": "org.apache.kafka.tools.EndToEndLatency",
        "dump-log": "org.apache.kafka.tools.DumpLogSegments",
    }

    def __init__(self, suite):
        self.suite = suite

    def run(self, tool, *arguments, stdin=None, bootstrap=True, expect_code=0):
        command = server.Server._java("-Xmx512m", self.CLASSES[tool])
        command += ["--bootstrap-server", self.suite.broker.bootstrap] if bootstrap else []
        done = subprocess.run(
            command + list(arguments), input=stdin, capture_output=True, text=True, timeout=120, preexec_fn=server.die_with_parent,
        )
        assert done.returncode == expect_code, (
            f"kafka-{tool} {' '.join(arguments)}: expected exit code {expect_code}, got {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        )
        return done.stdout

    def round_trip(self):
        report, run, name = self.suite.report, self.run, lambda what: self.suite.named("java tools", what)
        topic = "tools"

        def contains(text, *pieces):
            for piece in pieces:
                assert re.search(piece, text, re.MULTILINE), f"expected to find: {piece}\nin:\n{text[-2000:]}"

        def topics():
            contains(run("topics", "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=3600000"), f"Created topic {topic}")
            contains(run("topics", "--describe", "--topic", topic), r"PartitionCount: 2\tReplicationFactor: 1\tConfigs: .*retention.ms=3600000", r"Partition: 1\tLeader: 1\tReplicas: 1\tIsr: 1")
            contains(run("topics", "--list"), f"^{topic}$")
            run("topics", "--create", "--topic", topic, expect_code=1)

        def console():
            for codec in CODECS:
                lines = "".join(f"h{index}:x,h{index}:y\tkey{index}\tvalue {index} {codec}\n" for index in range(20))
                run("console-producer", "--topic", topic, "--compression-codec", codec, "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", stdin=lines)
            text = run(
                "console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "100", "--timeout-ms", "30000", "--group", "tools-group",
                "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
            )
            expected = sorted(f"h{index}:x,h{index}:y\tkey{index}\tvalue {index} {codec}" for codec in CODECS for index in range(20))
            got = sorted(text.splitlines())
            assert expected == got, f"expected {short(expected)}\ngot {short(got)}"

        def groups():
            contains(run("consumer-groups", "--list"), "^tools-group$")
            contains(run("consumer-groups", "--describe", "--group", "tools-group"), r"tools-group\s+tools\s+0\s+(\d+)\s+\1\s+0", r"tools-group\s+tools\s+1\s+(\d+)\s+\1\s+0")
            contains(run("consumer-groups", "--reset-offsets", "--group", "tools-group", "--topic", topic, "--to-earliest", "--execute"), r"tools-group\s+tools\s+1\s+0")
            contains(run("consumer-groups", "--delete", "--group", "tools-group"), "successful")

        def offsets():
            ends = dict(line.split(":")[1:] for line in run("get-offsets", "--topic", topic).split())
            assert sum(map(int, ends.values())) == 100, f"expected 100 records, got ends {ends}"
            path = self.suite.work / "delete.json"
            path.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 3}]}))
            contains(run("delete-records", "--offset-json-file", str(path)), "partition: tools-0\tlow_watermark: 3")
            contains(run("get-offsets", "--topic", topic, "--time", "-2"), "^tools:0:3$", "^tools:1:0$")

        def configs():
            run("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "max.message.bytes=2000000")
            contains(run("configs", "--describe", "--entity-type", "topics", "--entity-name", topic), "max.message.bytes=2000000 sensitive=false synonyms=")
            run("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--delete-config", "max.message.bytes")

        def performance():
            text = run("producer-perf-test", "--topic", "perf", "--num-records", "5000", "--record-size", "1000", "--throughput", "-1", "--producer-props",
                       f"bootstrap.servers={self.suite.broker.bootstrap}", "acks=all", bootstrap=False)
            contains(text, r"5000 records sent, [\d.]+ records/sec .*99.9th\.")
            text = run("consumer-perf-test", "--topic", "perf", "--num-records", "5000", "--timeout", "30000", "--group", "perf-group")
            contains(text, r"^start.time, ", r", 5000, ")

        def dumps():
            configs = [piece for config in ("segment.bytes=1048576", "cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01") for piece in ("--config", config)]
            run("topics", "--create", "--topic", "dumped", "--partitions", "1", "--replication-factor", "1", *configs)
            with wire.Connection("127.0.0.1", self.suite.broker.port) as connection:
                for number in range(60):
                    # Every second record has a key of its own and stays; the others have thirty keys between them.
                    pairs = [(b"%d" % (number * 60 + one if one % 2 else one % 100), os.urandom(1000)) for one in range(60)]
                    data = batch.batch(pairs, timestamp=int(time.time() * 1000))
                    body = {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": "dumped", "PartitionData": [{"Index": 0, "Records": data}]}]}
                    answer = connection.request("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
                    assert answer["ErrorCode"] == 0, answer
            place = self.suite.broker.data / "dumped-0"
            first = place / "00000000000000000000.log"
            deadline = time.monotonic() + 60
            while not (first.exists() and 0 < first.stat().st_size < 800_000 and first.with_suffix(".index").exists()):
                assert time.monotonic() < deadline, f"never compacted: {sorted((file.name, file.stat().st_size) for file in place.iterdir())}"
                time.sleep(0.1)
            names, before = sorted(place.iterdir()), None
            while names != before:
                # Another round may follow, with what was closed since.
                time.sleep(3)
                names, before = sorted(place.iterdir()), names
            # Kafka keeps those of the newest segment longer than their content while it is written to.
            newest = max(file.stem for file in names if file.suffix == ".log")
            indexes = sorted(str(file) for file in names if file.suffix in (".index", ".timeindex") and file.stem != newest and file.stat().st_size)
            assert len(indexes) >= 4, indexes
            text = run("dump-log", "--index-sanity-check", "--files", ",".join(indexes), bootstrap=False)
            contains(text, *[f"{re.escape(index)} passed sanity check" for index in indexes])
            # It says nothing of an index that fits its segment.
            text = run("dump-log", "--verify-index-only", "--files", ",".join(indexes), bootstrap=False)
            said = [line for line in text.splitlines() if line and not line.startswith("Dumping ")]
            assert not said, said
            text = run("dump-log", "--deep-iteration", "--files", str(first), bootstrap=False)
            contains(text, "^baseOffset: 0 lastOffset: 59 count: 30 .*isvalid: true", "^\\| offset: 59 ")
            run("topics", "--delete", "--topic", "dumped")

        def rest():
            contains(run("broker-api-versions"), r"Produce\(0\): \d+ to 13", r"Fetch\(1\): 4 to 18")
            contains(run("log-dirs", "--describe", "--topic-list", topic), '"partition":"tools-0"')
            run("topics", "--delete", "--topic", topic)

        for what, work in (
            ("topics", topics), ("console producer and consumer, every codec", console), ("consumer-groups", groups),
            ("get-offsets and delete-records", offsets), ("configs", configs), ("perf tools", performance), ("dump-log of compacted segments and their indexes", dumps), ("the rest", rest),
        ):
            report.case(name(what), work)


def franz_suite(suite, record_count):
    """franz-go's own tests but those of transactions, KIP-848 and share groups, and of what needs no broker at all."""
    report = suite.report
    skip = "TestTxnEtl|TestShareGroup|Share|848|Txn|SCRAM"
    command = [str(server.INTEROP / "franz" / "kgo.test"), "-test.v", "-test.timeout", "600s", "-test.skip", skip]
    # Some of its tests read their own sources.
    sources = subprocess.run(["go", "list", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kgo"], cwd=HERE / "franz", capture_output=True, text=True, check=True).stdout.strip()
    environment = {**os.environ, "KGO_SEEDS": suite.broker.bootstrap, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": str(record_count), "KGO_LOG_LEVEL": "none"}
    log = suite.work / "kgo.log"
    started = time.monotonic()
    with open(log, "w") as out:
        try:
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=sources, preexec_fn=server.die_with_parent, timeout=660)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = "no end within 660 s"
    text = log.read_text(errors="replace")
    results = re.findall(r"^--- (PASS|FAIL|SKIP): (\S+) ", text, re.MULTILINE)
    for result, test in results:
        name = suite.named("franz-go's suite", test)
        if result == "PASS":
            report.ok(name)
        elif result == "FAIL":
            failure = text[: text.index(f"--- FAIL: {test} ")]
            report.fail(name, failure[-2000:] + text[len(failure) : len(failure) + 2000])
    if code != 0 and not any(result == "FAIL" for result, _ in results) or not results:
        report.fail(suite.named("franz-go's suite"), f"ended with {code}:\n{text[-3000:]}")
    report.note(f"franz-go's suite took {time.monotonic() - started:.0f} s; its output is {log}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--cores", default="1,2", help="numbers of cores, one run each")
    parser.add_argument("--filter", help="run only parts whose name (a client, 'matrix', 'tools', 'kgo') matches this")
    parser.add_argument("--kgo-records", type=int, default=5000)
    options = parser.parse_args()
    report = Report()
    wants = lambda part: options.filter is None or re.search(options.filter, part)  # noqa: E731
    all_cores = [int(count) for count in options.cores.split(",")] if options.broker == "millrace" else [2]
    for cores in all_cores:
        label = f"{cores} core{'s' if cores > 1 else ''}" if options.broker == "millrace" else "kafka"
        work = server.INTEROP / "run" / f"interop-{options.broker}-{cores}"
        broker = server.Server(options.broker, work, cores, {"auto.create.topics.enable": "true", "log.cleaner.backoff.ms": "500"})
        try:
            print(f"NOTE  {label}: the broker answers after {broker.start():.2f} s at {broker.bootstrap}")
            suite = Suite(report, broker, label, work)
            chosen = [client for client in clients() if wants(client.name) or wants("matrix")]
            if chosen:
                suite.matrix(chosen)
            for client in clients():
                if wants(client.name):
                    suite.groups_and_admin(client)
            if wants("tools"):
                JavaTools(suite).round_trip()
            # The longest part, once: on the most cores.
            if wants("kgo") and cores == all_cores[-1]:
                franz_suite(suite, options.kgo_records)
            report.check(f"{label}: the broker is alive at the end", broker.alive(), broker.log_tail)
            code = broker.stop()
            report.check(f"{label}: SIGTERM ends it with exit code 0", code == (0 if options.broker == "millrace" else 143), f"exit code {code}")
        except AssertionError as error:
            report.fail(f"{label}: the broker", error)
        finally:
            broker.kill()
    report.finish()


if __name__ == "__main__":
    main()
