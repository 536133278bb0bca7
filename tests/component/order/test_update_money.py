"""UpdateOrder against settlement itself: both services on databases of their own, with gRPC between them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from google.protobuf import field_mask_pb2

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.settlement.v1 import events_pb2, settlement_service_pb2_grpc
from fallow.type.v1 import money_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.grpc_client import channel
from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory, ManualClock, SequentialIds, ServedService, serving
from fallow_order.clients import EscrowClient
from fallow_order.consumers import ESCROWS_TOPIC
from fallow_order.update_commands import UpdateCommands
from fallow_order.vault import Vault
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.domain.rules import Rules
from fallow_settlement.opening import Opening
from fallow_settlement.queries import Reads
from fallow_settlement.rpc import EscrowServicer
from tests.component.order.conftest import KEYS, House, Tenant, small_order
from tests.component.settlement.market import ASSET, RULES, TENANT, Market, identifier

LEASE = identifier(2)
HOLD = 10_000
PRICE = 3_600_000
"""One micro for each millisecond: ten seconds use the hold up."""


@dataclass
class Money:
    """An order here and its escrow there."""

    house: House
    market: Market
    updates: UpdateCommands
    tenant: Tenant
    order: order_pb2.Order
    told: int = 0
    proofs: int = field(default=0)

    @property
    def key(self) -> str:
        """The order's id."""
        return self.order.name.removeprefix("orders/")

    async def change(self, *paths: str, request_id: str, **terms: object) -> None:
        """UpdateOrder of the terms."""
        wanted = order_pb2.Order(name=self.order.name, terms=order_pb2.Terms(**terms))  # type: ignore[arg-type]
        mask = field_mask_pb2.FieldMask(paths=[f"terms.{path}" for path in paths])
        request = order_service_pb2.UpdateOrderRequest(order=wanted, update_mask=mask, request_id=request_id)
        await self.updates.update(self.tenant.name.removeprefix("accounts/"), request)

    async def run(self, seconds: int) -> tuple[int, int]:
        """Prove some seconds one by one, charging each; what is held and charged afterwards, as the order shows it."""
        for _ in range(seconds):
            await self.market.run_for(self.key, LEASE, 1, first=self.proofs + 1, start_ms=self.proofs * 1_000)
            self.proofs += 1
            await self.market.charging.charge_due()
        return await self.shown()

    async def shown(self) -> tuple[int, int]:
        """What the order shows as held and charged, once it has heard all that settlement states."""
        async with self.market.database.read() as connection:
            rows = await connection.fetch(
                "SELECT type, version, payload FROM outbox WHERE key = $1 AND version > $2 ORDER BY sequence",
                self.key,
                self.told,
            )
        for row in rows:
            message = getattr(events_pb2, row["type"].rpartition(".")[2]).FromString(row["payload"])
            await self.house.deliver(ESCROWS_TOPIC, self.key, message, version=row["version"])
            self.told = row["version"]
        totals = (await self.tenant.get(self.order.name)).totals
        money = await Reads(self.market.database, RULES).money(TENANT, ASSET)
        assert totals.held.micros == money.held, "the order's total is what the ledger holds"
        return totals.held.micros, totals.charged.micros


@pytest.fixture
async def money(
    house: House, database_factory: DatabaseFactory, clock: ManualClock, ids: SequentialIds
) -> AsyncIterator[Money]:
    """An order that runs, with settlement behind the changes of it; warnings and top-ups come early."""
    database = await Database.connect(
        await database_factory("fallow_settlement"), pool_size=4, ids=ids, clock=clock, source="services/settlement"
    )
    rules = Rules(RULES.take_basis_points, 1_000, 60_000, low_runway_ms=10**9, grace_ms=0)
    market = Market(database, clock, rules)
    tenant = house.tenant()
    house.settlement.free[tenant.name] = HOLD
    order = await tenant.create(order=small_order(micros=HOLD))
    key = order.name.removeprefix("orders/")
    await market.fund(TENANT, 100_000)
    await market.open(key, HOLD)
    await market.state(market.lease_created(key, LEASE, price=PRICE), market.lease_running(key, LEASE))
    opening = GroupCommit[Opening, Escrow]("open_escrows", market.opening.open_escrows)
    servicer = EscrowServicer(opening, market.commands, Reads(database, rules))
    adder = settlement_service_pb2_grpc.add_EscrowServiceServicer_to_server
    wired = ServedService(adder, servicer, "fallow.settlement.v1.EscrowService")
    async with (
        serving(wired, verifier=house.identity.verifier) as address,
        channel(address, house.identity.as_service("order")) as own,
    ):
        updates = UpdateCommands(house.database, EscrowClient(own), Vault.parse(KEYS), timedelta(seconds=30))
        yield Money(house, market, updates, tenant, order)
    await database.close()


async def test_auto_top_up_is_turned_on_and_off_with_the_budget_as_the_bound(money: Money) -> None:
    """Goal: a running order may be told to top itself up, up to a budget, and to stop; its totals follow. Method: use up
    three quarters of the hold each time, with the top-up off, on, on with a budget, and off again.
    """
    assert await money.run(8) == (2_000, 8_000), "off: nothing is added"
    await money.change("auto_top_up", request_id="on", auto_top_up=True)
    assert await money.shown() == (2_000, 8_000), "turning it on moves nothing by itself"
    assert await money.run(1) == (11_000, 9_000), "on: as much as the hold is added"

    budget = money_pb2.Amount(asset=ASSET, micros=24_000)
    await money.change("budget", request_id="budget", budget=budget)
    assert await money.run(8) == (7_000, 17_000), "the budget leaves room for 4,000 more, once it is short"
    assert await money.run(1) == (6_000, 18_000)
    held, charged = await money.run(4)
    assert held + charged == 24_000, "the budget is put in, and never more"

    await money.change("auto_top_up", "budget", request_id="off")
    assert await money.run(1) == (1_000, 23_000), "off again: nothing is added"
    shown = (await money.tenant.get(money.order.name)).terms
    assert (shown.auto_top_up, shown.HasField("budget")) == (False, False)


async def test_a_budget_below_what_is_due_is_refused_by_settlement_and_undone(money: Money) -> None:
    """Goal: what settlement alone knows counts: time that is proven and not charged yet. Method: a budget between what
    the order has heard of and what is due; then the same with one micro more than that.
    """
    await money.run(4)
    await money.market.run_for(money.key, LEASE, 2, first=5, start_ms=4_000)
    money.proofs += 2
    with pytest.raises(DomainError) as caught:
        await money.change("budget", request_id="low", budget=money_pb2.Amount(asset=ASSET, micros=5_999))
    assert (caught.value.reason.reason, caught.value.metadata["spent_micros"]) == ("BUDGET_TOO_LOW", "6000")
    assert not (await money.tenant.get(money.order.name)).terms.HasField("budget")
    await money.change("budget", request_id="low", budget=money_pb2.Amount(asset=ASSET, micros=6_001))
    await money.market.charging.charge_due()
    assert await money.shown() == (1, 6_000), "what is above the budget has returned"
    totals = (await money.tenant.get(money.order.name)).totals
    assert totals.refunded.micros == 3_999
