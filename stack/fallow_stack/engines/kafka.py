"""Apache Kafka, the real one: its jars by Maven, one KRaft node of our own that is broker and controller at once.

``fetch`` has Maven copy the server and what it needs into a folder (``deploy/kafka/pom.xml`` names the version); it
costs a download once. The node runs from ``java -cp`` with a bounded heap, listens on loopback only and keeps its log
under the data folder. Java 17 or newer and Maven are needed; ``missing`` says which is not there.
"""

import asyncio
import fcntl
import shutil
import signal
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

from fallow_stack.engines.engine import Engine
from fallow_stack.engines.process import EngineError, Process, leashed
from fallow_stack.loopback_ports import free_port

HEAP_MEGABYTES: Final = 512
FETCH_SECONDS: Final = 300
FORMAT_SECONDS: Final = 60
STOP_SECONDS: Final = 15.0
MIN_JAVA: Final = 17
CLUSTER_ID: Final = urlsafe_b64encode(uuid.UUID(int=0xFA110).bytes).decode().rstrip("=")

_API_VERSIONS_REQUEST: Final = bytes.fromhex("0000000a 0012 0000 00000001 ffff")
"""The protocol's first question (size, key 18, version 0, correlation 1, no client id); needs no topic and no right."""

_PROPERTIES: Final = """\
# Written at each start by the launcher; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://127.0.0.1:{port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A single node has no other members to wait for.
group.initial.rebalance.delay.ms=0
# A node that was killed is let back in when its last session is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
group.min.session.timeout.ms=1000
controlled.shutdown.max.retries=1
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
queued.max.requests=100
"""

_LOGGING: Final = """\
Configuration:
  Properties:
    Property:
      - name: pattern
        value: "%d{ISO8601} %p %m (%c{1})%n"
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "${pattern}"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: STDOUT
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: INFO
"""


class Kafka(Engine):
    """One node over one data folder."""

    def __init__(self, data: Path, *, libraries: Path, port: int = 0, heap_megabytes: int = HEAP_MEGABYTES) -> None:
        """``libraries`` is the folder that ``fetch`` filled."""
        self._data = data
        self._libraries = libraries
        self._controller_port = 0
        self._heap_megabytes = heap_megabytes
        # A crash loses nothing that was acknowledged and flushed by the system; an orderly stop takes seconds.
        super().__init__(Process("Kafka", data / "kafka.log", death_signal=signal.SIGKILL), port)

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """``kafka://127.0.0.1:port``."""
        return f"kafka://{self.bootstrap}"

    @staticmethod
    def missing() -> str | None:
        """What is not there that Kafka needs, as a sentence; None where all is."""
        for program in ("java", "mvn"):
            if shutil.which(program) is None:
                return f"Apache Kafka needs Java {MIN_JAVA} and Maven, and there is no `{program}`"
        version = java_version()
        if version < MIN_JAVA:
            return f"Apache Kafka needs Java {MIN_JAVA}, and `java` is version {version}"
        return None

    async def start(self) -> None:
        """Format the folder if it is new, start the node, return when it serves clients."""
        if not any(self._libraries.glob("kafka_*.jar")):
            raise EngineError(f"there is no Apache Kafka in {self._libraries}: run `make kafka` first")
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._port = self._port or free_port()
        self._controller_port = self._controller_port or free_port()
        properties = self._data / "server.properties"
        logs = self._data.resolve() / "logs"
        properties.write_text(
            _PROPERTIES.format(port=self._port, controller_port=self._controller_port, logs=logs), encoding="utf-8"
        )
        (self._data / "log4j2.yaml").write_text(_LOGGING, encoding="utf-8")
        if not (logs / "meta.properties").exists():
            self._format(properties)
        self._process.launch(
            self._java("kafka.Kafka", str(properties.resolve())),
            directory=self._data,
        )
        await self._process.wait_ready(self._answers)

    async def stop(self) -> None:
        """Shut the node down in order."""
        await self._process.end(signal.SIGTERM, timeout=STOP_SECONDS)

    async def wipe(self) -> None:
        """Stop the node and forget its data."""
        await self.kill()
        if self._data.exists():
            shutil.rmtree(self._data)

    def _java(self, main: str, *arguments: str) -> list[str]:
        """The command line of one of Kafka's programs."""
        java = shutil.which("java")
        if java is None:
            raise EngineError("there is no `java`")
        return [
            java,
            f"-Xmx{self._heap_megabytes}m",
            "-Xms128m",
            # Two cores and short lives: quick to start beats quick at its peak.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={(self._data / 'log4j2.yaml').resolve()}",
            "-cp",
            f"{self._libraries.resolve()}/*",
            main,
            *arguments,
        ]

    def _format(self, properties: Path) -> None:
        """Give a new folder its cluster's id, as Kafka demands before a first start."""
        command = self._java(
            "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", str(properties.resolve())
        )
        done = subprocess.run(
            leashed(command, signal.SIGKILL),
            cwd=self._data,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FORMAT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise EngineError(f"Kafka cannot format {self._data}: {(done.stdout + done.stderr)[-2_000:].strip()}")

    async def _answers(self) -> bool:
        """Whether the node answers a request: it listens long before it serves."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(_API_VERSIONS_REQUEST)
                    return len(await reader.read(8)) > 0
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return False


def fetch(pom: Path, libraries: Path) -> None:
    """Have Maven copy Kafka's jars into ``libraries``, unless those of this pom are there; EngineError if it fails.

    Safe to call from several processes at once: the first fetches, the others wait.
    """
    wanted = pom.read_text("utf-8")
    stamp = libraries.with_name(f"{libraries.name}.pom.xml")
    libraries.parent.mkdir(parents=True, exist_ok=True)
    with libraries.with_name(f"{libraries.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text("utf-8") == wanted and any(libraries.glob("kafka_*.jar")):
            return
        missing = Kafka.missing()
        if missing is not None:
            raise EngineError(missing)
        if libraries.exists():
            shutil.rmtree(libraries)
        command = [
            *("mvn", "--batch-mode", "--quiet", "--file", str(pom.resolve())),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={libraries.resolve()}",
            "-DincludeScope=runtime",
        ]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise EngineError(f"Maven cannot fetch Apache Kafka: {(done.stdout + done.stderr)[-2_000:].strip()}")
        stamp.write_text(wanted, encoding="utf-8")


def java_version() -> int:
    """The first number of the version of ``java``; 0 where it cannot be told."""
    try:
        said = subprocess.run(
            ["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=30, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    for line in said.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "java.specification.version":
            return int(value.strip().removeprefix("1.").split(".")[0])
    return 0
