"""The door of programmes, promotions and grants: who may call what, what bad input is told, lists by pages, the client's calls."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import pytest

from fallow.settlement.v1 import programme_service_pb2 as messages
from fallow.settlement.v1 import programme_service_pb2_grpc as doors
from fallow.type.v1 import money_pb2
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.testing import ServedService, TestIdentity, serving
from fallow_chassis.wire import to_timestamp
from fallow_sdk.client import Client, Endpoints
from fallow_sdk.commands.giving import grants_table, programmes_table, promotions_table, shares_csv, shares_table
from fallow_settlement.grants import Grants
from fallow_settlement.programmes import Programmes
from fallow_settlement.promotions import Promotions
from fallow_settlement.rpc_programmes import ProgrammeServicer
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market
from tests.component.settlement.test_programmes import ANNA, AUDITOR, BERT, CARL, fill_pool, online, settle

PACKAGE: Final = "fallow.settlement.v1"
WRITE: Final = "programmes.write"


@pytest.fixture
async def address(market: Market, identity: TestIdentity) -> AsyncIterator[str]:
    """The service."""
    servicer = ProgrammeServicer(
        Programmes(market.database, RULES), Promotions(market.database, RULES), Grants(market.database, RULES)
    )
    served = ServedService(doors.add_ProgrammeServiceServicer_to_server, servicer, f"{PACKAGE}.ProgrammeService")
    async with serving(served, verifier=identity.verifier) as bound:
        yield bound


@asynccontextmanager
async def stub(
    address: str, identity: TestIdentity, account: str, *scopes: str
) -> "AsyncIterator[doors.ProgrammeServiceAsyncStub]":
    """A signed-in account."""
    async with channel(address, identity.as_account(f"accounts/{account}", scopes)) as opened:
        yield doors.ProgrammeServiceStub(opened)


def programme(market: Market, **changes: Any) -> messages.CreateProgrammeRequest:
    """A good programme, but for changes."""
    fields: dict[str, Any] = {
        "model": "h100",
        "reference_price": money_pb2.Price(asset=ASSET, micros_per_hour=2_000_000),
        "budget": money_pb2.Amount(asset=ASSET, micros=1_000_000),
        "end_time": to_timestamp(market.clock.now() + timedelta(days=2)),
        "auditors": [AUDITOR.upper().replace("X", "x")],
    }
    wanted = messages.Programme(**{name: value for name, value in {**fields, **changes}.items() if value is not None})
    return messages.CreateProgrammeRequest(programme=wanted, request_id="one")


BAD: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"model": ""}, "INVALID_FIELD", "programme.model"),
    ({"end_time": None}, "INVALID_FIELD", "programme.end_time"),
    ({"auditors": []}, "INVALID_FIELD", "programme.auditors"),
    ({"auditors": ["somebody"]}, "INVALID_FIELD", "programme.auditors[0]"),
    ({"target_utilisation_milli": 1_001}, "INVALID_FIELD", "programme.target_utilisation_milli"),
    ({"budget": money_pb2.Amount(asset=ASSET, micros=0)}, "AMOUNT_INVALID", "programme.budget.micros"),
    ({"budget": money_pb2.Amount(asset=ASSET, micros=-5)}, "AMOUNT_INVALID", "programme.budget.micros"),
    ({"budget": money_pb2.Amount(asset=ASSET, micros=2**63 - 1)}, "AMOUNT_INVALID", "programme.budget.micros"),
    ({"budget": money_pb2.Amount(asset="doge", micros=5)}, "INVALID_FIELD", "programme.reference_price.asset"),
    (
        {"reference_price": money_pb2.Price(asset=ASSET, micros_per_hour=0)},
        "AMOUNT_INVALID",
        "programme.reference_price.micros_per_hour",
    ),
]


@pytest.mark.parametrize(("changes", "reason", "field"), BAD)
async def test_a_bad_programme_is_refused_with_its_path(
    market: Market, address: str, identity: TestIdentity, changes: dict[str, Any], reason: str, field: str
) -> None:
    """Goal: a clear error, and nothing stored. Method: one field a row."""
    await fill_pool(market, 10_000_000)
    async with stub(address, identity, ANNA, WRITE) as operator:
        with pytest.raises(RemoteError) as refused:
            await operator.CreateProgramme(programme(market, **changes))
        assert refused.value.reason.reason == reason
        assert [item.field for item in refused.value.violations] == [field]
        assert not (await operator.ListProgrammes(messages.ListProgrammesRequest())).programmes


async def test_operators_alone_give(market: Market, address: str, identity: TestIdentity) -> None:
    """Goal: what gives money away needs the scope. Method: an account with every other right calls each of them."""
    async with stub(address, identity, TENANT, "funds.write", "funds.read", "ledger.write") as tenant:
        calls: list[Awaitable[Any]] = [
            tenant.CreateProgramme(programme(market)),
            tenant.EndProgramme(messages.EndProgrammeRequest(name="programmes/x")),
            tenant.CreatePromotion(messages.CreatePromotionRequest(request_id="one")),
            tenant.EndPromotion(messages.EndPromotionRequest(name="promotions/x")),
            tenant.ProposeCommunityGrant(messages.ProposeCommunityGrantRequest(request_id="one")),
            tenant.ApproveCommunityGrant(messages.ApproveCommunityGrantRequest(name="communityGrants/x")),
        ]
        reasons = []
        for call in calls:
            with pytest.raises(RemoteError) as refused:
                await call
            reasons.append(refused.value.reason.reason)
    assert set(reasons) == {"PERMISSION_DENIED"}


async def test_unknown_names_are_told_apart(address: str, identity: TestIdentity) -> None:
    """Goal: NOT_FOUND with a reason of each kind; malformed names with their field. Method: call each with a name of nothing."""
    async with stub(address, identity, ANNA, WRITE) as operator:
        calls: list[tuple[Awaitable[Any], str]] = [
            (operator.GetProgramme(messages.GetProgrammeRequest(name="programmes/x")), "PROGRAMME_NOT_FOUND"),
            (operator.EndProgramme(messages.EndProgrammeRequest(name="programmes/x")), "PROGRAMME_NOT_FOUND"),
            (
                operator.ListProgrammeShares(messages.ListProgrammeSharesRequest(parent="programmes/x")),
                "PROGRAMME_NOT_FOUND",
            ),
            (operator.EndPromotion(messages.EndPromotionRequest(name="promotions/x")), "PROMOTION_NOT_FOUND"),
            (
                operator.GetCommunityGrant(messages.GetCommunityGrantRequest(name="communityGrants/x")),
                "GRANT_NOT_FOUND",
            ),
            (operator.GetCommunityGrant(messages.GetCommunityGrantRequest(name="grants/x")), "INVALID_FIELD"),
        ]
        for call, reason in calls:
            with pytest.raises(RemoteError) as refused:
                await call
            assert refused.value.reason.reason == reason


async def test_the_way_of_a_programme_and_a_grant_by_the_client(
    market: Market, address: str, identity: TestIdentity
) -> None:
    """Goal: what the command line does works against the service. Method: start, pay, report, grant, promote, by the client."""
    await fill_pool(market, 100_000_000)
    endpoints = Endpoints(order=address, bidding=address, settlement=address)

    def client(account: str, *scopes: str) -> Client:
        return Client(endpoints, token=identity.account_token(f"accounts/{account}", scopes))

    async with (
        client(ANNA, WRITE, "funds.read") as anna,
        client(BERT, WRITE) as bert,
        client(TENANT, "funds.read") as tenant,
    ):
        made = await anna.create_programme(programme(market).programme, request_id="one")
        assert await anna.create_programme(programme(market).programme, request_id="one") == made
        assert (made.target_utilisation_milli, list(made.auditors)) == (950, [AUDITOR])
        market.clock.advance(seconds=3_600)
        await online(market, 2)
        await settle(market, days=3)
        (ended,) = await tenant.list_programmes()
        assert ended.state == messages.PROGRAMME_STATE_ENDED
        assert ended.paid.micros == 1_000_000
        shares = await tenant.programme_report(made.name)
        paid = [share for share in shares if share.paid.micros]
        assert [(share.account, share.paid.micros, share.short.micros) for share in paid] == [
            (f"accounts/{OWNER}", 1_000_000, 2_800_000)
        ]
        assert len(shares_csv(shares).splitlines()) == len(shares) + 1
        grant = messages.CommunityGrant(
            account=f"accounts/{CARL}", amount=money_pb2.Amount(asset=ASSET, micros=7), reason="a library"
        )
        proposed = await anna.propose_grant(grant)
        await anna.approve_grant(proposed.name)
        granted = await bert.approve_grant(proposed.name)
        assert granted.state == messages.COMMUNITY_GRANT_STATE_PAID
        assert await tenant.list_grants() == [granted]
        promised = await anna.create_promotion(
            messages.Promotion(
                account=f"accounts/{CARL}",
                asset=ASSET,
                take_basis_points=0,
                reason="launch",
                end_time=to_timestamp(market.clock.now() + timedelta(days=1)),
            )
        )
        assert await anna.list_promotions() == [promised]
        assert await tenant.list_promotions() == []
        assert (await anna.end_promotion(promised.name)).end_time.ToSeconds() == promised.start_time.ToSeconds()
        for table in (
            programmes_table([ended]),
            shares_table(shares),
            grants_table([granted]),
            promotions_table([promised]),
        ):
            assert table.row_count


async def test_lists_go_on_by_pages(market: Market, address: str, identity: TestIdentity) -> None:
    """Goal: nothing left out, nothing twice; a token that is none is told. Method: three programmes by pages of one, and a broken token."""
    await fill_pool(market, 10_000_000)
    async with stub(address, identity, ANNA, WRITE) as operator:
        made = []
        for number in range(3):
            request = programme(market)
            request.request_id = f"number {number}"
            made.append((await operator.CreateProgramme(request)).name)
            market.clock.advance(seconds=1)
        found, token = [], ""
        for _ in made:
            page = await operator.ListProgrammes(messages.ListProgrammesRequest(page_size=1, page_token=token))
            found += [one.name for one in page.programmes]
            token = page.next_page_token
        assert (found, token) == (made[::-1], "")
        with pytest.raises(RemoteError) as refused:
            await operator.ListProgrammeShares(
                messages.ListProgrammeSharesRequest(parent=made[0], page_token="nonsense")
            )
        assert refused.value.reason.reason == "PAGE_TOKEN_INVALID"
