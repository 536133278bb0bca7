"""A site dies under an order: the order runs on at another one, and each is paid for the time that it proved."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.type.v1 import lease_pb2
from fallow_stack.demo import ask_workload, order_text
from fallow_stack.sites import choose_asks
from fallow_stack.testing import RunningStack
from tests.e2e.test_whole_way import WAIT_SECONDS, expected_micros, fund, process_is_there

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(240)]

GRACE_SECONDS = 15
RUNNING, DEGRADED = order_pb2.ORDER_STATE_RUNNING, order_pb2.ORDER_STATE_DEGRADED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up` with two sites of one model, in a market that is quick to give up on a silent one."""
    stack = RunningStack(tmp_path_factory.mktemp("failover"), "--providers", "2", "--runtime", "exec")
    quick = {"FALLOW_UNREACHABLE_SECONDS": "10", "FALLOW_GRACE_SECONDS": str(GRACE_SECONDS)}
    before = dict(os.environ)
    os.environ.update(quick)
    try:
        await stack.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield stack
    assert await stack.stop() == 0, stack.output.read_text("utf-8")


def proven_ms(charges: Sequence[charge_pb2.Charge], price: int) -> int:
    """The proven running time of one generation; each charge is exactly what its interval costs, without a gap."""
    through = 0
    for charge in sorted(charges, key=lambda charge: charge.sequence):
        assert charge.from_running_ms == through
        through = charge.to_running_ms
        assert charge.amount.micros == expected_micros(price, charge.from_running_ms, charge.to_running_ms)
    return through


async def test_an_order_outlives_its_site(stack: RunningStack) -> None:
    """Goal: DEGRADED, leased elsewhere, RUNNING, and money to the micro for what both proved. Method: the winner's agent
    stops dead, and is killed once its lease is lost; the order is closed at the other site.
    """
    async with stack.tenant() as client:
        free = await fund(stack, client)
        order = await client.create_order(sdl=order_text("exec:host", choose_asks(1)[0].model))
        held = (await client.balance("usdc")).held.micros
        order = await client.wait_order(order.name, [RUNNING], seconds=WAIT_SECONDS)
        first = order.groups[0]
        old_pid = json.loads(await ask_workload(first.endpoints[0].uri))["pid"]
        names = {provider.name: provider.display_name for provider in await client.list_providers()}
        await asyncio.sleep(4)
        # Frozen, it can neither beat nor stop; killed, it would be started again before it was missed.
        os.kill(stack.member(names[first.provider]).pid, signal.SIGSTOP)
        await client.wait_order(order.name, [DEGRADED], seconds=GRACE_SECONDS + WAIT_SECONDS)
        order = await client.wait_order(order.name, [RUNNING], seconds=WAIT_SECONDS)
        second = order.groups[0]
        assert second.provider != first.provider
        assert second.generation == first.generation + 1
        new_pid = json.loads(await ask_workload(second.endpoints[0].uri))["pid"]
        await stack.kill(names[first.provider])
        await asyncio.sleep(4)
        assert process_is_there(new_pid)
        assert not process_is_there(old_pid), "the site that came back runs nothing without a lease"
        await client.close_order(order.name)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        charges = await client.list_charges(order.name)
        leases = {lease.name: lease for lease in await client.list_leases(order.name)}
        for group in (first, second):
            own = [charge for charge in charges if charge.key.generation == group.generation]
            lease = leases[group.lease]
            ran_ms = lease.charge_through_time.ToMilliseconds() - lease.ready_time.ToMilliseconds()
            proven = proven_ms(own, group.price.micros_per_hour)
            assert {charge.lease for charge in own} == {group.lease}
            assert 2_000 <= proven <= ran_ms + 2_000, "what was proven, no more than ran, up to a heartbeat"
        assert leases[first.lease].evidence.reason == lease_pb2.END_REASON_UNREACHABLE
        charged = sum(charge.amount.micros for charge in charges)
        assert (order.totals.charged.micros, order.totals.refunded.micros) == (charged, held - charged)
        balance = await client.balance("usdc")
        assert (balance.free.micros, balance.held.micros) == (free - charged, 0)
        steps = [
            (order_pb2.GroupState.Name(step.target_group_state).removeprefix("GROUP_STATE_"), step.provider)
            for step in await client.order_history(order.name)
            if step.group_id
        ]
        assert steps == [
            ("LEASED", first.provider),
            ("RUNNING", first.provider),
            ("LOST", first.provider),
            ("LEASED", second.provider),
            ("RUNNING", second.provider),
            ("ENDED", second.provider),
        ]
