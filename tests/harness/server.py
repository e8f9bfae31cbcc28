"""Starts and stops a broker, Millrace or Kafka, in a directory of its own, from the same server.properties.

Knows how each is started and when it is ready; what is asked of it is the suites' business.
"""

import atexit
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from . import wire

INTEROP = pathlib.Path(os.environ.get("MILLRACE_INTEROP_DIR", "target/interop")).resolve()
BINARY = pathlib.Path(os.environ.get("MILLRACE_BINARY", "target/checks/millrace")).resolve()
KAFKA_CLASSPATH = str(INTEROP / "kafka" / "libs" / "*")
CLUSTER_ID = "bWlsbHJhY2UtdGVzdHMtMQ"

_ports_given = set()


def free_port():
    """A port that nobody listens on and that was not given before by this process."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # Below the range that outgoing connections take their ports from, a second start finds its port free.
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def die_with_parent():
    """In a child: end when the suite ends, however it ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One broker process. `kind` is "millrace" or "kafka"; `cores` counts for Millrace only."""

    def __init__(self, kind, directory, cores=1, overrides=None, memory=None):
        self.kind = kind
        self.directory = pathlib.Path(directory).resolve()
        self.cores = cores
        self.memory = memory
        self.overrides = dict(overrides or {})
        self.port = free_port()
        self.controller_port = free_port()
        self.process = None
        self.log_path = self.directory / "broker.log"
        self.data = self.directory / "data"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.data.mkdir(parents=True)
        self._write_properties()
        atexit.register(self.kill)

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def _write_properties(self):
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            # Without it every first member of a group waits three seconds.
            "group.initial.rebalance.delay.ms": "100",
        }
        if self.kind == "millrace":
            # Several run side by side.
            properties["http.listener"] = ""
        properties.update(self.overrides)
        self.properties = self.directory / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    def change(self, overrides):
        """Changes properties for the next start."""
        self.overrides.update(overrides)
        self._write_properties()

    def _command(self):
        if self.kind == "millrace":
            command = [str(BINARY), "start", str(self.properties), "--cores", str(self.cores)]
            return command + (["--memory", self.memory] if self.memory else [])
        return self._java("-Xmx768m", "-Xms256m", "kafka.Kafka", str(self.properties))

    @staticmethod
    def _java(*arguments):
        return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", KAFKA_CLASSPATH, *arguments]

    def start(self, timeout_s=60):
        """Starts, waits until it answers, and returns the seconds that took."""
        if self.kind == "kafka" and not (self.data / "meta.properties").exists():
            format_command = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self.properties))
            subprocess.run(format_command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.kind == "millrace" and not BINARY.exists():
            raise AssertionError(f"no broker at {BINARY}: build it first (cargo build --package millrace --profile checks)")
        started = time.monotonic()
        self.spawn()
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.kind} ended at start with {self.process.returncode}:\n{self.log_tail()}")
            if self._answers():
                return time.monotonic() - started
            if time.monotonic() - started > timeout_s:
                raise AssertionError(f"{self.kind} does not answer within {timeout_s} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def spawn(self):
        """Starts it and does not wait; returns its process."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, preexec_fn=die_with_parent
            )
        return self.process

    def _answers(self):
        try:
            with wire.Connection("127.0.0.1", self.port, timeout_s=5) as connection:
                answer = connection.request("Metadata", 1, {"Topics": []})
                return len(answer["Brokers"]) == 1 and answer["ControllerId"] >= 0
        except (OSError, wire.Closed, EOFError):
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9."""
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self, timeout_s=60):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.kind} does not stop within {timeout_s} s of SIGTERM:\n{self.log_tail()}") from None

    def resident_bytes(self):
        """The memory of the process that is in RAM now."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def log_tail(self, lines=30):
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])
