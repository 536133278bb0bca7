"""Programmes, promotions and grants on a database: what is counted, paid, approved, and what a repeat or a second process does."""

import asyncio
from datetime import timedelta
from typing import Final

import asyncpg
import pytest

from fallow.bidding.v1 import events_pb2
from fallow.bidding.v1 import lease_pb2 as bidding_lease_pb2
from fallow.settlement.v1 import programme_service_pb2 as messages
from fallow_chassis.errors import DomainError
from fallow_chassis.wire import to_duration, to_timestamp
from fallow_settlement import metering_store, programme_store, withdrawal_store
from fallow_settlement.adjusting import Adjusting
from fallow_settlement.domain.grant import GrantState
from fallow_settlement.domain.ledger import AccountKind, Result, Transfer, TransferReason, account_id, new_account
from fallow_settlement.domain.programme import SETTLED_AFTER, Programme, Share
from fallow_settlement.grants import Grants, Proposal
from fallow_settlement.ledger_store import load_accounts, must_post
from fallow_settlement.programmes import Programmes
from fallow_settlement.programmes import Wish as ProgrammeWish
from fallow_settlement.promotions import Promotions
from fallow_settlement.promotions import Wish as PromotionWish
from fallow_settlement.withdrawal_store import Withdrawal
from tests.component.settlement.market import ASSET, OWNER, PROVIDER, RULES, TENANT, Market, identifier

ANNA: Final = identifier(71)
BERT: Final = identifier(72)
CARL: Final = identifier(73)
AUDITOR: Final = "0x" + "ab" * 20
OTHER_AUDITOR: Final = "0x" + "cd" * 20
PAYEE: Final = "0x" + "11" * 20
HOUR_MS: Final = 3_600_000
REFERENCE: Final = 2_000_000
ORDER: Final = identifier(81)
LEASE: Final = identifier(82)


async def fill_pool(market: Market, micros: int) -> None:
    """Money in the pool, as charges bring it."""
    pool, vault = new_account(AccountKind.POOL, "", ASSET), new_account(AccountKind.VAULT, "", ASSET)
    move = Transfer(f"fill-{micros}", vault.id, pool.id, ASSET, micros, TransferReason.POOL, "test")
    async with market.database.transaction() as unit:
        await must_post(unit.connection, [pool, vault], [move], market.clock.now())


async def free(market: Market, kind: AccountKind, owner: str) -> int:
    """What an account has."""
    name = account_id(kind, owner, ASSET)
    async with market.database.read() as connection:
        found = await load_accounts(connection, [name])
    return found[name].available if name in found else 0


async def start(market: Market, *, budget: int = 500_000_000, days: int = 3, request: str = "one") -> Programme:
    """A programme for h100."""
    wish = ProgrammeWish(
        model="h100",
        asset=ASSET,
        target_milli=950,
        reference_micros_per_hour=REFERENCE,
        budget=budget,
        auditors=(AUDITOR,),
        end_time=market.clock.now() + timedelta(days=days),
    )
    message = messages.CreateProgrammeRequest(request_id=request)
    return await Programmes(market.database, RULES).create(wish, ANNA, request_id=request, request=message)


async def online(
    market: Market, hours: int, *, auditor: str = AUDITOR, ask: int = REFERENCE, model: str = "h100", devices: int = 1
) -> None:
    """Hours that bidding tells of, from now on; the clock stands at their end."""
    for _ in range(hours):
        begin = market.clock.now().replace(minute=0, second=0, microsecond=0)
        message = events_pb2.OnlineTimeCounted(
            provider=f"providers/{PROVIDER}",
            account=f"accounts/{OWNER}",
            model=model,
            asset=ASSET,
            ask_micros_per_hour=ask,
            start_time=to_timestamp(begin),
            online_duration=to_duration(devices * HOUR_MS),
            audited=[
                events_pb2.OnlineTimeCounted.AuditedTime(
                    auditor=auditor, online_duration=to_duration(devices * HOUR_MS)
                )
            ],
        )
        # Each comes twice, as any message may.
        await market.state(message)
        await market.state(message)
        market.clock.advance(seconds=3_600)


async def settle(market: Market, days: int = 1) -> list[Share]:
    """Let days pass, pay, and return the report of the newest programme, newest day first."""
    market.clock.advance(seconds=int(timedelta(days=days).total_seconds() + SETTLED_AFTER.total_seconds()))
    programmes = Programmes(market.database, RULES)
    await programmes.pay_due()
    assert await programmes.pay_due() == 0, "a repeat pays nothing"
    (newest, *_) = await programmes.list_all(None, 1)
    _, found = await programmes.report(newest.id, None, 1_000)
    return found


async def test_idle_devices_are_paid_the_reference_rate_and_the_rest_returns(market: Market) -> None:
    """Goal: budget, gap, end. Method: two devices idle for three hours; a repeat of the start; three days; the pool before and after."""
    await fill_pool(market, 1_000_000_000)
    programme = await start(market)
    assert await start(market) == programme
    assert await free(market, AccountKind.POOL, "") == 500_000_000
    market.clock.advance(seconds=3_600)
    await online(market, 3, devices=2)
    found = await settle(market, days=4)
    due = 6 * REFERENCE * 950 // 1_000
    assert [share.paid for share in found if share.paid] == [due]
    assert {share.due for share in found} == {due}
    assert await free(market, AccountKind.EARNINGS, OWNER) == due
    assert await free(market, AccountKind.PROGRAMME, programme.id) == 0
    assert await free(market, AccountKind.POOL, "") == 1_000_000_000 - due
    closed = await Programmes(market.database, RULES).get(programme.id)
    assert closed.close_time is not None
    assert closed.paid == due


@pytest.mark.parametrize(
    ("why", "hours"),
    [
        ("another auditor's word", {"auditor": OTHER_AUDITOR}),
        ("dearer than the reference rate", {"ask": REFERENCE + 1}),
        ("another model", {"model": "a100"}),
    ],
)
async def test_what_is_not_verified_is_not_paid(market: Market, why: str, hours: dict[str, object]) -> None:
    """Goal: no pay for what nobody whom the programme trusts vouches for, nor for what is priced never to be leased. Method: a row each."""
    await fill_pool(market, 1_000_000_000)
    await start(market)
    market.clock.advance(seconds=3_600)
    await online(market, 2, **hours)  # type: ignore[arg-type]
    found = await settle(market, days=4)
    assert sum(share.paid for share in found) == 0, why


async def leased(market: Market, seconds: int, price: int) -> None:
    """A lease of one h100 that runs for some seconds and is charged."""
    await market.fund(TENANT, 100_000_000)
    await market.open(ORDER, 50_000_000)
    created = market.lease_created(ORDER, LEASE, price=price)
    created.lease.placements.add(
        service="s",
        node_id="n",
        model="h100",
        devices=[bidding_lease_pb2.DeviceShare(node_id="n", device_id="d", milli=1_000)],
    )
    await market.state(created, market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, seconds)
    await market.charging.charge_due()


async def close_early(market: Market) -> None:
    """The tenant closes its reserved order: ten seconds are owed beyond what ran."""
    ended = market.lease_ended(ORDER, LEASE, market.clock.now())
    ended.early_close.CopyFrom(to_duration(10_000))
    await market.state(ended, market.order_ended(ORDER))
    market.clock.advance(seconds=60)
    await market.charging.close_ended()


async def test_what_devices_earn_is_taken_off(market: Market) -> None:
    """Goal: the gap alone is paid. Method: an hour online of which half a minute is leased to a stranger, who closed a
    reserved term early: what that owes is earned too.
    """
    await fill_pool(market, 1_000_000_000)
    await start(market)
    market.clock.advance(seconds=3_600)
    await leased(market, 30, price=60_000_000)
    ran = await free(market, AccountKind.EARNINGS, OWNER)
    await close_early(market)
    earned = await free(market, AccountKind.EARNINGS, OWNER)
    assert earned > ran > 0
    await online(market, 1)
    found = await settle(market, days=4)
    assert found[0].sums.earned == earned
    assert found[0].due == REFERENCE * 950 // 1_000 - earned
    assert await free(market, AccountKind.EARNINGS, OWNER) == earned + found[0].due


async def test_time_leased_to_a_related_account_is_not_online(market: Market) -> None:
    """Goal: nobody is paid for leasing to himself. Method: tenant and owner are paid at one address; what a term
    that was closed early owes is no time leased.
    """
    await fill_pool(market, 1_000_000_000)
    await start(market)
    market.clock.advance(seconds=3_600)
    await leased(market, 30, price=60_000_000)
    await close_early(market)
    async with market.database.transaction() as unit:
        for number, account in enumerate((TENANT, OWNER)):
            withdrawal = Withdrawal(identifier(90 + number), account, ASSET, 1, PAYEE, market.clock.now())
            await withdrawal_store.insert_withdrawal(unit.connection, withdrawal)
    await online(market, 1)
    found = await settle(market, days=4)
    assert (found[0].sums.earned, found[0].sums.related_ms) == (0, 30_000)
    assert found[0].due == REFERENCE * 950 * (HOUR_MS - 30_000) // 1_000 // HOUR_MS


async def test_two_processes_pay_a_day_once_and_an_early_end_pays_what_is_due(market: Market) -> None:
    """Goal: no day twice. Method: end a programme, then four payers at once on a day that is settled."""
    await fill_pool(market, 1_000_000_000)
    programme = await start(market, days=30)
    market.clock.advance(seconds=3_600)
    await online(market, 2)
    ended = await Programmes(market.database, RULES).end(programme.id)
    assert await Programmes(market.database, RULES).end(programme.id) == ended
    await online(market, 2)
    market.clock.advance(seconds=int(SETTLED_AFTER.total_seconds()) + 86_400)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(Programmes(market.database, RULES).pay_due())
    assert await free(market, AccountKind.EARNINGS, OWNER) == 2 * REFERENCE * 950 // 1_000
    assert await free(market, AccountKind.PROGRAMME, programme.id) == 0


async def test_a_budget_that_the_pool_lacks_is_refused(market: Market) -> None:
    """Goal: nothing is promised that is not there. Method: a programme and a grant of more than the pool holds."""
    await fill_pool(market, 100)
    with pytest.raises(DomainError) as refused:
        await start(market, budget=101)
    assert refused.value.reason.reason == "POOL_TOO_SMALL"
    assert refused.value.metadata["held_micros"] == "100"
    assert await Programmes(market.database, RULES).list_all(None, 10) == []


async def propose(market: Market, micros: int, account: str = CARL, request: str = "one") -> str:
    """A grant that Anna proposes."""
    proposal = Proposal(account, ASSET, micros, "for a library", None)
    message = messages.ProposeCommunityGrantRequest(request_id=request)
    made = await Grants(market.database, RULES).propose(proposal, ANNA, request_id=request, request=message)
    return made.id


async def test_a_grant_is_paid_once_by_two_operators(market: Market) -> None:
    """Goal: two approvals, one payment. Method: propose twice, approve by one operator twice, by another four times at once."""
    await fill_pool(market, 1_000)
    grants = Grants(market.database, RULES)
    grant = await propose(market, 400)
    assert await propose(market, 400) == grant
    for _ in range(2):
        once = await grants.approve(grant, ANNA)
        assert (once.approvers, once.state(market.clock.now())) == ((ANNA,), GrantState.PROPOSED)
    assert await free(market, AccountKind.BALANCE, CARL) == 0
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(grants.approve(grant, BERT))
    assert (await grants.get(grant)).state(market.clock.now()) is GrantState.PAID
    assert await free(market, AccountKind.BALANCE, CARL) == 400
    assert await free(market, AccountKind.POOL, "") == 600


async def test_a_grant_that_the_pool_cannot_pay_stays_open(market: Market) -> None:
    """Goal: an approval that pays nothing does not count. Method: the second approval on a pool that is too small, then on a full one."""
    await fill_pool(market, 100)
    grants = Grants(market.database, RULES)
    grant = await propose(market, 400)
    await grants.approve(grant, ANNA)
    with pytest.raises(DomainError, match="holds 100"):
        await grants.approve(grant, BERT)
    assert (await grants.get(grant)).approvers == (ANNA,)
    await fill_pool(market, 300)
    assert len((await grants.approve(grant, BERT)).approvers) == 2
    assert await free(market, AccountKind.BALANCE, CARL) == 400


async def test_who_gets_a_grant_does_not_approve_it_and_its_time_ends(market: Market) -> None:
    """Goal: the refusals. Method: the owner's approval, one after the time, one of nothing."""
    await fill_pool(market, 1_000)
    grants = Grants(market.database, RULES)
    grant = await propose(market, 400, account=BERT)
    with pytest.raises(DomainError) as own:
        await grants.approve(grant, BERT)
    market.clock.advance(seconds=31 * 86_400)
    with pytest.raises(DomainError) as late:
        await grants.approve(grant, ANNA)
    with pytest.raises(DomainError) as nothing:
        await grants.approve(identifier(99), ANNA)
    reasons = [error.value.reason.reason for error in (own, late, nothing)]
    assert reasons == ["OWN_GRANT", "GRANT_NOT_OPEN", "GRANT_NOT_FOUND"]
    assert (await grants.get(grant)).state(market.clock.now()) is GrantState.EXPIRED


async def test_the_database_pays_no_grant_by_one_approval(market: Market) -> None:
    """Goal: the rule holds for whoever writes. Method: mark a grant as paid by hand, with one approval and with an own one."""
    await fill_pool(market, 1_000)
    grant = await propose(market, 400, account=BERT)
    await Grants(market.database, RULES).approve(grant, ANNA)
    for sql in (
        "UPDATE community_grant SET pay_time = create_time",
        (
            "WITH own AS (INSERT INTO grant_approval VALUES ($1, $2, now()) RETURNING 1)"
            " UPDATE community_grant SET pay_time = create_time"
        ),
        "UPDATE community_grant SET amount = 1",
        "DELETE FROM grant_approval",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            async with market.database.transaction() as unit:
                await unit.connection.execute(sql, *((grant, BERT) if "$1" in sql else ()))


async def test_a_promotion_holds_for_the_leases_of_its_time(market: Market) -> None:
    """Goal: a lease keeps the take of its making; the least counts. Method: leases before, within and after; of the tenant, of the owner."""
    promotions = Promotions(market.database, RULES)
    now = market.clock.now()
    await market.fund(TENANT, 100_000_000)

    async def take(number: int) -> int:
        order, lease = identifier(200 + number), identifier(300 + number)
        await market.open(order, 1_000_000)
        await market.state(market.lease_created(order, lease, price=1_000))
        async with market.database.transaction() as unit:
            return (await metering_store.lock_meterings(unit.connection, [lease]))[lease].rates.take

    async def promise(account: str, points: int, name: str) -> str:
        wish = PromotionWish(account, ASSET, points, now + timedelta(hours=1), now + timedelta(hours=2), "launch")
        message = messages.CreatePromotionRequest(request_id=name)
        made = await promotions.create(wish, ANNA, request_id=name, request=message)
        assert await promotions.create(wish, ANNA, request_id=name, request=message) == made
        return made.id

    assert await take(1) == 2_000
    await promise(TENANT, 500, "tenant")
    owners = await promise(OWNER, 100, "owner")
    await promise(CARL, 0, "stranger")
    assert await take(2) == 2_000
    market.clock.advance(seconds=3_700)
    assert await take(3) == 100
    await promotions.end(owners)
    assert await take(4) == 500
    market.clock.advance(seconds=3_600)
    assert await take(5) == 2_000
    assert len(await promotions.list_of(TENANT, None, 10)) == 1
    with pytest.raises(DomainError, match="after the start"):
        wish = PromotionWish(TENANT, ASSET, 1, None, market.clock.now(), "never")
        await promotions.create(wish, ANNA, request_id="never", request=messages.CreatePromotionRequest())


async def test_an_operator_does_not_move_the_pool_by_hand(market: Market) -> None:
    """Goal: no way around two approvals. Method: an own transfer out of the pool, into a programme, and into the pool."""
    await market.fund(TENANT, 1_000)
    pool, fees = account_id(AccountKind.POOL, "", ASSET), account_id(AccountKind.FEES, "", ASSET)
    programme = account_id(AccountKind.PROGRAMME, identifier(1), ASSET)
    adjusting = Adjusting(market.database, RULES)
    for debit, credit, field in ((pool, fees, "debit_account"), (fees, programme, "credit_account")):
        with pytest.raises(DomainError) as refused:
            await adjusting.post([Transfer("own-1", debit, credit, ASSET, 1, TransferReason.ADJUSTMENT, "s")])
        assert refused.value.violations[0].field == f"transfers[0].{field}"
    balance = account_id(AccountKind.BALANCE, TENANT, ASSET)
    (given,) = await adjusting.post([Transfer("own-2", balance, pool, ASSET, 7, TransferReason.ADJUSTMENT, "s")])
    assert given is Result.OK, "a pool that nothing filled yet is given to"
    assert await free(market, AccountKind.POOL, "") == 7


async def test_hours_of_nobody_are_not_kept(market: Market) -> None:
    """Goal: rows for what can count alone. Method: an hour that no auditor vouches for."""
    message = events_pb2.OnlineTimeCounted(
        provider=f"providers/{PROVIDER}",
        account=f"accounts/{OWNER}",
        model="h100",
        asset=ASSET,
        start_time=to_timestamp(market.clock.now()),
        online_duration=to_duration(HOUR_MS),
    )
    await market.state(message)
    async with market.database.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM online_time") == 0
        assert await programme_store.list_running(connection) == []
