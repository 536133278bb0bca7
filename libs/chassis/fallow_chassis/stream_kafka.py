"""The event stream on Apache Kafka, the platform's choice.

Producing is idempotent with ``acks=all``; records of one key are sent one after the other (``publish_in_lanes``). A
group's members share the partitions. Each partition that a member has is one task: it takes a portion of records, sees
them through in order and commits the offset behind the last one it finished. When the group rebalances, the tasks of
partitions that are taken away are cancelled (a handler's transaction rolls back), what was finished is committed, and
the new owner goes on there; a commit that comes too late for that fails, which is normal and means that some records
come again.

Kafka takes a member for dead when it does not poll for a while; a handler may wait for a database for hours, so that
limit is a day and the session's heartbeats alone say that a member lives.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    BrokerResponseError,
    CommitFailedError,
    IllegalStateError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)

from fallow_chassis.events import Record
from fallow_chassis.retry import wait_seconds
from fallow_chassis.stream import (
    PARTITIONS,
    RETENTION_SECONDS,
    Handle,
    OnPoison,
    StreamUnavailableError,
    deliver,
    publish_in_lanes,
)

CONNECT_TIMEOUT_SECONDS: Final = 30.0
PUBLISH_TIMEOUT_SECONDS: Final = 10.0
REQUEST_TIMEOUT_MS: Final = 10_000
COMMIT_TIMEOUT_SECONDS: Final = 5.0
SESSION_TIMEOUT_MS: Final = 10_000
HEARTBEAT_INTERVAL_MS: Final = 500
"""Also how soon a member hears of a rebalance."""
MAX_POLL_INTERVAL_MS: Final = 24 * 3600 * 1000
FETCH_WAIT_MS: Final = 50
"""How long the broker holds a fetch that finds nothing. Short, because one that waits for other partitions holds up a
partition whose task has just become free."""
POLL_MS: Final = 1_000
PORTION_RECORDS: Final = 64
"""The most records that a partition's task takes at a time, and handles again after a crash."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_REPLICAS: Final = 3
TOPIC_VISIBLE_SECONDS: Final = 15.0

_MILLISECONDS: Final = 1_000
_PERMANENT_ERRORS: Final[tuple[type[Exception], ...]] = (MessageSizeTooLargeError, InvalidTopicError)

_log = structlog.get_logger(__name__)


class KafkaStream:
    """The adapter; ``connect`` makes one."""

    def __init__(self, bootstrap: str, client: str, producer: AIOKafkaProducer) -> None:
        """Use ``connect``."""
        self._bootstrap = bootstrap
        self._client = client
        self._producer = producer
        self._known_topics: set[str] = set()

    @classmethod
    async def connect(
        cls, url: str, *, client: str = "fallow", timeout: float = CONNECT_TIMEOUT_SECONDS
    ) -> "KafkaStream":
        """Connect to ``kafka://host:port,…``, waiting up to ``timeout`` seconds; StreamUnavailableError then."""
        bootstrap = url.removeprefix("kafka://")
        attempt = 0
        try:
            async with asyncio.timeout(timeout):
                while True:
                    producer = AIOKafkaProducer(
                        bootstrap_servers=bootstrap,
                        client_id=client,
                        acks="all",
                        enable_idempotence=True,
                        linger_ms=0,
                        max_request_size=MAX_MESSAGE_BYTES,
                        request_timeout_ms=REQUEST_TIMEOUT_MS,
                    )
                    try:
                        await producer.start()
                    except BaseException as error:
                        await producer.stop()
                        if not isinstance(error, KafkaError):
                            raise
                    else:
                        return cls(bootstrap, client, producer)
                    attempt += 1
                    await asyncio.sleep(wait_seconds(attempt, longest=1.0))
        except TimeoutError as error:
            raise StreamUnavailableError(f"no Kafka broker answers at {bootstrap}") from error

    async def ensure_topics(self, names: Sequence[str]) -> None:
        """Create the topics that are not there yet, and wait until each partition has a leader."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._known_topics]
        if not wanted:
            return
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap, client_id=self._client, request_timeout_ms=REQUEST_TIMEOUT_MS
        )
        try:
            await admin.start()
            await _create_topics(admin, wanted)
        except (KafkaError, OSError) as error:
            raise _unavailable(error) from error
        finally:
            await admin.close()
        self._known_topics.update(wanted)

    async def publish(self, records: Sequence[Record]) -> None:
        """Store the records; StreamUnavailableError if the broker did not confirm one."""
        await publish_in_lanes(records, self._send)

    async def _send(self, record: Record) -> None:
        """Store one record."""
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                await self._producer.send_and_wait(record.topic, record.value, key=record.key.encode(), headers=headers)
        except (KafkaError, OSError) as error:
            raise _unavailable(error) from error

    async def store_dead_letter(self, record: Record) -> None:
        """Store a dead letter; its topic is made with the first one."""
        await self.ensure_topics([record.topic])
        await self._send(record)

    async def consume(
        self, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
    ) -> None:
        """Take part in a group until cancelled; see the port."""
        attempt = 0
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=FETCH_WAIT_MS,
                max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                session_timeout_ms=SESSION_TIMEOUT_MS,
                rebalance_timeout_ms=SESSION_TIMEOUT_MS,
                heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
                max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            )
            member = _Member(self, consumer, group, handle, on_poison)
            try:
                await self.ensure_topics(topics)
                await member.run(topics)
            except (KafkaError, OSError) as error:
                if isinstance(error, _PERMANENT_ERRORS):
                    raise
                attempt = 1 if member.has_worked else attempt + 1
                _log.warning("stream_group_away", group=group, error=repr(error))
            finally:
                await member.leave()
            await asyncio.sleep(wait_seconds(attempt))

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        await self._producer.stop()


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One member of a group: a task for each partition it has."""

    def __init__(
        self, stream: KafkaStream, consumer: AIOKafkaConsumer, group: str, handle: Handle, on_poison: OnPoison | None
    ) -> None:
        """Take part with this consumer, which is not started yet."""
        self.has_worked = False
        self._stream = stream
        self._consumer = consumer
        self._group = group
        self._handle = handle
        self._on_poison = on_poison
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[TopicPartition, asyncio.Task[None]] = {}
        self._finished: dict[TopicPartition, int] = {}

    async def run(self, topics: Sequence[str]) -> None:
        """Join the group and work; ends by cancellation, or raises what a partition's task raised."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._consumer.subscribe(topics, listener=self)
                await self._consumer.start()
                while True:
                    # A member without partitions has nobody who would notice that its group membership broke.
                    await asyncio.sleep(POLL_MS / _MILLISECONDS)
                    self._consumer._coordinator.check_errors()  # noqa: SLF001 - there is no public way
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def leave(self) -> None:
        """Commit what was finished and leave, so that the others need not wait for the session's end."""
        await self._commit_finished()
        await self._consumer.stop()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start a task for each partition."""
        assert self._tasks is not None, "partitions come only while the member runs"
        self.has_worked = True
        for partition in assigned:
            work = self._work(partition)
            try:
                self._running[partition] = self._tasks.create_task(work)
            except RuntimeError:
                # The member is ending: the group that it is about to leave may still hand it partitions.
                work.close()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Stop the tasks of these partitions and commit what they finished, before another member gets them."""
        tasks = [task for partition in revoked if (task := self._running.pop(partition, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._commit_finished()

    async def _work(self, partition: TopicPartition) -> None:
        """See the records of one partition through, portion by portion."""
        while True:
            portions = await self._consumer.getmany(partition, timeout_ms=POLL_MS, max_records=PORTION_RECORDS)
            for message in portions.get(partition, ()):
                await deliver(
                    record_of(message),
                    self._handle,
                    group=self._group,
                    on_poison=self._on_poison,
                    dead_letter=self._stream.store_dead_letter,
                )
                self._finished[partition] = message.offset + 1
            if partition in self._finished:
                # Only then forgotten: a task that is cancelled while it commits leaves the offset to who cancels it.
                await self._commit({partition: self._finished[partition]})
                self._finished.pop(partition, None)

    async def _commit_finished(self) -> None:
        """Commit what the cancelled tasks had finished; not for long, since a broker may be away."""
        offsets, self._finished = self._finished, {}
        if not offsets:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_SECONDS):
                await self._commit(offsets)
        except TimeoutError:
            _log.warning("stream_commit_late", group=self._group)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Commit offsets; where the partition went to another member meanwhile, its records come again there."""
        try:
            await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            _log.info("stream_commit_refused", group=self._group, error=repr(error))


async def _create_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Create topics, those that another process makes at the same time too, and wait until they can be used."""
    replicas = min(MAX_REPLICAS, len((await admin.describe_cluster())["brokers"]))
    topics = [
        NewTopic(
            name,
            num_partitions=PARTITIONS,
            replication_factor=replicas,
            topic_configs={
                "retention.ms": str(RETENTION_SECONDS * _MILLISECONDS),
                "max.message.bytes": str(MAX_MESSAGE_BYTES),
                "min.insync.replicas": str(max(1, replicas - 1)),
            },
        )
        for name in names
    ]
    answer = await admin.create_topics(topics)
    for name, code, *_ in answer.topic_errors:
        failure = for_code(code)
        if failure not in {NoError, TopicAlreadyExistsError}:
            raise failure(name)
    async with asyncio.timeout(TOPIC_VISIBLE_SECONDS):
        # The broker offers nothing to wait for; its view follows the controller's within milliseconds.
        while not all(_is_usable(found) for found in await admin.describe_topics(names)):
            await asyncio.sleep(0.02)


def _is_usable(description: dict[str, object]) -> bool:
    """Whether a topic is known and each of its partitions has a leader."""
    partitions = description["partitions"]
    assert isinstance(partitions, list), "the protocol says so"
    return description["error_code"] == 0 and bool(partitions) and all(part["leader"] >= 0 for part in partitions)


def record_of(message: ConsumerRecord) -> Record:
    """The record that a message carries; what is no text in a key or header becomes visible as such."""
    headers = {name: value.decode("utf-8", "backslashreplace") for name, value in message.headers if value is not None}
    key = (message.key or b"").decode("utf-8", "backslashreplace")
    return Record(message.topic, key, message.value or b"", headers)


def _unavailable(error: Exception) -> Exception:
    """StreamUnavailableError for what may pass; a message or topic that the broker refuses stays as it is."""
    is_refusal = isinstance(error, BrokerResponseError) and not getattr(error, "retriable", False)
    if is_refusal or isinstance(error, _PERMANENT_ERRORS):
        return error
    return StreamUnavailableError(f"Kafka does not answer: {error!r}")
