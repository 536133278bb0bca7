"""The gRPC door of programmes, promotions and grants, with the conversions between their domain and its messages."""

from datetime import date
from typing import Any, Final

from fallow.settlement.v1 import programme_service_pb2 as messages
from fallow.settlement.v1 import programme_service_pb2_grpc as doors
from fallow.type.v1 import money_pb2
from fallow_chassis.context import current_identity
from fallow_chassis.errors import invalid_field
from fallow_chassis.paging import Page
from fallow_chassis.wire import from_timestamp, resource_id, to_duration, to_timestamp
from fallow_settlement.convert import amount
from fallow_settlement.domain.grant import Grant
from fallow_settlement.domain.programme import DEFAULT_TARGET_MILLI, Programme, Share
from fallow_settlement.domain.promotion import Promotion
from fallow_settlement.grants import Grants, Proposal
from fallow_settlement.programmes import Programmes
from fallow_settlement.programmes import Wish as ProgrammeWish
from fallow_settlement.promotions import Promotions
from fallow_settlement.promotions import Wish as PromotionWish
from fallow_settlement.rpc import own_account

OPERATORS_SCOPE: Final = "programmes.write"
"""Who holds it sees what every account is promised."""
MAX_AUDITOR_CHARACTERS: Final = 128


class ProgrammeServicer(doors.ProgrammeServiceServicer):
    """What the platform gives."""

    def __init__(self, programmes: Programmes, promotions: Promotions, grants: Grants) -> None:
        """Take the use-cases."""
        self._programmes = programmes
        self._promotions = promotions
        self._grants = grants

    async def CreateProgramme(self, request: messages.CreateProgrammeRequest, context: Any) -> messages.Programme:
        """Start a programme."""
        made = await self._programmes.create(
            _programme_wish(request.programme), own_account(), request_id=request.request_id, request=request
        )
        return programme_message(made)

    async def GetProgramme(self, request: messages.GetProgrammeRequest, context: Any) -> messages.Programme:
        """Return a programme."""
        return programme_message(await self._programmes.get(resource_id(request.name, "programmes")))

    async def ListProgrammes(
        self, request: messages.ListProgrammesRequest, context: Any
    ) -> messages.ListProgrammesResponse:
        """List programmes."""
        page = Page(request)
        found = await self._programmes.list_all(page.after_time(), page.limit)
        shown, token = page.cut(found, lambda programme: (programme.create_time, programme.id))
        return messages.ListProgrammesResponse(programmes=map(programme_message, shown), next_page_token=token)

    async def EndProgramme(self, request: messages.EndProgrammeRequest, context: Any) -> messages.Programme:
        """End a programme."""
        return programme_message(await self._programmes.end(resource_id(request.name, "programmes")))

    async def ListProgrammeShares(
        self, request: messages.ListProgrammeSharesRequest, context: Any
    ) -> messages.ListProgrammeSharesResponse:
        """Report what a programme counted and paid."""
        programme_id = resource_id(request.parent, "programmes", field="parent")
        page = Page(request)
        programme, found = await self._programmes.report(programme_id, _after_share(page), page.limit)
        shown, token = page.cut(found, lambda share: f"{share.day} {share.sums.provider_id}")
        return messages.ListProgrammeSharesResponse(
            programme_shares=[share_message(programme, share) for share in shown], next_page_token=token
        )

    async def CreatePromotion(self, request: messages.CreatePromotionRequest, context: Any) -> messages.Promotion:
        """Set another take for an account's leases."""
        wanted = request.promotion
        if not wanted.HasField("end_time"):
            raise invalid_field("promotion.end_time", "must be set")
        wish = PromotionWish(
            account_id=resource_id(wanted.account, "accounts", field="promotion.account"),
            asset=wanted.asset,
            take_basis_points=wanted.take_basis_points,
            start_time=from_timestamp(wanted.start_time) if wanted.HasField("start_time") else None,
            end_time=from_timestamp(wanted.end_time),
            reason=wanted.reason,
        )
        made = await self._promotions.create(wish, own_account(), request_id=request.request_id, request=request)
        return promotion_message(made)

    async def EndPromotion(self, request: messages.EndPromotionRequest, context: Any) -> messages.Promotion:
        """End a promotion."""
        return promotion_message(await self._promotions.end(resource_id(request.name, "promotions")))

    async def ListPromotions(
        self, request: messages.ListPromotionsRequest, context: Any
    ) -> messages.ListPromotionsResponse:
        """List promotions."""
        account = "" if OPERATORS_SCOPE in current_identity().scopes else own_account()
        page = Page(request)
        found = await self._promotions.list_of(account, page.after_time(), page.limit)
        shown, token = page.cut(found, lambda promotion: (promotion.create_time, promotion.id))
        return messages.ListPromotionsResponse(promotions=map(promotion_message, shown), next_page_token=token)

    async def ProposeCommunityGrant(
        self, request: messages.ProposeCommunityGrantRequest, context: Any
    ) -> messages.CommunityGrant:
        """Propose a grant."""
        wanted = request.community_grant
        proposal = Proposal(
            account_id=resource_id(wanted.account, "accounts", field="community_grant.account"),
            asset=wanted.amount.asset,
            amount=wanted.amount.micros,
            reason=wanted.reason,
            expire_time=from_timestamp(wanted.expire_time) if wanted.HasField("expire_time") else None,
        )
        made = await self._grants.propose(proposal, own_account(), request_id=request.request_id, request=request)
        return self._grant_message(made)

    async def ApproveCommunityGrant(
        self, request: messages.ApproveCommunityGrantRequest, context: Any
    ) -> messages.CommunityGrant:
        """Approve a grant."""
        return self._grant_message(
            await self._grants.approve(resource_id(request.name, "communityGrants"), own_account())
        )

    async def GetCommunityGrant(
        self, request: messages.GetCommunityGrantRequest, context: Any
    ) -> messages.CommunityGrant:
        """Return a grant."""
        return self._grant_message(await self._grants.get(resource_id(request.name, "communityGrants")))

    async def ListCommunityGrants(
        self, request: messages.ListCommunityGrantsRequest, context: Any
    ) -> messages.ListCommunityGrantsResponse:
        """List grants."""
        page = Page(request)
        found = await self._grants.list_all(page.after_time(), page.limit)
        shown, token = page.cut(found, lambda grant: (grant.create_time, grant.id))
        return messages.ListCommunityGrantsResponse(
            community_grants=map(self._grant_message, shown), next_page_token=token
        )

    def _grant_message(self, grant: Grant) -> messages.CommunityGrant:
        """A grant as it stands now."""
        state = grant.state(self._grants.now()).value
        return messages.CommunityGrant(
            name=f"communityGrants/{grant.id}",
            account=f"accounts/{grant.account_id}",
            amount=amount(grant.asset, grant.amount),
            reason=grant.reason,
            expire_time=to_timestamp(grant.expire_time),
            state=messages.CommunityGrantState.Value(f"COMMUNITY_GRANT_STATE_{state}"),
            creator=f"accounts/{grant.creator}",
            approvers=[f"accounts/{approver}" for approver in grant.approvers],
            create_time=to_timestamp(grant.create_time),
        )


def programme_message(programme: Programme) -> messages.Programme:
    """A programme."""
    state = "RUNNING" if programme.close_time is None else "ENDED"
    return messages.Programme(
        name=f"programmes/{programme.id}",
        model=programme.model,
        target_utilisation_milli=programme.target_milli,
        reference_price=money_pb2.Price(asset=programme.asset, micros_per_hour=programme.reference_micros_per_hour),
        budget=amount(programme.asset, programme.budget),
        paid=amount(programme.asset, programme.paid),
        end_time=to_timestamp(programme.end_time),
        auditors=programme.auditors,
        state=messages.ProgrammeState.Value(f"PROGRAMME_STATE_{state}"),
        create_time=to_timestamp(programme.create_time),
        creator=f"accounts/{programme.creator}",
    )


def share_message(programme: Programme, share: Share) -> messages.ProgrammeShare:
    """A provider's payment of one day."""
    return messages.ProgrammeShare(
        day=share.day.isoformat(),
        provider=f"providers/{share.sums.provider_id}",
        account=f"accounts/{share.sums.account_id}",
        online_duration=to_duration(share.sums.online_ms),
        related_duration=to_duration(share.sums.related_ms),
        earned=amount(programme.asset, share.sums.earned),
        due=amount(programme.asset, share.due),
        paid=amount(programme.asset, share.paid),
        short=amount(programme.asset, share.short),
    )


def promotion_message(promotion: Promotion) -> messages.Promotion:
    """A promotion."""
    return messages.Promotion(
        name=f"promotions/{promotion.id}",
        account=f"accounts/{promotion.account_id}",
        asset=promotion.asset,
        take_basis_points=promotion.take_basis_points,
        start_time=to_timestamp(promotion.start_time),
        end_time=to_timestamp(promotion.end_time),
        reason=promotion.reason,
        create_time=to_timestamp(promotion.create_time),
        creator=f"accounts/{promotion.creator}",
    )


def _programme_wish(wanted: messages.Programme) -> ProgrammeWish:
    """A programme as an operator asks for it."""
    if wanted.reference_price.asset != wanted.budget.asset:
        raise invalid_field("programme.reference_price.asset", "must be the asset of the budget")
    if not wanted.HasField("end_time"):
        raise invalid_field("programme.end_time", "must be set")
    auditors = tuple(dict.fromkeys(auditor.lower() for auditor in wanted.auditors))
    if not auditors:
        raise invalid_field("programme.auditors", "must name who verifies devices")
    for index, auditor in enumerate(wanted.auditors):
        if not 0 < len(auditor) <= MAX_AUDITOR_CHARACTERS or not auditor.startswith(("0x", "0X", "ed25519:")):
            raise invalid_field(f"programme.auditors[{index}]", "must be an EVM address or ed25519: and a key")
    return ProgrammeWish(
        model=wanted.model,
        asset=wanted.budget.asset,
        target_milli=wanted.target_utilisation_milli or DEFAULT_TARGET_MILLI,
        reference_micros_per_hour=wanted.reference_price.micros_per_hour,
        budget=wanted.budget.micros,
        auditors=auditors,
        end_time=from_timestamp(wanted.end_time),
    )


def _after_share(page: Page) -> tuple[date, str] | None:
    """The place to start after in a report."""
    text = page.after_text()
    if not text:
        return None
    day, _, provider_id = text.partition(" ")
    try:
        return date.fromisoformat(day), provider_id
    except ValueError as error:
        raise invalid_field("page_token", "is not one of this list") from error
