"""A provider's owner gives a lease up before its time."""

from typing import Final

from fallow.bidding.v1 import lease_service_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.domain.leases import EndReason, Evidence, Lease
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.reasons import LEASE_ENDED, LEASE_NOT_FOUND
from fallow_bidding.store import leases, orders, providers
from fallow_chassis.errors import DomainError
from fallow_chassis.idempotency import claim
from fallow_chassis.postgres import Database
from fallow_chassis.wire import resource_id

_METHOD: Final = "fallow.bidding.v1.LeaseService/RelinquishLease"


class RelinquishCommands:
    """Use-cases of an owner with the leases of its sites."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def relinquish(self, request: lease_service_pb2.RelinquishLeaseRequest, caller: str) -> Lease:
        """End a live lease of one of the caller's sites; its group looks for another provider at once.

        A repeat answers with the lease as it now is. Raises LEASE_NOT_FOUND for a lease of any other's, LEASE_ENDED.
        """
        lease_id = resource_id(request.name, "leases")
        async with self._database.transaction() as unit:
            found = await leases.load_lease(unit.connection, lease_id)
            if found is None or found.provider_account != caller:
                raise DomainError(LEASE_NOT_FOUND, "no site of yours has this lease", metadata={"lease": request.name})
            provider = await providers.lock_provider(unit.connection, found.provider_id)
            order = (await orders.lock_orders(unit.connection, [found.key.order_id]))[found.key.order_id]
            lease = await leases.load_lease(unit.connection, lease_id)
            assert provider is not None, "the provider of a lease is there"
            assert lease is not None, "leases are never deleted"
            taken = await claim(
                unit,
                caller=caller,
                method=_METHOD,
                request_id=request.request_id,
                request=request,
                resource=request.name,
            )
            if not taken.first:
                return lease
            if not lease.is_live:
                raise DomainError(LEASE_ENDED, "the lease has ended already", metadata={"lease": request.name})
            now = unit.clock.now()
            detail = ": ".join(part for part in ("given up by the provider", request.reason) if part)
            evidence = Evidence(EndReason.PROVIDER, detail, f"providers/{provider.provider_id}", now)
            return await lifecycle.fail_lease(
                unit, self._policy, order, lease, evidence, heard_time=now, nothing_runs=False
            )
