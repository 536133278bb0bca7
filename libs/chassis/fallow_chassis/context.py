"""Who is calling and how long they will wait: two facts that every layer of one call may read.

The server's interceptors set them, in the task of the call; clients, the pool and queries read them. Outside a call
(consumers, jobs) there is no identity, and no deadline unless ``deadline_in`` sets one.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from fallow_chassis.clock import SystemClock
from fallow_chassis.errors import UNAUTHENTICATED, DomainError

RIGHTS: Final = frozenset({"workload.read", "logs.read", "exec", "status.read"})
"""What a grant can allow on its lease generation."""


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """A permission on one generation of one group: who (``accounts/…`` or ``providers/…``), on what, which rights.

    ``revision`` is that of the workload which the generation runs.
    """

    subject: str
    order: str
    group: int
    generation: int
    lease: str
    provider: str
    rights: frozenset[str]
    revision: int = 1

    def __post_init__(self) -> None:
        """Hold the bounds that a signer and a verifier both rely on."""
        assert self.rights <= RIGHTS, f"unknown rights: {sorted(self.rights - RIGHTS)}"
        assert self.group >= 0, "a group is numbered from 0"
        assert self.generation >= 1, "a generation is numbered from 1"
        assert self.revision >= 1, "a revision is numbered from 1"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. ``address`` is the EVM address the account signed in with, ``api_key`` the name of the key that
    its token was traded for; either may be empty. ``expire_time`` is told of grants alone: what goes on by one ends then.
    """

    subject: str
    issuer: str
    scopes: frozenset[str] = frozenset()
    address: str = ""
    grant: GrantClaims | None = None
    api_key: str = ""
    expire_time: datetime | None = field(default=None, compare=False)

    @property
    def is_service(self) -> bool:
        """Whether the caller is one of our own services."""
        return self.subject.startswith("services/")


_identity: ContextVar[Identity | None] = ContextVar("fallow_identity", default=None)
_deadline_ms: ContextVar[int | None] = ContextVar("fallow_deadline_ms", default=None)
_clock: Final = SystemClock()


def current_identity() -> Identity:
    """The verified caller of the present call; raises UNAUTHENTICATED where there is none."""
    identity = _identity.get()
    if identity is None:
        raise DomainError(UNAUTHENTICATED, "this needs a caller, and none was verified")
    return identity


class identity_set:  # noqa: N801 - reads as what it does: `with identity_set(identity):`
    """Makes ``identity`` the caller of what runs inside."""

    __slots__ = ("_identity", "_token")

    def __init__(self, identity: Identity | None) -> None:
        """Take the verified caller, or nobody."""
        self._identity = identity

    def __enter__(self) -> None:
        """From here on."""
        self._token = _identity.set(self._identity)

    def __exit__(self, *_: object) -> None:
        """Until here."""
        _identity.reset(self._token)


def remaining_seconds() -> float | None:
    """Seconds left of the present call's deadline, never below 0; None where there is no deadline."""
    deadline_ms = _deadline_ms.get()
    if deadline_ms is None:
        return None
    return max(0, deadline_ms - _clock.monotonic_ms()) / 1_000


def bounded_seconds(limit_seconds: float) -> float:
    """The smaller of a limit of one's own and what is left of the call's deadline."""
    remaining = remaining_seconds()
    return limit_seconds if remaining is None else min(limit_seconds, remaining)


class deadline_in:  # noqa: N801 - reads as what it does: `with deadline_in(seconds):`
    """Gives what runs inside at most ``seconds`` more; an earlier deadline from outside stays. None changes nothing."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        """Take the seconds, which count from the entry."""
        self._seconds = seconds

    def __enter__(self) -> None:
        """From here on."""
        outer = _deadline_ms.get()
        inner = None if self._seconds is None else _clock.monotonic_ms() + round(self._seconds * 1_000)
        if inner is None or (outer is not None and outer < inner):
            inner = outer
        self._token = _deadline_ms.set(inner)

    def __exit__(self, *_: object) -> None:
        """Until here."""
        _deadline_ms.reset(self._token)
