"""The bench tools end to end against one broker: generator, workloads, reports and perf tools, over both protocols.

What they write is read back by the HdrHistogram library for Python. Knows the tools' output and files; how fast anything
was does not matter here, but for one case: a broker that is stopped for a second must show.
"""

import argparse
import bisect
import json
import math
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from hdrh.histogram import HdrHistogram  # noqa: E402
from hdrh.log import HistogramLogReader  # noqa: E402

from harness import server, wire  # noqa: E402
from harness.report import Report  # noqa: E402

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "p99_99": 99.99}
WORKLOAD = """name: tiny
topics: 1
partitionsPerTopic: 2
keyDistributor: KEY_ROUND_ROBIN
messageSize: 100
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 10
subscriptionsPerTopic: 1
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: 200
consumerBacklogSizeGB: 0
warmupDurationMinutes: 0.01
testDurationMinutes: {minutes}
"""
STOP_S = 1.0
# What of it must show at least: the signals themselves take a moment.
SHOWN_S = 0.9


def near(expected, got, share=0.002):
    """Three digits, whose last may be rounded either way."""
    return abs(expected - got) <= share * max(abs(expected), abs(got)) + 1e-9


class Ranks:
    """What was recorded, by rank. Libraries round a percentile to a rank in different ways: the neighbours count too."""

    def __init__(self, histogram):
        self.total, self.ends, self.values = 0, [], []
        for item in histogram.get_recorded_iterator():
            self.total += item.count_at_value_iterated_to
            self.ends.append(self.total)
            self.values.append(item.value_iterated_to)

    def at(self, rank):
        return self.values[bisect.bisect_left(self.ends, min(max(rank, 1), self.total))]

    def agrees(self, percentile, value, slack=0.0):
        rank = math.ceil(percentile / 100 * self.total)
        low, high = self.at(rank - 1), self.at(rank + 1)
        return low * 0.998 - slack <= value <= high * 1.002 + slack


class Suite:
    def __init__(self, broker, native_port, socket, directory):
        self.broker = broker
        self.native = f"127.0.0.1:{native_port}"
        self.unix = f"unix:{socket}"
        self.directory = directory
        self.report_of = None

    def run(self, *arguments, timeout_s=60):
        command = [str(server.BINARY), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=self.directory,
                              preexec_fn=server.die_with_parent)
        assert done.returncode == 0, f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        return done.stdout

    def load(self, protocol, topic, *options):
        where = ["--bootstrap-server", self.broker.bootstrap]
        if protocol != "kafka":
            address = self.unix if protocol == "unix" else self.native
            where = ["--protocol", "native", "--bootstrap-server", address, "--kafka-server", self.broker.bootstrap]
        return json.loads(self.run("bench", "load", *where, "--topic", topic, "--create-topic", "--output", "json",
                                   "--broker-pid", self.broker.process.pid, *options))

    def ends(self, topic, partitions):
        """The sum of the ends of a topic's partitions."""
        with wire.Connection("127.0.0.1", self.broker.port) as connection:
            asked = [{"PartitionIndex": index, "Timestamp": -1, "CurrentLeaderEpoch": -1} for index in range(partitions)]
            answer = connection.request("ListOffsets", 5, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [
                {"Name": topic, "Partitions": asked}]})
        (found,) = answer["Topics"]
        assert all(partition["ErrorCode"] == 0 for partition in found["Partitions"]), answer
        return sum(partition["Offset"] for partition in found["Partitions"])

    def a_second_of_load(self, protocol):
        told = self.load(protocol, f"second-{protocol}", "--connections", 4, "--record-size", 100, "--warmup-seconds", 0.2,
                         "--seconds", 1)
        assert told["workload"]["protocol"] == ("kafka" if protocol == "kafka" else "native"), told["workload"]
        assert told["requests"] > 0 and told["value_bytes"] == 100 * told["records"], told
        assert told["broker"]["cpu_seconds"] > 0 and told["broker"]["resident_bytes_max"] > 1 << 20, told["broker"]
        for beginning in ("latency_from_intended_us", "latency_from_actual_us"):
            latency = told[beginning]
            histogram = HdrHistogram.decode(latency["histogram"])
            assert histogram.get_total_count() == latency["count"] > 0, (beginning, latency["count"])
            ranks = Ranks(histogram)
            for name, percentile in PERCENTILES.items():
                assert ranks.agrees(percentile, latency[name], 1), \
                    f"{beginning} {name}: {latency[name]}, and in the library {histogram.get_value_at_percentile(percentile)}"
            assert near(latency["max"], histogram.get_max_value()), (latency["max"], histogram.get_max_value())

    def exactly_what_was_sent_is_there(self, protocol):
        topic = f"exact-{protocol}"
        told = self.load(protocol, topic, "--connections", 3, "--in-flight", 2, "--partitions", 6, "--partitions-per-request", 2,
                         "--records-per-batch", 5, "--requests", 50)
        assert (told["requests"], told["records"]) == (50, 500), told
        assert self.ends(topic, 6) == 500, self.ends(topic, 6)

    def workload(self, name, minutes, stop_after_s=None):
        path = self.directory / f"{name}.yaml"
        path.write_text(WORKLOAD.format(minutes=minutes))
        output = self.directory / name
        stopping = threading.Thread(target=self.stop_for_a_moment, args=(stop_after_s,)) if stop_after_s else None
        if stopping:
            stopping.start()
        self.run("bench", "run", path, "--bootstrap-server", self.broker.bootstrap, "--output", output)
        if stopping:
            stopping.join()
        return output, json.loads((output / "run.json").read_text())

    def a_tiny_workload(self):
        output, told = self.workload("tiny", 0.03)
        totals = told["totals"]
        assert totals["records_failed"] == 0 and totals["records_acknowledged"] > 0, totals
        assert totals["records_received"] > 0, totals
        kinds = {(latency["kind"], latency["since"]) for latency in told["latencies"]}
        assert {("publish", "intended"), ("publish", "sent"), ("end_to_end", "intended")} <= kinds, kinds
        self.report_of = output

    def hdr_files_are_read_by_another_language(self):
        assert self.report_of, "there is no result"
        told = json.loads((self.report_of / "run.json").read_text())
        for latency in told["latencies"]:
            stem = f"{latency['kind'].replace('_', '-')}-{latency['since']}"
            whole = HdrHistogram.decode(latency["histogram"])
            assert whole.get_total_count() == latency["count"], stem
            log = self.report_of / f"{stem}.hlog"
            if log.exists():
                self.check_log(log, whole)
            if latency["count"]:
                self.check_distribution(self.report_of / f"{stem}.hgrm", whole)
        assert list(self.report_of.glob("*.hlog")) and list(self.report_of.glob("*.hgrm")), "no such files"

    @staticmethod
    def check_log(log, whole):
        """The intervals of the log, added up, are the whole."""
        merged = HdrHistogram(whole.lowest_trackable_value, whole.highest_trackable_value, whole.significant_figures)
        reader = HistogramLogReader(str(log), merged)
        intervals = 0
        while (interval := reader.get_next_interval_histogram()) is not None:
            merged.add(interval)
            intervals += 1
        assert intervals > 0 and merged.get_total_count() == whole.get_total_count(), \
            f"{log.name}: {intervals} intervals with {merged.get_total_count()} of {whole.get_total_count()}"
        for percentile in PERCENTILES.values():
            # Both by one library, which rounds in one way.
            assert near(whole.get_value_at_percentile(percentile), merged.get_value_at_percentile(percentile)), (log.name, percentile)

    @staticmethod
    def check_distribution(path, whole):
        """Each line says what the library's histogram says at that percentile."""
        lines = re.findall(r"^\s*([\d.]+)\s+([01]\.\d+)\s+(\d+)", path.read_text(), re.MULTILINE)
        assert len(lines) >= 3, f"{path.name} has {len(lines)} lines"
        assert int(lines[-1][2]) == whole.get_total_count(), path.name
        ranks = Ranks(whole)
        for value_ms, quantile, _ in lines:
            # Three decimals of a millisecond are what the file has.
            assert ranks.agrees(float(quantile) * 100, float(value_ms) * 1e6, slack=1100), \
                f"{path.name}: {value_ms} ms at {quantile}, and {whole.get_value_at_percentile(float(quantile) * 100)} ns in the library"

    def a_report_from_its_json(self):
        assert self.report_of, "there is no result"
        output = self.directory / "again"
        self.run("bench", "report", self.report_of / "run.json", self.report_of / "run.json", "--name", "one", "--name", "two",
                 "--output", output)
        page = (output / "report.html").read_text()
        for part in ("one", "two", "<svg"):
            assert part in page, f"no {part} in the page"
        # Without a network: nothing is fetched. Namespaces are only names.
        fetched = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*|url\(["']?(?!#|data:)[^)]*|@import[^;]*""", page)
        assert not fetched, fetched
        for name in ("report.txt",):
            assert (output / name).stat().st_size > 0, name
        assert list(output.glob("*.png")) and list(output.glob("*.svg")), "no pictures"

    def stop_for_a_moment(self, after_s):
        time.sleep(after_s)
        self.broker.process.send_signal(signal.SIGSTOP)
        time.sleep(STOP_S)
        self.broker.process.send_signal(signal.SIGCONT)

    def a_stopped_broker_shows(self, protocol):
        stopping = threading.Thread(target=self.stop_for_a_moment, args=(1.8,))
        stopping.start()
        told = self.load(protocol, f"stopped-{protocol}", "--connections", 2, "--in-flight", 1, "--rate", 200, "--record-size", 100,
                         "--warmup-seconds", 0.3, "--seconds", 4)
        stopping.join()
        intended, actual = told["latency_from_intended_us"], told["latency_from_actual_us"]
        assert intended["max"] >= SHOWN_S * 1e6, f"the longest latency from the intended time is {intended['max']} us"
        # One request of each connection was under way when it stopped, and 200 were due: half of them waited half a second.
        late = sum(value.count_at_value_iterated_to for value in HdrHistogram.decode(intended["histogram"]).get_recorded_iterator()
                   if value.value_iterated_to >= SHOWN_S * 1e6 / 2)
        assert late >= 40, f"{late} requests were half a second late"
        assert actual["p50"] < SHOWN_S * 1e6 / 2, f"half of the requests took {actual['p50']} us from their sending"
        assert intended["count"] == actual["count"] > 0, (intended["count"], actual["count"])

    def a_stopped_broker_shows_in_a_workload(self):
        _, told = self.workload("stopped", 0.07, stop_after_s=4.0)
        of = {(latency["kind"], latency["since"]): latency["percentiles_us"] for latency in told["latencies"]}
        longest = of["publish", "intended"]["max"]
        assert longest >= SHOWN_S * 1e6, f"the longest publish latency from the intended time is {longest} us"
        assert of["publish", "sent"]["p50"] < SHOWN_S * 1e6 / 2, of["publish", "sent"]

    def perf_tools_over_the_native_protocol(self, address, perf):
        servers = ["--bootstrap-server", address]
        out = self.run("producer-perf-test", *servers, "--topic", perf, "--num-records", 5000, "--record-size", 100,
                       "--throughput", -1, "--command-property", "buffer.memory=100000")
        assert re.search(r"^5000 records sent, .* ms 99\.9th\.$", out, re.MULTILINE), out
        assert self.ends(perf, 1) == 5000
        row = self.run("consumer-perf-test", *servers, "--topic", perf, "--num-records", 5000, "--hide-header")
        cells = [cell.strip() for cell in row.strip().split(",")]
        assert cells[4] == "5000" and near(float(cells[2]), 500_000 / 2**20, 0.001), row
        # The other protocol reads the same.
        row = self.run("consumer-perf-test", "--bootstrap-server", self.broker.bootstrap, "--topic", perf, "--num-records", 5000,
                       "--hide-header")
        assert row.split(",")[4].strip() == "5000", row
        out = self.run("e2e-latency", *servers, "--topic", f"{perf}-and-back", "--num-records", 20, "--producer-acks", "all",
                       "--record-size", 50)
        assert "Avg latency: " in out and "99.9th = " in out, out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter")
    options = parser.parse_args()
    report = Report(options.filter)
    port = server.free_port()
    directory = server.INTEROP / "run" / "bench"
    # Where the suites keep their files, a path may be longer than a socket's can be.
    places = tempfile.TemporaryDirectory(prefix="millrace-")
    socket = pathlib.Path(places.name) / "native.sock"
    broker = server.Server("millrace", directory, 1, {"native.listener": f"127.0.0.1:{port}", "native.unix.socket": str(socket)})
    try:
        broker.start()
        suite = Suite(broker, port, socket, directory)
        for protocol in ("kafka", "native", "unix"):
            report.case(f"bench: a second of load, {protocol}", lambda: suite.a_second_of_load(protocol))
            report.case(f"bench: exactly what was sent is there, {protocol}", lambda: suite.exactly_what_was_sent_is_there(protocol))
        report.case("bench: a tiny workload", suite.a_tiny_workload)
        report.case("bench: .hlog and .hgrm are read by another language", suite.hdr_files_are_read_by_another_language)
        report.case("bench: a report from its JSON", suite.a_report_from_its_json)
        for address, topic in ((f"native://{suite.native}", "perf"), (suite.unix, "perf-unix")):
            report.case(f"bench: perf tools over the native protocol, {topic}", lambda: suite.perf_tools_over_the_native_protocol(address, topic))
        for protocol in ("kafka", "native"):
            report.case(f"bench: a broker stopped for a second shows, {protocol}", lambda: suite.a_stopped_broker_shows(protocol))
        report.case("bench: a broker stopped for a second shows in a workload", suite.a_stopped_broker_shows_in_a_workload)
        report.check("bench: the broker is alive", broker.alive(), broker.log_tail)
    except AssertionError as error:
        report.fail("bench: the broker serves", error)
    finally:
        broker.kill()
        places.cleanup()
    report.finish()


if __name__ == "__main__":
    main()
