"""What must be refused, with code, reason and field path, and nothing stored; and what a repeat gets."""

import asyncio
from typing import Any

import pytest
from google.protobuf import field_mask_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.order.v1 import (
    order_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from fallow.type.v1 import money_pb2
from fallow_chassis.clock import Clock
from fallow_chassis.errors import UNAVAILABLE, DomainError, ErrorReason, FieldViolation
from fallow_chassis.grpc_client import RemoteError
from fallow_chassis.testing import ManualClock
from fallow_chassis.wire import to_duration
from tests.component.order.conftest import SCOPES, House, new_name, small_order

TABLES = ("orders", "order_group", "order_transition", "workload", "idempotency", "outbox")
SDL = """\
version: "2.0"
services:
  web:
    image: exec:host
colour: red
profiles:
  compute: {web: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {here: {pricing: {web: {denom: uact, amount: 100}}}}
deployment: {web: {here: {profile: web, count: 1}}}
"""


async def assert_nothing_stored(house: House) -> None:
    """No table of orders has a row."""
    assert {table: await house.count(table) for table in TABLES} == dict.fromkeys(TABLES, 0)


def _order(**changes: Any) -> order_pb2.Order:
    order = small_order()
    order.MergeFrom(order_pb2.Order(**changes))
    return order


def _auction(window_ms: int, **changes: Any) -> order_pb2.Order:
    changes = {"match_mode": order_pb2.MATCH_MODE_AUCTION, **changes}
    return _order(auction_window=to_duration(window_ms), **changes)


def _with_group(change: Any) -> order_pb2.Order:
    order = small_order()
    change(order.groups[0])
    return order


@pytest.mark.parametrize(
    ("order", "code", "reason", "field"),
    [
        (order_pb2.Order(), "INVALID_ARGUMENT", "INVALID_FIELD", "order.groups"),
        (
            _with_group(lambda group: group.price_limit.CopyFrom(money_pb2.Price(asset="usdc", micros_per_hour=-5))),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "order.groups[0].price_limit.micros_per_hour",
        ),
        (small_order(micros=0), "INVALID_ARGUMENT", "INVALID_FIELD", "order.groups[0].price_limit"),
        (
            _with_group(lambda group: group.workload.containers.add().CopyFrom(group.workload.containers[0])),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "order.groups[0].workload.containers[1].service",
        ),
        (
            _with_group(lambda group: group.workload.containers[0].mounts.add(volume="data", path="/data")),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "order.groups[0].workload.containers[0].mounts[0].volume",
        ),
        (_order(labels={"": "x"}), "INVALID_ARGUMENT", "INVALID_FIELD", "order.labels"),
        (
            _order(terms=order_pb2.Terms(budget=money_pb2.Amount(asset="eurc", micros=1))),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "order.terms.budget.asset",
        ),
        (
            _order(terms=order_pb2.Terms(duration=to_duration(-1))),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "order.terms.duration",
        ),
        (_order(match_mode=order_pb2.MATCH_MODE_AUCTION), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_window"),
        (_auction(249), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_window"),
        (_auction(600_001), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_window"),
        (_auction(2_000, terms=order_pb2.Terms(match_timeout=to_duration(1_999))), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_window"),
        (_auction(2_000, match_mode=order_pb2.MATCH_MODE_MANUAL), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_window"),
        (_order(terms=order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED)), "INVALID_ARGUMENT", "INVALID_FIELD", "order.terms.duration"),
        (_order(auction_rule=order_pb2.AUCTION_RULE_FIRST_PRICE), "INVALID_ARGUMENT", "INVALID_FIELD", "order.auction_rule"),
    ],
)  # fmt: skip
async def test_a_bad_order_is_refused_and_nothing_is_stored(
    house: House, order: order_pb2.Order, code: str, reason: str, field: str
) -> None:
    """Goal: each mistake has its reason and path. Method: one bad order each, with money enough."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    with pytest.raises(RemoteError) as caught:
        await tenant.create(order=order)
    assert (caught.value.code, caught.value.reason.reason) == (code, reason)
    if field:
        assert field in [violation.field for violation in caught.value.violations]
    await assert_nothing_stored(house)
    assert house.settlement.opens == 0


async def test_an_unknown_field_of_an_sdl_file_is_refused_with_its_line(house: House) -> None:
    """Goal: the tenant finds the mistake. Method: a file with one unknown field, and the same without it."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    stub = await tenant.orders()
    with pytest.raises(RemoteError) as caught:
        await stub.CreateOrder(order_service_pb2.CreateOrderRequest(request_id="r", sdl=SDL))
    assert (caught.value.code, caught.value.reason.reason) == ("INVALID_ARGUMENT", "SDL_INVALID")
    assert caught.value.metadata == {"line": "5", "path": "colour"}
    assert [violation.field for violation in caught.value.violations] == ["sdl.colour"]
    await assert_nothing_stored(house)
    good = SDL.replace("colour: red\n", "")
    order = await stub.CreateOrder(
        order_service_pb2.CreateOrderRequest(request_id="r", sdl=good, labels={"from": "file"})
    )
    assert order.state == order_pb2.ORDER_STATE_OPEN
    assert dict(order.labels) == {"from": "file"}


async def test_an_unknown_field_of_the_message_is_refused(house: House) -> None:
    """Goal: nothing is half understood. Method: a field number of a later release, on the wire."""
    tenant = house.tenant()
    connection = await house.connect(house.identity.account_token(tenant.name, SCOPES))
    raw = order_service_pb2.CreateOrderRequest(request_id="r", order=small_order()).SerializeToString()
    call: Any = connection.unary_unary(
        "/fallow.order.v1.OrderService/CreateOrder", request_serializer=lambda value: value
    )
    with pytest.raises(RemoteError) as caught:
        await call(raw + b"\xfa\x3f\x01x")
    assert caught.value.reason.reason == "UNKNOWN_FIELD"
    await assert_nothing_stored(house)


async def test_too_little_money_says_how_much_is_short_and_a_repeat_after_a_deposit_works(house: House) -> None:
    """Goal: FAILED_PRECONDITION with the sum, nothing kept. Method: poor, poor again, then richer, by one request id."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 1_000_000
    for _ in range(2):
        with pytest.raises(RemoteError) as caught:
            await tenant.create()
        assert (caught.value.code, caught.value.reason.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_FUNDS")
        assert caught.value.metadata == {"short_micros": "2600000", "asset": "usdc"}
        await assert_nothing_stored(house)
    await house.jobs.release_escrows()
    assert await house.count("escrow_release") == 0
    house.settlement.free[tenant.name] = 5_000_000
    order = await tenant.create()
    assert order.state == order_pb2.ORDER_STATE_OPEN
    assert house.settlement.free[tenant.name] == 1_400_000


async def test_a_refusal_of_settlement_names_the_field_of_the_order(house: House) -> None:
    """Goal: field paths are those of the caller's request. Method: settlement refuses the asset in its own words."""
    tenant = house.tenant()
    house.settlement.failure = DomainError(
        ErrorReason("ASSET_UNKNOWN", "INVALID_ARGUMENT", "Not taken.", "Use another."),
        "the asset is not taken here",
        violations=(FieldViolation("amount.asset", "is none of eurx"),),
    )
    with pytest.raises(RemoteError) as caught:
        await tenant.create()
    assert caught.value.reason.reason == "ASSET_UNKNOWN"
    assert [(item.field, item.description) for item in caught.value.violations] == [
        ("order.groups[0].price_limit.asset", "is none of eurx")
    ]
    await assert_nothing_stored(house)


async def test_a_repeat_answers_the_same_order_and_other_input_is_refused(house: House) -> None:
    """Goal: one request, one order. Method: the same call three times, two at once, then another order."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(tenant.create("once")) for _ in range(2)]
    first, second = (task.result() for task in both)
    third = await tenant.create("once")
    assert first.name == second.name == third.name
    assert await house.count("orders") == 1
    assert [kind.rpartition(".")[2] for kind, _ in await house.outbox()] == ["OrderOpened"]
    assert house.settlement.free[tenant.name] == 6_400_000
    with pytest.raises(RemoteError) as caught:
        await tenant.create("once", small_order(micros=7))
    assert (caught.value.code, caught.value.reason.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await house.count("orders") == 1
    other = house.tenant()
    house.settlement.free[other.name] = 10_000_000
    assert (await other.create("once")).name != first.name


async def test_tokens_that_are_over_absent_or_too_weak_are_refused(house: House) -> None:
    """Goal: who may not, does not. Method: an expired token, none, one without the scope, a service's, a wrong key's."""
    identity, name = house.identity, new_name("accounts")
    past: Clock = ManualClock()
    expired = type(identity.signer("order")).load(identity.key_file("order"), "order", clock=past)
    forged = type(identity.signer("order")).load(identity.key_file("settlement"), "order")
    for token, code, reason in (
        (expired.access_token(name, SCOPES, 60), "UNAUTHENTICATED", "TOKEN_EXPIRED"),
        ("", "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (forged.access_token(name, SCOPES, 60), "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (identity.account_token(name, ("orders.read",)), "PERMISSION_DENIED", "PERMISSION_DENIED"),
        (identity.service_token("bidding"), "PERMISSION_DENIED", "PERMISSION_DENIED"),
    ):
        stub = order_service_pb2_grpc.OrderServiceStub(await house.connect(token))
        with pytest.raises(RemoteError) as caught:
            await stub.CreateOrder(order_service_pb2.CreateOrderRequest(request_id="r", order=small_order()))
        assert (caught.value.code, caught.value.reason.reason) == (code, reason)
    await assert_nothing_stored(house)


async def test_another_tenants_order_is_as_if_it_were_not_there(house: House) -> None:
    """Goal: a tenant sees its own orders only. Method: another's id on every method that takes one."""
    owner, other = house.tenant(), house.tenant()
    house.settlement.free[owner.name] = 10_000_000
    order = await owner.create()
    stub = await other.orders()
    calls: list[Any] = [
        lambda: stub.GetOrder(order_service_pb2.GetOrderRequest(name=order.name)),
        lambda: stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c")),
        lambda: stub.UpdateOrder(
            order_service_pb2.UpdateOrderRequest(
                order=order_pb2.Order(name=order.name),
                update_mask=field_mask_pb2.FieldMask(paths=["labels"]),
                request_id="u",
            )
        ),
        lambda: stub.ExplainOrder(order_service_pb2.ExplainOrderRequest(name=order.name)),
        lambda: anext(aiter(stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=order.name)))),
    ]
    for call in calls:
        with pytest.raises(RemoteError) as caught:
            await call()
        assert (caught.value.code, caught.value.reason.reason) == ("NOT_FOUND", "ORDER_NOT_FOUND")
    assert not (await stub.ListOrders(order_service_pb2.ListOrdersRequest())).orders
    assert (await owner.get(order.name)).state == order_pb2.ORDER_STATE_OPEN


async def test_settlement_away_leaves_the_order_pending_and_the_sweeper_finishes_it(house: House) -> None:
    """Goal: a crash between the steps loses nothing. Method: settlement holds and then fails to answer; the sweeper."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    house.settlement.fail_after_open = DomainError(UNAVAILABLE, "cut")
    with pytest.raises(RemoteError) as caught:
        await tenant.create()
    assert caught.value.code == "UNAVAILABLE"
    stub = await tenant.orders()
    (order,) = (await stub.ListOrders(order_service_pb2.ListOrdersRequest())).orders
    assert order.state == order_pb2.ORDER_STATE_PENDING
    await house.jobs.sweep_pending()
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_PENDING, "too young for the sweeper"
    await house.make_due(order.name)
    await house.jobs.sweep_pending()
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_PENDING, "still away"
    house.settlement.fail_after_open = None
    await house.make_due(order.name)
    await house.jobs.sweep_pending()
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_OPEN
    assert house.settlement.free[tenant.name] == 6_400_000, "held once"
    assert (await tenant.create()).name == order.name, "a repeat finds it"


async def test_what_cannot_be_finished_in_time_is_withdrawn_and_released(house: House) -> None:
    """Goal: no funds stay behind. Method: settlement holds and never answers; the order grows old."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    house.settlement.fail_after_open = DomainError(UNAVAILABLE, "cut")
    with pytest.raises(RemoteError):
        await tenant.create()
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE orders SET created_at = created_at - interval '1 hour', due_at = due_at - interval '1 hour'"
        )
    await house.jobs.sweep_pending()
    await assert_nothing_stored(house)
    await house.jobs.release_escrows()
    assert not house.settlement.held
    assert len(house.settlement.released) == 1


async def test_a_close_before_the_funds_are_held_releases_them(house: House) -> None:
    """Goal: closing a PENDING order costs nothing. Method: settlement cut after the hold, then close."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    house.settlement.fail_after_open = DomainError(UNAVAILABLE, "cut")
    with pytest.raises(RemoteError):
        await tenant.create()
    stub = await tenant.orders()
    (order,) = (await stub.ListOrders(order_service_pb2.ListOrdersRequest())).orders
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c"))
    await house.jobs.carry_ends()
    closed = await tenant.get(order.name)
    assert closed.state == order_pb2.ORDER_STATE_CLOSED
    assert not house.settlement.held
    assert not house.bidding.ended
    assert await house.outbox() == []


async def test_bidding_away_does_not_lose_a_close(house: House) -> None:
    """Goal: a close is durable. Method: bidding fails, then answers; it is asked until it states the end."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    stub = await tenant.orders()
    for _ in range(2):
        await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c", reason="enough"))
    house.bidding.failure = DomainError(UNAVAILABLE, "away")
    await house.jobs.carry_ends()
    house.bidding.failure = None
    await house.jobs.carry_ends()
    assert not house.bidding.ended, "put off"
    for asked in (1, 2):
        await house.make_due(order.name)
        for _ in range(2):
            await house.jobs.carry_ends()
            assert len(house.bidding.ended) == asked, "asked once, and again only after a while"
    assert [kind.rpartition(".")[2] for kind, _ in await house.outbox()] == ["OrderOpened", "OrderCloseRequested"]


async def test_labels_change_on_an_open_order_only(house: House) -> None:
    """Goal: UpdateOrder does what it says. Method: labels, a stale etag, no mask, an ended order."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    stub = await tenant.orders()

    async def update(request_id: str, path: str, etag: str = "") -> order_pb2.Order:
        changed = order_pb2.Order(name=order.name, labels={"team": "red"}, etag=etag)
        return await stub.UpdateOrder(
            order_service_pb2.UpdateOrderRequest(
                order=changed,
                update_mask=field_mask_pb2.FieldMask(paths=[path] if path else []),
                request_id=request_id,
            )
        )

    updated = await update("u1", "labels", order.etag)
    assert dict(updated.labels) == {"team": "red"}
    for request_id, path, etag, reason in (
        ("u2", "labels", order.etag, "ETAG_MISMATCH"),
        ("u4", "", "", "INVALID_FIELD"),
    ):
        with pytest.raises(RemoteError) as caught:
            await update(request_id, path, etag)
        assert caught.value.reason.reason == reason
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c"))
    with pytest.raises(RemoteError) as caught:
        await update("u5", "labels")
    assert caught.value.reason.reason == "ORDER_CLOSED"


async def test_lists_are_paged_and_filtered(house: House) -> None:
    """Goal: every order once, newest first. Method: five orders in pages of two, by state, by label, a wrong token."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    names = [(await tenant.create(f"r{number}")).name for number in range(5)]
    stub = await tenant.orders()
    seen: list[str] = []
    token = ""
    while True:
        page = await stub.ListOrders(order_service_pb2.ListOrdersRequest(page_size=2, page_token=token))
        seen += [order.name for order in page.orders]
        token = page.next_page_token
        if not token:
            break
    assert seen == names[::-1]
    red = await stub.ListOrders(order_service_pb2.ListOrdersRequest(labels={"team": "red"}))
    assert not red.orders
    blue = await stub.ListOrders(
        order_service_pb2.ListOrdersRequest(labels={"team": "blue"}, states=[order_pb2.ORDER_STATE_OPEN], page_size=3)
    )
    assert len(blue.orders) == 3
    with pytest.raises(RemoteError) as caught:
        await stub.ListOrders(order_service_pb2.ListOrdersRequest(page_token=blue.next_page_token))
    assert caught.value.reason.reason == "PAGE_TOKEN_INVALID"


async def test_an_estimate_tells_what_of_an_sdl_file_has_no_effect(house: House) -> None:
    """Goal: nothing of a file is dropped in silence. Method: a field that Akash reads past; the file's price."""
    stub = await house.tenant().orders()
    text = SDL.replace("colour: red\n", "    restart: always\n")
    estimate = await stub.EstimateOrder(order_service_pb2.EstimateOrderRequest(sdl=text))
    assert list(estimate.sdl_warnings) == ["5: services.web.restart: is an unknown field and has no effect"]
    assert estimate.funds_needed.micros == -(-100 * 3_600_000 // 6_098)
    await assert_nothing_stored(house)


async def test_estimates_and_explanations_come_from_bidding(house: House) -> None:
    """Goal: prices without a promise. Method: an estimate stores nothing and shows bidding no workload."""
    tenant = house.tenant()
    stub = await tenant.orders()
    estimate = await stub.EstimateOrder(order_service_pb2.EstimateOrderRequest(order=small_order()))
    assert (estimate.best_price.micros_per_hour, estimate.fitting_providers) == (1_250_000, 3)
    assert estimate.funds_needed == money_pb2.Amount(asset="usdc", micros=3_600_000)
    assert (estimate.matching_price.micros_per_hour, estimate.candidate_providers) == (1_500_000, 4)
    assert [(term.kind, term.fitting_providers) for term in estimate.terms] == [(order_pb2.TERM_KIND_SPOT, 2)]
    assert (estimate.spot.notice.seconds, estimate.early_close.seconds) == (30, 3_600)
    (seen,) = house.bidding.estimated
    assert seen.groups[0].replica_sets[0].service == "web"
    assert b"s3cret" not in seen.SerializeToString()
    await assert_nothing_stored(house)
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    explained = await stub.ExplainOrder(order_service_pb2.ExplainOrderRequest(name=order.name))
    assert explained.groups[0].advice == "wait"


async def test_a_text_is_estimated_in_the_mode_and_on_the_terms_beside_it(house: House) -> None:
    """Goal: what would be ordered is what is priced. Method: an SDL text with auction and reserved terms beside it; a
    window without an auction, named where the caller set it.
    """
    stub = await house.tenant().orders()
    terms = order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED, duration=to_duration(86_400_000))
    request = order_service_pb2.EstimateOrderRequest(
        sdl=SDL.replace("colour: red\n", ""),
        terms=terms,
        match_mode=order_pb2.MATCH_MODE_AUCTION,
        auction_rule=order_pb2.AUCTION_RULE_SECOND_PRICE,
        auction_window=to_duration(30_000),
    )
    await stub.EstimateOrder(request)
    (seen,) = house.bidding.estimated
    assert (seen.match_mode, seen.auction_rule) == (request.match_mode, request.auction_rule)
    assert (seen.terms.kind, seen.terms.duration.seconds) == (order_pb2.TERM_KIND_RESERVED, 86_400)
    request.ClearField("match_mode")
    with pytest.raises(RemoteError) as caught:
        await stub.EstimateOrder(request)
    assert {item.field for item in caught.value.violations} == {"auction_rule"}
    await assert_nothing_stored(house)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(253_402_300_800, 0), (-62_135_596_801, 0), (10**15, 0), (2**62, 0), (0, -1)]
)
async def test_a_time_that_is_none_is_refused_by_its_path(house: House, seconds: int, nanos: int) -> None:
    """Goal: no internal error, whatever the numbers. Method: a filter of a list and the end of a key, out of range."""
    tenant = house.tenant()
    when = Timestamp(seconds=seconds, nanos=nanos)
    stub = await tenant.orders()
    with pytest.raises(RemoteError) as caught:
        await stub.ListOrders(order_service_pb2.ListOrdersRequest(min_create_time=when))
    assert caught.value.reason.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.violations] == ["min_create_time"]
    token = house.identity.account_token(tenant.name, ("keys.write",))
    sessions = session_service_pb2_grpc.SessionServiceStub(await house.connect(token))
    key = session_service_pb2.ApiKey(display_name="ci", expire_time=when)
    with pytest.raises(RemoteError) as refused:
        await sessions.CreateApiKey(
            session_service_pb2.CreateApiKeyRequest(parent="accounts/me", api_key=key, request_id="k")
        )
    assert refused.value.reason.reason == "INVALID_FIELD"
    assert [violation.field for violation in refused.value.violations] == ["api_key.expire_time"]
