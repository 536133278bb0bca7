"""The SDK's client against real doors: what it lists is the whole list."""

import pytest

from fallow_sdk.client import Client, Endpoints
from tests.component.bidding.conftest import OWNER_SCOPES, House, new_name


async def test_a_list_is_whole(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a client sees all, not the first page. Method: five providers and their offers by pages of two."""
    monkeypatch.setattr("fallow_sdk.client.PAGE_SIZE", 2)
    agents = [await house.add_agent(online=False) for _ in range(5)]
    token = house.identity.account_token(new_name("accounts"), OWNER_SCOPES)
    async with house.served() as address, Client(Endpoints(address, address, address), token=token) as client:
        providers = await client.list_providers()
        offers = await client.list_offers()
    assert [provider.name for provider in providers] == [agent.name for agent in reversed(agents)]
    assert [offer.provider for offer in offers] == [agent.name for agent in reversed(agents)]
