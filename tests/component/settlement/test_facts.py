"""The market's facts: forged and early proofs, repeats, and what an unknown order does."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow.type.v1 import lease_pb2
from fallow_settlement import metering_store
from tests.component.settlement.market import TENANT, FactMaker, Market, identifier

ORDER = identifier(1)
LEASE = identifier(2)
OTHER = identifier(3)
PRICE = 3_600_000


async def proven(market: Market, lease: str = LEASE) -> int:
    """Proven time of a lease."""
    async with market.database.transaction() as unit:
        return (await metering_store.lock_meterings(unit.connection, [lease]))[lease].meter.proven_ms


async def parked(market: Market) -> int:
    """How many proofs wait for their lease."""
    async with market.database.read() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM parked_proof")
    return count


@pytest.fixture
async def leased(market: Market) -> Market:
    """A market with one lease, a second after it was made."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 500_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    market.clock.advance(seconds=1)
    return market


def changed(proof: lease_pb2.Proof, **fields: object) -> lease_pb2.Proof:
    """A copy with other fields under the old signature."""
    copy = lease_pb2.Proof()
    copy.CopyFrom(proof)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


@pytest.mark.parametrize(
    "fields",
    [
        {"running_ms": 1_001},
        {"sequence": 2},
        {"final": True},
        {"device_health": 2},
        {"signature": b""},
        {"signature": bytes(64)},
        {"signature": bytes(63)},
    ],
)
async def test_a_forged_proof_earns_nothing(leased: Market, fields: dict[str, object]) -> None:
    """Goal: every field is signed. Method: change one under a good signature; a good proof beside it counts."""
    forged = changed(leased.proof(ORDER, LEASE, 1, 1_000), **fields)
    await leased.state(leased.received(forged))
    assert await proven(leased) == 0
    await leased.state(leased.received(forged, leased.proof(ORDER, LEASE, 1, 1_000)))
    assert await proven(leased) == 1_000


async def test_another_key_or_provider_earns_nothing(leased: Market) -> None:
    """Goal: only the lease's own provider proves it. Method: sign with another key; send as another provider."""
    stranger = FactMaker(leased.clock, Ed25519PrivateKey.generate())
    await leased.state(leased.received(stranger.proof(ORDER, LEASE, 1, 1_000)))
    message = leased.received(leased.proof(ORDER, LEASE, 1, 1_000))
    message.provider = f"providers/{identifier(77)}"
    await leased.state(message)
    await leased.state(leased.received(leased.proof(ORDER, LEASE, 1, 1_000, group=1)))
    assert await proven(leased) == 0


async def test_proofs_that_come_before_their_lease_count_when_it_comes(market: Market) -> None:
    """Goal: topics may run apart. Method: proofs first, one of them forged, then LeaseCreated."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 500_000)
    created = market.lease_created(ORDER, LEASE, price=PRICE)
    for number in (1, 2):
        market.clock.advance(seconds=1)
        await market.state(market.received(market.proof(ORDER, LEASE, number, number * 1_000)))
    forged = changed(market.proof(ORDER, LEASE, 3, 3_000), running_ms=9_000)
    await market.state(market.received(forged))
    assert await parked(market) == 3
    await market.state(created)
    assert await parked(market) == 0
    assert await proven(market) == 2_000


async def test_parked_proofs_are_bounded_and_forgotten(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a provider cannot fill the disk with proofs of nothing. Method: park beyond the bound, then wait a day."""
    monkeypatch.setattr(metering_store, "MAX_PARKED_PROOFS", 3)
    for number in range(1, 6):
        await market.state(market.received(market.proof(ORDER, LEASE, number, 1)))
    assert await parked(market) == 3
    market.clock.advance(seconds=25 * 3_600)
    await market.charging.forget()
    assert await parked(market) == 0


async def test_the_market_s_absence_is_paid(leased: Market) -> None:
    """Goal: an outage of the market costs the provider nothing. Method: a gap of 100 s, 50 s of it the market's."""
    await leased.state(leased.received(leased.proof(ORDER, LEASE, 1, 1_000)))
    leased.clock.advance(seconds=100)
    await leased.state(leased.received(leased.proof(ORDER, LEASE, 2, 101_000), outage_ms=50_000))
    assert await proven(leased) == 101_000


async def test_an_end_that_comes_late_cuts_what_is_not_charged(leased: Market) -> None:
    """Goal: charge_through_time holds whichever topic is first. Method: prove beyond it, then end, then charge."""
    await leased.run_for(ORDER, LEASE, 5)
    await leased.state(leased.lease_ended(ORDER, LEASE, leased.ago(3)))
    assert await proven(leased) <= 4_000


async def test_a_lease_without_an_escrow_is_poison(market: Market) -> None:
    """Goal: no metering for money that is not held; the key is parked. Method: a lease of an unknown order."""
    with pytest.raises(AssertionError, match="no escrow"):
        await market.state(market.lease_created(OTHER, LEASE, price=PRICE))


async def test_an_order_that_ends_twice_ends_once(leased: Market) -> None:
    """Goal: ends are idempotent. Method: two ends a minute apart; the wait counts from the first."""
    await leased.state(leased.order_ended(ORDER))
    leased.clock.advance(seconds=60)
    await leased.state(leased.order_ended(ORDER))
    await leased.charging.close_ended()
    async with leased.database.read() as connection:
        assert await connection.fetchval("SELECT state FROM escrow WHERE order_id = $1", ORDER) == "CLOSED"
