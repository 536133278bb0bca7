"""An order whose money ends is paused, not lost: the same process goes on after a top-up, and only what ran is paid."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from fallow.bidding.v1 import lease_pb2
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_stack.demo import ask_workload
from fallow_stack.testing import FALLOW, RunningStack
from tests.e2e.test_whole_way import WAIT_SECONDS, expected_micros, fund, process_is_there, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]

BUDGET_MICROS = 2_000
"""Some seconds of the order."""


def process_state(pid: int) -> str:
    """What the kernel says about a process, such as S (sleeps) or T (stopped)."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


async def top_up(stack: RunningStack, name: str, amount: str) -> tuple[int, str]:
    """`fallow order top-up` as a tenant types it."""
    process = await asyncio.create_subprocess_exec(
        FALLOW, "order", "top-up", name, amount, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"FALLOW_PROFILE": str(stack.home.profile)},
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert process.returncode is not None
    return process.returncode, output


async def test_a_paused_order_goes_on_where_it_was(stack: RunningStack) -> None:
    """Goal: no money, no work, nothing lost. Method: a budget of seconds; the process stands still; a top-up that is too
    small; one that is enough; the same process answers; the charges are exact.
    """
    async with stack.tenant() as client:
        await fund(stack, client)
        terms = order_pb2.Terms(budget=money_pb2.Amount(asset="usdc", micros=BUDGET_MICROS))
        order = await client.create_order(sdl=sdl(), terms=terms)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        endpoint = order.groups[0].endpoints[0].uri
        pid = int(json.loads(await ask_workload(endpoint))["pid"])
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_SUSPENDED], seconds=WAIT_SECONDS)
        assert process_state(pid) == "T"
        (lease,) = await client.list_leases(order.name)
        assert lease.state == lease_pb2.LEASE_STATE_SUSPENDED
        status, output = await top_up(stack, order.name, "0.000001")
        assert status != 0
        assert "AMOUNT_INVALID" in output
        assert process_state(pid) == "T"

        status, output = await top_up(stack, order.name, "1")
        assert (status, "held" in output) == (0, True)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        assert int(json.loads(await ask_workload(endpoint))["pid"]) == pid, "the same process goes on"
        await asyncio.sleep(3)
        await client.close_order(order.name)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        assert not process_is_there(pid)
        (lease,) = await client.list_leases(order.name)
        charges = sorted(await client.list_charges(order.name), key=lambda charge: charge.sequence)
        ran_ms = charges[-1].to_running_ms
        lived_ms = lease.end_time.ToMilliseconds() - lease.ready_time.ToMilliseconds()
        assert ran_ms < lived_ms - 1_000, "the pause is not counted"
        price = lease.price.micros_per_hour
        short = [
            charge.sequence
            for charge in charges
            if charge.amount.micros != expected_micros(price, charge.from_running_ms, charge.to_running_ms)
        ]
        assert len(short) <= 1, "only the charge that emptied the escrow is short"
        assert order.totals.charged.micros == sum(charge.amount.micros for charge in charges) > BUDGET_MICROS
