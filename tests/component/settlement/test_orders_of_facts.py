"""Whatever the order in which facts and proofs come, and whenever they are charged, the final charges are the same."""

import random
from dataclasses import replace

import pytest
from google.protobuf.message import Message

from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, RULES, TENANT, Market
from tests.component.settlement.test_walk import LEASE, ORDER, PRICE

SECONDS = 12


def told(market: Market) -> tuple[list[Message], list[Message]]:
    """The facts about one lease that ran for twelve seconds, in their order, and its proofs, with some that are wrong."""
    facts: list[Message] = [
        market.lease_created(ORDER, LEASE, price=PRICE),
        market.lease_running(ORDER, LEASE),
    ]
    proofs: list[Message] = []
    for number in range(1, SECONDS + 1):
        market.clock.advance(seconds=1)
        good = market.proof(ORDER, LEASE, number, number * 1_000, final=number == SECONDS)
        proofs.append(market.received(good))
        forged = market.proof(ORDER, LEASE, number + 50, 10**6)
        forged.running_ms += 1
        proofs.append(market.received(forged))
        proofs.append(market.received(market.proof(ORDER, LEASE, number + 60, 10**6, generation=2)))
    facts += [market.lease_ended(ORDER, LEASE, market.clock.now()), market.order_ended(ORDER)]
    return facts, proofs


@pytest.mark.parametrize("seed", range(8))
async def test_the_same_is_charged(market: Market, seed: int) -> None:
    """Goal: twelve seconds cost twelve seconds. Method: facts in their order, proofs mixed among them, repeated, some
    forged or of another generation, ticks in between; the end comes last, as its order says.
    """
    draw = random.Random(seed)
    market = Market(market.database, market.clock, replace(RULES, low_runway_ms=0))
    await market.fund(TENANT, 100_000)
    await market.open(ORDER, 50_000)
    facts, proofs = told(market)
    beginning, end = facts[:2], facts[2:]
    order = list(proofs)
    for index in draw.sample(range(len(proofs)), 8):
        order.insert(draw.randrange(index, len(order)), proofs[index])
    # The stream keeps the facts of one order in their order; proofs may come before and between them.
    for at, fact in zip(sorted(draw.sample(range(len(order)), 2)), beginning, strict=True):
        order.insert(at, fact)
    for message in order:
        await market.state(message)
        if draw.random() < 0.2:
            await market.charging.charge_due()
    for fact in end:
        await market.state(fact)
        await market.charging.charge_due()
    market.clock.advance(seconds=60)
    await market.charging.close_ended()
    charges = await Reads(market.database, RULES).charges(TENANT, ORDER, None, 100)
    assert sum(charge.amount for charge in charges) == SECONDS * PRICE // 3_600
    assert all(charge.short == 0 for charge in charges)
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 100_000 - SECONDS * PRICE // 3_600
