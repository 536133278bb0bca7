"""One order the whole way over real processes, on both event adapters: funds, match, process, proofs, ledger, chain."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow_receipts import Receipt, ReceiptError, verify_receipt
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client
from fallow_sdk.errors import FallowError
from fallow_sdk.money import MICROS_PER_UNIT
from fallow_sdk.request_ids import new_request_id
from fallow_sdk.wallet import Wallet
from fallow_stack.demo import ask_workload, order_text
from fallow_stack.sites import choose_asks
from fallow_stack.testing import RunningStack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]

WAIT_SECONDS = 60.0
HOUR_MS = 3_600_000
DEPOSIT_MICROS = 20 * MICROS_PER_UNIT


def sdl() -> str:
    """An order that the first site can take."""
    return order_text("exec:host", choose_asks(1)[0].model)


async def fund(stack: RunningStack, client: Client) -> int:
    """Deposit on the chain, wait until it is credited; the free balance afterwards."""
    instructions = await client.deposit_instructions("usdc")
    wanted = (await client.balance("usdc")).free
    wanted.asset, wanted.micros = "usdc", wanted.micros + DEPOSIT_MICROS
    async with ChainClient(instructions.rpc_url) as chain:
        await chain.deposit(
            Wallet.load(Path(stack.profile.wallet_key_file)),
            token=instructions.token_address,
            vault=instructions.vault_address,
            account_reference=instructions.account_reference,
            micros=DEPOSIT_MICROS,
        )
    return (await client.wait_balance(wanted, seconds=WAIT_SECONDS)).free.micros


def process_is_there(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def expected_micros(price: int, from_ms: int, to_ms: int) -> int:
    """What an interval of proven running time costs."""
    return price * to_ms // HOUR_MS - price * from_ms // HOUR_MS


async def check_receipts(client: Client, charges: list[charge_pb2.Charge]) -> None:
    """Each charge's receipt verifies against the chain, and no changed copy does."""
    instructions = await client.deposit_instructions("usdc")
    async with ChainClient(instructions.rpc_url) as chain:
        for charge in charges:
            answer = await client.wait_receipt(charge.name, seconds=WAIT_SECONDS)
            receipt = Receipt.from_json(answer.json)
            batch = answer.batch
            commitment = await chain.anchored_commitment(batch.anchor_address, batch.header.batch_id)
            verified = verify_receipt(receipt, commitment=bytes.fromhex(commitment[2:]))
            assert verified.charge.charge_id == charge.name.removeprefix("charges/")
            assert verified.charge.amount_micros == charge.amount.micros
            content = json.loads(answer.json)
            content["charge"]["tenant"] = content["charge"]["provider"]
            changed = Receipt.from_json(json.dumps(content))
            with pytest.raises(ReceiptError):
                verify_receipt(changed, commitment=bytes.fromhex(commitment[2:]))


async def test_an_order_goes_the_whole_way(stack: RunningStack) -> None:
    """Goal: every step is real and the money adds up. Method: one order; compare what each party says at the end."""
    async with stack.tenant() as client:
        free = await fund(stack, client)
        quote = await client.estimate_order(sdl())
        order = await client.create_order(sdl=sdl())
        held = (await client.balance("usdc")).held.micros
        assert held == quote.funds_needed.micros > 0
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        group = order.groups[0]
        assert 0 < group.price.micros_per_hour <= quote.best_price.micros_per_hour
        answer = json.loads(await ask_workload(group.endpoints[0].uri))
        lines = [line.line async for line in client.stream_logs(group.lease)]
        assert any(line.startswith("answered / ") and str(answer["pid"]) in line for line in lines)
        assert process_is_there(answer["pid"])
        await asyncio.sleep(5)
        await client.close_order(order.name)
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        assert not process_is_there(answer["pid"])
        charges = sorted(await client.list_charges(order.name), key=lambda charge: charge.sequence)
        assert [charge.sequence for charge in charges] == list(range(1, len(charges) + 1))
        through = 0
        for charge in charges:
            assert charge.from_running_ms == through
            through = charge.to_running_ms
            assert charge.amount.micros == expected_micros(
                group.price.micros_per_hour, charge.from_running_ms, charge.to_running_ms
            )
        assert through >= 4_000, "five seconds ran, at most one heartbeat of them is unproven"
        charged = sum(charge.amount.micros for charge in charges)
        assert order.totals.charged.micros == charged > 0
        assert order.totals.refunded.micros == held - charged
        balance = await client.balance("usdc")
        assert (balance.free.micros, balance.held.micros) == (free - charged, 0)
        await check_receipts(client, charges)


async def test_bad_input_is_refused_and_stores_nothing(stack: RunningStack) -> None:
    """Goal: a clear error with code, reason and field path; nothing stored. Method: each bad input, then compare."""
    async with stack.tenant() as client:
        before = (await client.list_orders(), await client.balance("usdc"))
        with pytest.raises(FallowError) as unknown_field:
            await client.create_order(sdl=sdl().replace("    image:", "    imagine: x\n    image:"))
        assert unknown_field.value.code == "INVALID_ARGUMENT"
        assert unknown_field.value.reason == "SDL_INVALID"
        assert any("imagine" in item.path + item.description for item in unknown_field.value.violations)
        with pytest.raises(FallowError) as negative_price:
            await client.create_order(sdl=sdl().replace("amount: 8500", "amount: -8500"))
        assert (negative_price.value.code, negative_price.value.reason) == ("INVALID_ARGUMENT", "SDL_INVALID")
        with pytest.raises(FallowError) as too_little:
            await client.create_order(sdl=sdl().replace("amount: 8500", "amount: 8500000000"))
        assert (too_little.value.code, too_little.value.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_FUNDS")
        assert int(too_little.value.metadata["short_micros"]) > 0
        with pytest.raises(FallowError) as bad_field:
            await client.create_order(order=order_pb2.Order(groups=[order_pb2.Group(group_id="UPPER")]))
        assert bad_field.value.reason == "INVALID_FIELD"
        assert any(item.path.startswith("order.groups[0].") for item in bad_field.value.violations)
        assert (await client.list_orders(), await client.balance("usdc")) == before


async def test_a_request_id_is_good_for_one_input(stack: RunningStack) -> None:
    """Goal: a repeat answers the same order, other input is refused. Method: the same id three times."""
    async with stack.tenant() as client:
        await fund(stack, client)
        request_id = new_request_id()
        first = await client.create_order(sdl=sdl(), request_id=request_id)
        again = await client.create_order(sdl=sdl(), request_id=request_id)
        assert first.name == again.name
        with pytest.raises(FallowError) as reused:
            await client.create_order(sdl=sdl().replace("512Mi", "256Mi"), request_id=request_id)
        assert reused.value.reason == "REQUEST_ID_REUSED"
        await client.close_order(first.name)
        await client.wait_order(first.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)


async def test_a_stranger_sees_nothing(stack: RunningStack, tmp_path: Path) -> None:
    """Goal: an account sees its own only; no token, no entry. Method: a second wallet, then none, then a broken token."""
    async with stack.tenant() as client:
        await fund(stack, client)
        order = await client.create_order(sdl=sdl())
        await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        await asyncio.sleep(2)
        await client.close_order(order.name)
        await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        charges = await client.list_charges(order.name)
    assert charges
    async with Client(stack.endpoints) as stranger:
        with pytest.raises(FallowError) as nobody:
            await stranger.list_orders()
        assert nobody.value.code == "UNAUTHENTICATED"
        await stranger.sign_in(Wallet.load_or_create(tmp_path / "stranger.key"))
        assert await stranger.list_orders() == []
        for call in (
            stranger.get_order(order.name),
            stranger.close_order(order.name),
            stranger.get_receipt(charges[-1].name),
        ):
            with pytest.raises(FallowError) as foreign:
                await call
            assert foreign.value.code == "NOT_FOUND"
        stranger.token = stranger.token[:-8] + "AAAAAAAA"
        with pytest.raises(FallowError) as forged:
            await stranger.list_orders()
        assert forged.value.code == "UNAUTHENTICATED"


async def test_a_second_up_says_what_runs(stack: RunningStack) -> None:
    """Goal: one stack a folder. Method: `fallow up` again; it lists the members and leaves them alone."""
    pids = {name: stack.member(name).pid for name in ("order", "bidding", "settlement", "provider-1")}
    second = RunningStack(stack.home.root)
    process = await asyncio.create_subprocess_exec(
        *second.command(), stdout=asyncio.subprocess.PIPE, env=os.environ | {"COLUMNS": "160"}
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0
    assert "runs already" in output
    assert all(name in output and str(pid) in output for name, pid in pids.items())
    assert pids == {name: stack.member(name).pid for name in pids}
