"""The transitions of an order as tables, and any mixture of facts as a property."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_order.domain import order as orders
from fallow_order.domain.order import ENDING, EndReason, Group, GroupState, GroupStep, Order, OrderState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
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
    return orders.lease_ended(order, index, generation, EndReason.UNREACHABLE, "", releasing=releasing, now=NOW)


def _states(order: Order) -> list[str]:
    return [change.target.value for change in order.changes if change.step is None]


def test_the_usual_life() -> None:
    """Goal: each state follows the last. Method: the facts of an order that runs and is closed."""
    order = orders.close_requested(_running(_leased(_opened())), EndReason.TENANT, "", NOW)
    order = orders.escrow_closed(orders.order_ended(order, EndReason.TENANT, "", NOW), 60, 40, NOW)
    assert _states(order) == ["PENDING", "OPEN", "MATCHED", "RUNNING", "CLOSING", "CLOSED"]
    assert [change.sequence for change in order.changes] == list(range(1, 10))
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


def test_the_history_tells_of_every_lease() -> None:
    """Goal: who had a lost group, why it was lost, and who has it now. Method: the steps of a failover and an end."""
    first = orders.lease_created(_opened(), 0, 1, "leases/a", "providers/p", PRICE, NOW)
    lost = orders.lease_ended(_running(first), 0, 1, EndReason.UNREACHABLE, "60 s", releasing=True, now=LATER)
    again = _running(orders.lease_created(lost, 0, 2, "leases/b", "providers/q", PRICE, LATER), generation=2)
    order = orders.order_ended(again, EndReason.FUNDS, "", LATER)
    steps = [(change.step, change.reason, change.at) for change in order.changes if change.step is not None]
    assert steps == [
        (_step("OPEN", "LEASED", "a", "p", 1), "leased; the workload is starting", NOW),
        (_step("LEASED", "RUNNING", "a", "p", 1), "ready", NOW),
        (_step("RUNNING", "LOST", "a", "p", 1), "unreachable: 60 s", LATER),
        (_step("LOST", "LEASED", "b", "q", 2), "leased; the workload is starting", LATER),
        (_step("LEASED", "RUNNING", "b", "q", 2), "ready", NOW),
        (_step("RUNNING", "ENDED", "b", "q", 2), "funds: its funds are used up", LATER),
    ]
    assert _states(order) == ["PENDING", "OPEN", "MATCHED", "RUNNING", "DEGRADED", "RUNNING", "CLOSING"]
    assert (
        next(change for change in order.changes if change.target is OrderState.DEGRADED).reason == "unreachable: 60 s"
    )


def _step(source: str, target: str, lease: str, provider: str, generation: int) -> GroupStep:
    states = GroupState(source), GroupState(target)
    return GroupStep("g0", *states, f"leases/{lease}", f"providers/{provider}", generation)


_EACH = {
    "one waits": (["lease 0", "run 0"], OrderState.OPEN, None),
    "one waits, one is lost": (["lease 0", "run 0", "lose 0"], OrderState.OPEN, None),
    "one waited, one is lost": (["lease 0", "lose 0", "lease 1"], OrderState.DEGRADED, None),
    "both have leases": (["lease 1", "lease 0"], OrderState.MATCHED, None),
    "one runs, the other starts": (["lease 1", "run 1", "lease 0"], OrderState.MATCHED, None),
    "both run": (["lease 1", "run 1", "lease 0", "run 0"], OrderState.RUNNING, NOW),
    "one ended, one starts": (["lease 1", "end 0"], OrderState.MATCHED, None),
    "one ended, one runs": (["lease 1", "run 1", "end 0"], OrderState.RUNNING, NOW),
    "one ended first": (["end 0", "lease 1", "run 1"], OrderState.RUNNING, NOW),
    "the lost one ended": (["lease 0", "lease 1", "run 0", "run 1", "lose 0", "end 0"], OrderState.RUNNING, NOW),
    "the other is lost": (["end 0", "lease 1", "run 1", "lose 1"], OrderState.DEGRADED, NOW),
    "both ended": (["end 0", "end 1"], OrderState.OPEN, None),
    "both ended after they ran": (["lease 0", "lease 1", "run 0", "run 1", "end 0", "end 1"], OrderState.RUNNING, NOW),
    "a paused order stays so": (
        ["lease 0", "lease 1", "run 0", "run 1", "pause 0", "end 1"],
        OrderState.SUSPENDED,
        NOW,
    ),
}


@pytest.mark.parametrize(("facts", "state", "ready_at"), _EACH.values(), ids=_EACH.keys())
def test_groups_that_ended_count_as_absent(facts: list[str], state: OrderState, ready_at: datetime | None) -> None:
    """Goal: the state follows from the groups that are left. Method: facts of two groups, and what they make."""
    order = _opened(2)
    for fact in facts:
        kind, _, index = fact.partition(" ")
        order = _EACH_FACTS[kind](order, int(index))
        assert _EACH_FACTS[kind](order, int(index)) == order, "a repeat changes nothing"
    assert (order.state, order.ready_at) == (state, ready_at)


_EACH_FACTS: dict[str, Callable[[Order, int], Order]] = {
    "lease": _leased,
    "run": _running,
    "lose": _lost,
    "end": lambda order, index: orders.group_ended(order, index, EndReason.EXPIRED, "", NOW),
    "pause": lambda order, index: orders.lease_suspended(order, index, 1, NOW),
}


@pytest.mark.parametrize("reason", EndReason)
def test_an_end_always_says_why(reason: EndReason) -> None:
    """Goal: reason and detail stand in every end. Method: each reason without a word, asked for and told."""
    for ended in (
        orders.close_requested(_opened(), reason, "", NOW),
        orders.order_ended(_opened(), reason, "", NOW),
        orders.order_ended(orders.close_requested(_opened(), reason, "", NOW), reason, "", NOW),
    ):
        assert ended.close_reason is reason
        assert ended.close_detail
        assert ended.changes[-1].reason.startswith(f"{reason.lower()}: ")


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
    assert _lost(order).state is OrderState.DEGRADED


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
    order = orders.escrow_changed(order, 42, 158, 0)
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
        st.tuples(st.just("group"), st.integers(0, 1), st.just(1)),
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
    if kind == "group":
        return orders.group_ended(order, index, EndReason.WORKLOAD, "", NOW)
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
    for index, group in enumerate(order.groups):
        steps = [change.step for change in order.changes if change.step and change.step.group_id == f"g{index}"]
        path = [GroupState.OPEN, *(step.target for step in steps)]
        assert [step.source for step in steps] == path[:-1], "a group's steps follow one another"
        assert path[-1] is group.state
    assert _states(order).count("CLOSED") == 1
