"""Who may call a method: read from the contract, held before the method runs.

Each method has the option ``(fallow.type.v1.access)``; one without it, or with a caller of no kind, is refused when the
server is put together, so no method is open by forgetting. The checks come in this order: is there a token, does it
verify, is its time not over, is this kind of caller let in, does it have the scope, the service's name or the right.
"""

from dataclasses import dataclass
from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from fallow.type.v1 import annotations_pb2
from fallow_chassis.context import Identity
from fallow_chassis.errors import PERMISSION_DENIED, UNAUTHENTICATED, DomainError

BEARER: Final = "Bearer "


class AccessOptionError(Exception):
    """A method of the contract does not say who may call it, or says it wrong."""


@dataclass(frozen=True, slots=True)
class MethodAccess:
    """Who may call one method."""

    method: str
    public: bool
    account: bool
    service: bool
    grant: bool
    scope: str
    services: frozenset[str]
    grant_right: str

    def check(self, identity: Identity | None) -> None:
        """Pass, or raise UNAUTHENTICATED (nobody is named) or PERMISSION_DENIED (somebody who may not)."""
        if self.public:
            return
        if identity is None:
            raise DomainError(UNAUTHENTICATED, f"{self.method} needs a token", metadata={"method": self.method})
        lacking = self._lacking(identity)
        if lacking:
            raise DomainError(
                PERMISSION_DENIED,
                f"{identity.subject} may not call {self.method}: {lacking}",
                metadata={"method": self.method, "subject": identity.subject, **self._wanted()},
            )

    def _lacking(self, identity: Identity) -> str:
        """What the caller lacks, or nothing."""
        if identity.grant is not None:
            if not self.grant:
                return "a grant does not open it"
            opens = not self.grant_right or self.grant_right in identity.grant.rights
            return "" if opens else f"the grant lacks {self.grant_right}"
        if identity.is_service:
            if not self.service:
                return "it is not for services"
            name = identity.subject.removeprefix("services/")
            return "" if not self.services or name in self.services else "it is for other services"
        if not self.account:
            return "it is not for accounts"
        return "" if not self.scope or self.scope in identity.scopes else f"the token lacks the scope {self.scope}"

    def _wanted(self) -> dict[str, str]:
        """What would open the method, for the error's metadata."""
        wanted = {"scope": self.scope if self.account else "", "grant_right": self.grant_right if self.grant else ""}
        return {name: value for name, value in wanted.items() if value}


def public_access(method: str) -> MethodAccess:
    """Access for everybody: health and reflection, which are not ours to annotate."""
    return MethodAccess(
        method, public=True, account=False, service=False, grant=False, scope="", services=frozenset(), grant_right=""
    )


def service_methods(full_service_name: str) -> list[MethodDescriptor]:
    """The methods of a service of the contract; AccessOptionError if there is no such service."""
    try:
        service = descriptor_pool.Default().FindServiceByName(full_service_name)
    except KeyError as error:
        raise AccessOptionError(f"there is no service {full_service_name} in the contract") from error
    return list(service.methods)


def method_access(method: MethodDescriptor) -> MethodAccess:
    """Read a method's option; AccessOptionError if it is missing or makes no sense."""
    options = method.GetOptions()
    name = f"{method.containing_service.full_name}/{method.name}"
    if not options.HasExtension(annotations_pb2.access):
        raise AccessOptionError(f"{name} does not say who may call it: the option (fallow.type.v1.access) is missing")
    option = options.Extensions[annotations_pb2.access]
    callers = set(option.callers)
    known = {
        annotations_pb2.CALLER_PUBLIC,
        annotations_pb2.CALLER_ACCOUNT,
        annotations_pb2.CALLER_SERVICE,
        annotations_pb2.CALLER_GRANT,
    }
    if not callers or not callers <= known:
        raise AccessOptionError(f"{name} names no callers, or some that are of no kind")
    return MethodAccess(
        method=name,
        public=annotations_pb2.CALLER_PUBLIC in callers,
        account=annotations_pb2.CALLER_ACCOUNT in callers,
        service=annotations_pb2.CALLER_SERVICE in callers,
        grant=annotations_pb2.CALLER_GRANT in callers,
        scope=option.scope,
        services=frozenset(option.services),
        grant_right=option.grant_right,
    )


def bearer_token(authorization: str) -> str:
    """The token in an ``authorization`` header; empty where there is none; UNAUTHENTICATED for another scheme."""
    if not authorization:
        return ""
    if not authorization[: len(BEARER)].lower() == BEARER.lower() or len(authorization) == len(BEARER):
        raise DomainError(UNAUTHENTICATED, "the authorization header must be 'Bearer <token>'")
    return authorization[len(BEARER) :].strip()
