"""Apache Kafka: the real broker from Maven Central as a plain Java process, broker and controller in one."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import subprocess
from pathlib import Path
from typing import Dict, Optional

from .. import console, downloads, files
from ..failure import Failure, tail
from ..layout import DEPLOY, cache
from ..process import Command
from .part import Part, connect, local, split_address

VERSION = "4.1.0"
POM = DEPLOY / "kafka" / "pom.xml"
JARS_BYTES = 44_500_000
HEAP = "512m"


class Kafka(Part):
    name = "kafka"
    port_names = ["kafka", "kafka_controller"]
    override = "MILLRACE_TEST_KAFKA"
    stop_grace = 30.0

    def install(self) -> None:
        name = self._cached_name()
        if self.jars().is_dir():
            return
        with console.step(f"downloading Apache Kafka {VERSION} from Maven Central") as step:

            def fetch(directory):
                downloads.growth(step, directory, JARS_BYTES)
                log = self.layout.log / "kafka-install.log"
                goal = "dependency:copy-dependencies"
                downloads.run_logged(["mvn", "-B", "-f", str(POM), goal, f"-DoutputDirectory={directory}"], log)
                if not list(directory.glob(f"kafka_2.13-{VERSION}.jar")):
                    raise Failure("Maven ended well but the broker is not among the jars", log)

            downloads.published(name, fetch)

    def command(self) -> Command:
        properties = self.data / "server.properties"
        files.write_text(properties, self._properties())
        classpath = str(self.jars() / "*")
        if not (self.data / "log" / "meta.properties").exists():
            self._format(classpath, properties)
        argv = [
            "java",
            f"-Xmx{HEAP}",
            "-XX:+ExitOnOutOfMemoryError",
            f"-XX:ErrorFile={self.layout.log / 'kafka-crash-%p.log'}",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp",
            classpath,
            "kafka.Kafka",
            str(properties),
        ]
        return Command(argv, self.data)

    def unhealthy(self) -> Optional[str]:
        host, port = split_address(self.address)
        try:
            brokers, controller = _metadata(host, port)
        except (OSError, struct.error) as error:
            return f"no answer at {self.address} ({error})"
        if not brokers or controller < 0:
            return "the broker has not joined its controller yet"
        return None

    def status(self) -> Dict[str, object]:
        return {"address": self.address, "pid": self.pid()}

    def own_address(self) -> str:
        return local(self.ports["kafka"])

    def settings(self) -> Dict[str, str]:
        return {"MILLRACE__KAFKA__BROKERS": self.address}

    def jars(self) -> Path:
        """Where the broker is, for tests that start one of their own."""
        return cache() / self._cached_name()

    def _cached_name(self) -> str:
        return f"kafka-{VERSION}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:8]}"

    def _format(self, classpath: str, properties) -> None:
        cluster = _random_uuid()
        argv = ["java", "-Xmx256m", "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", cluster]
        log = self.layout.log / "kafka-format.log"
        with log.open("wb") as output:
            argv += ["-c", str(properties)]
            if subprocess.call(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output) != 0:
                raise Failure(f"Kafka's storage could not be formatted: {tail(log, 1)}", log)

    def _properties(self) -> str:
        broker, controller = local(self.ports["kafka"]), local(self.ports["kafka_controller"])
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data / "log"),
            # One broker: whatever Kafka keeps for itself has one copy.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            # After kill -9 the broker may not register again before its old session is over; the default is 9 s.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            # A group with one member need not wait for others to come.
            "group.initial.rebalance.delay.ms": "0",
            # A topic exists because `topics apply` made it, never because of a misspelt name.
            "auto.create.topics.enable": "false",
            # The default buffer is 128 MiB, a quarter of the heap.
            "log.cleaner.dedupe.buffer.size": "16777216",
            "num.network.threads": "2",
            "num.io.threads": "4",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def _random_uuid() -> str:
    """Kafka's form of a random id: 16 bytes in URL-safe base64, never with a dash in front."""
    while True:
        text = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


def _metadata(host: str, port: int) -> "tuple[int, int]":
    """How many brokers the cluster has and which one is the controller, asked with Metadata version 4."""
    client = b"dev"
    request = struct.pack(">hhih", 3, 4, 1, len(client)) + client + struct.pack(">i?", 0, False)
    with connect(host, port) as stream:
        stream.sendall(struct.pack(">i", len(request)) + request)
        body = _read(stream, struct.unpack(">i", _read(stream, 4))[0])
    at = 8  # correlation id, throttle time
    (brokers,) = struct.unpack_from(">i", body, at)
    at += 4
    for _ in range(brokers):
        at = _skip_string(body, at + 4)  # node id, host
        at = _skip_string(body, at + 4)  # port, rack
    at = _skip_string(body, at)  # cluster id
    (controller,) = struct.unpack_from(">i", body, at)
    return brokers, controller


def _skip_string(body: bytes, at: int) -> int:
    (length,) = struct.unpack_from(">h", body, at)
    return at + 2 + max(0, length)


def _read(stream, count: int) -> bytes:
    if not 0 <= count <= 1 << 20:
        raise OSError("an answer that is not Kafka's")
    received = b""
    while len(received) < count:
        piece = stream.recv(count - len(received))
        if not piece:
            raise OSError("the connection was closed")
        received += piece
    return received
