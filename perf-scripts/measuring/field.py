"""The sides of a comparison: who is started when, who may run while another is measured, and one measured run of each.

Knows brokers and loads; knows no table.
"""

import itertools
import os
import time

from . import brokers, machine, workloads

# Deleted topics go at once, so that their files do not fill the disk.
CONFIGS = ["file.delete.delay.ms=100"]
FLUSHED = ["flush.messages=1"]
# A broker that uses less of a core has nothing left to do; and how long to wait for that.
IDLE_SHARE = 0.15
SETTLE_S_MAX = 15


class Rival:
    """A broker that somebody else started."""

    def __init__(self, address, pid):
        self.address = address
        self.pid = pid

    def pause(self):
        pass

    def go_on(self):
        pass

    def remove(self):
        pass


class Field:
    """The brokers, of which one at a time may run.

    With `lasting`, Millrace lives as long as the field, like Kafka; else every run starts it anew in an empty directory. The
    bare loop always is.
    """

    def __init__(self, asked, binary, directory, servers, lasting):
        self.asked = asked
        self.binary = binary
        self.directory = directory
        self.servers = servers
        self.lasting = lasting
        self.kept = {}
        self.topics = itertools.count()
        self.primed = set()

    def _port(self):
        return brokers.free_port(self.asked.ports)

    def _millrace(self, cores):
        server = brokers.Millrace(self.directory / "millrace", self._port(), cores, self.binary, native_port=self._port())
        self.servers.append(server)
        return server.start()

    def _kafka(self):
        server = brokers.Kafka(self.directory / "kafka", self._port(), self._port(), [self.asked.broker_core],
                               brokers.kafka_libraries(self.asked.kafka_libraries))
        self.servers.append(server)
        server.start()
        self.kept["kafka"] = server
        # Its compiler works while it serves.
        for row in workloads.ROWS[:2]:
            if self.asked.kafka_warmup_seconds:
                self._alone(server)
                self._load("kafka", server, row, self.asked.kafka_warmup_seconds / 2, 0)
        return server

    def lasting_server(self, side):
        """The broker of a side that lives on from run to run; started when it is first asked for."""
        name = {"kafka-flush": "kafka", "native": "millrace", "native-unix": "millrace"}.get(side, side)
        if name in self.kept:
            return self.kept[name]
        if name == "kafka":
            return self._kafka()
        if name == "rival":
            self.kept[name] = Rival(self.asked.rival, self.asked.rival_pid)
        else:
            self.kept[name] = self._millrace([self.asked.broker_core])
        return self.kept[name]

    def _alone(self, chosen):
        """Lets one broker run and nobody else, with nothing left to be written."""
        for server in self.kept.values():
            if server is not chosen:
                server.pause()
        chosen.go_on()
        os.sync()
        self._settle(chosen)

    @staticmethod
    def _settle(server):
        """Waits until a broker has done what its last run left to it: deleting files, above all."""
        time.sleep(0.5)
        until = time.monotonic() + SETTLE_S_MAX
        while server.pid and time.monotonic() < until:
            before = machine.usage(server.pid)["cpu_seconds"]
            time.sleep(0.3)
            if machine.usage(server.pid)["cpu_seconds"] - before < 0.3 * IDLE_SHARE:
                break

    def alone(self, side):
        """The lasting broker of a side, with all others stopped."""
        server = self.lasting_server(side)
        self._alone(server)
        return server

    def configs(self, side):
        return CONFIGS + (FLUSHED if side == "kafka-flush" else [])

    def _load(self, side, server, row, seconds, warmup):
        asked, extra = self.asked, ["--spin"] if self.asked.spin else []
        native = side.startswith("native")
        address = server.address
        if native:
            # A native client may ask the broker to look for work before it sleeps; one with a core of its own, as here, does.
            extra.append("--idle-poll")
            address = f"127.0.0.1:{server.native_port}" if side == "native" else f"unix:{server.native_socket}"
        topic = None if side == "bare" else f"load-{row.name}-{next(self.topics)}"
        lasts = row.topic is not None and topic is not None
        if lasts:
            topic = f"{row.topic}-{side}"
            if (server, topic) not in self.primed:
                workloads.prime(self.binary, server.address, asked.load_core, topic, self.configs(side))
                self.primed.add((server, topic))
                self._settle(server)
        return workloads.load(
            self.binary, row, address,
            [asked.broker_core, asked.load_core] if side == "two" else [asked.load_core], seconds, warmup, pid=server.pid,
            topic=topic, configs=self.configs(side), extra=extra, kafka_address=server.address if native else None, lasts=lasts)

    def measure(self, side, row):
        """One run of a row on a side."""
        asked = self.asked
        if side in ("kafka", "kafka-flush", "rival") or (self.lasting and side in ("millrace", "native", "native-unix")):
            return self._load(side, self.alone(side), row, asked.seconds, asked.warmup_seconds)
        if side == "bare":
            server = brokers.Bare(self.directory / "bare", self._port(), asked.broker_core, self.binary)
            self.servers.append(server)
            server.start()
        else:
            cores = [asked.broker_core, asked.load_core] if side == "two" else [asked.broker_core]
            lasting, self.directory = self.directory, self.directory / "fresh"
            try:
                server = self._millrace(cores)
            finally:
                self.directory = lasting
        try:
            self._alone(server)
            return self._load(side, server, row, asked.seconds, asked.warmup_seconds)
        finally:
            server.remove()
            self.servers.remove(server)
