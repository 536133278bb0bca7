"""Leases and the end of orders as gRPC."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from fallow.bidding.v1 import lease_pb2, lease_service_pb2, lease_service_pb2_grpc
from fallow_bidding.channels import LEASE_CHANNEL
from fallow_bidding.commands.delivery import grant_claims
from fallow_bidding.commands.orders import OrderCommands
from fallow_bidding.commands.relinquish import RelinquishCommands
from fallow_bidding.convert import leases as convert
from fallow_bidding.domain.leases import EndReason, LeaseState
from fallow_bidding.domain.reasons import LEASE_ENDED, LEASE_NOT_FOUND
from fallow_bidding.queries import Queries
from fallow_chassis.clock import Clock
from fallow_chassis.context import current_identity
from fallow_chassis.errors import DomainError
from fallow_chassis.identity import TokenSigner
from fallow_chassis.paging import Page
from fallow_chassis.signals import Signals
from fallow_chassis.wire import resource_id, to_timestamp

GRANT_LIFETIME_SECONDS: Final = 900
"""How long a tenant's grant is good."""
WATCH_POLL_SECONDS: Final = 2.0
"""How long a change waits at most to be shown if its signal is lost."""


class LeaseServicer(lease_service_pb2_grpc.LeaseServiceServicer):
    """A tenant sees its own leases, a provider's owner those of its sites, a service all."""

    def __init__(
        self,
        commands: OrderCommands,
        relinquishing: RelinquishCommands,
        queries: Queries,
        signals: Signals,
        signer: TokenSigner,
        clock: Clock,
    ) -> None:
        """Take the use-cases, the reads, the signals of changes, and the key that signs grants."""
        self._commands = commands
        self._relinquishing = relinquishing
        self._queries = queries
        self._signals = signals
        self._signer = signer
        self._clock = clock

    async def GetLease(self, request: lease_service_pb2.GetLeaseRequest, context: Any) -> lease_pb2.Lease:
        """Return a lease."""
        return convert.lease_message(await self._queries.lease(request.name, _account()))

    async def ListLeases(
        self, request: lease_service_pb2.ListLeasesRequest, context: Any
    ) -> lease_service_pb2.ListLeasesResponse:
        """List leases, newest first."""
        page = Page(request)
        states = [state for number in request.states if (state := convert.state_of(number)) is not None]
        found = await self._queries.leases(
            account=_account(),
            order_id=resource_id(request.order, "orders", field="order") if request.order else "",
            provider_id=resource_id(request.provider, "providers", field="provider") if request.provider else "",
            states=states,
            before=page.after_text(),
            limit=page.limit,
        )
        shown, token = page.cut(found, lambda lease: lease.lease_id)
        return lease_service_pb2.ListLeasesResponse(
            leases=[convert.lease_message(lease) for lease in shown], next_page_token=token
        )

    async def WatchLease(
        self, request: lease_service_pb2.WatchLeaseRequest, context: Any
    ) -> AsyncIterator[lease_service_pb2.WatchLeaseResponse]:
        """Stream a lease as it is, then each change, until it has ended and its devices are free."""
        account = _account()
        shown = None
        with self._signals.bell(LEASE_CHANNEL, resource_id(request.name, "leases")) as bell:
            while True:
                lease = await self._queries.lease(request.name, account)
                message = convert.lease_message(lease)
                if message != shown:
                    yield lease_service_pb2.WatchLeaseResponse(lease=message)
                    shown = message
                if lease.state is LeaseState.ENDED:
                    return
                await bell.wait(WATCH_POLL_SECONDS)

    async def IssueGrant(
        self, request: lease_service_pb2.IssueGrantRequest, context: Any
    ) -> lease_service_pb2.IssueGrantResponse:
        """Sign a grant on a live lease for its tenant; nobody else gets one."""
        caller = current_identity().subject
        lease = await self._queries.lease(request.lease, caller)
        if lease.tenant != caller:
            raise DomainError(LEASE_NOT_FOUND, "there is no such lease of yours", metadata={"lease": request.lease})
        if not lease.is_live:
            raise DomainError(LEASE_ENDED, "the lease has ended", metadata={"lease": request.lease})
        grant = self._signer.grant(grant_claims(lease, caller, request.rights), GRANT_LIFETIME_SECONDS)
        expire_time = self._clock.now() + timedelta(seconds=GRANT_LIFETIME_SECONDS)
        return lease_service_pb2.IssueGrantResponse(
            grant=grant, expire_time=to_timestamp(expire_time), provider_address=lease.provider_address
        )

    async def RelinquishLease(self, request: lease_service_pb2.RelinquishLeaseRequest, context: Any) -> lease_pb2.Lease:
        """End a lease early for its provider's owner."""
        lease = await self._relinquishing.relinquish(request, current_identity().subject)
        return convert.lease_message(lease)

    async def EndOrder(
        self, request: lease_service_pb2.EndOrderRequest, context: Any
    ) -> lease_service_pb2.EndOrderResponse:
        """End matching and all leases of an order."""
        reason = convert.end_reason_of(request.reason, EndReason.TENANT)
        detail = convert.end_detail(reason, current_identity().subject)
        order_id = resource_id(request.order, "orders", field="order")
        found = await self._commands.end(order_id, reason, detail)
        return lease_service_pb2.EndOrderResponse(leases=[convert.lease_message(lease) for lease in found])

    async def SetOrderSuspended(
        self, request: lease_service_pb2.SetOrderSuspendedRequest, context: Any
    ) -> lease_service_pb2.SetOrderSuspendedResponse:
        """Pause an order for want of funds, or let it go on."""
        order_id = resource_id(request.order, "orders", field="order")
        await self._commands.set_suspended(order_id, request.number, suspended=request.suspended)
        return lease_service_pb2.SetOrderSuspendedResponse()


def _account() -> str:
    """Whose leases the caller sees: its own, or, for a service, everybody's."""
    identity = current_identity()
    return "" if identity.is_service else identity.subject
