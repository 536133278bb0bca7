"""Each service is ended with SIGKILL between the steps of an order; the order completes, and is charged once.

The supervisor starts the killed service again. What must hold afterwards, whoever died and when: the order is closed
with one lease, its charges are contiguous and add up, the tenant paid exactly them, the workload's process is gone.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fallow.order.v1 import order_pb2
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client
from fallow_sdk.money import MICROS_PER_UNIT
from fallow_sdk.wallet import Wallet
from fallow_stack.demo import ask_workload, order_text
from fallow_stack.sites import choose_asks
from fallow_stack.testing import RunningStack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]

WAIT_SECONDS = 90.0
SERVICES = ("order", "bidding", "settlement", "provider-1")
STEPS = ("opened", "matched", "running", "closing")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up` with one provider and a tenant that has money."""
    stack = RunningStack(tmp_path_factory.mktemp("chaos"), "--providers", "1", "--runtime", "exec")
    await stack.start()
    async with stack.tenant() as client:
        instructions = await client.deposit_instructions("usdc")
        wanted = (await client.balance("usdc")).free
        wanted.asset, wanted.micros = "usdc", 500 * MICROS_PER_UNIT
        async with ChainClient(instructions.rpc_url) as chain:
            await chain.deposit(
                Wallet.load(Path(stack.profile.wallet_key_file)),
                token=instructions.token_address,
                vault=instructions.vault_address,
                account_reference=instructions.account_reference,
                micros=wanted.micros,
            )
        await client.wait_balance(wanted, seconds=WAIT_SECONDS)
    yield stack
    assert await stack.stop() == 0


async def wait_state(client: Client, name: str, state: order_pb2.OrderState.ValueType) -> order_pb2.Order:
    """The order once it has come at least as far as `state`."""
    later = [value for value in order_pb2.OrderState.values() if value >= state]
    return await client.wait_order(name, later, seconds=WAIT_SECONDS)


async def workload_pid(order: order_pb2.Order) -> int:
    """The process id that the workload itself tells."""
    return int(json.loads(await ask_workload(order.groups[0].endpoints[0].uri))["pid"])


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_between_steps_loses_and_doubles_nothing(stack: RunningStack, service: str, step: str) -> None:
    """Goal: any service may die after any step. Method: SIGKILL there, go on with the order, then compare all sums."""
    async with stack.tenant() as client:
        free = (await client.balance("usdc")).free.micros
        order = await client.create_order(sdl=order_text("exec:host", choose_asks(1)[0].model))
        if step == "opened":
            await stack.kill(service)
        await wait_state(client, order.name, order_pb2.ORDER_STATE_MATCHED)
        if step == "matched":
            await stack.kill(service)
        order = await wait_state(client, order.name, order_pb2.ORDER_STATE_RUNNING)
        pid = await workload_pid(order)
        if step == "running":
            await stack.kill(service)
        await asyncio.sleep(3)
        await client.sign_in(Wallet.load(Path(stack.profile.wallet_key_file)))
        await client.close_order(order.name)
        if step == "closing":
            await stack.kill(service)
        order = await wait_state(client, order.name, order_pb2.ORDER_STATE_CLOSED)
        charges = sorted(await client.list_charges(order.name), key=lambda charge: charge.sequence)
        assert charges, "it ran, so it was charged"
        assert len(await client.list_leases(order.name)) == 1
        assert charges[0].from_running_ms == 0
        assert all(left.to_running_ms == right.from_running_ms for left, right in itertools.pairwise(charges))
        charged = sum(charge.amount.micros for charge in charges)
        price, through = charges[0].price.micros_per_hour, charges[-1].to_running_ms
        assert charged == price * through // 3_600_000 == order.totals.charged.micros
        balance = await client.balance("usdc")
        assert (balance.free.micros, balance.held.micros) == (free - charged, 0)
        assert not Path(f"/proc/{pid}").exists(), "the workload ended with its lease"
