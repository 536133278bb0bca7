"""What the platform gives, as a client sees it: incentive programmes, promotional fees, grants from the community pool."""

from collections.abc import Callable, Iterable
from typing import Any

from fallow.settlement.v1 import programme_service_pb2 as messages
from fallow.settlement.v1 import programme_service_pb2_grpc as doors
from fallow_sdk.request_ids import new_request_id


class GivingCalls:
    """The calls; a part of ``Client``, which makes them."""

    _programmes: "doors.ProgrammeServiceAsyncStub"
    _call: Callable[[Any, Any], Any]
    _list: Callable[[Any, Any, Callable[[Any], Iterable[Any]]], Any]

    async def list_programmes(self) -> list[messages.Programme]:
        """All programmes, newest first."""
        request = messages.ListProgrammesRequest()
        found: list[messages.Programme] = await self._list(
            self._programmes.ListProgrammes, request, lambda page: page.programmes
        )
        return found

    async def programme_report(self, programme: str) -> list[messages.ProgrammeShare]:
        """What the programme `programmes/{programme}` counted and paid, newest day first."""
        request = messages.ListProgrammeSharesRequest(parent=programme)
        found: list[messages.ProgrammeShare] = await self._list(
            self._programmes.ListProgrammeShares, request, lambda page: page.programme_shares
        )
        return found

    async def create_programme(
        self, programme: messages.Programme, *, request_id: str | None = None
    ) -> messages.Programme:
        """Start a programme. FallowError POOL_TOO_SMALL where the community pool lacks the budget."""
        request = messages.CreateProgrammeRequest(programme=programme, request_id=request_id or new_request_id())
        made: messages.Programme = await self._call(self._programmes.CreateProgramme, request)
        return made

    async def end_programme(self, programme: str) -> messages.Programme:
        """End the programme `programmes/{programme}` now."""
        request = messages.EndProgrammeRequest(name=programme)
        ended: messages.Programme = await self._call(self._programmes.EndProgramme, request)
        return ended

    async def list_promotions(self) -> list[messages.Promotion]:
        """Promotional fees, newest first: an operator's of all accounts, everybody else's own."""
        request = messages.ListPromotionsRequest()
        found: list[messages.Promotion] = await self._list(
            self._programmes.ListPromotions, request, lambda page: page.promotions
        )
        return found

    async def create_promotion(
        self, promotion: messages.Promotion, *, request_id: str | None = None
    ) -> messages.Promotion:
        """Set another take for an account's leases of a time."""
        request = messages.CreatePromotionRequest(promotion=promotion, request_id=request_id or new_request_id())
        made: messages.Promotion = await self._call(self._programmes.CreatePromotion, request)
        return made

    async def end_promotion(self, promotion: str) -> messages.Promotion:
        """End the promotion `promotions/{promotion}` for leases that are made from now on."""
        request = messages.EndPromotionRequest(name=promotion)
        ended: messages.Promotion = await self._call(self._programmes.EndPromotion, request)
        return ended

    async def list_grants(self) -> list[messages.CommunityGrant]:
        """Grants from the community pool, newest first."""
        request = messages.ListCommunityGrantsRequest()
        found: list[messages.CommunityGrant] = await self._list(
            self._programmes.ListCommunityGrants, request, lambda page: page.community_grants
        )
        return found

    async def propose_grant(
        self, grant: messages.CommunityGrant, *, request_id: str | None = None
    ) -> messages.CommunityGrant:
        """Propose a grant; two operators' approvals pay it."""
        request = messages.ProposeCommunityGrantRequest(
            community_grant=grant, request_id=request_id or new_request_id()
        )
        made: messages.CommunityGrant = await self._call(self._programmes.ProposeCommunityGrant, request)
        return made

    async def approve_grant(self, grant: str) -> messages.CommunityGrant:
        """Approve the grant `communityGrants/{grant}`. FallowError OWN_GRANT, GRANT_NOT_OPEN, POOL_TOO_SMALL."""
        request = messages.ApproveCommunityGrantRequest(name=grant)
        approved: messages.CommunityGrant = await self._call(self._programmes.ApproveCommunityGrant, request)
        return approved
