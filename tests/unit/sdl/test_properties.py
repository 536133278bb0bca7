"""What holds for every file: good ones convert into valid orders, spoilt ones name a place, and nothing else happens."""

import copy
import resource
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import fallow_sdl
from fallow.order.v1 import order_service_pb2
from fallow_chassis.validation import validate
from fallow_sdl import SdlError

SIGNS = [*"-:[]{}&*!|>'\"%\n\t\\\x00\ud800", "\r\n", "<<: ", "*a", "9" * 400]
GOOD = """\
version: '2.0'
services: {web: {image: nginx, env: ["A=b"], expose: [{port: 80, to: [{global: true}]}]}}
profiles:
  compute: {web: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {here: {pricing: {web: {denom: uact, amount: 1}}}}
deployment: {web: {here: {profile: web, count: 1}}}
"""
MEBIBYTE = 1 << 20

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=12)
SIZES = st.builds("{}{}".format, st.integers(2, 900), st.sampled_from(["Mi", "M", "Gi", "G", "gb"]))
CPU = st.one_of(st.integers(1, 64), st.builds("{}m".format, st.integers(1, 9_000)), st.sampled_from([0.1, "0.5", 1.25]))
FLAGS = st.sampled_from([True, False, "true", "on", "off", "yes", "no"])
PRICES = st.fixed_dictionaries(
    {"denom": st.sampled_from(["uact", "uakt", "uusdc"]), "amount": st.one_of(st.integers(1, 10**6), st.just("0.25"))}
)
CARDS = st.fixed_dictionaries(
    {"model": st.sampled_from(["h100", "A100", "rtx4090"])},
    optional={"ram": st.sampled_from(["24Gi", "80Gi"]), "interface": st.sampled_from(["pcie", "sxm"])},
)
GPUS = st.one_of(
    st.just({"units": 0}),
    st.builds(
        lambda units, cards: {"units": units, "attributes": {"vendor": {"nvidia": cards}}},
        st.integers(1, 8),
        st.one_of(st.none(), st.lists(CARDS, max_size=3)),
    ),
)
EXPOSES = st.fixed_dictionaries(
    {"port": st.one_of(st.integers(1, 65_535), st.just("8080"))},
    optional={
        "as": st.integers(1, 65_535),
        "proto": st.sampled_from(["tcp", "udp", "TCP"]),
        "to": st.sampled_from(
            [None, [], [{"global": True}], [{"service": "db"}], [{"service": "db"}, {"global": True}]]
        ),
        "http_options": st.just({"max_body_size": 1, "next_cases": ["error", "500"]}),
    },
)
SERVICES = st.fixed_dictionaries(
    {"image": st.sampled_from(["nginx", "ghcr.io/a/b:1.2", "a@sha256:00"])},
    optional={
        "command": st.one_of(st.none(), st.lists(WORDS, max_size=3)),
        "args": st.lists(WORDS, max_size=3),
        "env": st.lists(st.builds("{}={}".format, NAMES, WORDS), max_size=3),
        "expose": st.lists(EXPOSES, max_size=3),
        "dependencies": st.just([{"service": "db"}]),
        "credentials": st.just({"host": "r.example.com", "email": "a@b.c", "username": "u", "password": "p"}),
    },
)


@st.composite
def stacks(draw: st.DrawFn) -> dict[str, Any]:
    """A file that is right, as the tree that YAML writes."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    places = draw(st.lists(st.one_of(NAMES, st.just("US West 1")), min_size=1, max_size=2, unique=True))
    services: dict[str, Any] = {name: dict(draw(SERVICES)) for name in names}
    computes: dict[str, object] = {}
    for name in names:
        storage: object = {"size": draw(SIZES)}
        if draw(st.booleans()):
            attributes: dict[str, Any] = draw(
                st.sampled_from([{"persistent": True, "class": "beta3"}, {"class": "ram"}, {}])
            )
            storage = [storage, {"name": "data", "size": draw(SIZES), "attributes": attributes}]
            services[name]["params"] = {"storage": {"data": {"mount": "/data", "readOnly": draw(FLAGS)}}}
            if attributes.get("class") == "ram":
                services[name]["params"] = {"storage": {"data": {"mount": "/data"}}}
        computes[name] = {
            "resources": {
                "cpu": {"units": draw(CPU)},
                "memory": {"size": draw(SIZES)},
                "storage": storage,
                "gpu": draw(GPUS),
            }
        }
    placements = {
        place: {
            "attributes": draw(st.dictionaries(NAMES, WORDS, max_size=2)),
            "pricing": {name: draw(PRICES) for name in names},
            "signedBy": {"anyOf": draw(st.lists(NAMES, max_size=2))},
        }
        for place in places
    }
    deployment = {
        name: {place: {"profile": name, "count": draw(st.integers(1, 5))} for place in draw(st.just(places))}
        for name in names
    }
    stack: dict[str, Any] = {
        "version": draw(st.sampled_from(["2.0", "2.1", 2.0, 2.1])),
        "services": services,
        "profiles": {"compute": computes, "placement": placements},
        "deployment": deployment,
    }
    # Strategies may hand out the same value twice, and a test may spoil its own.
    return copy.deepcopy(stack)


def _leaves(node: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The paths of all values that a stack must have to be right, wherever they stand."""
    needed = {"version", "image", "port", "units", "size", "denom", "amount", "profile", "count", "mount"}
    if isinstance(node, dict):
        return [
            leaf
            for key, value in node.items()
            for leaf in (
                [(*path, key)] if key in needed and not isinstance(value, dict) else _leaves(value, (*path, key))
            )
        ]
    if isinstance(node, list):
        return [leaf for index, value in enumerate(node) for leaf in _leaves(value, (*path, index))]
    return []


def _places(text: str) -> list[tuple[int, str]]:
    """The lines and paths of a text's problems, each line within the text."""
    error = _error(text)
    if error is None:
        return []
    assert all(1 <= problem.line <= max(1, len(text.splitlines())) for problem in error.problems), error
    assert all("\n" not in str(problem) for problem in (*error.problems, *error.warnings)), error
    return [(problem.line, problem.path) for problem in error.problems]


def _error(text: str | bytes) -> SdlError | None:
    """What a text is refused with, if it is."""
    try:
        fallow_sdl.parse(fallow_sdl.read_text(text) if isinstance(text, bytes) else text)
    except SdlError as error:
        return error
    return None


@given(stacks(), st.booleans())
@settings(max_examples=100)
def test_what_is_right_converts_into_a_valid_order(stack: dict[str, Any], flow: bool) -> None:  # noqa: FBT001
    """Goal: nothing right is refused, and the service takes what comes out. Method: generated files, both YAML styles."""
    text = yaml.safe_dump(stack, default_flow_style=flow, sort_keys=False, allow_unicode=True)
    order = fallow_sdl.parse(text)
    validate(order_service_pb2.EstimateOrderRequest(order=order))
    assert sum(container.replicas for group in order.groups for container in group.workload.containers) == sum(
        entry["count"] for placed in stack["deployment"].values() for entry in placed.values()
    )


@given(stacks(), st.data())
@settings(max_examples=100)
def test_what_is_spoilt_names_a_place_in_the_file(stack: dict[str, Any], data: st.DataObject) -> None:
    """Goal: one wrong field is found. Method: one needed value is taken away or replaced by what fits no field."""
    leaf = data.draw(st.sampled_from(_leaves(stack)))
    node: Any = stack
    for key in leaf[:-1]:
        node = node[key]
    bad: Any = data.draw(st.sampled_from([None, "", "?", {"a": 1}, [1]]))
    if leaf[-1] == "image" and bad == "?":
        bad = None
    if leaf[-1] == "mount" and bad is None:
        bad = "relative"
    if leaf[-1] == "units" and leaf[-2] == "gpu":
        bad = data.draw(st.sampled_from(["?", {"a": 1}, 65]))
    node[leaf[-1]] = bad
    found = _places(yaml.safe_dump(stack, sort_keys=False, allow_unicode=True))
    assert found
    assert any(str(leaf[-1]) in path for _, path in found), (leaf, found)


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_bytes_raise_nothing_but_our_own_error(data: bytes) -> None:
    """Goal: whatever comes, an answer. Method: arbitrary bytes."""
    error = _error(data)
    assert error is not None, "no such bytes are an order"
    assert error.problems[0].line >= 1


@given(st.text("-:[]{}&*!|>'\"%@`?, \n\t#a0\\<~", max_size=80))
@settings(max_examples=300)
def test_yamls_own_signs_raise_nothing_but_our_own_error(text: str) -> None:
    """Goal: the parser's corners are safe. Method: texts of the characters that mean something to it."""
    assert _places(text), "no such text is an order"


@given(st.integers(0, 10**6), st.sampled_from(SIGNS))
@settings(max_examples=300)
def test_a_sign_anywhere_raises_nothing_but_our_own_error(position: int, sign: str) -> None:
    """Goal: a slip of a finger is never a crash. Method: a sign put anywhere in a good file."""
    text = GOOD[: position % len(GOOD)] + sign + GOOD[position % len(GOOD) :]
    assert all(line >= 1 for line, _ in _places(text))


@pytest.mark.parametrize(
    "text",
    [
        "[" * MEBIBYTE,
        "{" * MEBIBYTE,
        "- " * (MEBIBYTE // 2),
        "a: " * (MEBIBYTE // 3),
        "? " * (MEBIBYTE // 2),
        "!!" + "x" * (MEBIBYTE - 2),
        "'" + "x" * (MEBIBYTE - 1),
        "#" * MEBIBYTE,
        "a\n" * (MEBIBYTE // 2),
        "&a " * (MEBIBYTE // 3),
        "a: " + "9" * (MEBIBYTE - 3),
        "version: '2.0'\nservices: {" + ", ".join(f"s{n}: {{}}" for n in range(30_000)) + "}\n",
        GOOD + "endpoints: {" + ", ".join(f"e{n}: {{kind: ip}}" for n in range(30_000)) + "}\n",
        GOOD.replace('"A=b"', ", ".join(["A=b"] * 90_000)),
        GOOD.replace("here: {profile", "here: &d {profile").replace(
            "deployment: {", "deployment: {" + ", ".join(f"s{n}: {{here: {{profile: web, count: 1}}}}" for n in range(14_000)) + ", "
        ),
        GOOD.replace("web: {denom", ", ".join(f"p{n}: {{denom: uact, amount: 1}}" for n in range(15_000)) + ", web: {denom"),
        "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}\n" for n in range(1, 40)),
        "\u2028" * MEBIBYTE,
        "\ud83d" * 100_000,
    ],
    ids=lambda text: f"{text[:12]!r}-{len(text)}",
)  # fmt: skip
def test_a_mebibyte_of_anything_costs_little(text: str) -> None:
    """Goal: bounded time and memory. Method: a mebibyte of what parsers choke on; measured: under 1 s."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = _places(text)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(found) <= 101
    assert after.ru_utime - before.ru_utime < 10
    assert (after.ru_maxrss - before.ru_maxrss) * 1_024 < 400 * MEBIBYTE
