"""What a change of a live order may ask for, as tables, and what it makes of the order."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fallow_chassis.errors import DomainError
from fallow_order.domain import update as updates
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.order import Group, GroupState, Order, OrderState
from fallow_order.domain.update import Holding

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = (1_000, 2_000)
HOUR_MS = 3_600_000


def _order(**changes: object) -> Order:
    """An order of two groups that has run for ten minutes at 900 and 1,900 and cost 300."""
    groups = tuple(
        Group(
            index, f"g{index}", GroupState.RUNNING, 3, 3, "leases/l", "providers/p", "usdc", price, revision=index + 1
        )
        for index, price in enumerate((900, 1_900))
    )
    order = Order(
        id="0" * 26,
        account="1" * 26,
        state=OrderState.RUNNING,
        specification=b"before",
        labels=(("team", "blue"),),
        groups=groups,
        asset="usdc",
        hold_micros=3_000,
        budget_micros=None,
        auto_top_up=False,
        match_timeout_ms=600_000,
        term_ms=None,
        created_at=NOW,
        updated_at=NOW,
        opened_at=NOW,
        ready_at=NOW - timedelta(minutes=10),
        charged_micros=300,
        sequence=7,
    )
    return replace(order, **changes)  # type: ignore[arg-type]  # fields by their names


def _draft(
    limits: tuple[int, ...] = LIMITS,
    *,
    term_ms: int | None = None,
    budget: int | None = None,
    auto_top_up: bool = False,
    labels: tuple[tuple[str, str], ...] = (("team", "blue"),),
) -> OrderDraft:
    """The whole order as a change wants it."""
    return OrderDraft(
        specification=b"after",
        labels=labels,
        group_ids=("g0", "g1"),
        workloads=(b"", b""),
        asset="usdc",
        limits=limits,
        budget_micros=budget,
        auto_top_up=auto_top_up,
        match_timeout_ms=600_000,
        term_ms=term_ms,
    )


def _plan(order: Order, draft: OrderDraft, changed: set[int] | None = None) -> updates.Update:
    return updates.planned(order, draft, LIMITS, changed or set(), NOW)


REFUSALS = [
    ("PRICE_LIMIT_TOO_LOW", _order(), _draft((899, 2_000)), set()),
    ("PRICE_LIMIT_TOO_LOW", _order(), _draft((1_000, 1_899)), {0}),
    ("TERM_TOO_SHORT", _order(), _draft(term_ms=600_000), set()),
    ("TERM_TOO_SHORT", _order(term_ms=HOUR_MS), _draft(term_ms=1_000), set()),
    ("BUDGET_TOO_LOW", _order(), _draft(budget=299), set()),
    # The order of precedence: groups, then term, then budget.
    ("PRICE_LIMIT_TOO_LOW", _order(), _draft((1, 1), term_ms=1_000, budget=1), set()),
    ("TERM_TOO_SHORT", _order(), _draft(term_ms=1_000, budget=1), set()),
]


@pytest.mark.parametrize(("reason", "order", "draft", "changed"), REFUSALS)
def test_what_cannot_be_undone_is_refused(reason: str, order: Order, draft: OrderDraft, changed: set[int]) -> None:
    """Goal: prices that are fixed, time that has run and money that is spent stay. Method: a row each, and all at once."""
    with pytest.raises(DomainError) as caught:
        _plan(order, draft, changed)
    assert caught.value.reason.reason == reason
    assert caught.value.metadata


def test_a_refused_limit_tells_the_price() -> None:
    """Goal: the tenant learns what to ask for. Method: the metadata of the refusal."""
    with pytest.raises(DomainError) as caught:
        _plan(_order(), _draft((899, 2_000)))
    assert caught.value.metadata == {"group_id": "g0", "asset": "usdc", "price_micros_per_hour": "900"}


ALLOWED = [
    ("the very price", _order(), _draft((900, 2_000)), set()),
    ("the workload changes too", _order(), _draft((1, 2_000)), {0}),
    ("no lease now", _order(groups=tuple(replace(g, state=GroupState.LOST) for g in _order().groups)), _draft((1, 1)), set()),
    ("a longer term", _order(term_ms=700_000), _draft(term_ms=HOUR_MS), set()),
    ("a term beyond what ran", _order(), _draft(term_ms=600_001), set()),
    ("not ready yet", _order(ready_at=None), _draft(term_ms=1_000), set()),
    ("what was spent", _order(), _draft(budget=300), set()),
]  # fmt: skip


@pytest.mark.parametrize(("order", "draft", "changed"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_the_other_side_of_each_bound_is_allowed(order: Order, draft: OrderDraft, changed: set[int]) -> None:
    """Goal: no bound is one too strict. Method: the nearest allowed value of each."""
    assert _plan(order, draft, changed).summary


HOLDS = [
    ("limits for an hour", _draft((5_000, 2_000)), 7_000),
    ("limits for a short term", _draft(term_ms=HOUR_MS // 2), 1_500),
    ("a term of hours holds one", _draft(term_ms=9 * HOUR_MS), 3_000),
    ("at most the budget", _draft(budget=2_500), 2_500),
]


@pytest.mark.parametrize(("draft", "hold"), [row[1:] for row in HOLDS], ids=[row[0] for row in HOLDS])
def test_what_is_held_follows_limits_term_and_budget(draft: OrderDraft, hold: int) -> None:
    """Goal: a changed order holds what a new one would. Method: a row for each part of the rule."""
    assert _plan(_order(), draft).holding == Holding("usdc", hold, draft.budget_micros, auto_top_up=False)


def test_a_group_that_has_ended_holds_nothing_and_takes_no_change() -> None:
    """Goal: no money for what is gone. Method: one of two groups has ended; raise the other's limit, then its own."""
    order = _order()
    order = replace(order, groups=(replace(order.groups[0], state=GroupState.ENDED), order.groups[1]))
    assert _plan(order, _draft((1_000, 2_500))).holding.hold_micros == 2_500
    assert _plan(order, _draft(labels=())).holding == updates.holding(order), "labels move no money"
    for draft, changed in ((_draft((1_001, 2_000)), set()), (_draft(), {0})):
        with pytest.raises(DomainError) as caught:
            _plan(order, draft, changed)
        assert caught.value.violations[0].field == "order.groups[0]"


def test_a_change_stands_in_the_history_with_what_it_changed() -> None:
    """Goal: who watches sees the change. Method: change everything, apply; then nothing."""
    order = _order()
    update = _plan(order, _draft((5_000, 2_000), term_ms=HOUR_MS, budget=9_000, auto_top_up=True, labels=()), {1})
    assert update.summary == (
        "changed: workload of g1 (revision 3), price limit of g0, budget, automatic top-up on, duration, labels"
    )
    after = updates.applied(order, update, NOW)
    assert [group.revision for group in after.groups] == [1, 3]
    assert (after.specification, after.labels, after.term_ms) == (b"after", (), HOUR_MS)
    assert (after.hold_micros, after.budget_micros, after.auto_top_up) == (7_000, 9_000, True)
    (note,) = after.changes
    assert (note.sequence, note.source, note.target, note.reason) == (8, order.state, order.state, update.summary)
    assert not _plan(order, _draft()).summary
