"""Signals: rings by channel and key, nothing missed when listening begins, and a lost connection mended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fallow_chassis.postgres import Database, notify
from fallow_chassis.signals import Bell, Signals

FAR_SECONDS = 600.0


@asynccontextmanager
async def listening(signals: Signals) -> AsyncIterator[None]:
    """Listen while the block runs."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(signals.run())
        yield
        task.cancel()


async def say(database: Database, channel: str, key: str = "") -> None:
    async with database.transaction() as unit:
        await notify(unit.connection, channel, key)


async def heard(*bells: Bell) -> list[bool]:
    """Which bells have rung, once those that were told of have had the time to."""
    await asyncio.sleep(0.1)
    rung = [bell._rung.is_set() for bell in bells]
    for bell in bells:
        await bell.wait(0)
    return rung


async def test_a_signal_rings_its_key_and_the_channel(database: Database) -> None:
    """Goal: those who wait for a key wake, and those who wait for all of a channel, and nobody else. Method: four
    bells; a signal about one key, and one about the channel.
    """
    signals = Signals(database)
    bells = signals.bell("a", "1"), signals.bell("a", "2"), signals.bell("a"), signals.bell("b", "1")
    async with listening(signals):
        with bells[0], bells[1], bells[2], bells[3]:
            for bell in bells:
                await bell.wait(FAR_SECONDS)
            await say(database, "a", "1")
            await bells[0].wait(FAR_SECONDS)
            assert await heard(*bells) == [False, False, True, False]
            await say(database, "a")
            await bells[2].wait(FAR_SECONDS)
            assert await heard(*bells) == [False, False, False, False]
    assert not signals._bells


async def test_only_a_commit_rings(database: Database) -> None:
    """Goal: nobody wakes for what did not happen. Method: a transaction that notifies and fails."""
    signals = Signals(database)
    async with listening(signals):
        with signals.bell("a") as bell:
            await bell.wait(FAR_SECONDS)
            with pytest.raises(ZeroDivisionError):
                async with database.transaction() as unit:
                    await notify(unit.connection, "a")
                    raise ZeroDivisionError
            assert await heard(bell) == [False]


async def test_what_was_said_before_listening_began_is_not_missed(database: Database) -> None:
    """Goal: no gap at the start. Method: notify while nobody listens; the beginning rings."""
    signals = Signals(database)
    with signals.bell("a", "1") as bell:
        await say(database, "a", "1")
        assert await heard(bell) == [False]
        async with listening(signals):
            await bell.wait(FAR_SECONDS)
            assert await heard(bell) == [False]


async def test_a_lost_connection_is_made_anew(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: signals outlive a connection. Method: end the server's side of it, with the ping out of reach; then signal
    again.
    """
    monkeypatch.setattr("fallow_chassis.signals.PING_SECONDS", FAR_SECONDS)
    signals = Signals(database)
    async with listening(signals):
        with signals.bell("a") as bell:
            await bell.wait(FAR_SECONDS)
            async with database.transaction() as unit:
                ended = await unit.connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'services/sample session'"
                )
            assert len(ended) == 1
            # The new connection rings when it listens: something may have been missed in between.
            await bell.wait(FAR_SECONDS)
            await say(database, "a")
            await bell.wait(FAR_SECONDS)


async def test_a_failure_that_does_not_pass_is_raised(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no silent death. Method: listening that fails as a bug would."""

    async def fail() -> None:
        raise ZeroDivisionError

    signals = Signals(database)
    monkeypatch.setattr(signals, "_listen", fail)
    with pytest.raises(ZeroDivisionError):
        await signals.run()


async def test_a_bell_waits_no_longer_than_it_is_told(database: Database) -> None:
    """Goal: a ring is only a hint. Method: wait where nothing ever rings; then ring before the wait."""
    bell = Signals(database).bell("a")
    async with asyncio.timeout(5):
        await bell.wait(0.01)
        bell.ring()
        await bell.wait(FAR_SECONDS)
    assert not bell._rung.is_set()
