"""The transitions of an order as tables, and any mixture of facts as a property."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_order.domain import order as orders
from fallow_order.domain.order import ENDING, EndReason, Group, GroupState, Order, OrderState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = ("usdc", 1_000_000)


def _order(groups: int = 1) -> Order:
    order = Order(
        id="0" * 26,
        account="1" * 26,
        state=OrderState.PENDING,
        specification=b"",
        labels=(),
        groups=tuple(Group(index, f"g{index}") for index in range(groups)),
        asset="usdc",
        hold_micros=100,
        budget_micros=None,
        auto_top_up=False,
        match_timeout_ms=600_000,
        term_ms=None,
        created_at=NOW,
        updated_at=NOW,
    )
    return orders.start(order, NOW)


def _opened(groups: int = 1) -> Order:
    return orders.opened(_order(groups), 100, NOW)


def _leased(order: Order, index: int = 0, generation: int = 1) -> Order:
    return orders.lease_created(order, index, generation, f"leases/{generation}", "providers/p", PRICE, NOW)


def _running(order: Order, index: int = 0, generation: int = 1) -> Order:
    return orders.lease_running(order, index, generation, (), NOW)


def _lost(order: Order, index: int = 0, generation: int = 1, *, releasing: bool = True) -> Order:
    return orders.lease_ended(order, index, generation, releasing=releasing, detail="", now=NOW)


def _states(order: Order) -> list[str]:
    return [change.target.value for change in order.changes]


def test_the_usual_life() -> None:
    """Goal: each state follows the last. Method: the facts of an order that runs and is closed."""
    order = orders.close_requested(_running(_leased(_opened())), EndReason.TENANT, "", NOW)
    order = orders.escrow_closed(orders.order_ended(order, EndReason.TENANT, "", NOW), 60, 40, NOW)
    assert _states(order) == ["PENDING", "OPEN", "MATCHED", "RUNNING", "CLOSING", "CLOSED"]
    assert [change.sequence for change in order.changes] == [1, 2, 3, 4, 5, 6]
    assert (order.charged_micros, order.refunded_micros, order.held_micros) == (60, 40, 0)
    assert order.closed_at == NOW


def test_all_groups_count() -> None:
    """Goal: MATCHED and RUNNING mean all groups. Method: two groups, one step at a time."""
    order = _leased(_opened(2))
    assert order.state is OrderState.OPEN
    order = _running(order)
    assert order.state is OrderState.OPEN
    order = _leased(order, 1)
    assert order.state is OrderState.MATCHED
    order = _running(order, 1)
    assert order.state is OrderState.RUNNING
    assert order.ready_at == NOW


def test_a_lost_group_is_leased_again() -> None:
    """Goal: fail over shows. Method: lost, leased at the next generation, running."""
    order = _lost(_running(_leased(_opened())))
    assert (order.state, order.groups[0].state) == (OrderState.DEGRADED, GroupState.LOST)
    order = _leased(order, generation=2)
    assert order.state is OrderState.DEGRADED
    later = orders.lease_running(order, 0, 2, (), NOW + timedelta(hours=1))
    assert later.state is OrderState.RUNNING
    assert later.ready_at == NOW, "ready once is ready once"


@pytest.mark.parametrize(
    "late",
    [
        lambda order: _leased(order, generation=1),
        lambda order: _leased(order, generation=2),
        lambda order: _running(order, generation=1),
        lambda order: _running(order, generation=3),
        lambda order: _lost(order, generation=1),
        lambda order: orders.lease_suspended(order, 0, 1, NOW),
        lambda order: _leased(order, index=5, generation=9),
        lambda order: _running(order, index=-1),
        lambda order: orders.opened(order, 7, NOW),
    ],
)
def test_facts_of_other_generations_change_nothing(late: object) -> None:
    """Goal: the highest generation wins. Method: facts of an older, an unknown or an absent group on generation 2."""
    order = _leased(_lost(_running(_leased(_opened()))), generation=2)
    assert callable(late)
    assert late(order) == order


def test_a_repeated_fact_changes_nothing() -> None:
    """Goal: facts may come twice. Method: each fact of a running order again."""
    order = _running(_leased(_opened()))
    assert _leased(order) == _running(order) == order
    lost = _lost(order)
    assert _lost(lost) == lost


def test_a_pause_and_its_end() -> None:
    """Goal: SUSPENDED and back. Method: paused for funds, then running again."""
    order = orders.lease_suspended(_running(_leased(_opened())), 0, 1, NOW)
    assert order.state is OrderState.SUSPENDED
    assert _running(order).state is OrderState.RUNNING


def test_the_market_says_why() -> None:
    """Goal: bidding's reason counts. Method: the tenant asks, but the funds were used up before."""
    order = orders.close_requested(_running(_leased(_opened())), EndReason.TENANT, "enough", NOW)
    ended = orders.order_ended(order, EndReason.FUNDS, "used up", NOW)
    assert (ended.close_reason, ended.close_detail) == (EndReason.FUNDS, "used up")
    assert orders.order_ended(ended, EndReason.TENANT, "", NOW) == ended
    same = orders.order_ended(order, EndReason.TENANT, "asked by services/order", NOW)
    assert same.close_detail == "enough", "the tenant's own words stay"


def test_charges_add_up_while_the_order_runs() -> None:
    """Goal: the cost shows before the close. Method: two charges, a top-up's sums, the close, a late charge."""
    order = orders.charge_posted(orders.charge_posted(_opened(), 30), 12)
    assert (order.charged_micros, order.held_micros) == (42, 58)
    order = orders.escrow_changed(order, 42, 158)
    closed = orders.escrow_closed(order, 50, 150, NOW)
    assert orders.charge_posted(closed, 9) == closed
    assert (closed.charged_micros, closed.refunded_micros, closed.held_micros) == (50, 150, 0)


def test_an_order_that_never_opened_closes_without_cost() -> None:
    """Goal: a close before the funds were held costs nothing. Method: close a PENDING order, then a late hold."""
    order = orders.close_requested(_order(), EndReason.TENANT, "", NOW)
    assert orders.opened(order, 100, NOW) == order
    closed = orders.never_opened_closed(order, NOW)
    assert closed.state is OrderState.CLOSED
    assert closed.charged_micros == closed.held_micros == 0


def test_illegal_moves_crash() -> None:
    """Goal: a programmer's error is loud. Method: from PENDING to RUNNING, and a close of what was open."""
    with pytest.raises(AssertionError):
        orders.move(_order(), OrderState.RUNNING, "", NOW)
    with pytest.raises(AssertionError):
        orders.never_opened_closed(orders.close_requested(_opened(), EndReason.TENANT, "", NOW), NOW)
    with pytest.raises(AssertionError):
        replace(_opened(), held_micros=-1)


_BIDDING = st.lists(
    st.one_of(
        st.tuples(st.just("created"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("running"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("lost"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("ended"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("suspended"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("close"), st.just(0), st.just(1)),
        st.tuples(st.just("escrow"), st.just(0), st.just(1)),
    ),
    max_size=20,
)


def _apply(order: Order, fact: tuple[str, int, int]) -> Order:
    kind, index, generation = fact
    if kind == "created":
        return _leased(order, index, generation)
    if kind == "running":
        return _running(order, index, generation)
    if kind in {"lost", "ended"}:
        return _lost(order, index, generation, releasing=kind == "lost")
    if kind == "suspended":
        return orders.lease_suspended(order, index, generation, NOW)
    if kind == "close":
        return orders.close_requested(order, EndReason.TENANT, "", NOW)
    return orders.escrow_closed(order, 30, 70, NOW)


@given(_BIDDING, st.integers(0, 20))
def test_any_mixture_of_facts_ends_closed_once(facts: list[tuple[str, int, int]], end: int) -> None:
    """Goal: no order of arrival breaks an order. Method: random facts with the end of the order among them; after the
    end and the escrow's close the order is CLOSED, generations never went back, states changed one step at a time.
    """
    order = _opened(2)
    ended = False
    for number, fact in enumerate(facts):
        if number == end:
            order, ended = orders.order_ended(order, EndReason.PROVIDER, "", NOW), True
        before = order
        order = _apply(order, fact)
        for old, new in zip(before.groups, order.groups, strict=True):
            assert new.generation >= old.generation
        if before.state in ENDING:
            assert order.state in ENDING
    if not ended:
        order = orders.order_ended(order, EndReason.PROVIDER, "", NOW)
    order = orders.escrow_closed(order, 30, 70, NOW)
    assert order.state is OrderState.CLOSED
    assert (order.charged_micros, order.refunded_micros) == (30, 70)
    assert [change.sequence for change in order.changes] == list(range(1, order.sequence + 1))
    for earlier, later in zip(order.changes, order.changes[1:], strict=False):
        assert later.source is earlier.target
    assert _states(order).count("CLOSED") == 1
