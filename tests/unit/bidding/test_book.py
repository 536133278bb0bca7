"""What holds of the engine's lists by price: whatever happened before, they find what a look at all rows finds."""

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from fallow_bidding.domain.engine import book as book_module
from fallow_bidding.domain.engine import engine as engine_module
from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.book import Book
from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Bools, Choice, Integers, Inventory
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.engine.policies import POLICIES, make_policy
from fallow_bidding.domain.supply import PriceSchedule, Supplier
from tests.unit.bidding.market import CORE, GIB, node, supplier
from tests.unit.bidding.test_engine import MODELS, markets, needs

# Few different prices, so that providers, and models of one provider, are often equal.
_prices = st.fixed_dictionaries({}, optional={model: st.sampled_from((1, 1, 2, 900)) for model in MODELS})
_steps = st.lists(st.one_of(st.integers(0, 3), st.tuples(st.just("end"), st.integers(0, 99))), min_size=1, max_size=40)


@st.composite
def priced_markets(draw: st.DrawFn) -> list[Supplier]:
    """Markets whose providers have prices of their own, some for no model at all."""
    made = []
    for one in draw(markets()):
        schedule = PriceSchedule("usdc", draw(_prices), draw(st.sampled_from((0, 0, 3))), draw(st.sampled_from((0, 2))))
        made.append(
            supplier(
                one.provider_id,
                *one.nodes,
                create_time_ms=one.create_time_ms,
                reputation_milli=one.reputation_milli,
                schedule=schedule,
            )
        )
    return made


@settings(deadline=None, max_examples=300)
@given(
    priced_markets(),
    st.lists(needs(), min_size=4, max_size=4),
    _steps,
    st.sampled_from(POLICIES),
    st.sampled_from((1, 2, 32)),
    st.sampled_from((1, 3, 1 << 16)),
    st.sampled_from((2, 1_024)),
)
def test_lists_find_what_a_look_at_all_rows_finds(
    market: list[Supplier],
    wanted: list[Need],
    steps: list[int | tuple[str, int]],
    policy: str,
    look_rows: int,
    releases_max: int,
    lists_max: int,
) -> None:
    """Goal: an indexed decision is the decision. Method: arrivals and ends in any order; both ways at each arrival.

    The bounds on looks, on remembered releases and on lists are drawn small, so that each is passed.
    """
    engine = Engine(Inventory(market), make_policy(policy, 7))
    asks = Asks(engine.inventory, "usdc")
    book = Book(engine, asks)
    held: list[tuple[Need, Choice]] = []
    with (
        mock.patch.object(book_module, "LOOK_ROWS", look_rows),
        mock.patch.object(engine_module, "RELEASES_MAX", releases_max),
        mock.patch.object(book_module, "LISTS_MAX", lists_max),
    ):
        for step in steps:
            if isinstance(step, tuple):
                if held:
                    engine.give_back(*held.pop(step[1] % len(held)))
                continue
            need = wanted[step]
            engine.arrive(need)
            choice = book.decide(need)
            assert choice == engine.decide(need, asks.of(need)), "the same place, or none"
            if choice is not None:
                engine.take(need, choice)
                held.append((need, choice))


def test_few_rows_are_looked_at() -> None:
    """Goal: a decision does not look at all rows. Method: count the rows looked at in a market of 2,000 providers."""
    market = [
        supplier(f"p{at:04}", node("n1", 1), schedule=PriceSchedule("usdc", {"h100": 1_000 + at}))
        for at in range(2_000)
    ]
    engine = Engine(Inventory(market), make_policy("least_waste"))
    book, need = Book(engine, Asks(engine.inventory, "usdc")), Need(CORE, GIB, 1, 1_000)
    looked = 0
    has_room = engine.has_room

    def counted(one: Need, rows: Integers) -> Bools:
        nonlocal looked
        looked += len(rows)
        return has_room(one, rows)

    taken = []
    with mock.patch.object(engine, "has_room", counted):
        for _ in range(1_000):
            engine.arrive(need)
            choice = book.decide(need)
            assert choice is not None, "there is room"
            engine.take(need, choice)
            taken.append(choice)
        assert [choice.row for choice in taken] == list(range(1_000)), "the cheapest first"
        engine.give_back(need, taken[500])
        assert book.decide(need) == taken[500], "what came back is found again"
    assert looked < 100 * 1_001, "far fewer than the two million of looks at all rows"
