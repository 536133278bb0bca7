"""The event stream's part that both adapters share: partitions, lanes, and what becomes of a record that fails."""

import asyncio

import pytest

from fallow_chassis import stream
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.events import Record
from fallow_chassis.stream import (
    HANDLE_ATTEMPTS,
    PARTITIONS,
    PoisonOutcome,
    StreamUnavailableError,
    dead_letter_of,
    deliver,
    in_turns,
    open_stream,
    partition_of,
    publish_in_lanes,
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once: what is tested is whether they come."""
    monkeypatch.setattr(stream, "wait_seconds", lambda attempt: 0.0)
    monkeypatch.setattr(stream, "POISON_WAIT_SECONDS", 0.0)


def record(key: str = "k", value: bytes = b"v", topic: str = "t") -> Record:
    """Any record."""
    return Record(topic, key, value, {"ce_id": "e1"})


@pytest.mark.parametrize(("key", "partition"), [("", 0), ("a", 3), ("order", 0), ("é", 6)])
def test_a_keys_partition_never_changes(key: str, partition: int) -> None:
    """Goal: a release that puts keys elsewhere would lose their order. Method: values from before."""
    assert partition_of(key) == partition


def test_keys_spread_over_all_partitions() -> None:
    """Goal: no partition idles. Method: a thousand keys reach each."""
    assert {partition_of(f"key{number}") for number in range(1_000)} == set(range(PARTITIONS))


async def test_a_lane_stops_at_its_first_failure() -> None:
    """Goal: no later record of a key is stored before an earlier one. Method: the second of three fails."""
    sent: list[bytes] = []

    async def send(one: Record) -> None:
        if one.value == b"2":
            raise StreamUnavailableError("away")
        sent.append(one.value)

    with pytest.raises(StreamUnavailableError):
        await publish_in_lanes([record(value=value) for value in (b"1", b"2", b"3")], send)
    assert sent == [b"1"]


async def test_lanes_of_other_keys_run_side_by_side() -> None:
    """Goal: a batch takes one round trip per record of its longest key. Method: each lane waits for the other."""
    arrived = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def send(one: Record) -> None:
        arrived[one.key].set()
        async with asyncio.timeout(5):
            await arrived["b" if one.key == "a" else "a"].wait()

    await publish_in_lanes([record("a"), record("b")], send)
    assert all(event.is_set() for event in arrived.values())


def test_turns_keep_the_order_of_each_key() -> None:
    """Goal: a record is sent only after the one before it of its key. Method: two keys, one of them three times."""
    records = [record("a", b"1"), record("a", b"2"), record("b", b"3"), record("a", b"4")]
    turns = [[one.value for one in turn] for turn in in_turns(records)]
    assert turns == [[b"1", b"3"], [b"2"], [b"4"]]


class Desk:
    """Counts what `deliver` does with a record."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.tries = 0
        self.letters: list[Record] = []
        self.taken: list[Exception] = []

    async def handle(self, one: Record) -> None:
        self.tries += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def dead_letter(self, one: Record) -> None:
        self.letters.append(one)

    async def take(self, one: Record, error: Exception) -> PoisonOutcome:
        self.taken.append(error)
        return PoisonOutcome.TAKEN

    async def see_through(self, *, parking: bool = False) -> None:
        await deliver(
            record(), self.handle, group="g", on_poison=self.take if parking else None, dead_letter=self.dead_letter
        )


async def test_a_record_that_is_handled_is_done() -> None:
    """Goal: the plain way. Method: no failure."""
    desk = Desk()
    await desk.see_through()
    assert (desk.tries, desk.letters) == (1, [])


async def test_a_failure_is_tried_again_before_it_is_poison() -> None:
    """Goal: a race that passes is no poison. Method: fail once less than the limit."""
    desk = Desk(*[ValueError()] * (HANDLE_ATTEMPTS - 1))
    await desk.see_through()
    assert (desk.tries, desk.letters) == (HANDLE_ATTEMPTS, [])


@pytest.mark.parametrize(
    "failure", [ConnectionRefusedError(), TimeoutError(), DomainError(UNAVAILABLE, "away"), StreamUnavailableError()]
)
async def test_what_passes_by_itself_is_retried_without_end(failure: Exception) -> None:
    """Goal: an outage of hours poisons nothing. Method: a thousand failures, and poison in the midst of them."""
    desk = Desk(*[failure] * 500, ValueError(), *[failure] * 500)
    await desk.see_through()
    assert (desk.tries, desk.letters) == (1_002, [])


async def test_poison_becomes_a_dead_letter() -> None:
    """Goal: nothing is lost in silence. Method: fail always."""
    desk = Desk(*[ValueError("why")] * HANDLE_ATTEMPTS)
    await desk.see_through()
    assert [letter.topic for letter in desk.letters] == ["t.dlq"]
    assert desk.letters[0].headers["fallow-poison-error"] == "ValueError: why"


async def test_poison_that_is_taken_is_no_dead_letter() -> None:
    """Goal: settlement parks keys itself. Method: a caretaker that takes it."""
    desk = Desk(*[ValueError("why")] * HANDLE_ATTEMPTS)
    await desk.see_through(parking=True)
    assert (len(desk.taken), desk.letters) == (1, [])


async def test_a_dead_letter_waits_for_its_topic() -> None:
    """Goal: a broker that is away does not lose the poison either. Method: storing fails twice, then works."""
    desk = Desk(*[ValueError("why")] * HANDLE_ATTEMPTS)
    failures = [StreamUnavailableError("away")] * 2

    async def store(letter: Record) -> None:
        if failures:
            raise failures.pop()
        desk.letters.append(letter)

    await deliver(record(), desk.handle, group="g", on_poison=None, dead_letter=store)
    assert len(desk.letters) == 1
    assert desk.tries == HANDLE_ATTEMPTS


async def test_cancelling_goes_through() -> None:
    """Goal: a drain is never held up. Method: a handler that is cancelled is not tried again."""
    desk = Desk()

    async def handle(one: Record) -> None:
        desk.tries += 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await deliver(record(), handle, group="g", on_poison=None, dead_letter=desk.dead_letter)
    assert (desk.tries, desk.letters) == (1, [])


def test_a_long_error_is_cut() -> None:
    """Goal: a header stays a header. Method: an error of many lines and pages."""
    letter = dead_letter_of(record(), "g", ValueError("line\r\n" * 1_000))
    text = letter.headers["fallow-poison-error"]
    assert len(text) <= stream.MAX_POISON_TEXT_CHARACTERS
    assert text.isprintable()


async def test_an_unknown_address_is_refused() -> None:
    """Goal: a mistyped setting is told at the start. Method: an address of another kind."""

    class Settings:
        stream_url = "amqp://127.0.0.1"
        nats_url = ""
        nats_credentials_file = ""

    with pytest.raises(ValueError, match="nats://"):
        await open_stream(Settings())
