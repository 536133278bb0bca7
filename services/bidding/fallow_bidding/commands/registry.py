"""Providers register, change, drain and resume; offers are published and withdrawn."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from fallow.bidding.v1 import events_pb2, provider_pb2, provider_service_pb2
from fallow_bidding.channels import MARKET_CHANNEL
from fallow_bidding.convert import market as convert
from fallow_bidding.convert.link import MODEL
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Offer, Provider
from fallow_bidding.domain.reasons import (
    ASSET_UNKNOWN,
    OFFER_NOT_FOUND,
    PROVIDER_NOT_FOUND,
    PUBLIC_KEY_TAKEN,
)
from fallow_bidding.store import providers
from fallow_bidding.topics import MARKET_TOPIC
from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.events import EventDraft
from fallow_chassis.idempotency import claim
from fallow_chassis.postgres import Database, UnitOfWork, notify
from fallow_chassis.wire import from_duration, from_timestamp, resource_id

PUBLIC_KEY_BYTES: Final = 32
PROFILE_FIELDS: Final = ("display_name", "attributes", "auditor_signatures", "address")
SHOWN_CHARACTERS: Final = 64
_SERVICE: Final = "fallow.bidding.v1.ProviderRegistryService"


class RegistryCommands:
    """Use-cases of the registry; ``caller`` is the account that calls, ``accounts/…``."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def create_provider(self, request: provider_service_pb2.CreateProviderRequest, caller: str) -> Provider:
        """Register a site; the same key and owner answer the same provider.

        Raises PUBLIC_KEY_TAKEN, INVALID_FIELD, AUDITOR_SIGNATURE_INVALID.
        """
        wanted = request.provider
        if len(wanted.public_key) != PUBLIC_KEY_BYTES:
            raise invalid_field("provider.public_key", f"must be an Ed25519 public key of {PUBLIC_KEY_BYTES} bytes")
        async with self._database.transaction() as unit:
            drafted = Provider(
                provider_id=unit.ids.new(),
                account=caller,
                public_key=wanted.public_key,
                region=wanted.region,
                market=self._policy.markets.of_region(wanted.region),
                create_time=unit.clock.now(),
                display_name=wanted.display_name,
                attributes=convert.attributes_of(wanted),
                auditor_signatures=convert.auditor_signatures_of(wanted, wanted.public_key),
                address=wanted.address,
            )
            # The insert waits for another call with the same key, so that the row found afterwards is the one.
            is_new = await providers.insert_provider(unit.connection, drafted)
            provider = await providers.load_provider_by_key(unit.connection, wanted.public_key)
            assert provider is not None, "the key was just inserted, or was there"
            if provider.account != caller:
                raise DomainError(PUBLIC_KEY_TAKEN, "another account registered this public key")
            taken = await claim(
                unit,
                caller=caller,
                method=f"{_SERVICE}/CreateProvider",
                request_id=request.request_id,
                request=request,
                resource=f"providers/{provider.provider_id}",
            )
            if is_new:
                assert taken.first, "a claim that came before has made a provider with this key"
                await _emit_provider(unit, provider)
            return provider

    async def update_provider(self, wanted: provider_pb2.Provider, fields: Sequence[str], caller: str) -> Provider:
        """Change what ``fields`` name of a provider's name, attributes, signatures and address."""
        for index, field in enumerate(fields):
            if field not in PROFILE_FIELDS:
                raise invalid_field("update_mask", f"{field!r} cannot be changed; {', '.join(PROFILE_FIELDS)} can")
            if field in fields[:index]:
                raise invalid_field(f"update_mask.paths[{index}]", f"{field!r} stands twice")
        async with self._database.transaction() as unit:
            provider = await self._owned(unit, wanted.name, caller)
            names = set(fields)
            changed = replace(
                provider,
                display_name=wanted.display_name if "display_name" in names else provider.display_name,
                attributes=convert.attributes_of(wanted) if "attributes" in names else provider.attributes,
                auditor_signatures=convert.auditor_signatures_of(wanted, provider.public_key)
                if "auditor_signatures" in names
                else provider.auditor_signatures,
                address=wanted.address if "address" in names else provider.address,
            )
            await providers.update_profile(unit.connection, changed)
            await self._changed(unit, changed)
            return changed

    async def set_draining(self, name: str, caller: str, *, draining: bool) -> Provider:
        """Stop new leases at a provider, or take them again. A repeat changes nothing."""
        async with self._database.transaction() as unit:
            provider = await self._owned(unit, name, caller)
            if provider.draining == draining:
                return provider
            await providers.set_draining(unit.connection, provider.provider_id, draining=draining)
            changed = replace(provider, draining=draining)
            await self._changed(unit, changed)
            return changed

    async def create_offer(self, request: provider_service_pb2.CreateOfferRequest, caller: str) -> Offer:
        """Publish an offer in the place of the provider's active one in the same asset. Raises ASSET_UNKNOWN."""
        wanted = request.offer
        async with self._database.transaction() as unit:
            provider = await self._owned(unit, wanted.provider, caller, field="offer.provider")
            offer_id = unit.ids.new()
            taken = await claim(
                unit,
                caller=caller,
                method=f"{_SERVICE}/CreateOffer",
                request_id=request.request_id,
                request=request,
                resource=f"offers/{offer_id}",
            )
            if not taken.first:
                made = await providers.load_offer(unit.connection, resource_id(taken.resource, "offers"))
                assert made is not None, "a claim that stands made its offer"
                return made
            offer = self._offer_of(offer_id, provider, wanted, unit.clock.now())
            replaced = await providers.withdraw_active_offer(unit.connection, provider.provider_id, offer.prices.asset)
            await providers.insert_offer(unit.connection, offer)
            if replaced is not None:
                await _emit_withdrawn(unit, provider.provider_id, replaced)
            version = await providers.next_market_version(unit.connection, provider.provider_id)
            published = events_pb2.OfferPublished(offer=convert.offer_message(offer, unit.clock.now()))
            unit.emit(EventDraft(MARKET_TOPIC, provider.provider_id, version, published, f"offers/{offer.offer_id}"))
            await notify(unit.connection, MARKET_CHANNEL)
            return offer

    async def withdraw_offer(self, name: str, caller: str) -> Offer:
        """Withdraw an offer; leases made from it go on. A repeat changes nothing. Raises OFFER_NOT_FOUND."""
        async with self._database.transaction() as unit:
            offer = await providers.load_offer(unit.connection, resource_id(name, "offers"))
            owner = None if offer is None else await providers.lock_provider(unit.connection, offer.provider_id)
            if offer is None or owner is None or owner.account != caller:
                raise DomainError(OFFER_NOT_FOUND, "there is no such offer of yours", metadata={"offer": name})
            if await providers.withdraw_offer(unit.connection, offer.offer_id):
                await _emit_withdrawn(unit, offer.provider_id, offer.offer_id)
            return replace(offer, withdrawn=True)

    def _offer_of(self, offer_id: str, provider: Provider, wanted: provider_pb2.Offer, now: datetime) -> Offer:
        """The offer that a request describes; refuses what could never match."""
        prices = convert.prices_of(wanted.prices)
        for model in prices.gpu_micros_by_model:
            if not MODEL.fullmatch(model):
                field = f"offer.prices.gpu_micros_per_hour_by_model[{json.dumps(model[:SHOWN_CHARACTERS])}]"
                raise invalid_field(field, "a model is 1 to 64 of a-z, 0-9 and -")
        if prices.asset not in self._policy.assets:
            raise DomainError(
                ASSET_UNKNOWN,
                f"{prices.asset} is not traded here",
                metadata={"assets": ",".join(sorted(self._policy.assets))},
            )
        expire_time = from_timestamp(wanted.expire_time) if wanted.HasField("expire_time") else None
        if expire_time is not None and expire_time <= now:
            raise invalid_field("offer.expire_time", "must be in the future")
        term_ms_max = from_duration(wanted.term_max) if wanted.HasField("term_max") else None
        if term_ms_max is not None and term_ms_max <= 0:
            raise invalid_field("offer.term_max", "must be positive, or unset for any term")
        return Offer(offer_id, provider.provider_id, prices, now, term_ms_max, expire_time)

    async def _owned(self, unit: UnitOfWork, name: str, caller: str, *, field: str = "name") -> Provider:
        """A provider of the caller, its row held; PROVIDER_NOT_FOUND for any other."""
        provider = await providers.lock_provider(unit.connection, resource_id(name, "providers", field=field))
        if provider is None or provider.account != caller:
            raise DomainError(PROVIDER_NOT_FOUND, "there is no such provider of yours", metadata={"provider": name})
        return provider

    async def _changed(self, unit: UnitOfWork, provider: Provider) -> None:
        """Tell the world and the engine that a provider changed."""
        await _emit_provider(unit, provider)
        await notify(unit.connection, MARKET_CHANNEL)


async def _emit_provider(unit: UnitOfWork, provider: Provider) -> None:
    """State that a provider was registered or changed."""
    version = await providers.next_market_version(unit.connection, provider.provider_id)
    event = events_pb2.ProviderRegistered(provider=convert.provider_message(provider))
    unit.emit(EventDraft(MARKET_TOPIC, provider.provider_id, version, event, f"providers/{provider.provider_id}"))


async def _emit_withdrawn(unit: UnitOfWork, provider_id: str, offer_id: str) -> None:
    """State that an offer was withdrawn or replaced."""
    version = await providers.next_market_version(unit.connection, provider_id)
    event = events_pb2.OfferWithdrawn(offer=f"offers/{offer_id}")
    unit.emit(EventDraft(MARKET_TOPIC, provider_id, version, event, f"offers/{offer_id}"))
