"""Grants from the community pool as they are done: proposed, approved by two operators, paid once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.idempotency import claim
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection, Database
from fallow_settlement import programme_store
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import check_amount
from fallow_settlement.domain.grant import APPROVALS, LONGEST_WAIT, USUAL_WAIT, Grant, GrantState
from fallow_settlement.domain.reasons import GRANT_NOT_FOUND, GRANT_NOT_OPEN, OWN_GRANT
from fallow_settlement.domain.rules import Rules
from fallow_settlement.ledger_store import must_post
from fallow_settlement.programmes import check_pool

PROPOSE_METHOD: Final = "fallow.settlement.v1.ProgrammeService/ProposeCommunityGrant"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A grant as an operator asks for it; without ``expire_time`` it waits as long as is usual."""

    account_id: str
    asset: str
    amount: int
    reason: str
    expire_time: datetime | None


class Grants:
    """The use-cases."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where grants stand, and the assets that are taken."""
        self._database = database
        self._rules = rules

    def now(self) -> datetime:
        """The instant by which a grant that nobody approved is over."""
        return self._database.clock.now()

    async def propose(self, proposal: Proposal, creator: str, *, request_id: str, request: Message) -> Grant:
        """Propose a grant; a repeat answers the grant of the first call."""
        self._rules.check_asset(proposal.asset, "community_grant.amount.asset")
        check_amount(proposal.amount, "community_grant.amount.micros")
        async with self._database.transaction() as unit:
            identifier = unit.ids.new()
            taken = await claim(
                unit,
                caller=f"accounts/{creator}",
                method=PROPOSE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"communityGrants/{identifier}",
            )
            if not taken.first:
                return await _loaded(unit.connection, taken.resource.removeprefix("communityGrants/"))
            now = unit.clock.now()
            expire_time = proposal.expire_time or now + USUAL_WAIT
            if not now < expire_time <= now + LONGEST_WAIT:
                raise invalid_field(
                    "community_grant.expire_time", f"must be after now, and within {LONGEST_WAIT.days} days"
                )
            grant = Grant(
                id=identifier,
                account_id=proposal.account_id,
                asset=proposal.asset,
                amount=proposal.amount,
                reason=proposal.reason,
                creator=creator,
                create_time=now,
                expire_time=expire_time,
            )
            await programme_store.insert_grant(unit.connection, grant)
            return grant

    async def approve(self, grant_id: str, operator: str) -> Grant:
        """Approve a grant as an operator; the approval that completes them pays it, and counts only if that is possible."""
        async with self._database.transaction() as unit:
            grant = await _loaded(unit.connection, grant_id, lock=True)
            now = unit.clock.now()
            if operator in grant.approvers:
                return grant
            if grant.account_id == operator:
                raise DomainError(OWN_GRANT, "nobody approves a grant that he gets", metadata={"grant": grant_id})
            if grant.state(now) is not GrantState.PROPOSED:
                state = grant.state(now).value
                raise DomainError(GRANT_NOT_OPEN, f"the grant is {state}", metadata={"grant": grant_id, "state": state})
            await programme_store.approve_grant(unit.connection, grant_id, operator, now)
            if len(grant.approvers) + 1 >= APPROVALS:
                await check_pool(unit, grant.asset, grant.amount)
                move = moves.granted(grant)
                await must_post(unit.connection, move.accounts, move.transfers, now)
                await programme_store.pay_grant(unit.connection, grant_id, now)
            return await _loaded(unit.connection, grant_id)

    async def get(self, grant_id: str) -> Grant:
        """A grant; GRANT_NOT_FOUND for none."""
        async with self._database.read() as connection:
            return await _loaded(connection, grant_id)

    async def list_all(self, before: TimePlace | None, limit: int) -> list[Grant]:
        """Grants, newest first."""
        async with self._database.read() as connection:
            return await programme_store.list_grants(connection, before, limit)


async def _loaded(connection: Connection, grant_id: str, *, lock: bool = False) -> Grant:
    """A grant that must be there."""
    grant = await programme_store.load_grant(connection, grant_id, lock=lock)
    if grant is None:
        raise DomainError(GRANT_NOT_FOUND, "there is no such grant", metadata={"grant": grant_id})
    return grant
