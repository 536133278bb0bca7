"""Auditors' signatures at the doors, and what they do to a match."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from google.protobuf.field_mask_pb2 import FieldMask

from fallow.bidding.v1 import provider_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from fallow_sdk.audits import sign_attributes
from fallow_sdk.wallet import Wallet
from tests.component.bidding.conftest import OWNER_SCOPES, House, gpu_order, new_name, run_status

CREATE = provider_service_pb2.CreateProviderRequest
UPDATE = provider_service_pb2.UpdateProviderRequest


async def test_bad_signatures_are_refused_with_their_path(house: House) -> None:
    """Goal: what an auditor did not sign is stored nowhere, and the error says which. Method: register with a good
    signature and then a bad one, in each way of being bad; then change a provider with one.
    """
    auditor = Wallet(Account.create())
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    good = sign_attributes(auditor, key, {"tier": "gold"})
    foreign = sign_attributes(auditor, bytes(32), {"tier": "gold"})
    changed = provider_pb2.AuditorSignature(auditor=good.auditor, attributes={"tier": "x"}, signature=good.signature)
    borrowed = provider_pb2.AuditorSignature(
        auditor=Account.create().address, attributes={"tier": "gold"}, signature=good.signature
    )
    empty = provider_pb2.AuditorSignature(auditor=good.auditor, signature=good.signature)
    nobody = provider_pb2.AuditorSignature(auditor="somebody", attributes={"a": "b"}, signature=b"1")
    owner = new_name("accounts")
    async with (
        house.served() as address,
        channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection,
    ):
        stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
        for bad, reason, field in (
            (foreign, "AUDITOR_SIGNATURE_INVALID", "signature"),
            (changed, "AUDITOR_SIGNATURE_INVALID", "signature"),
            (borrowed, "AUDITOR_SIGNATURE_INVALID", "signature"),
            (empty, "INVALID_FIELD", "attributes"),
            (nobody, "INVALID_FIELD", "auditor"),
        ):
            wanted = provider_pb2.Provider(public_key=key, region="eu-west", auditor_signatures=[good, bad])
            with pytest.raises(DomainError) as refused:
                await stub.CreateProvider(CREATE(provider=wanted, request_id="one"))
            assert (refused.value.code, refused.value.reason.reason) == ("INVALID_ARGUMENT", reason)
            assert [item.field for item in refused.value.violations] == [f"provider.auditor_signatures[1].{field}"]
        assert await house.value("SELECT count(*) FROM provider") == 0
        for attributes, field in (({"": "x"}, "provider.attributes"), ({"a": "b\x1b"}, 'provider.attributes["a"]')):
            wanted = provider_pb2.Provider(public_key=key, region="eu-west", attributes=attributes)
            with pytest.raises(DomainError) as refused:
                await stub.CreateProvider(CREATE(provider=wanted, request_id="one"))
            assert [item.field for item in refused.value.violations] == [field]
        wanted = provider_pb2.Provider(public_key=key, region="eu-west", auditor_signatures=[good])
        made = await stub.CreateProvider(CREATE(provider=wanted, request_id="one"))
        assert [item.auditor for item in made.auditor_signatures] == [good.auditor.lower()]
        wanted = provider_pb2.Provider(name=made.name, auditor_signatures=[foreign])
        with pytest.raises(DomainError) as refused:
            await stub.UpdateProvider(UPDATE(provider=wanted, update_mask=FieldMask(paths=["auditor_signatures"])))
        assert refused.value.reason.reason == "AUDITOR_SIGNATURE_INVALID"
        assert await stub.GetProvider(provider_service_pb2.GetProviderRequest(name=made.name)) == made


async def test_an_order_that_asks_for_an_auditor_finds_whom_it_signed(house: House) -> None:
    """Goal: `auditors_any_of` and `auditors_all_of` match a provider for the attributes that the auditor signed, until one
    changes. Method: a cheap provider without a word of the auditor's and a dear one with it; the second order asks for an
    attribute beyond, the third comes after the attribute changed.
    """
    auditor = Wallet(Account.create())
    async with house.running(engine=False):
        await house.add_agent(gpu_micros=1_000_000)
        dear = await house.add_agent(gpu_micros=2_000_000)
        owner = (await house.queries.provider(dear.name)).account
        public_key = dear.key.public_key().public_bytes_raw()
        wanted = provider_pb2.Provider(
            name=dear.name,
            attributes={"tier": "gold", "power": "green"},
            auditor_signatures=[sign_attributes(auditor, public_key, {"tier": "gold"})],
        )
        await house.registry.update_provider(wanted, ["attributes", "auditor_signatures"], owner)

        order = gpu_order()
        order.groups[0].constraints.auditors_any_of.extend([Account.create().address, auditor.address])
        order.groups[0].constraints.auditors_all_of.append(auditor.address)
        order.groups[0].constraints.attributes["tier"] = "gold"
        order_id = await house.open_order(order)
        assert await house.matching.match_open_orders() == 1
        command = await dear.command("run")
        assert command.key.order == f"orders/{order_id}"
        await house.orders.end(order_id, EndReason.TENANT, "over")
        await dear.beat(run_status(command, market_link_pb2.RUN_STATE_STOPPED))

        beyond = gpu_order()
        beyond.groups[0].constraints.CopyFrom(order.groups[0].constraints)
        beyond.groups[0].constraints.attributes["power"] = "green"
        await house.open_order(beyond)
        assert await house.matching.match_open_orders() == 0
        story = (await house.queries.explain(beyond.name)).groups[0]
        assert {offer.provider: offer.loss_reason for offer in story.offers}[dear.name] == "auditors"

        wanted.attributes["tier"] = "silver"
        await house.registry.update_provider(wanted, ["attributes"], owner)
        late = gpu_order()
        late.groups[0].constraints.auditors_any_of.append(auditor.address)
        await house.open_order(late)
        assert await house.matching.match_open_orders() == 0
