"""Providers, offers, inventory, demands and explanations on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from fallow.bidding.v1 import provider_pb2, provider_service_pb2
from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import money_pb2, resources_pb2
from fallow_bidding.domain.audits import AuditorSignature, audit_text, auditor_of
from fallow_bidding.domain.demand import (
    DEFAULT_STORAGE_CLASS,
    GpuAlternative,
    GpuNeed,
    GroupDemand,
    OrderDemand,
    ReplicaSet,
    TermKind,
)
from fallow_bidding.domain.explanation import GroupExplanation
from fallow_bidding.domain.markets import Markets
from fallow_bidding.domain.orders import MarketGroup
from fallow_bidding.domain.providers import Offer, Provider, ProviderFilter, ProviderState
from fallow_bidding.domain.reasons import AUDITOR_SIGNATURE_INVALID
from fallow_bidding.domain.reputation import Reputation
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, PriceSchedule, ReservedTier
from fallow_bidding.signatures import auditor_signed
from fallow_chassis.errors import DomainError, FieldViolation, invalid_field
from fallow_chassis.wire import from_duration, to_duration, to_timestamp

MAX_ATTRIBUTE_NAME_CHARACTERS: Final = 128
MAX_ATTRIBUTE_VALUE_CHARACTERS: Final = 256
MAX_PRICE_MICROS: Final = 1_000_000_000_000
"""The most that one hour of anything in a schedule may cost: a million units of the asset."""


def provider_message(provider: Provider) -> provider_pb2.Provider:
    """A provider as clients see it."""
    message = provider_pb2.Provider(
        name=f"providers/{provider.provider_id}",
        account=provider.account,
        display_name=provider.display_name,
        public_key=provider.public_key,
        region=provider.region,
        attributes=dict(provider.attributes),
        auditor_signatures=[
            provider_pb2.AuditorSignature(
                auditor=item.auditor, attributes=dict(item.attributes), signature=bytes.fromhex(item.signature)
            )
            for item in provider.auditor_signatures
        ],
        address=provider.address,
        state=provider_pb2.ProviderState.Value(f"PROVIDER_STATE_{provider.state.value}"),
        reputation=_reputation_message(provider.reputation),
        market=provider.market,
        create_time=to_timestamp(provider.create_time),
    )
    if provider.heartbeat_time is not None:
        message.heartbeat_time.CopyFrom(to_timestamp(provider.heartbeat_time))
    return message


def provider_filter_of(request: provider_service_pb2.ListProvidersRequest) -> ProviderFilter:
    """Which providers a request lists; INVALID_FIELD for a state that no provider here has."""
    names = [provider_pb2.ProviderState.Name(number).removeprefix("PROVIDER_STATE_") for number in request.states]
    unknown = [name for name in names if name not in ProviderState.__members__]
    if unknown:
        raise invalid_field("states", f"{unknown[0]} is no state to list by")
    return ProviderFilter(
        account=request.account,
        states=tuple(ProviderState(name) for name in names),
        regions=tuple(request.regions),
        gpu_models=tuple(request.gpu_models),
        reputation_milli_min=request.reputation_milli_min,
        auditor=request.auditor.lower(),
    )


def _reputation_message(reputation: Reputation) -> provider_pb2.Reputation:
    """A reputation with its parts."""
    message = provider_pb2.Reputation(
        score_milli=reputation.score_milli,
        reliability_milli=reputation.reliability_milli,
        uptime_week_milli=reputation.uptime_week_milli,
        uptime_milli=reputation.uptime_month_milli,
        start_success_milli=reputation.start_success_milli,
        early_closes=reputation.early_closes,
        leases=reputation.leases,
    )
    if reputation.time_to_start_ms is not None:
        message.time_to_start.CopyFrom(to_duration(reputation.time_to_start_ms))
    return message


def attributes_of(message: provider_pb2.Provider) -> dict[str, str]:
    """A provider's attributes; INVALID_FIELD for one out of bounds (a map's entries have no rule on the wire)."""
    _check_attributes("provider.attributes", message.attributes)
    return dict(message.attributes)


def auditor_signatures_of(message: provider_pb2.Provider, public_key: bytes) -> tuple[AuditorSignature, ...]:
    """Auditors' signatures over attributes of the provider with that key.

    Raises INVALID_FIELD for what nobody could have signed, AUDITOR_SIGNATURE_INVALID for what the auditor has not.
    """
    return tuple(
        _auditor_signature(f"provider.auditor_signatures[{place}]", item, public_key)
        for place, item in enumerate(message.auditor_signatures)
    )


def _auditor_signature(path: str, item: provider_pb2.AuditorSignature, public_key: bytes) -> AuditorSignature:
    """One signature, checked."""
    auditor = auditor_of(item.auditor)
    if auditor is None:
        raise invalid_field(f"{path}.auditor", "must be an EVM address, or ed25519: and 64 hexadecimal digits")
    if not item.attributes:
        raise invalid_field(f"{path}.attributes", "must name an attribute: an auditor vouches for attributes")
    _check_attributes(f"{path}.attributes", item.attributes)
    if not auditor_signed(auditor, item.signature, audit_text(public_key, item.attributes)):
        raise DomainError(
            AUDITOR_SIGNATURE_INVALID,
            f"{item.auditor} did not sign these attributes of this provider's key",
            metadata={"auditor": item.auditor},
            violations=[FieldViolation(f"{path}.signature", "does not verify")],
        )
    return AuditorSignature(auditor, dict(item.attributes), item.signature.hex())


def _check_attributes(path: str, attributes: Mapping[str, str]) -> None:
    """Hold the bounds of names and values; INVALID_FIELD names the entry."""
    for name, value in attributes.items():
        if not 0 < len(name) <= MAX_ATTRIBUTE_NAME_CHARACTERS or not name.isprintable():
            raise invalid_field(
                path, f"{name[:20]!r}: a name has 1 to {MAX_ATTRIBUTE_NAME_CHARACTERS} plain characters"
            )
        if len(value) > MAX_ATTRIBUTE_VALUE_CHARACTERS or not value.isprintable():
            limit = MAX_ATTRIBUTE_VALUE_CHARACTERS
            raise invalid_field(f'{path}["{name}"]', f"must have at most {limit} characters, and none of control")


def prices_of(message: provider_pb2.PriceSchedule) -> PriceSchedule:
    """A price schedule; INVALID_FIELD for a price out of bounds (the maps' values have no rule on the wire)."""
    for field in ("gpu_micros_per_hour_by_model", "storage_gib_micros_per_hour_by_class"):
        for key, micros in getattr(message, field).items():
            if not 0 <= micros <= MAX_PRICE_MICROS:
                raise invalid_field(f"offer.prices.{field}[{key}]", f"must be 0 to {MAX_PRICE_MICROS} micros")
    return PriceSchedule(
        asset=message.asset,
        gpu_micros_by_model=dict(message.gpu_micros_per_hour_by_model),
        cpu_core_micros=message.cpu_core_micros_per_hour,
        memory_gib_micros=message.memory_gib_micros_per_hour,
        storage_gib_micros_by_class=dict(message.storage_gib_micros_per_hour_by_class),
        group_micros_min=message.group_micros_per_hour_min,
        reserved_tiers=tuple(
            ReservedTier(from_duration(tier.duration_min), tier.discount_milli) for tier in message.reserved_tiers
        ),
        spot_discount_milli=message.spot_discount_milli,
    )


def offer_message(offer: Offer, now: datetime) -> provider_pb2.Offer:
    """An offer as clients see it at an instant."""
    prices = offer.prices
    message = provider_pb2.Offer(
        name=f"offers/{offer.offer_id}",
        provider=f"providers/{offer.provider_id}",
        prices=provider_pb2.PriceSchedule(
            asset=prices.asset,
            gpu_micros_per_hour_by_model=dict(prices.gpu_micros_by_model),
            cpu_core_micros_per_hour=prices.cpu_core_micros,
            memory_gib_micros_per_hour=prices.memory_gib_micros,
            storage_gib_micros_per_hour_by_class=dict(prices.storage_gib_micros_by_class),
            group_micros_per_hour_min=prices.group_micros_min,
            reserved_tiers=[
                provider_pb2.PriceSchedule.ReservedTier(
                    duration_min=to_duration(tier.duration_ms_min), discount_milli=tier.discount_milli
                )
                for tier in prices.reserved_tiers
            ],
            spot_discount_milli=prices.spot_discount_milli,
        ),
        state=provider_pb2.OfferState.Value(f"OFFER_STATE_{offer.state(now).value}"),
        create_time=to_timestamp(offer.create_time),
    )
    if offer.term_ms_max is not None:
        message.term_max.CopyFrom(to_duration(offer.term_ms_max))
    if offer.expire_time is not None:
        message.expire_time.CopyFrom(to_timestamp(offer.expire_time))
    return message


def inventory_message(
    provider: Provider,
    nodes: Sequence[asyncpg.Record],
    devices: Sequence[asyncpg.Record],
    uses: Sequence[asyncpg.Record],
) -> provider_pb2.Inventory:
    """A provider's inventory with what leases hold of it."""
    by_node: dict[str, list[resources_pb2.Device]] = {row["node_id"]: [] for row in nodes}
    for row in devices:
        by_node[row["node_id"]].append(
            resources_pb2.Device(
                device_id=row["device_id"],
                vendor=row["vendor"],
                model=row["model"],
                vram_bytes=row["vram_bytes"],
                interface=row["interface"],
                health=_health_number(row["health"]),
                source=resources_pb2.DeviceSource.Value(f"DEVICE_SOURCE_{row['source']}"),
            )
        )
    message = provider_pb2.Inventory(
        name=f"providers/{provider.provider_id}/inventory",
        sequence=provider.inventory_sequence,
        nodes=[
            resources_pb2.Node(
                node_id=row["node_id"],
                cpu_milli=row["cpu_milli"],
                memory_bytes=row["memory_bytes"],
                storage_bytes_by_class=row["storage_bytes_by_class"],
                devices=by_node[row["node_id"]],
                drivers=row["drivers"],
            )
            for row in nodes
        ],
        device_uses=[
            provider_pb2.Inventory.DeviceUse(
                node_id=row["node_id"],
                device_id=row["device_id"],
                milli=row["milli"],
                lease=f"leases/{row['lease_id']}",
            )
            for row in uses
        ],
    )
    if provider.inventory_time is not None:
        message.report_time.CopyFrom(to_timestamp(provider.inventory_time))
    return message


def order_demand(order: order_pb2.Order, groups: Mapping[int, MarketGroup] | None = None) -> OrderDemand:
    """What an order asks. With ``groups``, only those are asked for, without the providers that they exclude."""
    order_id = order.name.removeprefix("orders/")
    terms = order.terms
    wanted = range(len(order.groups)) if groups is None else sorted(groups)
    demands = []
    for index in wanted:
        failed = frozenset[str]() if groups is None else groups[index].excluded_providers
        demands.append(_group_demand(index, order.groups[index], failed))
    return OrderDemand(
        order_id=order_id,
        groups=tuple(demands),
        together=order.group_binding != order_pb2.GROUP_BINDING_EACH,
        term_kind=_term_kind(terms.kind),
        duration_ms=from_duration(terms.duration) if terms.HasField("duration") else None,
    )


def order_market(markets: Markets, order: order_pb2.Order) -> str:
    """The market that an order belongs to."""
    return markets.of_order([tuple(group.constraints.regions) for group in order.groups])


def gpu_models(order: order_pb2.Order) -> tuple[str, ...]:
    """The GPU models that an order asks for, sorted, each once; empty takes any."""
    sets = (replica_set for group in order.groups for replica_set in group.replica_sets)
    needs = (replica_set.resources.gpu for replica_set in sets)
    return tuple(sorted({model for need in needs for model in (need.models or _alternative_models(need))}))


def _alternative_models(need: resources_pb2.GpuRequirement) -> list[str]:
    """The models that a need's alternatives name; none where one of them takes any."""
    models = [each.model for each in need.alternatives]
    return models if all(models) else []


def explanation_message(story: GroupExplanation) -> order_service_pb2.ExplainOrderResponse.GroupExplanation:
    """A group's story on the wire."""
    response = order_service_pb2.ExplainOrderResponse
    offers = []
    for offer in story.offers:
        message = response.WeighedOffer(
            offer=f"offers/{offer.offer_id}",
            provider=f"providers/{offer.provider_id}",
            won=offer.won,
            loss_reason=offer.loss_reason,
        )
        if offer.price_micros is not None:
            message.price.CopyFrom(money_pb2.Price(asset=story.asset, micros_per_hour=offer.price_micros))
        offers.append(message)
    told = response.GroupExplanation(
        group_id=story.group_id,
        funnel=[
            response.FunnelStep(
                constraint=step.constraint,
                devices_before=step.devices_before,
                devices_after=step.devices_after,
                providers_after=step.providers_after,
            )
            for step in story.funnel
        ],
        offers=offers,
        advice=story.advice,
    )
    if story.matching_price_micros is not None:
        told.matching_price.CopyFrom(money_pb2.Price(asset=story.asset, micros_per_hour=story.matching_price_micros))
    return told


def _group_demand(index: int, group: order_pb2.Group, failed: frozenset[str]) -> GroupDemand:
    """What one group asks."""
    constraints = group.constraints
    named = frozenset(name.removeprefix("providers/") for name in constraints.excluded_providers)
    return GroupDemand(
        index=index,
        group_id=group.group_id,
        replica_sets=tuple(_replica_set(item) for item in group.replica_sets),
        asset=group.price_limit.asset,
        price_limit_micros=group.price_limit.micros_per_hour,
        regions=tuple(constraints.regions),
        attributes=dict(constraints.attributes),
        auditors_any_of=tuple(name.lower() for name in constraints.auditors_any_of),
        auditors_all_of=tuple(name.lower() for name in constraints.auditors_all_of),
        excluded=named | failed,
        reputation_milli_min=constraints.reputation_milli_min,
    )


def _replica_set(message: order_pb2.ReplicaSet) -> ReplicaSet:
    """Like replicas; volumes of one class are summed."""
    resources = message.resources
    storage: dict[str, int] = {}
    for volume in resources.storage:
        name = volume.storage_class or DEFAULT_STORAGE_CLASS
        storage[name] = storage.get(name, 0) + volume.size_bytes
    gpu = None
    if resources.HasField("gpu") and resources.gpu.count > 0:
        gpu = GpuNeed(
            count=resources.gpu.count,
            milli=resources.gpu.milli_per_device or WHOLE_DEVICE_MILLI,
            vendor=resources.gpu.vendor,
            models=tuple(resources.gpu.models),
            vram_bytes_min=resources.gpu.vram_bytes_min,
            interface=resources.gpu.interface,
            alternatives=tuple(
                GpuAlternative(each.vendor, each.model, each.vram_bytes_min, each.interface)
                for each in resources.gpu.alternatives
            ),
        )
    return ReplicaSet(
        service=message.service,
        replicas=message.replicas,
        cpu_milli=resources.cpu_milli,
        memory_bytes=resources.memory_bytes,
        gpu=gpu,
        storage_bytes_by_class=storage,
        image=message.image,
    )


def _term_kind(number: order_pb2.TermKind.ValueType) -> TermKind:
    """The kind of a term; none said means ON_DEMAND."""
    if number == order_pb2.TERM_KIND_UNSPECIFIED:
        return TermKind.ON_DEMAND
    return TermKind(order_pb2.TermKind.Name(number).removeprefix("TERM_KIND_"))


def _health_number(health: str) -> resources_pb2.DeviceHealth.ValueType:
    """The number of a stored health."""
    name = "UNSPECIFIED" if health == "UNKNOWN" else health
    return resources_pb2.DeviceHealth.Value(f"DEVICE_HEALTH_{name}")
