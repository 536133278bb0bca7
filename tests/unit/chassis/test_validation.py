"""Requests against the contract's rules."""

from typing import Any

import pytest
from google.protobuf import text_format

from fallow_chassis.errors import INVALID_FIELD, UNKNOWN_FIELD, DomainError
from fallow_chassis.validation import FieldRulesError, compile_rules, validate
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
    assert len(violations('order { groups { title: "abcdef" } } update_mask { }')) == 3


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
