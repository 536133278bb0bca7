"""Orders whose funds are used up: paused for a grace, resumed by a top-up, ended after it; whatever fails in between."""

from collections.abc import Awaitable, Callable

import pytest

from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.errors import PERMISSION_DENIED, UNAVAILABLE, DomainError
from fallow_settlement import escrow_store
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, GRACE_MS, RULES, TENANT, Market
from tests.component.settlement.test_walk import LEASE, ORDER, PRICE, outbox

MINUTE = 60_000
"""Micros that a minute costs at PRICE."""


async def escrow(market: Market) -> Escrow:
    """The order's escrow."""
    async with market.database.read() as connection:
        found = await escrow_store.load_escrow(connection, ORDER)
    assert found is not None
    return found


async def top_up(market: Market, micros: int, request: str = "more") -> Escrow:
    """The tenant adds funds."""
    return await market.commands.top_up(
        ORDER, ASSET, micros, caller=f"accounts/{TENANT}", request_id=request,
        request=settlement_service_pb2.TopUpEscrowRequest(name=f"escrows/{ORDER}"),
    )  # fmt: skip


async def used_up(market: Market, *, held: int = 2_500, free: int = 1_000_000, auto_top_up: bool = False) -> None:
    """An order that has run for four seconds on less."""
    await market.fund(TENANT, held + free)
    await market.open(ORDER, held, auto_top_up=auto_top_up)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 4)
    await market.charging.charge_due()


async def test_a_used_up_escrow_pauses_its_order(market: Market) -> None:
    """Goal: a shortfall takes what is left, pauses, and ends nothing yet. Method: run longer than the funds last."""
    await used_up(market)
    await market.charging.charge_due()
    for _ in range(2):
        await market.suspension.resume_or_end()
        await market.suspension.tell_market()
    charges = await Reads(market.database, RULES).charges(TENANT, ORDER, None, 10)
    assert [(charge.amount, charge.short) for charge in charges] == [(2_500, 1_500)]
    assert market.bidding.told == [(ORDER, True, 1)], "told once, because bidding answered"
    assert market.bidding.ended == []
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 1_000_000
    assert await outbox(market.database) == [("ChargePosted", 1), ("EscrowSuspended", 2)]


async def test_after_the_grace_the_order_ends(market: Market) -> None:
    """Goal: devices are not held for nothing. Method: a moment before and at the end of the grace; ask until it has ended."""
    await used_up(market)
    market.clock.advance(milliseconds=GRACE_MS - 1)
    await market.suspension.resume_or_end()
    assert market.bidding.ended == []
    market.clock.advance(milliseconds=1)
    for _ in range(2):
        await market.suspension.resume_or_end()
    assert market.bidding.ended == [ORDER, ORDER], "asked until the end is heard of"
    with pytest.raises(DomainError, match="takes no more funds") as refusal:
        await top_up(market, 500_000)
    assert refusal.value.reason.reason == "ESCROW_CLOSED"
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 1_000_000, "nothing was taken"
    await market.state(market.lease_ended(ORDER, LEASE, market.clock.now()), market.order_ended(ORDER))
    await market.suspension.resume_or_end()
    assert len(market.bidding.ended) == 2
    market.clock.advance(seconds=60)
    await market.charging.close_ended()
    assert (await outbox(market.database))[-2:] == [("EscrowSuspended", 2), ("EscrowClosed", 3)]


async def test_a_top_up_resumes(market: Market) -> None:
    """Goal: the same order goes on, and time in the pause is free. Method: pause, proofs that claim to have run, top up, run."""
    await used_up(market)
    await market.suspension.tell_market()
    await market.run_for(ORDER, LEASE, 10, first=5, start_ms=4_000)
    resumed = await top_up(market, MINUTE)
    assert (resumed.state, resumed.held) == (EscrowState.OPEN, MINUTE)
    again = await top_up(market, MINUTE)
    assert again.held == MINUTE, "a repeat adds nothing"
    await market.suspension.tell_market()
    assert market.bidding.told == [(ORDER, True, 1), (ORDER, False, 2)]
    await market.run_for(ORDER, LEASE, 3, first=15, start_ms=14_000)
    await market.charging.charge_due()
    assert (await escrow(market)).charged == 2_500 + 3_000
    assert [name for name, _ in await outbox(market.database)] == [
        "ChargePosted",
        "EscrowSuspended",
        "EscrowResumed",
        "ChargePosted",
    ]


async def test_a_top_up_that_lasts_for_no_minute_is_refused(market: Market) -> None:
    """Goal: nothing is resumed for a moment. Method: one micro too little; the least that the error names does it."""
    await used_up(market)
    with pytest.raises(DomainError) as refusal:
        await top_up(market, MINUTE - 1)
    assert refusal.value.reason.reason == "AMOUNT_INVALID"
    assert refusal.value.metadata["least_micros"] == str(MINUTE)
    assert (await escrow(market)).state is EscrowState.SUSPENDED
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 1_000_000
    assert (await top_up(market, MINUTE, "enough")).state is EscrowState.OPEN


async def test_an_automatic_top_up_resumes_once_there_is_money(market: Market) -> None:
    """Goal: a deposit is enough. Method: used up with nothing free; a deposit; the timer."""
    await used_up(market, held=100_000, free=0, auto_top_up=True)
    await market.run_for(ORDER, LEASE, 100, first=5, start_ms=4_000)
    await market.charging.charge_due()
    assert (await escrow(market)).state is EscrowState.SUSPENDED
    await market.suspension.resume_or_end()
    assert (await escrow(market)).state is EscrowState.SUSPENDED
    await market.fund(TENANT, 100_000, "second")
    await market.suspension.resume_or_end()
    assert (await escrow(market)).state is EscrowState.OPEN
    await market.suspension.tell_market()
    assert market.bidding.told == [(ORDER, False, 2)], "only the last word is told"


async def test_what_bidding_does_not_take_is_told_again(market: Market) -> None:
    """Goal: telling ends only with an answer, and a refusal stops nobody else's. Method: refuse, be away, answer."""
    await used_up(market)
    market.bidding.failure = DomainError(PERMISSION_DENIED, "not you")
    await market.suspension.tell_market()
    market.bidding.failure = DomainError(UNAVAILABLE, "away")
    with pytest.raises(DomainError):
        await market.suspension.tell_market()
    market.bidding.failure = None
    for _ in range(2):
        await market.suspension.tell_market()
    assert market.bidding.told == [(ORDER, True, 1)]
    market.clock.advance(milliseconds=GRACE_MS)
    market.bidding.failure = DomainError(PERMISSION_DENIED, "not you")
    await market.suspension.resume_or_end()
    market.bidding.failure = None
    await market.suspension.resume_or_end()
    assert market.bidding.ended == [ORDER]


async def test_a_top_up_while_bidding_is_told_is_told_too(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no turn is lost. Method: the tenant tops up while the word of the suspension is on its way."""
    await used_up(market)
    told = market.bidding.set_order_suspended

    async def slow(order_id: str, *, suspended: bool, number: int) -> None:
        await told(order_id, suspended=suspended, number=number)
        if suspended:
            await top_up(market, MINUTE)

    monkeypatch.setattr(market.bidding, "set_order_suspended", slow)
    for _ in range(3):
        await market.suspension.tell_market()
    assert market.bidding.told == [(ORDER, True, 1), (ORDER, False, 2)]


@pytest.mark.parametrize("job", ["tell_market", "resume_or_end"])
async def test_a_job_killed_before_it_writes_goes_on(market: Market, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    """Goal: a kill at any step loses nothing. Method: fail at the write after the call, then run it again."""
    await used_up(market)
    if job == "resume_or_end":
        market.clock.advance(milliseconds=GRACE_MS)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    run: Callable[[], Awaitable[None]] = getattr(market.suspension, job)
    with monkeypatch.context() as patch:
        patch.setattr("fallow_settlement.escrow_store.save_escrow", kill)
        with pytest.raises(Killed):
            await run()
    assert market.bidding.ended == [], "no end is asked for before it is written down that it is decided"
    await run()
    if job == "tell_market":
        assert market.bidding.told == [(ORDER, True, 1), (ORDER, True, 1)]
    else:
        assert market.bidding.ended == [ORDER]
