"""Providers and offers as the registry keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fallow_bidding.domain.audits import AuditorSignature, audited_attributes
from fallow_bidding.domain.reputation import Reputation
from fallow_bidding.domain.supply import PriceSchedule


class ProviderState(StrEnum):
    """State of a provider, as its heartbeats and its owner make it."""

    REGISTERED = "REGISTERED"
    ONLINE = "ONLINE"
    UNREACHABLE = "UNREACHABLE"
    DRAINING = "DRAINING"


class OfferState(StrEnum):
    """State of an offer."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Provider:
    """A seller of compute at one site."""

    provider_id: str
    account: str
    public_key: bytes
    region: str
    market: str
    create_time: datetime
    display_name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    auditor_signatures: tuple[AuditorSignature, ...] = ()
    address: str = ""
    draining: bool = False
    reachable: bool = False
    reputation: Reputation = field(default_factory=Reputation)
    heartbeat_time: datetime | None = None
    boot_id: str = ""
    inventory_sequence: int = 0
    inventory_time: datetime | None = None

    @property
    def state(self) -> ProviderState:
        """Silence comes before the owner's wish: a provider that is both drained and silent is unreachable."""
        if self.heartbeat_time is None:
            return ProviderState.DRAINING if self.draining else ProviderState.REGISTERED
        if not self.reachable:
            return ProviderState.UNREACHABLE
        return ProviderState.DRAINING if self.draining else ProviderState.ONLINE

    @property
    def heard_time(self) -> datetime:
        """When it was last heard; its registration where it never was."""
        return self.create_time if self.heartbeat_time is None else self.heartbeat_time

    @property
    def audited(self) -> dict[str, frozenset[str]]:
        """By auditor, the names of the attributes that it vouches for as they are now."""
        return audited_attributes(self.auditor_signatures, self.attributes)

    @property
    def unavailable(self) -> str:
        """Why the provider takes no new lease now, or nothing."""
        return "" if self.state is ProviderState.ONLINE else self.state.lower()


@dataclass(frozen=True, slots=True)
class ProviderFilter:
    """Which providers to list; what is empty narrows nothing. ``auditor`` is in lower case."""

    account: str = ""
    states: tuple[ProviderState, ...] = ()
    regions: tuple[str, ...] = ()
    gpu_models: tuple[str, ...] = ()
    reputation_milli_min: int = 0
    auditor: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider's standing ask."""

    offer_id: str
    provider_id: str
    prices: PriceSchedule
    create_time: datetime
    term_ms_max: int | None = None
    expire_time: datetime | None = None
    withdrawn: bool = False

    def state(self, now: datetime) -> OfferState:
        """A withdrawn offer stays withdrawn; one past its time is expired."""
        if self.withdrawn:
            return OfferState.WITHDRAWN
        if self.expire_time is not None and self.expire_time <= now:
            return OfferState.EXPIRED
        return OfferState.ACTIVE
