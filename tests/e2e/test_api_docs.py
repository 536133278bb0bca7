"""docs/api: each call of a page is made as it stands, and answers what the page says."""

import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_service_pb2, session_service_pb2
from fallow.settlement.v1 import settlement_service_pb2
from fallow_stack.testing import FALLOW, RunningStack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"```sh\n(.*?)```\n\n```(json|text|console)\n(.*?)```", flags=re.DOTALL)
PAGES: dict[str, set[str]] = {
    "orders.md": {
        f"{service.full_name}/{method.name}"
        for module in (order_service_pb2, session_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    },
    "money.md": {
        f"fallow.settlement.v1.{name}/{method.name}"
        for name in ("FundsService", "ReceiptService")
        for method in settlement_service_pb2.DESCRIPTOR.services_by_name[name].methods
    },
    "market.md": {
        f"fallow.bidding.v1.MarketDataService/{method.name}"
        for method in market_service_pb2.DESCRIPTOR.services_by_name["MarketDataService"].methods
    },
}
ANY = "…"
WAIT_SECONDS = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up` with two sites, as the page shows them."""
    stack = RunningStack(tmp_path_factory.mktemp("pages"), "--runtime", "exec", "--providers", "2")
    await stack.start()
    yield stack
    assert await stack.stop() == 0


def fits(shown: Any, answered: Any) -> bool:
    """Whether an answer is what the page shows: `…` stands for anything, and more may be there than is shown."""
    if isinstance(shown, dict):
        return isinstance(answered, dict) and all(
            key in answered and fits(value, answered[key]) for key, value in shown.items()
        )
    if isinstance(shown, list):
        return isinstance(answered, list) and all(any(fits(item, other) for other in answered) for item in shown)
    if isinstance(shown, str) and ANY in shown:
        pattern = ".*".join(re.escape(part) for part in shown.split(ANY))
        return isinstance(answered, str) and re.fullmatch(pattern, answered, flags=re.DOTALL) is not None
    return type(shown) is type(answered) and bool(shown == answered)


def fit_in_order(shown: list[Any], answered: list[Any]) -> bool:
    """Whether each line that is shown came, in the order of the page."""
    rest = iter(answered)
    return all(any(fits(line, answer) for answer in rest) for line in shown)


@pytest.mark.parametrize(
    ("shown", "answered", "expected"),
    [
        ({}, {"a": 1}, True),
        ({"a": 1}, {}, False),
        ({"a": "…"}, {"a": "x"}, True),
        ({"a": "…"}, {"a": 1}, False),
        ({"a": "x/…"}, {"a": "y/1"}, False),
        ([{"a": 1}], [{"a": 2}, {"a": 1}], True),
        ([{"a": 3}], [{"a": 2}, {"a": 1}], False),
        (1, True, False),
    ],
)
async def test_what_is_shown_is_compared(shown: Any, answered: Any, *, expected: bool) -> None:
    """Goal: the comparison itself can fail. Method: a table, and lines in the wrong order."""
    assert fits(shown, answered) is expected
    assert fit_in_order([1, 2], [0, 1, 5, 2])
    assert not fit_in_order([2, 1], [0, 1, 5, 2])


def page_of(name: str) -> str:
    """The text of a page."""
    return (ROOT / "docs/api" / name).read_text("utf-8")


def steps_of(name: str) -> list[tuple[str, str, str]]:
    """The commands of a page with what they print: `json`, an error (`text`), or lines for people (`console`)."""
    return STEP.findall(page_of(name))


@pytest.mark.parametrize("name", PAGES)
async def test_every_method_has_its_place(name: str) -> None:
    """Goal: a page is whole. Method: the methods of the contract, and those that the page calls."""
    steps = steps_of(name)
    called = [re.findall(r"fallow call (\S+)", command) for command, language, _ in steps if language != "console"]
    assert all(len(found) == 1 for found in called), "one call a block"
    assert {found[0] for found in called} == PAGES[name]
    assert len(steps) == page_of(name).count("```sh"), "each call has its answer"


def run(command: str, stack: RunningStack, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one command of the page by a shell at the checkout's root; the file that it writes goes to `folder`."""
    environment = os.environ | {
        "FALLOW_PROFILE": str(stack.home.profile),
        "PATH": f"{FALLOW.parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    text = command.replace("challenge.json", str(folder / "challenge.json"))
    return subprocess.run(
        ["/bin/sh", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def lines(text: str) -> list[Any]:
    """The lines of a text with one space between words, however wide a table made them."""
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def documents(text: str) -> list[Any]:
    """The JSON documents of a text, one after the other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text.rstrip()):
        value, place = decoder.raw_decode(text, place)
        found.append(value)
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


def remember(answer: str, known: dict[str, str]) -> None:
    """Keep the names that a reader would copy into later calls."""
    for placeholder, pattern in (
        ("accounts/…/apiKeys/…", r"accounts/[0-9a-z]{26}/apiKeys/[0-9a-z]{26}"),
        ("orders/…", r"orders/[0-9a-z]{26}"),
        ("leases/…", r"leases/[0-9a-z]{26}"),
        ("charges/…", r"charges/[0-9a-z]{26}"),
        ("fallow_…", r"fallow_[A-Za-z0-9_-]{20,}"),
    ):
        if found := re.search(pattern, answer):
            known.setdefault(placeholder, found[0])


@pytest.mark.parametrize("name", PAGES)
async def test_each_call_answers_as_the_page_says(name: str, stack: RunningStack, tmp_path: Path) -> None:
    """Goal: an integrator may copy from the page. Method: run each call in turn, with the names that were answered
    before; a read is repeated until the order is as far as the page shows it.
    """
    funded = run("fallow funds deposit 25", stack, tmp_path)
    assert funded.returncode == 0, funded.stderr
    known: dict[str, str] = {}
    for command, language, shown in steps_of(name):
        text = command
        for placeholder, value in known.items():
            text = text.replace(placeholder, value)
        assert ANY not in text, text
        deadline = time.monotonic() + (WAIT_SECONDS if re.search(r"Service/(Get|List)", text) else 0)
        while True:
            result = run(text, stack, tmp_path)
            if language == "text":
                good = result.returncode == 1 and fits(shown.strip() + ANY, result.stderr)
            elif language == "console":
                good = result.returncode == 0 and fit_in_order(lines(shown), lines(result.stdout))
            else:
                good = result.returncode == 0 and fit_in_order(documents(shown), documents(result.stdout))
            if good or time.monotonic() > deadline:
                break
        assert good, f"{text}\nshown:\n{shown}\nanswered:\n{result.stdout}{result.stderr}"
        remember(result.stdout, known)
