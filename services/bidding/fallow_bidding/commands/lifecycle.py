"""What every use-case does with leases in its transaction: end them, give devices back, end orders, state the facts.

The rows of the orders concerned are held by the caller.
"""

from dataclasses import replace
from datetime import datetime

from google.protobuf.message import Message

from fallow_bidding.channels import MARKET_CHANNEL
from fallow_bidding.convert import leases as convert
from fallow_bidding.domain.auctions import ORDER_ENDED
from fallow_bidding.domain.leases import EndReason, Evidence, Lease, LeaseState, early_close_ms, ended, released
from fallow_bidding.domain.orders import GroupState, MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.store import auctions, delivery, leases, orders
from fallow_bidding.topics import LEASES_TOPIC
from fallow_chassis.events import EventDraft
from fallow_chassis.postgres import UnitOfWork, notify


async def emit_fact(unit: UnitOfWork, order_id: str, message: Message) -> None:
    """State a fact about an order's leases, with the next number of that order."""
    version = await orders.next_lease_version(unit.connection, order_id)
    unit.emit(EventDraft(LEASES_TOPIC, order_id, version, message, subject=f"orders/{order_id}"))


async def end_lease(
    unit: UnitOfWork,
    lease: Lease,
    evidence: Evidence,
    charge_through: datetime,
    *,
    lost: bool,
    nothing_runs: bool,
    releasing: bool,
    early_close: int = 0,
) -> Lease:
    """End a live lease for its tenant; unless nothing runs, tell the provider to stop and keep its devices.

    ``early_close``: milliseconds that it owes beyond what ran.
    """
    now = unit.clock.now()
    changed = ended(lease, evidence, charge_through, now, lost=lost, nothing_runs=nothing_runs)
    await leases.save_lease(unit.connection, changed)
    if nothing_runs:
        await delivery.drop_commands(unit.connection, lease.lease_id, now)
        await notify(unit.connection, MARKET_CHANNEL)
    else:
        await delivery.insert_stop(unit.connection, unit.ids.new(), lease, evidence.reason, now)
    await emit_fact(
        unit, lease.key.order_id, convert.lease_ended(changed, releasing=releasing, early_close_ms=early_close)
    )
    return changed


async def release_lease(unit: UnitOfWork, lease: Lease) -> Lease:
    """Give back the devices of a lease of which nothing runs any more; what waited for that need not wait longer."""
    now = unit.clock.now()
    changed = released(lease, now)
    await leases.save_lease(unit.connection, changed)
    await orders.clear_hold(unit.connection, lease.key)
    await delivery.drop_commands(unit.connection, lease.lease_id, now)
    await notify(unit.connection, MARKET_CHANNEL)
    return changed


async def fail_lease(
    unit: UnitOfWork,
    policy: Policy,
    order: MarketOrder,
    lease: Lease,
    evidence: Evidence,
    *,
    heard_time: datetime,
    nothing_runs: bool,
    excludes_provider: bool = True,
) -> Lease:
    """A live lease has failed: end it and open its group again, or, after too many failures, end the order, or the
    group alone where each is leased on its own.

    ``heard_time`` is when the provider was last known to run it: charges end there, and where the order forbids that
    generations overlap, the group waits until the agent has surely stopped by itself.
    """
    now = unit.clock.now()
    assert not order.ended, "an ended order has no live lease"
    group = (await orders.load_groups(unit.connection, [order.order_id]))[order.order_id][lease.key.group]
    assert group.state is GroupState.LEASED, "a live lease belongs to a leased group"
    failures = group.failures + (evidence.reason is EndReason.WORKLOAD)
    gives_up = failures >= policy.failures_max
    changed = await end_lease(
        unit,
        lease,
        evidence,
        min(now, max(heard_time, lease.create_time)),
        lost=True,
        nothing_runs=nothing_runs,
        releasing=not gives_up,
    )
    if gives_up:
        detail = f"group {group.group_id} failed {failures} times, last: {evidence.detail}"
        if order.together:
            await end_order(unit, order, EndReason.WORKLOAD, detail)
        else:
            await end_group(unit, order, replace(group, failures=failures), EndReason.WORKLOAD, detail)
        return changed
    excluded = group.excluded_providers | ({lease.provider_id} if excludes_provider else set())
    waits = order.forbids_overlap and not nothing_runs
    await orders.save_group(
        unit.connection,
        replace(
            group,
            state=GroupState.OPEN,
            failures=failures,
            excluded_providers=frozenset(excluded),
            hold_until=max(heard_time, lease.create_time) + policy.overlap_wait if waits else None,
            return_time=now + policy.return_wait(group.generation) if excluded else None,
        ),
    )
    await notify(unit.connection, MARKET_CHANNEL)
    return changed


async def preempt_lease(unit: UnitOfWork, policy: Policy, order: MarketOrder, lease: Lease) -> None:
    """A spot lease gives way, as it was told: it ends in good order, charged to the end, and its group looks elsewhere.

    Nobody is to blame, so no provider is passed over; where the order forbids overlap, the group waits for the stop.
    """
    now = unit.clock.now()
    assert lease.preemption is not None, "no lease gives way without a notice"
    assert lease.preemption.time <= now, "a notice is kept"
    group = (await orders.load_groups(unit.connection, [order.order_id]))[order.order_id][lease.key.group]
    assert group.state is GroupState.LEASED, "a live lease belongs to a leased group"
    evidence = Evidence(EndReason.PREEMPTED, "an order that pays as much needs its devices", convert.OBSERVER, now)
    await end_lease(unit, lease, evidence, now, lost=False, nothing_runs=False, releasing=True)
    hold_until = now + policy.overlap_wait if order.forbids_overlap else None
    await orders.save_group(unit.connection, replace(group, state=GroupState.OPEN, hold_until=hold_until))
    await notify(unit.connection, MARKET_CHANNEL)


async def end_group(unit: UnitOfWork, order: MarketOrder, group: MarketGroup, reason: EndReason, detail: str) -> None:
    """End one group that has no live lease, of an order whose groups are leased each on its own.

    The order goes on with those that are left, and may be ready without this one; where none is left, it ends too.
    """
    assert not order.together, "groups that belong together end together"
    assert group.state is not GroupState.ENDED, "a group ends once"
    await orders.save_group(unit.connection, replace(group, state=GroupState.ENDED, hold_until=None))
    now = unit.clock.now()
    await auctions.fail_open_auctions(unit.connection, order.order_id, group.group_index, ORDER_ENDED, now)
    await emit_fact(unit, order.order_id, convert.group_ended(group, reason, detail, now))
    groups = (await orders.load_groups(unit.connection, [order.order_id]))[order.order_id]
    if all(other.state is GroupState.ENDED for other in groups):
        await end_order(unit, order, reason, detail)
    else:
        await note_ready(unit, order.order_id)


async def note_ready(unit: UnitOfWork, order_id: str) -> None:
    """Note when all groups of an order, but those that have ended, were first ready: its term counts from then."""
    groups = (await orders.load_groups(unit.connection, [order_id]))[order_id]
    found = await leases.load_order_leases(unit.connection, order_id)
    running = {lease.key.group for lease in found if lease.state is LeaseState.RUNNING}
    left = [group for group in groups if group.state is not GroupState.ENDED]
    if left and all(group.state is GroupState.LEASED and group.group_index in running for group in left):
        await orders.set_ready(unit.connection, order_id, unit.clock.now())


async def end_order(unit: UnitOfWork, order: MarketOrder, reason: EndReason, detail: str) -> list[Lease]:
    """End an order: its live leases stop, nothing is matched again. An ended order is left as it is.

    Returns all leases that the order ever had.
    """
    found = await leases.load_order_leases(unit.connection, order.order_id)
    if order.ended:
        return found
    now = unit.clock.now()
    evidence = Evidence(reason, detail, convert.OBSERVER, now)
    told: list[Lease] = []
    for lease in found:
        if lease.is_live:
            told.append(
                await end_lease(
                    unit,
                    lease,
                    evidence,
                    now,
                    lost=False,
                    nothing_runs=False,
                    releasing=False,
                    early_close=_early_close_ms(order, lease, reason, now),
                )
            )
        else:
            told.append(lease)
    await orders.end_order(unit.connection, order.order_id, reason, detail, now)
    await auctions.fail_open_auctions(unit.connection, order.order_id, None, ORDER_ENDED, now)
    await emit_fact(unit, order.order_id, convert.order_ended(order.order_id, reason, detail, now))
    return told


def _early_close_ms(order: MarketOrder, lease: Lease, reason: EndReason, now: datetime) -> int:
    """What a live lease owes beyond what ran as its order ends: only where a tenant closes a reserved term early."""
    if reason is not EndReason.TENANT or order.term_ms is None or not convert.is_reserved(order.body):
        return 0
    return early_close_ms(lease, order.ready_time, order.term_ms, now)
