"""Commands on their way to providers: what to send, and what an answer changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fallow.provider.v1 import market_link_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.convert import link as convert
from fallow_bidding.domain.leases import EndReason, Evidence, Lease, LeaseState, accepted
from fallow_bidding.domain.policy import Policy
from fallow_bidding.store import delivery, leases, orders
from fallow_chassis.context import GrantClaims
from fallow_chassis.identity import TokenSigner
from fallow_chassis.postgres import Database

COMMAND_BATCH: Final = 64
"""The most commands that are sent in one round."""
GRANT_LIFETIME_SECONDS: Final = 3_600


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One command as it goes to its provider."""

    provider_id: str
    command: market_link_pb2.Command


class DeliveryCommands:
    """Takes due commands and records answers. Grants are signed anew at each sending, so none is ever stale."""

    def __init__(self, database: Database, policy: Policy, signer: TokenSigner, order_address: str) -> None:
        """``order_address`` is where agents fetch workloads."""
        self._database = database
        self._policy = policy
        self._signer = signer
        self._order_address = order_address

    async def take_due(self) -> list[Outgoing]:
        """Take the commands that are due now; each is due again after a while unless it is answered."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            again = now + timedelta(milliseconds=self._policy.resend_ms)
            rows = await delivery.take_due(unit.connection, now, again, COMMAND_BATCH)
            found = await leases.load_leases(unit.connection, [row.lease_id for row in rows])
        by_id = {lease.lease_id: lease for lease in found}
        return [Outgoing(row.provider_id, self._message(row, by_id[row.lease_id])) for row in rows]

    async def take_answer(self, outgoing: Outgoing, answer: convert.CommandAnswer) -> None:
        """Record an agent's answer. A refused run moves its group on; a refused stop says that nothing runs."""
        command = outgoing.command
        order_id = command.key.order.removeprefix("orders/")
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            order = (await orders.lock_orders(unit.connection, [order_id]))[order_id]
            lease = await leases.load_lease(unit.connection, command.lease.removeprefix("leases/"))
            assert lease is not None, "leases are never deleted"
            fresh = await delivery.record_outcome(
                unit.connection,
                command.command_id,
                accepted=answer.accepted,
                reason=answer.reason,
                detail=answer.detail,
                now=now,
            )
            if not fresh:
                return
            if command.HasField("run"):
                if answer.accepted and lease.state is LeaseState.RESERVED:
                    await leases.save_lease(unit.connection, accepted(lease, now))
                elif not answer.accepted and lease.state is LeaseState.RESERVED:
                    evidence = Evidence(
                        EndReason.REFUSED, answer.why or "refused", f"providers/{lease.provider_id}", now
                    )
                    await lifecycle.fail_lease(
                        unit, self._policy, order, lease, evidence, heard_time=now, nothing_runs=True
                    )
            elif not answer.accepted and not lease.is_live and lease.holds_devices:
                await lifecycle.release_lease(unit, lease)

    def _message(self, row: delivery.CommandRow, lease: Lease) -> market_link_pb2.Command:
        """The command of a row."""
        if row.stop_reason is not None:
            return convert.stop_command(row.command_id, lease, row.stop_reason)
        grant = self._signer.grant(_workload_claims(lease), GRANT_LIFETIME_SECONDS)
        return convert.run_command(row.command_id, lease, grant, self._order_address, self._policy.start_timeout_ms)


def grant_claims(lease: Lease, subject: str, rights: Sequence[str]) -> GrantClaims:
    """What a grant on a lease's generation says."""
    return GrantClaims(
        subject=subject,
        order=f"orders/{lease.key.order_id}",
        group=lease.key.group,
        generation=lease.key.generation,
        lease=f"leases/{lease.lease_id}",
        provider=f"providers/{lease.provider_id}",
        rights=frozenset(rights),
        revision=lease.group_revision,
    )


def _workload_claims(lease: Lease) -> GrantClaims:
    """The provider's permission to fetch the workload of the generation that it is to run."""
    return grant_claims(lease, f"providers/{lease.provider_id}", ["workload.read"])
