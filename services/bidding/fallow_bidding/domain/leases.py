"""A lease's life: RESERVED → STARTING → RUNNING ⇄ SUSPENDED, and then an end.

An end is the tenant's: nothing after ``charge_through_time`` is charged. Whether the devices are free is another
question: they stay held (STOPPING after an orderly end, LOST after a failure) until the provider has said that nothing
of the generation runs, and only then is the lease ENDED. A lease never becomes live again.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from fallow_bidding.domain.placement import Placement


class LeaseState(StrEnum):
    """State of a lease."""

    RESERVED = "RESERVED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    STOPPING = "STOPPING"
    LOST = "LOST"
    ENDED = "ENDED"


LIVE: Final = frozenset({LeaseState.RESERVED, LeaseState.STARTING, LeaseState.RUNNING, LeaseState.SUSPENDED})
"""States in which the tenant still has the lease."""
EARLY_CLOSE_MS_MAX: Final = 3_600_000
"""The most running time that is owed for closing a reserved order early: what an order's first hold covers."""


class EndReason(StrEnum):
    """Why a lease or an order ended."""

    TENANT = "TENANT"
    TERM = "TERM"
    FUNDS = "FUNDS"
    PROVIDER = "PROVIDER"
    UNREACHABLE = "UNREACHABLE"
    DEVICE = "DEVICE"
    WORKLOAD = "WORKLOAD"
    PREEMPTED = "PREEMPTED"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    SUPERSEDED = "SUPERSEDED"


@dataclass(frozen=True, slots=True)
class Preemption:
    """A spot lease's notice: when it ends, and for which group of which order its room is."""

    time: datetime
    order_id: str
    group_index: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen when a lease ended, and by whom."""

    reason: EndReason
    detail: str
    observer: str
    observe_time: datetime


@dataclass(frozen=True, slots=True)
class GenerationKey:
    """One run of one group of an order (``order_id`` without its collection)."""

    order_id: str
    group: int
    generation: int


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A place where a running replica answers."""

    service: str
    container_port: int
    uri: str
    replica: int


@dataclass(frozen=True, slots=True)
class ProofMark:
    """The last proof of a generation that was taken: 0 before the first."""

    sequence: int = 0
    running_ms: int = 0
    final: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """One group, one provider, chosen devices, price, generation. Ids stand without their collections.

    ``group_revision`` is the revision of the group's workload that it was matched with. One that is ``spot`` may be
    pre-empted, after a notice that stands in ``preemption``.
    """

    lease_id: str
    key: GenerationKey
    group_id: str
    tenant: str
    provider_id: str
    provider_account: str
    provider_address: str
    offer_id: str
    asset: str
    price_micros: int
    placements: tuple[Placement, ...]
    self_stop_ms: int
    create_time: datetime
    state: LeaseState = LeaseState.RESERVED
    endpoints: tuple[Endpoint, ...] = ()
    accept_time: datetime | None = None
    ready_time: datetime | None = None
    end_time: datetime | None = None
    charge_through_time: datetime | None = None
    release_time: datetime | None = None
    evidence: Evidence | None = None
    proof: ProofMark = ProofMark()
    group_revision: int = 1
    spot: bool = False
    preemption: Preemption | None = None

    @property
    def is_live(self) -> bool:
        """Whether the tenant still has it."""
        return self.state in LIVE

    @property
    def holds_devices(self) -> bool:
        """Whether its devices are still reserved."""
        return self.state is not LeaseState.ENDED


def early_close_ms(lease: Lease, ready_time: datetime | None, term_ms: int, now: datetime) -> int:
    """Running time that a reserved lease owes whose tenant ends it now: the rest of its term, at most an hour.

    ``ready_time`` is from when the order's term counts; before it, and for a lease that never ran, nothing is owed.
    """
    if ready_time is None or lease.ready_time is None:
        return 0
    rest = ready_time + timedelta(milliseconds=term_ms) - now
    return max(0, min(EARLY_CLOSE_MS_MAX, rest // timedelta(milliseconds=1)))


def accepted(lease: Lease, now: datetime) -> Lease:
    """The provider has written the command down. A repeat changes nothing."""
    if lease.state is not LeaseState.RESERVED:
        return lease
    return replace(lease, state=LeaseState.STARTING, accept_time=now)


def ready(lease: Lease, endpoints: tuple[Endpoint, ...], now: datetime) -> Lease:
    """The generation is ready and answers at ``endpoints``."""
    assert lease.is_live, "only a live lease becomes ready"
    return replace(
        lease,
        state=LeaseState.RUNNING,
        endpoints=endpoints,
        accept_time=lease.accept_time or now,
        ready_time=lease.ready_time or now,
    )


def suspended(lease: Lease) -> Lease:
    """The generation is frozen for want of funds; it goes on by ``ready``."""
    assert lease.state is LeaseState.RUNNING, "only what runs is frozen"
    return replace(lease, state=LeaseState.SUSPENDED)


def ended(
    lease: Lease, evidence: Evidence, charge_through: datetime, now: datetime, *, lost: bool, nothing_runs: bool
) -> Lease:
    """The lease has ended for the tenant. With ``nothing_runs`` its devices are free at once."""
    assert lease.is_live, "a lease ends once"
    assert charge_through <= now, "nobody is charged for the future"
    state = LeaseState.LOST if lost else LeaseState.STOPPING
    return replace(
        lease,
        state=LeaseState.ENDED if nothing_runs else state,
        end_time=now,
        charge_through_time=charge_through,
        release_time=now if nothing_runs else None,
        evidence=evidence,
    )


def released(lease: Lease, now: datetime) -> Lease:
    """The provider has said that nothing of the generation runs: the devices are free. A repeat changes nothing."""
    assert not lease.is_live, "a live lease holds its devices"
    if lease.state is LeaseState.ENDED:
        return lease
    return replace(lease, state=LeaseState.ENDED, release_time=now)
