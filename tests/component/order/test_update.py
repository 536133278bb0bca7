"""Changing a live order: what is allowed, the three steps with a stop after each, revisions of workloads."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import field_mask_pb2
from google.protobuf.duration_pb2 import Duration

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.bidding.v1 import lease_pb2 as bidding_lease
from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2, order_service_pb2_grpc
from fallow.settlement.v1 import charge_pb2
from fallow.settlement.v1 import events_pb2 as settlement_events
from fallow.type.v1 import lease_pb2, money_pb2, workload_pb2
from fallow_chassis.errors import UNAVAILABLE, DomainError, ErrorReason
from fallow_chassis.grpc_client import RemoteError
from fallow_order import update_store
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from fallow_order.update_commands import UpdateCommands
from tests.component.order.conftest import House, Tenant, grant_on, new_name, small_order

REPLICAS = "groups.workload.containers.replicas"
CLOSED = DomainError(ErrorReason("ESCROW_CLOSED", "FAILED_PRECONDITION", "Closed.", "Order anew."), "closing")


class KilledError(Exception):
    """Stands for the end of the process at that line."""


def usdc(micros: int) -> money_pb2.Price:
    """A price."""
    return money_pb2.Price(asset="usdc", micros_per_hour=micros)


async def update(
    tenant: Tenant, order: order_pb2.Order, *paths: str, request_id: str = "u", **fields: Any
) -> order_pb2.Order:
    """UpdateOrder of an order with these fields."""
    wanted = order_pb2.Order(name=order.name, **fields)
    mask = field_mask_pb2.FieldMask(paths=paths)
    stub = await tenant.orders()
    return await stub.UpdateOrder(
        order_service_pb2.UpdateOrderRequest(order=wanted, update_mask=mask, request_id=request_id)
    )


async def relimit(tenant: Tenant, order: order_pb2.Order, micros: int, request_id: str = "u") -> order_pb2.Order:
    """Another price limit for the first group."""
    group = order_pb2.Group(group_id="main", price_limit=usdc(micros))
    return await update(tenant, order, "groups.price_limit", request_id=request_id, groups=[group])


async def scale(tenant: Tenant, order: order_pb2.Order, replicas: int, request_id: str = "u") -> order_pb2.Order:
    """Another number of replicas for the first group."""
    container = workload_pb2.Container(service="web", replicas=replicas)
    group = order_pb2.Group(group_id="main", workload=workload_pb2.Workload(containers=[container]))
    return await update(tenant, order, REPLICAS, request_id=request_id, groups=[group])


async def ordered(house: House, free: int = 100_000_000, **fields: Any) -> tuple[Tenant, order_pb2.Order]:
    """A tenant with an open order that holds 3,600,000 micros."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = free
    return tenant, await tenant.create(order=small_order(**fields))


async def run(house: House, order: order_pb2.Order, generation: int = 1, revision: int = 1) -> str:
    """Lease and start the first group; its lease."""
    lease, key = new_name("leases"), order.name.removeprefix("orders/")
    generation_key = lease_pb2.GenerationKey(order=order.name, group=0, generation=generation)
    created = bidding_lease.Lease(
        name=lease, key=generation_key, provider="providers/p", price=usdc(1_000_000), group_revision=revision
    )
    await house.deliver(LEASES_TOPIC, key, bidding_events.LeaseCreated(lease=created))
    await house.deliver(LEASES_TOPIC, key, bidding_events.LeaseRunning(lease=lease, key=generation_key))
    return lease


async def secret(house: House, order: order_pb2.Order, lease: str, generation: int, revision: int) -> str:
    """What the holder of a grant gets: replicas and secret of the workload, or the reason of the refusal."""
    token = house.identity.grant(grant_on(order.name, generation=generation, lease=lease, revision=revision))
    stub = order_service_pb2_grpc.WorkloadServiceStub(await house.connect(token))
    try:
        answer = await stub.GetWorkload(order_service_pb2.GetWorkloadRequest(lease=lease, generation=generation))
    except RemoteError as error:
        return error.reason.reason
    (container,) = answer.workload.containers
    return f"{container.replicas} {container.environment[0].value}"


async def updates_told(house: House) -> list[order_pb2.Order]:
    """The orders that OrderUpdated told of."""
    kinds = [(kind, payload) for kind, payload in await house.outbox() if kind.endswith("OrderUpdated")]
    return [events_pb2.OrderUpdated.FromString(payload).order for _, payload in kinds]


async def test_a_higher_limit_holds_more_and_is_told_to_the_market(house: House) -> None:
    """Goal: limit, term, budget and top-up change together, held before the answer. Method: one call, then its repeat."""
    tenant, order = await ordered(house)
    terms = order_pb2.Terms(duration=Duration(seconds=1800), budget=money_pb2.Amount(asset="usdc", micros=9_000_000))
    terms.auto_top_up = True
    group = order_pb2.Group(group_id="main", price_limit=usdc(7_200_002))
    paths = ("groups.price_limit", "terms.duration", "terms.budget", "terms.auto_top_up")
    changed = await update(tenant, order, *paths, groups=[group], terms=terms)
    assert changed.groups[0].price_limit == usdc(7_200_002)
    assert (changed.terms.duration.seconds, changed.terms.budget.micros, changed.terms.auto_top_up) == (
        1800,
        9_000_000,
        True,
    )
    assert changed.groups[0].revision == 1
    assert changed.etag != order.etag
    (request,) = house.settlement.resizes
    assert (request.amount.micros, request.budget.micros, request.auto_top_up) == (3_600_001, 9_000_000, True)
    again = await update(tenant, order, *paths, groups=[group], terms=terms)
    assert again == changed
    assert len(house.settlement.resizes) == 1
    (told,) = await updates_told(house)
    assert told.groups[0].price_limit == usdc(7_200_002)
    assert told.groups[0].replica_sets == order.groups[0].replica_sets

    cleared = await update(tenant, order, *paths[1:], request_id="u2")
    assert not cleared.terms.HasField("duration")
    assert not cleared.terms.HasField("budget")
    assert not cleared.terms.auto_top_up
    assert not house.settlement.resizes[-1].HasField("budget")
    assert await house.count("order_update") == 0


async def test_replicas_scale_and_the_rest_of_the_workload_stays(house: House) -> None:
    """Goal: scaling needs no workload from the tenant. Method: scale, look at the market's view and at both revisions."""
    tenant, order = await ordered(house, secret="pl4nted")
    lease = await run(house, order)
    changed = await scale(tenant, order, 2)
    assert (changed.groups[0].revision, changed.groups[0].replica_sets[0].replicas) == (2, 2)
    assert not house.settlement.resizes, "the limits stay, so no money moves"
    (told,) = await updates_told(house)
    assert (told.groups[0].revision, told.groups[0].replica_sets[0].replicas) == (2, 2)
    assert not told.groups[0].HasField("workload")

    assert await secret(house, order, lease, 1, 1) == "1 pl4nted", "the old generation's revision"
    assert await secret(house, order, lease, 1, 3) == "LEASE_NOT_FOUND", "no revision but one's own"
    newer = new_name("leases")
    assert await secret(house, order, newer, 2, 2) == "2 pl4nted"
    assert await secret(house, order, lease, 1, 1) == "GENERATION_OLD"
    assert await house.count("workload") == 2
    await run(house, order, generation=2, revision=2)
    assert await house.count("workload") == 1, "the older revision goes once the newer one runs"
    assert await scale(tenant, order, 2, "same") == await tenant.get(order.name), "nothing changes, nothing happens"
    assert len(await updates_told(house)) == 1


async def test_a_fail_over_of_the_old_revision_keeps_it(house: House) -> None:
    """Goal: while a change waits, the old revision may still be leased again. Method: scale, then a lease at revision 1."""
    tenant, order = await ordered(house)
    await run(house, order)
    await scale(tenant, order, 2)
    await run(house, order, generation=2, revision=1)
    assert await house.count("workload") == 2
    assert await secret(house, order, new_name("leases"), 3, 2) == "2 s3cret"


async def test_a_whole_workload_is_replaced(house: House) -> None:
    """Goal: an image or a secret may change. Method: replace the workload of the second of two groups by its name."""
    tenant, order = await ordered(house, groups=2)
    workload = small_order(secret="newer").groups[0].workload
    group = order_pb2.Group(group_id="main-1", workload=workload)
    changed = await update(tenant, order, "groups.workload", groups=[group])
    assert [entry.revision for entry in changed.groups] == [1, 2]
    changed = await update(tenant, order, "groups.workload", groups=[group], request_id="again")
    assert [entry.revision for entry in changed.groups] == [1, 2], "the same workload is no change"
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT ciphertext FROM workload")
    assert len(rows) == 3
    assert not any(b"newer" in row["ciphertext"] for row in rows)


BAD = [
    ("update_mask", (), {"groups": [order_pb2.Group(group_id="main", price_limit=usdc(1))]}),
    ("update_mask", ("groups.constraints",), {}),
    ("update_mask", ("match_mode",), {}),
    ("update_mask", ("labels", "nope"), {}),
    ("update_mask", ("groups.workload", REPLICAS), {"groups": [order_pb2.Group(group_id="main")]}),
    ("order.groups", ("groups.price_limit",), {}),
    ("order.labels", ("labels",), {"labels": {"": "x"}}),
    ("order.groups[0].group_id", ("groups.price_limit",), {"groups": [order_pb2.Group(group_id="new", price_limit=usdc(1))]}),
    (
        "order.groups[1].group_id",
        ("groups.price_limit",),
        {"groups": [order_pb2.Group(group_id="main", price_limit=usdc(5_000_000))] * 2},
    ),
    ("order.groups[0].price_limit", ("groups.price_limit",), {"groups": [order_pb2.Group(group_id="main")]}),
    (
        "order.groups[0].price_limit.asset",
        ("groups.price_limit",),
        {"groups": [order_pb2.Group(group_id="main", price_limit=money_pb2.Price(asset="eurc", micros_per_hour=9))]},
    ),
    ("order.groups[0].workload", ("groups.workload",), {"groups": [order_pb2.Group(group_id="main-1")]}),
    (
        "order.groups[0].workload.containers[0].image",
        ("groups.workload",),
        {
            "groups": [
                order_pb2.Group(
                    group_id="main-1",
                    workload=workload_pb2.Workload(containers=[workload_pb2.Container(service="web", replicas=1)]),
                )
            ]
        },
    ),
    (
        "order.groups[0].workload.containers[0].service",
        (REPLICAS,),
        {
            "groups": [
                order_pb2.Group(
                    group_id="main",
                    workload=workload_pb2.Workload(containers=[workload_pb2.Container(service="other", replicas=1)]),
                )
            ]
        },
    ),
    ("order.terms.duration", ("terms.duration",), {"terms": order_pb2.Terms(duration=Duration(nanos=1))}),
    (
        "order.terms.budget.asset",
        ("terms.budget",),
        {"terms": order_pb2.Terms(budget=money_pb2.Amount(asset="eurc", micros=1))},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("field", "paths", "fields"), BAD)
async def test_a_bad_change_is_refused_by_its_own_path(
    house: House, field: str, paths: tuple[str, ...], fields: dict[str, Any]
) -> None:
    """Goal: each mistake has its path as the request has it, and nothing changes. Method: one mistake each."""
    tenant, order = await ordered(house, groups=2)
    with pytest.raises(RemoteError) as caught:
        await update(tenant, order, *paths, **fields)
    assert caught.value.reason.reason == "INVALID_FIELD"
    assert field in [violation.field for violation in caught.value.violations]
    assert await tenant.get(order.name) == order
    assert (await updates_told(house), house.settlement.resizes) == ([], [])
    assert await house.count("order_update") == 0


async def test_what_runs_bounds_what_may_change(house: House) -> None:
    """Goal: the fixed price, the time that ran and the money spent are told. Method: a running order, one refusal each."""
    tenant, order = await ordered(house)
    await run(house, order)
    key = order.name.removeprefix("orders/")
    charge = charge_pb2.Charge(
        key=lease_pb2.GenerationKey(order=order.name), amount=money_pb2.Amount(asset="usdc", micros=700)
    )
    await house.deliver(ESCROWS_TOPIC, key, settlement_events.ChargePosted(charge=charge))
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE orders SET ready_at = now() - interval '1 hour'")
    before = await tenant.get(order.name)
    with pytest.raises(RemoteError) as low:
        await relimit(tenant, order, 999_999)
    assert (low.value.code, low.value.reason.reason) == ("FAILED_PRECONDITION", "PRICE_LIMIT_TOO_LOW")
    assert low.value.metadata["price_micros_per_hour"] == "1000000"
    with pytest.raises(RemoteError) as short:
        await update(tenant, order, "terms.duration", terms=order_pb2.Terms(duration=Duration(seconds=3599)))
    assert short.value.reason.reason == "TERM_TOO_SHORT"
    with pytest.raises(RemoteError) as poor:
        budget = money_pb2.Amount(asset="usdc", micros=699)
        await update(tenant, order, "terms.budget", terms=order_pb2.Terms(budget=budget))
    assert (poor.value.reason.reason, poor.value.metadata["spent_micros"]) == ("BUDGET_TOO_LOW", "700")
    assert await tenant.get(order.name) == before


async def test_too_little_money_changes_nothing_and_the_same_request_works_after_a_deposit(house: House) -> None:
    """Goal: a refusal of settlement is the tenant's to mend. Method: too dear a limit, a deposit, the same request id;
    between them settlement was told once more what the order holds, under the next number.
    """
    tenant, order = await ordered(house, free=4_000_000)
    with pytest.raises(RemoteError) as caught:
        await relimit(tenant, order, 7_200_000)
    assert (caught.value.reason.reason, caught.value.metadata["short_micros"]) == ("INSUFFICIENT_FUNDS", "3200000")
    assert await tenant.get(order.name) == order
    assert [(item.number, item.amount.micros) for item in house.settlement.resizes] == [(1, 7_200_000), (2, 3_600_000)]
    assert await house.count("order_update") == 0
    house.settlement.free[tenant.name] += 3_200_000
    changed = await relimit(tenant, order, 7_200_000)
    assert changed.groups[0].price_limit == usdc(7_200_000)
    assert house.settlement.held[order.name.replace("orders/", "escrows/")] == 7_200_000
    assert house.settlement.resizes[-1].number == 3


async def test_a_refused_change_leaves_no_workload_and_its_claim_alone_is_forgotten(house: House) -> None:
    """Goal: undoing one change touches no other. Method: a change that is made, one that is refused, repeats of both."""
    tenant, order = await ordered(house, free=4_000_000)
    first = await scale(tenant, order, 2, "made")
    workload = small_order(secret="dear").groups[0].workload
    group = order_pb2.Group(group_id="main", workload=workload, price_limit=usdc(90_000_000))
    with pytest.raises(RemoteError):
        await update(tenant, order, "groups.workload", "groups.price_limit", request_id="dear", groups=[group])
    assert await house.count("workload") == 2
    with pytest.raises(RemoteError) as reused:
        await scale(tenant, order, 3, "made")
    assert reused.value.reason.reason == "REQUEST_ID_REUSED", "the first change's claim still stands"
    assert await scale(tenant, order, 2, "made") == first


@pytest.mark.parametrize("step", ["resize", "_make"])
@pytest.mark.parametrize("by", ["repeat", "sweeper"])
async def test_a_change_that_was_left_half_way_is_finished_once(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str, by: str
) -> None:
    """Goal: a kill between any two steps loses nothing and doubles nothing. Method: stop before settlement is asked, and
    before the change is made; then the tenant repeats the call, or the sweeper comes.
    """
    tenant, order = await ordered(house)
    with monkeypatch.context() as patched:
        if step == "resize":
            house.settlement.failure = DomainError(UNAVAILABLE, "away")
        else:
            patched.setattr(UpdateCommands, "_make", _killed)
        with pytest.raises(RemoteError):
            await relimit(tenant, order, 7_200_000)
    house.settlement.failure = None
    assert await tenant.get(order.name) == order, "nothing shows before all is held"
    with pytest.raises(RemoteError) as busy:
        await relimit(tenant, order, 8_000_000, "other")
    assert (busy.value.code, busy.value.reason.reason) == ("ABORTED", "UPDATE_IN_PROGRESS")
    assert busy.value.retry_after_ms is not None
    if by == "repeat":
        await relimit(tenant, order, 7_200_000)
    else:
        await house.updates.sweep()
        assert await tenant.get(order.name) == order, "not due yet"
        await _let_updates_be_due(house)
        await house.updates.sweep()
    changed = await tenant.get(order.name)
    assert changed.groups[0].price_limit == usdc(7_200_000)
    assert await relimit(tenant, order, 7_200_000) == changed
    assert len(await updates_told(house)) == 1
    assert house.settlement.free[tenant.name] == 100_000_000 - 7_200_000
    assert {item.number for item in house.settlement.resizes} == {1}


async def test_two_that_finish_at_once_make_one_change(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: repeat and sweeper may race. Method: leave a change half-way, then four repeats and two sweepers at once."""
    tenant, order = await ordered(house)
    with monkeypatch.context() as patched:
        patched.setattr(UpdateCommands, "_make", _killed)
        with pytest.raises(RemoteError):
            await relimit(tenant, order, 7_200_000)
    await _let_updates_be_due(house)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(relimit(tenant, order, 7_200_000)) for _ in range(4)]
        for _ in range(2):
            group.create_task(house.updates.sweep())
    assert {task.result().groups[0].price_limit.micros_per_hour for task in tasks} == {7_200_000}
    assert len(await updates_told(house)) == 1


async def test_a_grant_that_comes_after_a_refusal_is_undone(house: House) -> None:
    """Goal: money that a late repeat was granted does not stay with a change that was forgotten. Method: the sweeper
    holds a change while the tenant's own call is refused; then a deposit comes, and the sweeper's call is granted.
    """
    tenant, order = await ordered(house, free=4_000_000)
    house.settlement.failure = DomainError(UNAVAILABLE, "away")
    with pytest.raises(RemoteError):
        await relimit(tenant, order, 7_200_000)
    house.settlement.failure = None
    (pending,) = await _pending(house)
    house.settlement.free[tenant.name] += 10_000_000
    # The granted call is at settlement before the refusal's undoing, and comes back after it.
    await house.updates._escrows.resize(pending.order_id, pending.number, pending.update.holding)
    house.settlement.failure = CLOSED
    with pytest.raises(RemoteError):
        await relimit(tenant, order, 7_200_000)
    house.settlement.failure = None
    with pytest.raises(DomainError) as late:
        await house.updates._make(pending)
    assert late.value.reason.reason == "UPDATE_WITHDRAWN"
    assert (await tenant.get(order.name)).groups[0].price_limit == usdc(3_600_000)
    # CLOSED ended the undoing, as it does where the escrow is gone; one that failed otherwise is asked again.
    house.settlement.failure = DomainError(UNAVAILABLE, "away")
    with pytest.raises(RemoteError):
        await relimit(tenant, order, 5_000_000, "next")
    house.settlement.failure = None
    await relimit(tenant, order, 5_000_000, "next")
    assert house.settlement.held[order.name.replace("orders/", "escrows/")] == 5_000_000


async def test_an_undoing_that_fails_is_asked_again_or_overtaken(house: House) -> None:
    """Goal: the undoing of a refused change is not lost, and holds up no newer one. Method: settlement refuses, is away
    for the undoing, comes back; the same with a newer change first.
    """
    tenant, order = await ordered(house, free=4_000_000)
    refusal = house.updates._refuse

    async def refuse_then_lose(pending: Any) -> Any:
        restoring = await refusal(pending)
        house.settlement.failure = DomainError(UNAVAILABLE, "away")
        return restoring

    for request_id, by in (("a", "sweeper"), ("b", "newer")):
        house.updates._refuse = refuse_then_lose  # type: ignore[method-assign]
        with pytest.raises(RemoteError) as caught:
            await relimit(tenant, order, 9_000_000, request_id)
        assert caught.value.reason.reason == "INSUFFICIENT_FUNDS"
        house.settlement.failure = None
        (left,) = await _pending(house)
        assert left.restoring
        if by == "sweeper":
            await _let_updates_be_due(house)
            await house.updates.sweep()
            assert (house.settlement.resizes[-1].number, house.settlement.resizes[-1].amount.micros) == (2, 3_600_000)
        else:
            house.settlement.free[tenant.name] += 2_000_000
            await relimit(tenant, order, 5_000_000, "newer")
            assert house.settlement.held[order.name.replace("orders/", "escrows/")] == 5_000_000
        assert await _pending(house) == []


async def test_a_change_that_fails_again_and_again_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: one broken change does not stop the rest. Method: two left half-way, the first fails for ever, and the
    sweeper takes one at a time.
    """
    monkeypatch.setattr("fallow_order.update_commands.BATCH_UPDATES", 1)
    broken, good = [await ordered(house) for _ in range(2)]
    house.settlement.failure = DomainError(UNAVAILABLE, "away")
    for tenant, order in (broken, good):
        with pytest.raises(RemoteError):
            await relimit(tenant, order, 7_200_000)
    house.settlement.failure = None
    await _let_updates_be_due(house)
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE order_update SET due_at = due_at - interval '1 minute' WHERE order_id = $1",
            broken[1].name.removeprefix("orders/"),
        )
    resize = house.updates._escrows.resize

    async def resize_all_but_one(order_id: str, number: int, holding: Any) -> None:
        if broken[1].name.endswith(order_id):
            raise DomainError(UNAVAILABLE, "away")
        await resize(order_id, number, holding)

    monkeypatch.setattr(house.updates._escrows, "resize", resize_all_but_one)
    await house.updates.sweep()
    await house.updates.sweep()
    assert (await good[0].get(good[1].name)).groups[0].price_limit == usdc(7_200_000)
    assert await broken[0].get(broken[1].name) == broken[1]


async def test_an_order_that_ends_meanwhile_drops_its_change(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a close wins. Method: leave a change of workload and limit half-way, close, sweep."""
    tenant, order = await ordered(house)
    workload = small_order(secret="newer").groups[0].workload
    group = order_pb2.Group(group_id="main", workload=workload, price_limit=usdc(7_200_000))
    with monkeypatch.context() as patched:
        patched.setattr(UpdateCommands, "_make", _killed)
        with pytest.raises(RemoteError):
            await update(tenant, order, "groups.workload", "groups.price_limit", groups=[group])
    assert await house.count("workload") == 2
    stub = await tenant.orders()
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c"))
    with pytest.raises(RemoteError) as ended:
        await update(tenant, order, "groups.workload", "groups.price_limit", groups=[group])
    assert ended.value.reason.reason == "ORDER_CLOSED"
    assert (await _pending(house), await house.count("workload")) == ([], 1)
    assert await updates_told(house) == []
    with pytest.raises(RemoteError) as closed:
        await relimit(tenant, order, 7_200_000, "late")
    assert closed.value.reason.reason == "ORDER_CLOSED"


async def test_etags_and_foreign_orders(house: House) -> None:
    """Goal: no lost update, no foreign one. Method: a stale etag; another tenant with every path, before and after."""
    tenant, order = await ordered(house)
    changed = await relimit(tenant, order, 4_000_000)
    with pytest.raises(RemoteError) as stale:
        await update(tenant, order, "labels", labels={"a": "b"}, etag=order.etag, request_id="u2")
    assert stale.value.reason.reason == "ETAG_MISMATCH"
    changed = await update(tenant, order, "labels", labels={"a": "b"}, etag=changed.etag, request_id="u3")
    assert dict(changed.labels) == {"a": "b"}
    stranger = house.tenant()
    house.settlement.free[stranger.name] = 100_000_000
    for foreign in (
        relimit(stranger, order, 9_000_000),
        scale(stranger, order, 5, "s"),
        update(stranger, order, "terms.auto_top_up", terms=order_pb2.Terms(auto_top_up=True), request_id="t"),
        update(stranger, order, "labels", labels={}, request_id="l"),
    ):
        with pytest.raises(RemoteError) as caught:
            await foreign
        assert (caught.value.code, caught.value.reason.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
    assert await tenant.get(order.name) == changed


async def test_totals_follow_the_escrow(house: House) -> None:
    """Goal: the order shows what settlement holds and gave back. Method: EscrowResized as settlement states it."""
    tenant, order = await ordered(house)
    escrow = charge_pb2.Escrow(
        name=order.name.replace("orders/", "escrows/"),
        charged=money_pb2.Amount(asset="usdc", micros=10),
        held=money_pb2.Amount(asset="usdc", micros=90),
        refunded=money_pb2.Amount(asset="usdc", micros=3_599_900),
    )
    await house.deliver(
        ESCROWS_TOPIC, order.name.removeprefix("orders/"), settlement_events.EscrowResized(escrow=escrow)
    )
    totals = (await tenant.get(order.name)).totals
    assert (totals.charged.micros, totals.held.micros, totals.refunded.micros) == (10, 90, 3_599_900)


async def _killed(*_: Any) -> Any:
    """The process ends here."""
    raise KilledError


async def _pending(house: House) -> list[Any]:
    """All changes that are on their way, as the sweeper lists them."""
    async with house.database.read() as connection:
        return await update_store.list_due(connection, house.database.clock.now() + timedelta(days=1), 100)


async def _let_updates_be_due(house: House) -> None:
    """Let the sweeper's time have come."""
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE order_update SET due_at = now() - interval '1 hour'")
