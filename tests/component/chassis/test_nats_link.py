"""The link to a real NATS server in operator mode: requests, errors, permissions, and a server that goes away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest

from fallow_chassis.errors import INTERNAL, PERMISSION_DENIED, UNAVAILABLE, DomainError
from fallow_chassis.nats_link import NatsLink, NatsMessage
from fallow_stack.engines import Nats
from tests.conftest import NatsServer

WAIT_SECONDS = 20.0


@asynccontextmanager
async def linked(url: str, credentials: str | Path) -> AsyncIterator[NatsLink]:
    """A link for the time of a block."""
    link = await NatsLink.connect(url, credentials)
    try:
        yield link
    finally:
        await link.close()


@pytest.fixture
async def market(nats_server: NatsServer) -> AsyncIterator[NatsLink]:
    """A service's link."""
    async with linked(nats_server.url, nats_server.service_credentials_file("bidding")) as link:
        yield link


@pytest.fixture
async def provider(nats_server: NatsServer, topic: str) -> AsyncIterator[tuple[str, NatsLink]]:
    """A provider's id and link."""
    name = topic.split(".")[1]
    async with linked(nats_server.url, nats_server.provider_credentials_file(name)) as link:
        yield name, link


async def echo(message: NatsMessage) -> bytes:
    """Answers with what was asked."""
    return message.payload


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def refused(act: Callable[[], Awaitable[object]]) -> bool:
    """Whether an act comes to nothing: NATS tells a refusal to the connection, and the act itself just times out."""
    with contextlib.suppress(TimeoutError, DomainError, nats.errors.Error):
        async with asyncio.timeout(1):
            await act()
        return False
    return True


async def test_a_provider_reports_and_is_commanded(market: NatsLink, provider: tuple[str, NatsLink]) -> None:
    """Goal: the two ways of live traffic. Method: a heartbeat with its answer, a command with its answer."""
    name, agent = provider
    await market.serve(f"fallow.provider.{name}.heartbeat", "bidding", echo)
    await agent.serve(f"fallow.provider.{name}.command", "agent", echo)
    assert await agent.request(f"fallow.provider.{name}.heartbeat", b"alive") == b"alive"
    assert await market.request(f"fallow.provider.{name}.command", b"run") == b"run"


async def test_a_provider_hears_announcements(market: NatsLink, provider: tuple[str, NatsLink]) -> None:
    """Goal: auctions reach providers. Method: subscribe, announce, wait."""
    _, agent = provider
    heard: asyncio.Queue[NatsMessage] = asyncio.Queue()
    await agent.subscribe("fallow.market.auction.>", heard.put)
    await market.publish("fallow.market.auction.eu.h100", b"auction", {"x": "y"})
    async with asyncio.timeout(WAIT_SECONDS):
        message = await heard.get()
    assert (message.payload, message.headers["x"]) == (b"auction", "y")


async def test_a_provider_cannot_speak_for_another(market: NatsLink, provider: tuple[str, NatsLink]) -> None:
    """Goal: a provider publishes on its own subjects alone. Method: the market listens to all and hears only those."""
    name, agent = provider
    heard: list[str] = []

    async def hear(message: NatsMessage) -> bytes:
        heard.append(message.subject)
        return b""

    await market.serve("fallow.provider.*.heartbeat", "bidding", hear)
    assert await refused(lambda: agent.request("fallow.provider.another.heartbeat", b"lie", timeout=0.5))
    assert await refused(lambda: agent.request(f"fallow.provider.{name}.command", b"to myself", timeout=0.5))
    assert await refused(lambda: agent.request("fallow.order.orders.v1.p0", b"an event", timeout=0.5))
    await agent.request(f"fallow.provider.{name}.heartbeat", b"truth")
    # The server is shared: agents of other tests may beat on subjects of their own.
    ours = {f"fallow.provider.{name}.heartbeat", "fallow.provider.another.heartbeat"}
    assert [subject for subject in heard if subject in ours] == [f"fallow.provider.{name}.heartbeat"]


async def test_a_provider_cannot_listen_to_another(
    market: NatsLink, provider: tuple[str, NatsLink], nats_server: NatsServer
) -> None:
    """Goal: commands, answers and events are nobody else's to read. Method: subscribe to foreign subjects, then send."""
    name, agent = provider
    heard: list[str] = []

    async def hear(message: NatsMessage) -> None:
        heard.append(message.subject)

    for subject in (
        "fallow.provider.another.command",
        "fallow.provider.*.command",
        "_INBOX_bidding.>",
        "_INBOX.>",
        ">",
    ):
        with contextlib.suppress(DomainError, nats.errors.Error):
            await agent.subscribe(subject, hear)
    await agent.subscribe(f"fallow.provider.{name}.command", hear)
    for subject in (
        "fallow.provider.another.command",
        "_INBOX_bidding.x",
        "_INBOX.x",
        f"fallow.provider.{name}.command",
    ):
        await market.publish(subject, b"secret")
    await until(lambda: bool(heard))
    assert heard == [f"fallow.provider.{name}.command"]


async def test_a_domain_error_travels_back(market: NatsLink) -> None:
    """Goal: a request over NATS fails as one over gRPC. Method: a handler that raises; text and metadata beyond ASCII."""

    async def refuse(_: NatsMessage) -> bytes:
        raise DomainError(PERMISSION_DENIED, "not\nyours: é", metadata={"lease": "leases/é"})

    await market.serve("fallow.test.refuse", "q", refuse)
    with pytest.raises(DomainError) as failure:
        await market.request("fallow.test.refuse", b"")
    assert failure.value.has_reason(PERMISSION_DENIED)
    assert failure.value.code == "PERMISSION_DENIED"
    assert (failure.value.message, failure.value.metadata) == ("not\nyours: é", {"lease": "leases/é"})


async def test_a_responder_that_breaks_is_internal_and_goes_on(market: NatsLink) -> None:
    """Goal: one bad request harms nobody, and its cause is not told. Method: fail the first, answer the second."""

    async def fail_once(message: NatsMessage) -> bytes:
        if message.payload == b"bad":
            raise ZeroDivisionError("a secret")
        return b"fine"

    await market.serve("fallow.test.broken", "q", fail_once, concurrency=1)
    with pytest.raises(DomainError) as failure:
        await market.request("fallow.test.broken", b"bad")
    assert failure.value.has_reason(INTERNAL)
    assert "secret" not in str(failure.value)
    assert await market.request("fallow.test.broken", b"good") == b"fine"


async def test_nobody_there_and_nobody_answers_are_unavailable(market: NatsLink) -> None:
    """Goal: the caller knows that a repeat may help. Method: a subject without a responder, and one that hangs."""

    async def hang(_: NatsMessage) -> bytes:
        await asyncio.sleep(0.5)
        return b""

    await market.serve("fallow.test.hang", "q", hang)
    for subject in ("fallow.test.nobody", "fallow.test.hang"):
        with pytest.raises(DomainError) as failure:
            await market.request(subject, b"", timeout=0.1)
        assert failure.value.has_reason(UNAVAILABLE), subject


async def test_requests_are_handled_side_by_side(market: NatsLink) -> None:
    """Goal: one slow request does not hold up the others. Method: each of some requests waits until another one runs."""
    running, together = 0, asyncio.Event()

    async def meet(_: NatsMessage) -> bytes:
        nonlocal running
        running += 1
        if running >= 2:
            together.set()
        await together.wait()
        return b"met"

    await market.serve("fallow.test.meet", "q", meet, concurrency=8)
    async with asyncio.TaskGroup() as tasks:
        # By chance two of two may go to the same one of eight; of six hardly ever all.
        answers = [tasks.create_task(market.request("fallow.test.meet", b"", timeout=10)) for _ in range(6)]
    assert {answer.result() for answer in answers} == {b"met"}


async def test_who_stops_serving_gets_no_more(market: NatsLink) -> None:
    """Goal: a drain takes no new work. Method: stop, then ask."""
    serving = await market.serve("fallow.test.stop", "q", echo)
    assert await market.request("fallow.test.stop", b"1") == b"1"
    await serving.stop()
    with pytest.raises(DomainError):
        await market.request("fallow.test.stop", b"2", timeout=0.5)


async def test_a_link_comes_back_with_its_subscriptions(private_nats: Nats) -> None:
    """Goal: a server that was killed is back within a second. Method: kill, fail, start, ask again."""
    credentials = private_nats.service_credentials_file("bidding")
    async with linked(private_nats.url, credentials) as one, linked(private_nats.url, credentials) as two:
        await one.serve("fallow.test.echo", "q", echo)
        assert await two.request("fallow.test.echo", b"1") == b"1"
        await private_nats.kill()
        await until(lambda: not one.is_connected and not two.is_connected)
        with pytest.raises(DomainError) as failure:
            await two.request("fallow.test.echo", b"2", timeout=0.5)
        assert failure.value.has_reason(UNAVAILABLE)
        await private_nats.start()
        begun = asyncio.get_running_loop().time()
        await until(lambda: one.is_connected and two.is_connected)
        assert asyncio.get_running_loop().time() - begun < 3
        await one.flush()
        assert await two.request("fallow.test.echo", b"3") == b"3"


async def test_a_link_waits_for_a_server_that_is_not_there_yet(private_nats: Nats) -> None:
    """Goal: processes may start in any order. Method: connect while the server is down, then start it."""
    credentials = private_nats.service_credentials_file("bidding")
    await private_nats.stop()
    with pytest.raises(TimeoutError):
        await NatsLink.connect(private_nats.url, credentials, timeout=0.5)
    async with asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(NatsLink.connect(private_nats.url, credentials, timeout=WAIT_SECONDS))
        await asyncio.sleep(0.3)
        await private_nats.start()
    link = connecting.result()
    assert link.is_connected
    await link.close()


async def test_foreign_credentials_are_refused_at_once(nats_server: NatsServer, private_nats: Nats) -> None:
    """Goal: who is not let in learns it now. Method: another operator's credentials, and none."""
    foreign = private_nats.service_credentials_file("bidding")
    for credentials in (foreign, ""):
        with pytest.raises(nats.errors.Error, match="(?i)authorization"):
            await NatsLink.connect(nats_server.url, credentials, timeout=5)
