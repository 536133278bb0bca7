"""Requests against the contract's rules."""

from typing import Any

import pytest
from google.protobuf import text_format

from fallow_chassis.errors import INVALID_FIELD, UNKNOWN_FIELD, DomainError
from fallow_chassis.validation import FieldRulesError, compile_rules, validate
from fallow_chassis.wire import from_duration, from_timestamp
from tests.unit.chassis.sample import Request, message

GOOD = 'order { shade: COLOR_RED groups { title: "a" price_limit { micros: 5 asset: "usdc" } } }'


def violations(text: str) -> list[tuple[str, str]]:
    """What is wrong with a request in protobuf's text form."""
    try:
        validate(text_format.Parse(text, Request()))
    except DomainError as error:
        if not error.has_reason(INVALID_FIELD):
            raise
        return [(violation.field, violation.description) for violation in error.violations]
    return []


def changed(old: str, new: str) -> str:
    """The good request with one part changed."""
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize("text", ["", GOOD, changed("micros: 5", "micros: 1"), changed("micros: 5", "micros: 1000")])
def test_good_requests_pass(text: str) -> None:
    """Goal: nothing good is refused. Method: an empty request, a full one, and both ends of a range."""
    assert violations(text) == []


@pytest.mark.parametrize(
    ("text", "field", "description"),
    [
        (changed("micros: 5", "micros: 0"), "order.groups[0].price_limit.micros", "must be at least 1"),
        (changed("micros: 5", "micros: -7"), "order.groups[0].price_limit.micros", "must be at least 1"),
        (changed("micros: 5", "micros: 1001"), "order.groups[0].price_limit.micros", "must be at most 1000"),
        (changed('"usdc"', '"USDC"'), "order.groups[0].price_limit.asset", "must match [a-z]{2,8}"),
        (changed('"usdc"', '"usdc x"'), "order.groups[0].price_limit.asset", "must match [a-z]{2,8}"),
        (changed('title: "a"', ""), "order.groups[0].title", "must be set"),
        (changed('title: "a"', 'title: "abcdef"'), "order.groups[0].title", "must have at most 5 characters"),
        (changed('price_limit { micros: 5 asset: "usdc" }', ""), "order.groups[0].price_limit", "must be set"),
        (changed('title: "a"', 'title: "a" replicas: 0'), "order.groups[0].replicas", "must be at least 1"),
        (changed('title: "a"', 'title: "a\\000"'), "order.groups[0].title", "must not hold NUL characters"),
        (changed("shade: COLOR_RED", ""), "order.shade", "must be set"),
        (changed("shade: COLOR_RED", "shade: COLOR_RED color: 7"), "order.color", "7 is no value of Color"),
        (changed("shade: COLOR_RED", 'shade: COLOR_RED tags: "a" tags: "B"'), "order.tags[1]", "must match [a-z]+"),
        (
            changed("shade: COLOR_RED", 'shade: COLOR_RED tags: "abcde"'),
            "order.tags[0]",
            "must have at most 4 characters",
        ),
        (changed("shade: COLOR_RED", 'shade: COLOR_RED key: "abc"'), "order.key", "must have at most 2 bytes"),
        (
            changed("shade: COLOR_RED", 'shade: COLOR_RED prices { key: "k" value { micros: 0 } }'),
            'order.prices["k"].micros',
            "must be at least 1",
        ),
        (
            changed("shade: COLOR_RED", 'shade: COLOR_RED labels { key: "k" value: "four" }'),
            'order.labels["k"]',
            "must have at most 3 characters",
        ),
        (
            changed("shade: COLOR_RED", 'shade: COLOR_RED inline { title: "a" }'),
            "order.inline.price_limit",
            "must be set",
        ),
        ("order { shade: COLOR_RED }", "order.groups", "must be set"),
        (r'text: "a\000b"', "text", "must not hold NUL characters"),
        (
            "order { shade: COLOR_RED groups { } groups { } groups { } }",
            "order.groups",
            "must have at most 2 items",
        ),
    ],
)
def test_bad_fields_are_named(text: str, field: str, description: str) -> None:
    """Goal: the path and the bound. Method: one change to a good request each."""
    assert violations(text) == [(field, description)]


def test_all_violations_are_told_at_once_up_to_a_bound() -> None:
    """Goal: a caller mends a request in one go. Method: two wrong fields; then very many."""
    assert [field for field, _ in violations(changed("micros: 5", "micros: 0").replace('title: "a"', ""))] == [
        "order.groups[0].title",
        "order.groups[0].price_limit.micros",
    ]
    many = GOOD.replace("shade: COLOR_RED", "shade: COLOR_RED " + 'tags: "A" ' * 100)
    assert len(violations(many)) == 20


def test_a_mask_frees_what_it_does_not_name() -> None:
    """Goal: a partial update need not repeat required fields, but bounds hold. Method: with and without a mask."""
    partial = 'order { groups { title: "abcdef" } } update_mask { paths: "order.groups" }'
    assert violations(partial) == [("order.groups[0].title", "must have at most 5 characters")]
    assert len(violations('order { groups { title: "abcdef" } }')) == 3


@pytest.mark.parametrize("mask", ["", "update_mask { }"])
def test_a_mask_that_names_nothing_is_all_that_is_told(mask: str) -> None:
    """Goal: who forgot the mask does not read about the resource. Method: one that must be there, missing and empty."""
    with pytest.raises(DomainError) as caught:
        validate(text_format.Parse('order { groups { title: "abcdef" } }' + mask, message("UpdateRequest")()))
    assert [(item.field, item.description) for item in caught.value.violations] == [
        ("update_mask", "must name the fields to change")
    ]


YEARS = "must be a time in the years 0001 to 9999"


@pytest.mark.parametrize(
    ("text", "field", "description"),
    [
        ("start { seconds: 253402300800 }", "start", YEARS),
        ("start { seconds: -62135596801 }", "start", YEARS),
        (f"start {{ seconds: {10**15} }}", "start", YEARS),
        (f"start {{ seconds: {2**62} }}", "start", YEARS),
        ("start { nanos: -1 }", "start", "must have nanos from 0 to 999999999"),
        ("start { nanos: 1000000000 }", "start", "must have nanos from 0 to 999999999"),
        ("ends { } ends { nanos: -1 }", "ends[1]", "must have nanos from 0 to 999999999"),
        ("length { seconds: 1 nanos: -1 }", "length", "must have seconds and nanos of the same sign"),
        ("length { seconds: -1 nanos: 1 }", "length", "must have seconds and nanos of the same sign"),
        ("length { nanos: -1000000000 }", "length", "must have nanos from -999999999 to 999999999"),
        ("length { seconds: 315576000001 }", "length", "must be at most 10000 years long"),
        (f"length {{ seconds: {-(2**63)} }}", "length", "must be at most 10000 years long"),
    ],
)
def test_times_that_are_none_are_refused(text: str, field: str, description: str) -> None:
    """Goal: no time that a datetime cannot hold. Method: one past each bound, alone and in a list."""
    with pytest.raises(DomainError) as caught:
        validate(text_format.Parse(text, message("Times")()))
    assert [(item.field, item.description) for item in caught.value.violations] == [(field, description)]


@pytest.mark.parametrize(
    "text",
    [
        "start { seconds: 253402300799 nanos: 999999999 } ends { }",
        "start { seconds: -62135596800 }",
        "length { seconds: -315576000000 nanos: -999999999 }",
        "length { seconds: 315576000000 }",
    ],
)
def test_times_at_their_bounds_pass_and_can_be_read(text: str) -> None:
    """Goal: the bounds are those of a datetime. Method: the first and the last time and the longest durations, read."""
    times = text_format.Parse(text, message("Times")())
    validate(times)
    assert from_timestamp(times.start).year in {1, 1970, 9999}
    assert abs(from_duration(times.length)) <= 315_576_000_001_000


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"\xfa\x3f\x01a", "#1023"),
        (b"\x12\x04\xfa\x3f\x01a", "order.#1023"),
        (b"\x12\x06\x0a\x04\xfa\x3f\x01a", "order.groups[0].#1023"),
        (b"\x12\x0b\x1a\x09\x0a\x01k\x12\x04\xfa\x3f\x01a", 'order.prices["k"].#1023'),
    ],
)
def test_unknown_fields_are_refused(raw: bytes, field: str) -> None:
    """Goal: nothing is half understood. Method: a field number that no release has, at every kind of place."""
    with pytest.raises(DomainError) as caught:
        validate(Request.FromString(raw))
    assert caught.value.has_reason(UNKNOWN_FIELD)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("name", ["BadPattern", "BadBounds"])
def test_rules_without_sense_stop_the_start(name: str) -> None:
    """Goal: a broken rule is found before it is needed. Method: compile types with one."""
    kind: Any = message(name)
    with pytest.raises(FieldRulesError):
        compile_rules(kind.DESCRIPTOR)
    compile_rules(Request.DESCRIPTOR)
