"""A live order is scaled up and down again over real processes: one generation at a time, every second paid once."""

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fallow.bidding.v1 import lease_pb2
from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.type.v1 import lease_pb2 as type_lease_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.client import Client
from fallow_sdk.errors import FallowError
from fallow_sdk.wallet import Wallet
from fallow_stack.demo import ask_workload
from fallow_stack.testing import FALLOW, RunningStack
from tests.e2e.test_whole_way import HOUR_MS, WAIT_SECONDS, fund, process_is_there, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]

LIVE = {lease_pb2.LEASE_STATE_RESERVED, lease_pb2.LEASE_STATE_STARTING, lease_pb2.LEASE_STATE_RUNNING}


async def command(stack: RunningStack, *arguments: str) -> Any:
    """`fallow order update` with --json, as a tenant types it; its answer."""
    environment = os.environ | {"FALLOW_PROFILE": str(stack.home.profile)}
    process = await asyncio.create_subprocess_exec(
        FALLOW, "order", "update", *arguments, "--json", stdout=asyncio.subprocess.PIPE, env=environment
    )
    output = (await process.communicate())[0]
    assert process.returncode == 0
    return json.loads(output)


async def pids(order: order_pb2.Order) -> set[int]:
    """The process ids that the replicas tell."""
    answers = [await ask_workload(endpoint.uri) for endpoint in order.groups[0].endpoints]
    return {int(json.loads(answer)["pid"]) for answer in answers}


async def follow(client: Client, name: str, generation: int, old: Iterable[int]) -> order_pb2.Order:
    """The order once that generation runs; until then no two generations are ever live or running at once."""
    old = set(old)
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            leases = sorted(await client.list_leases(name), key=lambda lease: lease.key.generation)
            assert [lease.key.generation for lease in leases] == list(range(1, len(leases) + 1))
            assert sum(lease.state in LIVE for lease in leases) <= 1
            if leases[-1].key.generation == generation:
                assert all(lease.state == lease_pb2.LEASE_STATE_ENDED for lease in leases[:-1])
                assert not any(process_is_there(pid) for pid in old), "the old generation has stopped"
            order = await client.get_order(name)
            if order.state == order_pb2.ORDER_STATE_RUNNING and order.groups[0].generation == generation:
                return order
            await asyncio.sleep(0.1)


def check_charges(charges: list[charge_pb2.Charge], leases: list[lease_pb2.Lease]) -> int:
    """Each generation is charged at its own price, whole and without a gap, and to its end; returns the sum."""
    total = 0
    for lease in leases:
        own = sorted(
            (charge for charge in charges if charge.key.generation == lease.key.generation),
            key=lambda charge: charge.sequence,
        )
        through = 0
        for charge in own:
            assert (charge.from_running_ms, charge.price) == (through, lease.price)
            through = charge.to_running_ms
        spent = sum(charge.amount.micros for charge in own)
        assert spent == lease.price.micros_per_hour * through // HOUR_MS
        lived_ms = lease.end_time.ToMilliseconds() - lease.ready_time.ToMilliseconds()
        assert 0 < through <= lived_ms + 1_000, (
            "never more than the time between readiness and end, by the market's clock"
        )
        assert through >= lived_ms - 2_500, "but for the last heartbeats, all of it"
        total += spent
    return total


async def test_scaling_up_and_down_pays_each_generation_to_its_end(stack: RunningStack) -> None:
    """Goal: 1 to 2 replicas and back, by the command and by the client: one running generation at a time, funds held and
    returned, the ends charged exactly. Method: one order; compare leases, processes, charges and balances.
    """
    async with stack.tenant() as client:
        free = await fund(stack, client)
        order = await client.create_order(sdl=sdl())
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        first, held = await pids(order), (await client.balance("usdc")).held.micros
        assert (len(first), order.groups[0].revision) == (1, 1)
        await asyncio.sleep(3)

        limit = order.groups[0].price_limit.micros_per_hour
        wanted = f"{(limit + 1_000_000) // 10_000 / 100}"
        answer = await command(stack, order.name, "--replicas", "web=2", "--price-limit", wanted, "--label", "size=two")
        assert (answer["groups"][0]["revision"], answer["labels"]["size"]) == (2, "two")
        order = await follow(client, order.name, 2, first)
        second = await pids(order)
        assert (len(second), second & first) == (2, set())
        raised = (await client.balance("usdc")).held.micros
        assert raised > held, "the higher limit is held"
        await asyncio.sleep(3)

        smaller = order_pb2.Order(name=order.name, etag=(await client.get_order(order.name)).etag)
        group = smaller.groups.add(
            group_id=order.groups[0].group_id, price_limit=money_pb2.Price(asset="usdc", micros_per_hour=limit)
        )
        group.workload.containers.add(service="web", replicas=1)
        order = await client.update_order(smaller, ["groups.workload.containers.replicas", "groups.price_limit"])
        order = await follow(client, order.name, 3, second)
        assert len(await pids(order)) == 1
        assert (await client.balance("usdc")).held.micros < raised, "the lower limit returns its difference"
        history = [step.transition.reason async for step in _history(client, order.name)]
        assert sum("superseded" in reason for reason in history) >= 2
        assert sum(reason.startswith("changed: workload of") for reason in history) == 2

        await asyncio.sleep(2)
        await client.close_order(order.name)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        leases = sorted(await client.list_leases(order.name), key=lambda lease: lease.key.generation)
        assert [lease.group_revision for lease in leases] == [1, 2, 3]
        assert [lease.evidence.reason for lease in leases[:2]] == [type_lease_pb2.END_REASON_SUPERSEDED] * 2
        assert leases[1].price.micros_per_hour == 2 * leases[0].price.micros_per_hour
        charged = check_charges(await client.list_charges(order.name), leases)
        assert order.totals.charged.micros == charged
        assert order.totals.held.micros == 0
        balance = await client.balance("usdc")
        assert (balance.free.micros, balance.held.micros) == (free - charged, 0)


async def _history(client: Client, name: str) -> Any:
    """The changes of an order so far."""
    async for step in client.watch_order(name):
        if step.HasField("transition"):
            yield step
        if step.transition.sequence >= step.latest_sequence > 0:
            return


async def test_what_cannot_be_changed_says_what_to_do(stack: RunningStack, tmp_path: Path) -> None:
    """Goal: a refusal changes nothing and names the way out; nobody else's order is there. Method: a limit below the
    price, one beyond the balance, a stranger.
    """
    async with stack.tenant() as client:
        await fund(stack, client)
        order = await client.create_order(sdl=sdl())
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        group = order.groups[0]
        before = await client.balance("usdc")

        async def relimit(by: Client, micros: int) -> FallowError:
            changed = order_pb2.Order(name=order.name)
            price = money_pb2.Price(asset="usdc", micros_per_hour=micros)
            changed.groups.add(group_id=group.group_id, price_limit=price)
            with pytest.raises(FallowError) as caught:
                await by.update_order(changed, ["groups.price_limit"])
            return caught.value

        low = await relimit(client, group.price.micros_per_hour - 1)
        assert (low.code, low.reason) == ("FAILED_PRECONDITION", "PRICE_LIMIT_TOO_LOW")
        assert low.metadata["price_micros_per_hour"] == str(group.price.micros_per_hour)
        poor = await relimit(client, before.free.micros * 10)
        assert (poor.code, poor.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_FUNDS")
        assert int(poor.metadata["short_micros"]) > 0
        async with Client(stack.endpoints) as stranger:
            await stranger.sign_in(Wallet.load_or_create(tmp_path / "stranger.key"))
            foreign = await relimit(stranger, 9_000_000)
        assert (foreign.code, foreign.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
        after = await client.balance("usdc")
        assert after.free == before.free
        now = await client.get_order(order.name)
        assert (now.groups[0].price_limit, now.groups[0].lease) == (group.price_limit, group.lease)
        await client.close_order(order.name)
        await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
