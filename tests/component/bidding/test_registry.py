"""The doors of providers and tenants: registration, offers, credentials, inventory, grants, and what is refused."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account

from fallow.bidding.v1 import (
    events_pb2,
    lease_service_pb2,
    lease_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.topics import MARKET_TOPIC
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.wire import to_duration, to_timestamp
from fallow_sdk.audits import sign_attributes
from fallow_sdk.wallet import Wallet
from tests.component.bidding.conftest import (
    OWNER_SCOPES,
    TENANT_SCOPES,
    House,
    gpu_order,
    new_name,
    node,
    run_status,
)


def _provider(**fields: Any) -> provider_pb2.Provider:
    """A provider to register, with a fresh key unless one is given."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return provider_pb2.Provider(**{"public_key": key, "region": "eu-west", **fields})


def _offer(provider: str, micros: int = 1_000_000, **fields: Any) -> provider_pb2.Offer:
    """An offer to publish."""
    prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={"h100": micros})
    return provider_pb2.Offer(**{"provider": provider, "prices": prices, **fields})


async def test_a_provider_registers_once(house: House) -> None:
    """Goal: the same key and owner are the same provider; another owner's claim to it is refused. Method: repeat the
    request, repeat the key under a new request, and come as somebody else.
    """
    owner = new_name("accounts")
    wanted = _provider(display_name="Site 1")
    async with house.served() as address:
        async with channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection:
            stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
            request = provider_service_pb2.CreateProviderRequest(provider=wanted, request_id="one")
            first = await stub.CreateProvider(request)
            assert first.account == owner
            assert first.state == provider_pb2.PROVIDER_STATE_REGISTERED
            assert await stub.CreateProvider(request) == first
            again = provider_service_pb2.CreateProviderRequest(provider=wanted, request_id="two")
            assert await stub.CreateProvider(again) == first
            for provider, field in (
                (_provider(public_key=b"short"), "provider.public_key"),
                (_provider(region=""), "provider.region"),
            ):
                with pytest.raises(DomainError) as refused:
                    await stub.CreateProvider(
                        provider_service_pb2.CreateProviderRequest(provider=provider, request_id="bad")
                    )
                assert refused.value.reason.reason == "INVALID_FIELD"
                assert [violation.field for violation in refused.value.violations] == [field]
            with pytest.raises(DomainError) as refused:
                await stub.CreateProvider(
                    provider_service_pb2.CreateProviderRequest(provider=_provider(), request_id="one")
                )
            assert refused.value.reason.reason == "REQUEST_ID_REUSED"
        other = house.identity.as_account(new_name("accounts"), OWNER_SCOPES)
        async with channel(address, other) as connection:
            stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
            with pytest.raises(DomainError) as refused:
                await stub.CreateProvider(provider_service_pb2.CreateProviderRequest(provider=wanted, request_id="one"))
            assert refused.value.reason.reason == "PUBLIC_KEY_TAKEN"
            with pytest.raises(DomainError) as refused:
                await stub.DrainProvider(provider_service_pb2.DrainProviderRequest(name=first.name))
            assert refused.value.reason.reason == "PROVIDER_NOT_FOUND"
    assert await house.value("SELECT count(*) FROM provider") == 1
    (event,) = await house.events(MARKET_TOPIC, first.name.removeprefix("providers/"))
    assert isinstance(event, events_pb2.ProviderRegistered)


async def test_a_new_offer_takes_the_place_of_the_old(house: House) -> None:
    """Goal: one active offer an asset; what could never match is refused and replaces nothing. Method: publish twice,
    then offers in an unknown asset, expired, without a term, below nothing.
    """
    owner = new_name("accounts")
    async with (
        house.served() as address,
        channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection,
    ):
        stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
        create = provider_service_pb2.CreateOfferRequest
        provider = await stub.CreateProvider(
            provider_service_pb2.CreateProviderRequest(provider=_provider(), request_id="p")
        )
        first = await stub.CreateOffer(create(offer=_offer(provider.name), request_id="a"))
        second = await stub.CreateOffer(create(offer=_offer(provider.name, 2_000_000), request_id="b"))
        assert await stub.CreateOffer(create(offer=_offer(provider.name), request_id="a")) != second
        euro = _offer(provider.name)
        euro.prices.asset = "euro"
        expired = _offer(provider.name, expire_time=to_timestamp(house.clock.now()))
        termless = _offer(provider.name, term_max=to_duration(0))
        for offer, reason in (
            (euro, "ASSET_UNKNOWN"),
            (expired, "INVALID_FIELD"),
            (termless, "INVALID_FIELD"),
            (_offer(provider.name, -1), "INVALID_FIELD"),
            (_offer(new_name("providers")), "PROVIDER_NOT_FOUND"),
        ):
            with pytest.raises(DomainError) as refused:
                await stub.CreateOffer(create(offer=offer, request_id=f"bad {reason} {offer.prices.asset}"))
            assert refused.value.reason.reason == reason
        listed = await stub.ListOffers(provider_service_pb2.ListOffersRequest(provider=provider.name))
        states = [(offer.name, provider_pb2.OfferState.Name(offer.state)) for offer in listed.offers]
        assert states == [(second.name, "OFFER_STATE_ACTIVE"), (first.name, "OFFER_STATE_WITHDRAWN")]
        page = await stub.ListOffers(provider_service_pb2.ListOffersRequest(provider=provider.name, page_size=1))
        rest = await stub.ListOffers(
            provider_service_pb2.ListOffersRequest(provider=provider.name, page_size=1, page_token=page.next_page_token)
        )
        assert [offer.name for offer in (*page.offers, *rest.offers)] == [second.name, first.name]
        assert not rest.next_page_token
        gone = await stub.WithdrawOffer(provider_service_pb2.WithdrawOfferRequest(name=second.name))
        assert gone.state == provider_pb2.OFFER_STATE_WITHDRAWN
    kinds = [
        type(event).__name__ for event in await house.events(MARKET_TOPIC, provider.name.removeprefix("providers/"))
    ]
    assert kinds == [
        "ProviderRegistered",
        "OfferPublished",
        "OfferWithdrawn",
        "OfferPublished",
        "OfferWithdrawn",
    ]


async def test_a_drained_provider_gets_no_lease(house: House) -> None:
    """Goal: draining stops new leases and resuming takes them again. Method: one provider, drained, resumed."""
    async with house.running(engine=False, courier=False), house.served() as address:
        agent = await house.add_agent()
        owner = (await house.queries.provider(agent.name)).account
        await house.open_order(gpu_order())
        async with channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection:
            stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
            drained = await stub.DrainProvider(provider_service_pb2.DrainProviderRequest(name=agent.name))
            assert drained.state == provider_pb2.PROVIDER_STATE_DRAINING
            assert await house.matching.match_open_orders() == 0
            resumed = await stub.ResumeProvider(provider_service_pb2.ResumeProviderRequest(name=agent.name))
            assert resumed.state == provider_pb2.PROVIDER_STATE_ONLINE
            assert await house.matching.match_open_orders() == 1
            name = f"{agent.name}/inventory"
            inventory = await stub.GetInventory(provider_service_pb2.GetInventoryRequest(name=name))
        assert inventory.sequence == 1
        assert [use.milli for use in inventory.device_uses] == [1_000]


async def test_credentials_allow_the_own_subjects_only(house: House) -> None:
    """Goal: a provider can speak for itself and for nobody else. Method: with issued credentials, a heartbeat on the own
    subject is answered and one on another's is not.
    """
    async with house.running(engine=False, courier=False), house.served() as address:
        victim = await house.add_agent()
        thief = await house.add_agent()
        owner = (await house.queries.provider(thief.name)).account
        async with channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection:
            stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
            issue = provider_service_pb2.IssueProviderCredentialsRequest
            issued = await stub.IssueProviderCredentials(issue(name=thief.name))
            with pytest.raises(DomainError) as refused:
                await stub.IssueProviderCredentials(issue(name=victim.name))
            assert refused.value.reason.reason == "PROVIDER_NOT_FOUND"
        assert issued.nats_url == house.nats.url
        file = house.folder / "issued.creds"
        file.write_text(issued.nats_credentials, "ascii")
        link = await NatsLink.connect(issued.nats_url, str(file))
        beat = market_link_pb2.Heartbeat(provider=victim.name, sequence=1).SerializeToString()
        house.clock.advance(seconds=1)
        answer = await link.request(f"fallow.provider.{thief.provider_id}.heartbeat", beat, 5.0)
        assert market_link_pb2.LinkReply.FromString(answer).HasField("heartbeat")
        with pytest.raises(DomainError) as refused:
            await link.request(f"fallow.provider.{victim.provider_id}.heartbeat", beat, 0.5)
        assert refused.value.code == "UNAVAILABLE"
        await link.close()
        heard = {name: (await house.queries.provider(name)).heartbeat_time for name in (thief.name, victim.name)}
        assert heard[thief.name] == house.clock.now()
        assert heard[victim.name] != house.clock.now()


async def test_inventory_reports_grow(house: House) -> None:
    """Goal: an old report changes nothing, one that cannot be true neither. Method: reports 1, 5, 3; then a device that
    stands twice, and bytes that are no report; a stranger is told that it is none.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        assert (await agent.report_inventory(node(devices=2), sequence=5)).inventory.sequence == 5
        old = await agent.report_inventory(node(devices=7), sequence=3)
        assert (old.inventory.sequence, old.inventory.reason) == (5, "INVENTORY_OLD")
        twice = await agent.report_inventory(node("a", prefix="same"), node("b", prefix="same"), sequence=6)
        assert twice.error.reason == "INVENTORY_INVALID"
        subject = f"fallow.provider.{agent.provider_id}.inventory"
        nonsense = market_link_pb2.LinkReply.FromString(await agent.link.request(subject, b"\xff\xff", 5.0))
        assert nonsense.error.reason == "LINK_MESSAGE_INVALID"
        assert await house.value("SELECT count(*) FROM device") == 2
        stranger = market_link_pb2.LinkReply.FromString(
            await house.link.request("fallow.provider.nobody.heartbeat", b"", 5.0)
        )
        assert stranger.error.reason == "PROVIDER_NOT_FOUND"


async def test_bad_proofs_are_refused_and_not_passed_on(house: House) -> None:
    """Goal: of a heartbeat's proofs only the good ones leave. Method: a forged one, another provider's, a good one that
    does not grow, and a good one, in two heartbeats.
    """
    async with house.running():
        agent = await house.add_agent(gpu_micros=1_000_000)
        foreign = await house.add_agent(gpu_micros=2_000_000)
        await house.open_order(gpu_order())
        await house.open_order(gpu_order())
        mine, theirs = await agent.command("run"), await foreign.command("run")
        await agent.beat(run_status(mine, market_link_pb2.RUN_STATE_RUNNING))
        forged = agent.proof(mine, 1_000)
        forged.running_ms = 999_000
        good = agent.proof(mine, 2_000)
        answer = await agent.beat(
            run_status(mine, market_link_pb2.RUN_STATE_RUNNING),
            proofs=(forged, agent.proof(theirs, 1_000), good, agent.proof(mine, 1_999)),
        )
        assert [refusal.reason for refusal in answer.refusals] == [
            "PROOF_SIGNATURE_INVALID",
            "PROOF_FOREIGN_LEASE",
            "PROOF_NOT_GROWING",
        ]
        (received,) = await house.events("fallow.bidding.proofs.v1", agent.provider_id)
        assert isinstance(received, events_pb2.ProofsReceived)
        assert list(received.proofs) == [good]


async def test_only_the_tenant_gets_a_grant(house: House) -> None:
    """Goal: a grant is signed for the lease's tenant while it lives, and for nobody else. Method: the tenant, the
    provider's owner, a stranger; then after the end.
    """
    async with house.running(), house.served() as address:
        agent = await house.add_agent()
        order = gpu_order()
        key = await house.open_order(order)
        command = await agent.command("run")
        owner = (await house.queries.provider(agent.name)).account
        request = lease_service_pb2.IssueGrantRequest(lease=command.lease, rights=["logs.read"])
        async with channel(address, house.identity.as_account(order.account, TENANT_SCOPES)) as connection:
            stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
            issued = await stub.IssueGrant(request)
            with pytest.raises(DomainError) as refused:
                await stub.IssueGrant(
                    lease_service_pb2.IssueGrantRequest(lease=command.lease, rights=["workload.read"])
                )
            assert refused.value.reason.reason == "INVALID_FIELD"
        grant = house.identity.verifier.verify(issued.grant).grant
        assert grant is not None
        assert (grant.subject, grant.lease, grant.generation) == (order.account, command.lease, 1)
        assert grant.rights == {"logs.read"}
        for other in (owner, new_name("accounts")):
            async with channel(address, house.identity.as_account(other, TENANT_SCOPES)) as connection:
                stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
                with pytest.raises(DomainError) as refused:
                    await stub.IssueGrant(request)
                assert refused.value.reason.reason == "LEASE_NOT_FOUND"
                listed = await stub.ListLeases(lease_service_pb2.ListLeasesRequest())
                assert len(listed.leases) == (1 if other == owner else 0)
        await house.orders.end(key, EndReason.TENANT, "over")
        async with channel(address, house.identity.as_account(order.account, TENANT_SCOPES)) as connection:
            stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
            with pytest.raises(DomainError) as refused:
                await stub.IssueGrant(request)
            assert refused.value.reason.reason == "LEASE_ENDED"


async def test_providers_are_listed_by_what_they_are(house: House) -> None:
    """Goal: each filter narrows the list to what it names, all together too, page by page. Method: providers of each state and
    kind, each filter alone and combined, one that nobody meets, and one that is none.
    """
    auditor = Wallet(Account.create())
    async with house.running(engine=False, courier=False), house.served() as address:
        online = await house.add_agent(node(model="h100"))
        unreachable = await house.add_agent(node(model="a100"))
        registered = await house.add_agent(online=False)
        draining = await house.add_agent(node("a", model="h100"), node("b", model="l4"))
        owner = (await house.queries.provider(draining.name)).account
        await house.registry.set_draining(draining.name, owner, draining=True)
        for _ in range(5):
            house.clock.advance(seconds=4)
            for agent in (online, draining):
                await agent.beat()
            await house.watch.run_once()
        wanted = provider_pb2.Provider(
            name=draining.name,
            attributes={"tier": "gold"},
            auditor_signatures=[
                sign_attributes(auditor, draining.key.public_key().public_bytes_raw(), {"tier": "gold", "a": "b"})
            ],
        )
        await house.registry.update_provider(wanted, ["attributes", "auditor_signatures"], owner)
        async with house.database.transaction() as unit:
            await unit.connection.execute(
                "UPDATE provider SET region = 'us-east', reputation_milli = 700 WHERE provider_id = $1",
                unreachable.provider_id,
            )
        async with channel(address) as connection:
            stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)

            async def listed(**fields: Any) -> list[str]:
                request = provider_service_pb2.ListProvidersRequest(page_size=1, **fields)
                found = []
                while True:
                    page = await stub.ListProviders(request)
                    found += [provider.name for provider in page.providers]
                    if not page.next_page_token:
                        return found
                    request.page_token = page.next_page_token

            newest_first = [agent.name for agent in (draining, registered, unreachable, online)]
            assert await listed() == newest_first
            assert await listed(account=owner) == [draining.name]
            for agent, state in (
                (online, provider_pb2.PROVIDER_STATE_ONLINE),
                (unreachable, provider_pb2.PROVIDER_STATE_UNREACHABLE),
                (registered, provider_pb2.PROVIDER_STATE_REGISTERED),
                (draining, provider_pb2.PROVIDER_STATE_DRAINING),
            ):
                assert await listed(states=[state]) == [agent.name]
            both = [provider_pb2.PROVIDER_STATE_ONLINE, provider_pb2.PROVIDER_STATE_DRAINING]
            assert await listed(states=both) == [draining.name, online.name]
            assert await listed(regions=["us-east", "mars"]) == [unreachable.name]
            assert await listed(gpu_models=["h100"]) == [draining.name, online.name]
            assert await listed(gpu_models=["l4", "a100"]) == [draining.name, unreachable.name]
            assert await listed(reputation_milli_min=501) == [unreachable.name]
            assert await listed(auditor=auditor.address) == [draining.name]
            assert await listed(auditor=Account.create().address) == []
            assert await listed(gpu_models=["h100"], auditor=auditor.address, states=both) == [draining.name]
            assert await listed(gpu_models=["a100"], auditor=auditor.address) == []
            with pytest.raises(DomainError) as refused:
                await listed(states=[provider_pb2.PROVIDER_STATE_DELETED])
            assert [item.field for item in refused.value.violations] == ["states"]
            wanted.attributes["tier"] = "silver"
            await house.registry.update_provider(wanted, ["attributes"], owner)
            assert await listed(auditor=auditor.address) == []


async def test_a_mask_that_names_a_field_twice_is_refused(house: House) -> None:
    """Goal: one meaning for a mask. Method: a path twice, and one that cannot be changed; nothing changes."""
    async with house.running(engine=False):
        agent = await house.add_agent()
        before = await house.queries.provider(agent.name)
        wanted = provider_pb2.Provider(name=agent.name, display_name="another")
        for paths, field in ((["display_name", "display_name"], "update_mask.paths[1]"), (["region"], "update_mask")):
            with pytest.raises(DomainError) as refused:
                await house.registry.update_provider(wanted, paths, before.account)
            assert [item.field for item in refused.value.violations] == [field]
        assert (await house.queries.provider(agent.name)).display_name == before.display_name


@pytest.mark.parametrize("model", ["", "Evil Model", "h100\n", "x" * 65, "x" * 5_000])
async def test_an_offer_for_a_model_of_no_name_is_refused(house: House, model: str) -> None:
    """Goal: models are written one way. Method: a row for each odd name; nothing is published."""
    async with house.running(engine=False):
        agent = await house.add_agent()
        owner = (await house.queries.provider(agent.name)).account
        before = await house.value("SELECT count(*) FROM offer")
        prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={model: 1})
        offer = provider_pb2.Offer(provider=agent.name, prices=prices)
        with pytest.raises(DomainError) as refused:
            await house.registry.create_offer(
                provider_service_pb2.CreateOfferRequest(offer=offer, request_id="odd"), owner
            )
        (violation,) = refused.value.violations
        assert violation.field.startswith("offer.prices.gpu_micros_per_hour_by_model[")
        assert await house.value("SELECT count(*) FROM offer") == before
