"""A tenant and the owner of a provider meet in an auction and by hand, both with the command only, over real processes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fallow.order.v1 import order_pb2
from fallow_sdk.profile import Profile, save_profile
from fallow_stack.testing import FALLOW, RunningStack
from tests.e2e.test_whole_way import WAIT_SECONDS, fund, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up` with one provider on the exec driver."""
    stack = RunningStack(tmp_path_factory.mktemp("auctions"), "--providers", "1", "--runtime", "exec")
    await stack.start()
    yield stack
    assert await stack.stop() == 0, stack.output.read_text("utf-8")


async def fallow(profile: Path, *arguments: str) -> Any:
    """`fallow` with --json, as its user types it; its answer."""
    environment = os.environ | {"FALLOW_PROFILE": str(profile)}
    process = await asyncio.create_subprocess_exec(
        FALLOW,
        *arguments,
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    output, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return json.loads(output)


async def owner_profile(stack: RunningStack, folder: Path) -> Path:
    """A profile with which the provider's owner signs in."""
    tenant = stack.profile
    wallet = str(stack.home.keys / "provider-1-wallet.key")
    path = folder / "owner.json"
    save_profile(Profile(tenant.order, tenant.bidding, tenant.settlement, wallet_key_file=wallet), path)
    return path


async def test_an_auction_and_a_choice_by_the_command(market: RunningStack, tmp_path: Path) -> None:
    """Goal: order, bid, decision and start need nothing but the command; a lone bidder under the second price is paid the
    tenant's limit, a picked bid its own price. Method: one order of each mode, one after the other; leases and history.
    """
    file = tmp_path / "order.yaml"
    file.write_text(sdl(), "utf-8")
    tenant, owner = market.home.profile, await owner_profile(market, tmp_path)
    async with market.tenant() as client:
        await fund(market, client)
        (provider,) = await client.list_providers()

        made = await fallow(tenant, "order", "create", str(file), "--auction", "second", "--window", "15s", "--no-wait")
        name = made["name"]
        async with asyncio.timeout(WAIT_SECONDS):
            while not (open_ones := await fallow(owner, "bid", "auctions")):
                await asyncio.sleep(0.1)
        assert "order" not in open_ones[0]
        auction = open_ones[0]["name"]
        placed = await fallow(owner, "bid", "create", auction, "--provider", provider.name, "--price", "0.01")
        assert placed["state"] == "BID_STATE_PLACED"
        order = await client.wait_order(name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        assert order.groups[0].price == order.groups[0].price_limit, "alone, the reserve is paid"
        (bid,) = await fallow(tenant, "order", "bids", name)
        assert (bid["name"], bid["state"], bid["price"]["microsPerHour"]) == (placed["name"], "BID_STATE_WON", "10000")
        reasons = [change.reason for change in await client.order_history(name)]
        assert sum("round 1 of sealed bids until" in reason for reason in reasons) == 1
        assert sum(f"won by {placed['name']}" in reason for reason in reasons) == 1
        await fallow(tenant, "order", "close", name)

        made = await fallow(tenant, "order", "create", str(file), "--manual")
        assert made["matchMode"] == "MATCH_MODE_MANUAL"
        name = made["name"]
        async with asyncio.timeout(WAIT_SECONDS):
            while not (bids := await fallow(tenant, "order", "bids", name)):
                await asyncio.sleep(0.1)
        assert bids[0]["fromOffer"], "a standing offer shows as a bid"
        auction = bids[0]["name"].partition("/bids/")[0]
        placed = await fallow(owner, "bid", "create", auction, "--provider", provider.name, "--price", "0.02")
        done = await fallow(tenant, "order", "accept", placed["name"])
        assert (done["state"], done["winningBid"]) == ("AUCTION_STATE_WON", placed["name"])
        order = await client.wait_order(name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        assert order.groups[0].price.micros_per_hour == 20_000
        await fallow(tenant, "order", "close", name)
