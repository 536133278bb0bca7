"""Auditors, owners and tenants by the command, over real processes: a signature that a match needs, a lease given up."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from eth_account import Account

from fallow.bidding.v1 import provider_pb2
from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import lease_pb2
from fallow_sdk.client import Client
from fallow_sdk.errors import FallowError
from fallow_sdk.profile import Profile, save_profile
from fallow_stack.testing import FALLOW, RunningStack
from tests.e2e.test_auctions import fallow
from tests.e2e.test_whole_way import WAIT_SECONDS, fund, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(300)]

RUNNING = order_pb2.ORDER_STATE_RUNNING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up` with two providers on the exec driver."""
    stack = RunningStack(tmp_path_factory.mktemp("providers"), "--providers", "2", "--runtime", "exec")
    await stack.start()
    yield stack
    assert await stack.stop() == 0, stack.output.read_text("utf-8")


def owner_profile(stack: RunningStack, provider: provider_pb2.Provider, folder: Path) -> Path:
    """A profile with which a provider's owner signs in."""
    tenant = stack.profile
    wallet = str(stack.home.keys / f"{provider.display_name}-wallet.key")
    path = folder / f"{provider.display_name}.json"
    save_profile(Profile(tenant.order, tenant.bidding, tenant.settlement, wallet_key_file=wallet), path)
    return path


async def typed(profile: Path, *arguments: str) -> str:
    """`fallow` as its user types it; what it prints."""
    process = await asyncio.create_subprocess_exec(
        FALLOW, *arguments, stdout=asyncio.subprocess.PIPE, env=os.environ | {"FALLOW_PROFILE": str(profile)}
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, arguments
    return output.decode()


async def refused_by_state(client: Client, order: str) -> order_service_pb2.ExplainOrderResponse.FunnelStep:
    """What the state of providers took from an order, once the market has looked at it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                groups = (await client.explain_order(order)).groups
            except FallowError as error:
                if error.reason != "ORDER_NOT_FOUND":  # else the event is on its way
                    raise
                await asyncio.sleep(0.2)
                continue
            for step in (step for group in groups for step in group.funnel):
                if step.constraint == "provider_state":
                    return step
            await asyncio.sleep(0.2)


async def test_an_order_for_an_auditor_and_a_lease_given_up(market: RunningStack, tmp_path: Path) -> None:
    """Goal: signing, handing in, listing, ordering and giving up need nothing but the command, and the score follows. Method: an
    auditor signs for one of two sites; an SDL file asks for him; then the site gives the lease of another order up.
    """
    auditor = Account.create()
    key = tmp_path / "auditor.key"
    key.write_text(f"{auditor.key.to_0x_hex()}\n", "ascii")
    async with market.tenant() as client:
        await fund(market, client)
        signed, other = sorted(await client.list_providers(), key=lambda provider: provider.display_name)
        owner = owner_profile(market, signed, tmp_path)
        change = {"provider": {"name": signed.name, "attributes": {"tier": "gold"}}, "updateMask": "attributes"}
        await typed(owner, "call", "fallow.bidding.v1.ProviderRegistryService/UpdateProvider", json.dumps(change))
        printed = await typed(owner, "provider", "sign-attributes", signed.name, "tier=gold", "--key", str(key))
        file = tmp_path / "signature.json"
        file.write_text(printed, "utf-8")
        await fallow(owner, "provider", "add-signature", signed.name, str(file))
        listed = await fallow(owner, "market", "providers", "--auditor", auditor.address)
        assert [provider["name"] for provider in listed] == [signed.name]

        audited = f'signedBy:\n        anyOf: ["{auditor.address}"]\n      pricing:'
        order = await client.create_order(sdl=sdl().replace("pricing:", audited))
        order = await client.wait_order(order.name, [RUNNING], seconds=WAIT_SECONDS)
        assert order.groups[0].provider == signed.name
        await client.close_order(order.name)
        await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)

        order = await client.create_order(sdl=sdl())
        order = await client.wait_order(order.name, [RUNNING], seconds=WAIT_SECONDS)
        lease, winner = order.groups[0].lease, order.groups[0].provider
        sites = {signed.name: signed, other.name: other}
        owner = owner_profile(market, sites[winner], tmp_path)
        ended = await fallow(owner, "provider", "relinquish", lease, "--reason", "moving house")
        assert ended["evidence"]["reason"] == "END_REASON_PROVIDER"
        async with asyncio.timeout(WAIT_SECONDS):
            while (order := await client.get_order(order.name)).groups[0].lease == lease or order.state != RUNNING:
                await asyncio.sleep(0.2)
        assert order.groups[0].provider != winner
        assert order.groups[0].generation == 2
        told = {item.name: item for item in await client.list_leases(order.name)}
        assert told[lease].evidence.reason == lease_pb2.END_REASON_PROVIDER
        await client.close_order(order.name)
        async with asyncio.timeout(90):
            while True:
                shown = {item["name"]: item for item in await fallow(owner, "market", "providers")}
                if shown[winner]["reputation"].get("earlyCloses") == "1":
                    break
                await asyncio.sleep(2)
        assert shown[winner]["reputation"]["scoreMilli"] < 500


async def test_a_site_drains_and_tells_what_it_earned(market: RunningStack, tmp_path: Path) -> None:
    """Goal: a drained site takes no new lease, also after its agent's restart, until that is undone; earnings are what settlement
    charged without its parts. Method: drain both sites and kill one agent; an order finds nobody; undo one; the order runs
    there; hold the printed earnings to the tenant's charges.
    """
    async with market.tenant() as client:
        await fund(market, client)
        sites = sorted(await client.list_providers(), key=lambda provider: provider.display_name)
        owners = {site.name: owner_profile(market, site, tmp_path) for site in sites}
        for site in sites:
            drained = await fallow(owners[site.name], "provider", "drain", site.name)
            assert drained["state"] == "PROVIDER_STATE_DRAINING"
        await market.kill(sites[0].display_name)
        order = await client.create_order(sdl=sdl())
        removed = await refused_by_state(client, order.name)
        assert removed.providers_after == 0, removed
        assert (await client.get_order(order.name)).state == order_pb2.ORDER_STATE_OPEN
        back = sites[1]
        assert (await fallow(owners[back.name], "provider", "drain", "--undo", back.name))["name"] == back.name
        order = await client.wait_order(order.name, [RUNNING], seconds=WAIT_SECONDS)
        assert order.groups[0].provider == back.name
        lease = order.groups[0].lease
        async with asyncio.timeout(WAIT_SECONDS):
            while not await client.list_charges(order.name):
                await asyncio.sleep(0.2)
        await client.close_order(order.name)
        await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        charges = await client.list_charges(order.name)
        (line,) = [
            line
            for line in await fallow(owners[back.name], "provider", "earnings", "--by", "lease")
            if line["key"] == lease
        ]
        assert line["charges"] == len(charges) > 0
        assert line["charged_micros"] == sum(charge.amount.micros for charge in charges) > 0
        parts = sum(charge.fee.micros + charge.pool.micros for charge in charges)
        assert line["earned_micros"] == line["charged_micros"] - parts > 0
        assert await fallow(owners[sites[0].name], "provider", "earnings", "--since", "1ms") == []
        await fallow(owners[sites[0].name], "provider", "drain", "--undo", sites[0].name)
