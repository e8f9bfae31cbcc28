"""Starts and stops what is measured: Millrace, Kafka, the bare loop; each on given cores, in a directory of its own.

Knows how each is started and when it answers; what is asked of it is the workload's business.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import machine

# As kafka-server-start.sh and kafka-run-class.sh have it.
KAFKA_JVM = ["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
             "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]
POM = machine.ROOT / "tests" / "interop" / "kafka" / "pom.xml"
CLUSTER_ID = "bWlsbHJhY2UtdGVzdHMtMQ"
LOG4J = """status=error
appender.stdout.type=Console
appender.stdout.name=STDOUT
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRefs=stdout
rootLogger.appenderRef.stdout.ref=STDOUT
"""


_ports_given = set()


def free_port(ports=None):
    """A port that nobody listens on: of a range like "21000-21999", or any."""
    first, last = (int(part) for part in ports.split("-")) if ports else (0, 0)
    for port in range(first, last + 1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = probe.getsockname()[1]
        if found not in _ports_given:
            _ports_given.add(found)
            return found
    raise SystemExit(f"no free port in {ports}" if ports else "no free port")


def child(cores=None):
    """What a child does before it becomes its program: end when the script ends, and keep to its cores."""

    def prepare():
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores is not None:
            os.sched_setaffinity(0, cores)

    return prepare


def build():
    """Builds the release binary and returns its path."""
    print("building: cargo build --release --package millrace", flush=True)
    subprocess.run(["cargo", "build", "--quiet", "--release", "--package", "millrace"], check=True, cwd=machine.ROOT)
    return machine.target() / "release" / "millrace"


class Process:
    """A program that serves on a port."""

    name = "?"

    def __init__(self, directory, port, cores):
        self.directory = pathlib.Path(directory).resolve()
        self.port = port
        self.cores = cores
        self.process = None
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / f"{self.name}.log"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def command(self):
        raise NotImplementedError

    def start(self, timeout_s=60):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.directory, preexec_fn=child(self.cores))
        until = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.name} does not serve:\n{machine.read(self.log_path)[-3000:]}")
            time.sleep(0.02)

    def pause(self):
        """SIGSTOP: it takes no time from the others."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, timeout_s=60):
        """SIGTERM, and SIGKILL for what does not obey."""
        if self.process is None or self.process.poll() is not None:
            return
        self.go_on()
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def remove(self):
        """Ends it and removes its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Bare(Process):
    """The bare loop of `millrace bench bare`."""

    name = "bare"

    def __init__(self, directory, port, core, binary):
        super().__init__(directory, port, {core})
        self.core = core
        self.binary = binary

    def command(self):
        return [str(self.binary), "bench", "bare", "--listen", self.address, "--journal", str(self.directory / "journal"),
                "--core", str(self.core)]


class Millrace(Process):
    """Millrace with its defaults: what it acknowledges is flushed."""

    name = "millrace"

    def __init__(self, directory, port, cores, binary, overrides=None, http_port=None, wrapper=(), native_port=None):
        super().__init__(directory, port, set(cores))
        self.binary = binary
        self.http_port = http_port
        self.native_port = native_port
        # A socket's path has room for a hundred characters, which a build directory may take.
        self.socket_directory = tempfile.mkdtemp(prefix="millrace-") if native_port else None
        self.native_socket = f"{self.socket_directory}/native" if native_port else None
        self.overrides = {
            "log.dirs": self.directory / "data",
            "listeners": f"PLAINTEXT://{self.address}",
            "http.listener": f"127.0.0.1:{http_port}" if http_port else "",
            "native.listener": f"127.0.0.1:{native_port}" if native_port else "",
            "native.unix.socket": self.native_socket or "",
            "offsets.topic.replication.factor": 1,
            "group.initial.rebalance.delay.ms": 0,
            **(overrides or {}),
        }
        self.wrapper = list(wrapper)

    def command(self):
        cores = sorted(self.cores)
        # A single number would be a count.
        chosen = f"{cores[0]}-{cores[0]}" if len(cores) == 1 else ",".join(map(str, cores))
        command = [*self.wrapper, str(self.binary), "start", "--cores", chosen]
        for key, value in self.overrides.items():
            command += ["--override", f"{key}={value}"]
        return command

    def remove(self):
        super().remove()
        if self.socket_directory:
            shutil.rmtree(self.socket_directory, ignore_errors=True)


def kafka_libraries(given=None):
    """Where Kafka's jars are; fetched from Maven into the build directory when they are nowhere yet."""
    interop = pathlib.Path(os.environ.get("MILLRACE_INTEROP_DIR", machine.target() / "interop"))
    for directory in [given] if given else [interop / "kafka" / "libs", machine.target() / "perf" / "kafka"]:
        if any(directory.glob("kafka_2.13-*.jar")):
            return directory.resolve()
    if given:
        raise SystemExit(f"{given} has no kafka_2.13-*.jar")
    for needed in ("java", "mvn"):
        if not shutil.which(needed):
            raise SystemExit(f"{needed} is not installed: Kafka needs a JDK of 17 or newer, and Maven fetches it (or name a "
                             "directory with its jars by --kafka-libraries; or leave it out, with --sides)")
    directory.mkdir(parents=True, exist_ok=True)
    print(f"fetching Kafka from Maven into {directory}", flush=True)
    done = subprocess.run(["mvn", "-B", "-q", "-f", str(POM),
                           "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
                           f"-DoutputDirectory={directory}"])
    if done.returncode != 0:
        raise SystemExit("Maven could not fetch Kafka")
    return directory


class Kafka(Process):
    """Kafka in one process (KRaft), with the JVM options of its own start script."""

    name = "kafka"

    def __init__(self, directory, port, controller_port, cores, libraries, overrides=None):
        super().__init__(directory, port, set(cores))
        self.libraries = libraries
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.directory / "data",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # It is stopped (SIGSTOP) while others are measured, and must not count itself as dead afterwards.
            "broker.session.timeout.ms": 3_600_000,
            **(overrides or {}),
        }
        self.properties = self.directory / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (self.directory / "log4j2.properties").write_text(LOG4J)

    def _java(self, *arguments):
        return ["java", *KAFKA_JVM, f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
                "-cp", f"{self.libraries}/*", *arguments]

    def command(self):
        return self._java("kafka.Kafka", str(self.properties))

    def start(self, timeout_s=60):
        if not (self.directory / "data" / "meta.properties").exists():
            subprocess.run(self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self.properties)),
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return super().start(timeout_s)
