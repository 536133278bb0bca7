"""What every adapter of the event stream promises, as one class of tests; each adapter's module runs it on its broker.

A subclass gives two fixtures: `address` (settings that reach a broker that all tests share) and `mortal` (a broker of
the test's own that can be killed and started again). Nothing here knows which broker it is.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from fallow_chassis.events import DEAD_LETTER_SUFFIX, HEADER_ID, Record
from fallow_chassis.retry import is_retryable
from fallow_chassis.stream import (
    HANDLE_ATTEMPTS,
    HEADER_POISON_ERROR,
    HEADER_POISON_GROUP,
    HEADER_POISON_TOPIC,
    PARTITIONS,
    EventStream,
    Handle,
    OnPoison,
    PoisonOutcome,
    StreamSettings,
    open_stream,
)

WAIT_SECONDS = 30.0


class Mortal:
    """A broker that a test may kill."""

    def __init__(
        self, settings: StreamSettings, kill: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]
    ):
        self.settings = settings
        self.kill = kill
        self.start = start


class Seen:
    """What a handler saw, by key and in order."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.by_key: dict[str, list[str]] = defaultdict(list)
        self._changed = asyncio.Event()

    async def take(self, record: Record) -> None:
        """A handler that only notes."""
        self.note(record)

    def note(self, record: Record) -> None:
        """Write a record down."""
        self.records.append(record)
        self.by_key[record.key].append(record.value.decode(errors="replace"))
        self._changed.set()

    async def until(self, condition: Callable[[], bool], *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until what was seen fulfils a condition; TimeoutError if it does not in time."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def count(self, number: int, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait for so many records."""
        await self.until(lambda: len(self.records) >= number, seconds=seconds)

    @property
    def values(self) -> list[str]:
        """Values in the order in which they came."""
        return [record.value.decode() for record in self.records]


@asynccontextmanager
async def connected(settings: StreamSettings) -> AsyncIterator[EventStream]:
    """A stream for the time of a block."""
    stream = await open_stream(settings, client="conformance")
    try:
        yield stream
    finally:
        await stream.close()


@asynccontextmanager
async def consuming(
    stream: EventStream, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """A member of a group for the time of a block; its failure fails the block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream.consume(group, topics, handle, on_poison=on_poison))
        try:
            yield task
        finally:
            task.cancel()


def event(topic: str, key: str, value: str, **headers: str) -> Record:
    """A record with an id of its own, unique within its topic."""
    return Record(topic, key, value.encode(), {HEADER_ID: f"{key}-{value}", **headers})


def without_repeats(values: Sequence[str]) -> list[str]:
    """The values, each where it came first: what a consumer's inbox makes of at least once."""
    return list(dict.fromkeys(values))


class StreamConformance:
    """The suite."""

    @pytest.fixture
    def address(self) -> StreamSettings:
        """How to reach the shared broker."""
        raise NotImplementedError

    @pytest.fixture
    def mortal(self) -> Mortal:
        """A broker of the test's own."""
        raise NotImplementedError

    @pytest.fixture
    async def port(self, address: StreamSettings) -> AsyncIterator[EventStream]:
        """A connected stream."""
        async with connected(address) as stream:
            yield stream

    async def test_a_record_arrives_as_it_was_sent(self, port: EventStream, topic: str) -> None:
        """Goal: topic, key, value and headers survive the way. Method: bytes that are no text, a header beyond ASCII."""
        sent = Record(
            topic, "01key", bytes(range(256)), {HEADER_ID: "e1", "ce_subject": "orders/é", "traceparent": "00-a"}
        )
        await port.ensure_topics([topic])
        await port.publish([sent])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            await seen.count(1)
        assert seen.records == [sent]

    async def test_an_empty_value_is_a_record(self, port: EventStream, topic: str) -> None:
        """Goal: a message whose fields all have defaults serialises to nothing, and still is an event. Method: send one."""
        sent = Record(topic, "k", b"", {HEADER_ID: "e1", "ce_type": "fallow.x.v1.Y"})
        await port.ensure_topics([topic])
        await port.publish([sent, event(topic, "k", "after")])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            await seen.count(2)
        assert seen.records[0] == sent

    async def test_ensuring_topics_again_keeps_their_records(self, port: EventStream, topic: str) -> None:
        """Goal: every service ensures topics at every start. Method: ensure, publish, ensure, read."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "1")])
        await port.ensure_topics([topic, topic])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            await seen.count(1)
        assert seen.values == ["1"]

    async def test_publishing_to_no_topic_is_refused(self, address: StreamSettings, topic: str) -> None:
        """Goal: an event never vanishes into a topic that is not there. Method: publish without ensuring."""
        async with connected(address) as stream:
            with pytest.raises(Exception) as failure:
                async with asyncio.timeout(WAIT_SECONDS):
                    await stream.publish([event(topic, "k", "1")])
        assert is_retryable(failure.value)

    async def test_records_of_a_key_keep_their_order(self, port: EventStream, topic: str) -> None:
        """Goal: order per key. Method: 20 keys interleaved, handlers that take unequal time."""
        keys = [f"key{number}" for number in range(20)]
        await port.ensure_topics([topic])
        await port.publish([event(topic, key, str(step)) for step in range(10) for key in keys])
        seen = Seen()

        async def handle(record: Record) -> None:
            await asyncio.sleep(0.002 * (hash(record.key) % 3))
            seen.note(record)

        async with consuming(port, "g", [topic], handle):
            await seen.count(200)
        assert {key: seen.by_key[key] for key in keys} == {key: [str(step) for step in range(10)] for key in keys}

    async def test_what_is_published_in_turns_stays_in_order(self, port: EventStream, topic: str) -> None:
        """Goal: order holds over publish calls too. Method: one call a record, while a member reads."""
        await port.ensure_topics([topic])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            for step in range(50):
                await port.publish([event(topic, "k", str(step))])
            await seen.count(50)
        assert seen.by_key["k"] == [str(step) for step in range(50)]

    async def test_each_group_gets_every_record(self, port: EventStream, topic: str) -> None:
        """Goal: groups are independent, and a new one starts with the oldest record. Method: two, one after the other."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, f"k{number}", "v") for number in range(10)])
        for group in ("first", "second"):
            seen = Seen()
            async with consuming(port, group, [topic], seen.take):
                await seen.count(10)
            assert sorted(seen.by_key) == sorted(f"k{number}" for number in range(10)), group

    async def test_several_topics_come_to_one_member(self, port: EventStream, topic: str) -> None:
        """Goal: a consumer reads several topics, and `topic` says which. Method: two topics, one record each."""
        topics = [f"{topic}.a", f"{topic}.b"]
        await port.ensure_topics(topics)
        await port.publish([event(name, "k", name) for name in topics])
        seen = Seen()
        async with consuming(port, "g", topics, seen.take):
            await seen.count(2)
        assert sorted((record.topic, record.value.decode()) for record in seen.records) == [
            (name, name) for name in topics
        ]

    async def test_a_group_goes_on_where_it_was(self, address: StreamSettings, topic: str) -> None:
        """Goal: a restart resumes. Method: read half, leave, connect anew, read on: nothing lost, nothing handled twice."""
        first, second = Seen(), Seen()
        async with connected(address) as stream:
            await stream.ensure_topics([topic])
            await stream.publish([event(topic, f"k{number}", "before") for number in range(10)])
            async with consuming(stream, "g", [topic], first.take):
                await first.count(10)
            await stream.publish([event(topic, f"k{number}", "after") for number in range(10)])
        async with connected(address) as stream, consuming(stream, "g", [topic], second.take):
            await second.until(lambda: second.values.count("after") >= 10)
        assert first.values == ["before"] * 10
        assert second.values.count("after") == 10
        assert second.values.count("before") == 0

    async def test_a_record_in_hand_when_the_member_stops_comes_again(
        self, address: StreamSettings, topic: str
    ) -> None:
        """Goal: at least once. Method: cancel a member whose handler never ends, then read with another."""
        async with connected(address) as stream:
            await stream.ensure_topics([topic])
            await stream.publish([event(topic, "k", "1"), event(topic, "k", "2")])
            started = Seen()

            async def hang(record: Record) -> None:
                started.note(record)
                await asyncio.Event().wait()

            async with consuming(stream, "g", [topic], hang):
                await started.count(1)
        seen = Seen()
        async with connected(address) as stream, consuming(stream, "g", [topic], seen.take):
            await seen.count(2)
        assert started.values == ["1"]
        assert seen.values == ["1", "2"]

    async def test_poison_goes_to_the_dead_letters(self, port: EventStream, topic: str) -> None:
        """Goal: one bad record stops neither its key nor others, and is kept. Method: a handler that refuses one value."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", value) for value in ("1", "bad", "2")])
        seen, tries = Seen(), Seen()

        async def handle(record: Record) -> None:
            if record.value == b"bad":
                tries.note(record)
                raise ValueError("no\nsense é")
            seen.note(record)

        async with consuming(port, "g", [topic], handle):
            await seen.count(2)
        dead = Seen()
        async with consuming(port, "dead", [topic + DEAD_LETTER_SUFFIX], dead.take):
            await dead.count(1)
        assert seen.values == ["1", "2"]
        assert tries.values == ["bad"] * HANDLE_ATTEMPTS
        letter = dead.records[0]
        assert (letter.topic, letter.key, letter.value) == (topic + DEAD_LETTER_SUFFIX, "k", b"bad")
        assert letter.headers[HEADER_ID] == "k-bad"
        assert letter.headers[HEADER_POISON_TOPIC] == topic
        assert letter.headers[HEADER_POISON_GROUP] == "g"
        assert letter.headers[HEADER_POISON_ERROR] == "ValueError: no sense \\xe9"

    async def test_dead_letters_of_two_groups_are_both_kept(self, port: EventStream, topic: str) -> None:
        """Goal: no group's failure hides another's. Method: two groups refuse the same record."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "bad"), event(topic, "k", "good")])

        for group in ("one", "two"):
            seen = Seen()

            async def handle(record: Record, seen: Seen = seen) -> None:
                if record.value == b"bad":
                    raise ValueError
                seen.note(record)

            async with consuming(port, group, [topic], handle):
                await seen.count(1)
        dead = Seen()
        async with consuming(port, "dead", [topic + DEAD_LETTER_SUFFIX], dead.take):
            await dead.count(2)
        assert [letter.headers[HEADER_POISON_GROUP] for letter in dead.records] == ["one", "two"]

    async def test_the_caller_may_take_poison(self, port: EventStream, topic: str) -> None:
        """Goal: a consumer parks keys itself. Method: on_poison takes the record, so the next one comes; no dead letter."""
        await port.ensure_topics([topic, topic + DEAD_LETTER_SUFFIX])
        await port.publish([event(topic, "k", value) for value in ("bad", "2")])
        seen, taken = Seen(), []

        async def handle(record: Record) -> None:
            if record.value == b"bad":
                raise ValueError("no sense")
            seen.note(record)

        async def take(record: Record, error: Exception) -> PoisonOutcome:
            taken.append((record.value, str(error)))
            return PoisonOutcome.TAKEN

        async with consuming(port, "g", [topic], handle, on_poison=take):
            await seen.count(1)
        # A marker behind anything that the dead-letter topic might hold for this key shows that it holds nothing.
        await port.publish([event(topic + DEAD_LETTER_SUFFIX, "k", "marker")])
        dead = Seen()
        async with consuming(port, "dead", [topic + DEAD_LETTER_SUFFIX], dead.take):
            await dead.count(1)
        assert taken == [(b"bad", "no sense")]
        assert seen.values == ["2"]
        assert dead.values == ["marker"]

    async def test_what_passes_by_itself_never_counts(self, port: EventStream, topic: str) -> None:
        """Goal: a database that is away poisons nothing. Method: fail retryably more often than poison would allow."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "1"), event(topic, "k", "2")])
        seen = Seen()
        failures: list[bytes] = []

        async def handle(record: Record) -> None:
            if len(failures) < HANDLE_ATTEMPTS + 1:
                failures.append(record.value)
                raise ConnectionRefusedError("the database is away")
            seen.note(record)

        async with consuming(port, "g", [topic], handle):
            await seen.count(2)
        assert failures == [b"1"] * (HANDLE_ATTEMPTS + 1)
        assert seen.values == ["1", "2"]

    async def test_a_failing_caretaker_of_poison_ends_the_member(self, port: EventStream, topic: str) -> None:
        """Goal: no record is passed over because parking it broke. Method: on_poison raises; consume must raise that."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "bad")])

        async def handle(record: Record) -> None:
            raise ValueError("no sense")

        async def take(record: Record, error: Exception) -> PoisonOutcome:
            raise AssertionError("parking is broken")

        with pytest.raises(AssertionError, match="parking is broken"):
            async with asyncio.timeout(WAIT_SECONDS):
                await port.consume("g", [topic], handle, on_poison=take)

    async def test_few_records_are_in_hand_at_once(self, port: EventStream, topic: str) -> None:
        """Goal: back-pressure. Method: handlers that wait for a gate; no more of them than partitions may ever run."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, f"k{number}", "v") for number in range(100)])
        seen, gate, running, most = Seen(), asyncio.Event(), 0, 0

        async def handle(record: Record) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            seen.note(record)
            await gate.wait()
            running -= 1

        async with consuming(port, "g", [topic], handle):
            await seen.count(PARTITIONS)
            # Time for one too many to come, if the adapter let it.
            with contextlib.suppress(TimeoutError):
                await seen.count(PARTITIONS + 1, seconds=0.5)
            assert len(seen.records) == PARTITIONS
            gate.set()
            await seen.count(100)
        assert most == PARTITIONS

    async def test_a_slow_key_does_not_hold_up_other_partitions(self, port: EventStream, topic: str) -> None:
        """Goal: one lease's trouble is not everybody's. Method: one key hangs; keys of other partitions go through."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "slow", "1"), *(event(topic, f"k{number}", "v") for number in range(64))])
        seen, gate = Seen(), asyncio.Event()

        async def handle(record: Record) -> None:
            if record.key == "slow":
                await gate.wait()
            seen.note(record)

        async with consuming(port, "g", [topic], handle):
            # By chance alone an eighth of the keys shares the slow one's partition; half of them is far from chance.
            await seen.count(40)
            before_gate = set(seen.by_key)
            gate.set()
            await seen.count(65)
        assert "slow" not in before_gate
        assert len(seen.by_key) == 65

    async def test_the_handoff_is_quick(self, port: EventStream, topic: str) -> None:
        """Goal: minutes from order to container are not lost here. Method: median of 20 from publish to handler."""
        await port.ensure_topics([topic])
        seen, delays = Seen(), []
        async with consuming(port, "g", [topic], seen.take):
            await port.publish([event(topic, "warm", "up")])
            await seen.count(1)
            for step in range(20):
                begun = time.perf_counter()
                await port.publish([event(topic, f"k{step}", "v")])
                await seen.count(step + 2)
                delays.append(time.perf_counter() - begun)
        # Some milliseconds on a quiet machine; the bound leaves room for a loaded one, and none for polling by the clock.
        assert sorted(delays)[10] < 0.2

    async def test_two_members_see_everything_in_order(self, address: StreamSettings, topic: str) -> None:
        """Goal: a second member breaks nothing. Method: it joins in the middle; the union has all, each key in order."""
        keys = [f"k{number}" for number in range(16)]
        seen = Seen()
        async with connected(address) as one, connected(address) as two:
            await one.ensure_topics([topic])
            async with consuming(one, "g", [topic], seen.take):
                await one.publish([event(topic, key, str(step)) for step in range(5) for key in keys])
                await seen.count(16)
                async with consuming(two, "g", [topic], seen.take):
                    await one.publish([event(topic, key, str(step)) for step in range(5, 10) for key in keys])
                    await seen.until(lambda: all("9" in seen.by_key[key] for key in keys))
        expected = [str(step) for step in range(10)]
        assert {key: without_repeats(seen.by_key[key]) for key in keys} == dict.fromkeys(keys, expected)

    async def test_a_broker_that_is_killed_and_back_loses_nothing(self, mortal: Mortal, topic: str) -> None:
        """Goal: what was confirmed stays, members and publishers come back by themselves. Method: SIGKILL in the middle."""
        seen = Seen()
        async with connected(mortal.settings) as stream:
            await stream.ensure_topics([topic])
            await stream.publish([event(topic, "k", str(step)) for step in range(5)])
            async with consuming(stream, "g", [topic], seen.take):
                await seen.count(5)
                await mortal.kill()
                with pytest.raises(Exception) as failure:
                    async with asyncio.timeout(3):
                        await stream.publish([event(topic, "k", "5")])
                assert is_retryable(failure.value)
                await mortal.start()
                await self.publish_until_stored(stream, [event(topic, "k", str(step)) for step in range(5, 10)])
                await seen.until(lambda: "9" in seen.by_key["k"], seconds=60)
            late = Seen()
            async with consuming(stream, "late", [topic], late.take):
                await late.until(lambda: "9" in late.by_key["k"])
        expected = [str(step) for step in range(10)]
        assert without_repeats(seen.by_key["k"]) == expected
        assert without_repeats(late.by_key["k"]) == expected

    async def publish_until_stored(self, stream: EventStream, records: Sequence[Record]) -> None:
        """What the outbox relay does: the same records again until the broker has them."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await stream.publish(records)
                except Exception as error:
                    if not is_retryable(error):
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return
