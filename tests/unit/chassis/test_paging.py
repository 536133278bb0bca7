"""Lists by pages: the rules of AIP-158, which hold for every list of every service."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from fallow_chassis.errors import INVALID_FIELD, PAGE_TOKEN_INVALID, DomainError
from fallow_chassis.paging import Page, Place
from tests.unit.chassis.sample import Request

TIME = datetime(2026, 11, 25, 8, 0, 0, 123_000, tzinfo=UTC)


def token_after(place: Place, text: str = "filter") -> str:
    """The token of the page after an item, in the list with a filter."""
    _, token = Page(Request(text=text, page_size=1)).cut([0, 1], lambda _: place)
    return token


def forged(**changes: object) -> str:
    """A token whose content somebody changed; it is made for the list with the filter."""
    token = token_after("x")
    payload = {**json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))), **changes}
    return base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("requested", "shown"), [(0, 50), (1, 1), (7, 7), (1_000, 1_000), (1_001, 1_000), (2**31 - 1, 1_000)]
)
def test_page_sizes_have_bounds(requested: int, shown: int) -> None:
    """Goal: a default, and a maximum. Method: ask for none, some, the most, too many; one more than shown is fetched."""
    page = Page(Request(page_size=requested))
    assert page.limit == shown + 1
    items, token = page.cut(range(page.limit), str)
    assert (len(items), bool(token)) == (shown, True)


@pytest.mark.parametrize(("found", "shown", "goes_on"), [(0, 0, False), (1, 1, False), (2, 2, False), (3, 2, True)])
def test_the_end_of_a_list_has_no_token(found: int, shown: int, goes_on: bool) -> None:  # noqa: FBT001
    """Goal: no empty last page, and no page lost. Method: fewer, as many, and more items than a page of two."""
    items, token = Page(Request(page_size=2)).cut(range(found), str)
    assert (len(items), bool(token)) == (shown, goes_on)


def test_the_next_page_starts_after_the_last_item_shown() -> None:
    """Goal: every item once. Method: walk a list of seven by pages of three."""
    items, seen, token = [f"{number}" for number in range(1, 8)], list[str](), ""
    while True:
        page = Page(Request(text="filter", page_size=3, page_token=token))
        shown, token = page.cut([item for item in items if item > page.after_text()][: page.limit], str)
        seen += shown
        if not token:
            break
    assert seen == items


PLACES: list[tuple[Callable[[Page], Place | None], Place | None, Place]] = [
    (Page.after_text, "", "an id"),
    (Page.after_number, 0, 12),
    (Page.after_time, None, (TIME, "an id")),
]


@pytest.mark.parametrize(("read", "first", "place"), PLACES)
def test_places_go_through_tokens(read: Callable[[Page], Place | None], first: Place | None, place: Place) -> None:
    """Goal: what a token holds is what was put in. Method: the first page, and the one after a place, of any size."""
    assert read(Page(Request(text="filter"))) == first
    assert read(Page(Request(text="filter", page_size=99, page_token=token_after(place)))) == place


@pytest.mark.parametrize(
    "token",
    [
        token_after("x", text="other"),
        token_after("x")[:-3],
        token_after("x") + "A",
        "x",
        "é",
        "bnVsbA",
        "e30",
        "A" * 5_000,
        "[" * 1_500,
        forged(h=1),
        forged(p=[]),
        forged(p="x"),
        forged(extra=1),
    ],
)
def test_a_token_of_another_list_is_refused(token: str) -> None:
    """Goal: a token fits its list and no other. Method: other filters, cut, too long, no token at all, forged."""
    with pytest.raises(DomainError) as refused:
        Page(Request(text="filter", page_token=token))
    assert refused.value.has_reason(PAGE_TOKEN_INVALID)


@pytest.mark.parametrize("read", [Page.after_text, Page.after_number, Page.after_time])
@pytest.mark.parametrize(
    "parts",
    [
        [None],
        [["x"]],
        ["x", 1],
        ["no time", "x"],
        [1.5],
        [True, 1],
        ["a", "b", "c"],
        [True],
        [2**63],
        ["\0"],
        ["2026-11-25T08:00:00", "x"],
        ["0001-01-01T00:00:00+23:59", "x"],
        ["9999-12-31T23:59:59-23:59", "x"],
    ],
)
def test_a_forged_place_is_refused(read: Callable[[Page], object], parts: list[object]) -> None:
    """Goal: what we did not put into a token reaches no query. Method: places of other types and lengths."""
    page = Page(Request(text="filter", page_token=forged(p=parts)))
    with pytest.raises(DomainError) as refused:
        read(page)
    assert refused.value.has_reason(PAGE_TOKEN_INVALID)


def test_a_negative_size_is_refused() -> None:
    """Goal: AIP-158. Method: ask for less than nothing."""
    with pytest.raises(DomainError) as refused:
        Page(Request(page_size=-1))
    assert refused.value.has_reason(INVALID_FIELD)
    assert refused.value.violations[0].field == "page_size"
