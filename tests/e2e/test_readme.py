"""The README's commands, as a reader runs them: taken from its text, in its order, against a running stack."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fallow_stack.testing import FALLOW, RunningStack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningStack]:
    """`fallow up`, as the README says."""
    stack = RunningStack(tmp_path_factory.mktemp("readme"), "--runtime", "exec")
    await stack.start()
    yield stack
    assert await stack.stop() == 0


def section(title: str) -> str:
    """The text under a heading, up to the next one of any level."""
    return re.split(r"^#{2,3} ", README.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(title: str, language: str) -> list[str]:
    """The code blocks of a section."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), flags=re.DOTALL)


def run(command: str, stack: RunningStack, folder: Path) -> str:
    """Run one command of the README by a shell at the checkout's root; files that it writes go to `folder`."""
    environment = os.environ | {
        "FALLOW_PROFILE": str(stack.home.profile),
        "PATH": f"{FALLOW.parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    result = subprocess.run(
        ["/bin/sh", "-c", command.replace("receipt.json", str(folder / "receipt.json"))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


def fill_in(command: str, known: dict[str, str]) -> str:
    """The command with the names that a reader would copy from what was printed before."""
    for placeholder, value in known.items():
        command = command.replace(placeholder, value)
    return command


async def test_a_first_order_by_hand(stack: RunningStack, tmp_path: Path) -> None:
    """Goal: the README's commands work as they stand. Method: run each line; copy names as a reader would."""
    known: dict[str, str] = {}
    lines = [line for block in blocks("A first order by hand", "sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("fallow ")]
    assert len(commands) == 12, "the section has changed: look at this test"
    for command in commands:
        output = run(fill_in(command, known), stack, tmp_path)
        for name in re.findall(r"(?:orders|charges)/[0-9a-z]{26}", output):
            known.setdefault(f"{name.split('/')[0]}/…", name)
        if root := re.search(r"settlement root (0x[0-9a-f]{64})", output):
            known["0x…"] = root[1]
    assert set(known) == {"orders/…", "charges/…", "0x…"}


async def test_the_same_by_grpc(stack: RunningStack, tmp_path: Path) -> None:
    """Goal: the README's calls work as they stand. Method: run each; the last closes what was listed before it."""
    run("fallow funds deposit 25", stack, tmp_path)
    (block,) = blocks("By gRPC", "sh")
    commands = [f"fallow call {part}" for part in block.split("fallow call ")[1:]]
    assert len(commands) == 5
    answers = [json.loads(run(command, stack, tmp_path)) for command in commands[:4]]
    order = answers[2]["name"]
    assert [item["name"] for item in answers[3]["orders"]] == [order]
    closed = json.loads(run(commands[4].replace("orders/…", order), stack, tmp_path))
    assert closed["state"] in {"ORDER_STATE_CLOSING", "ORDER_STATE_CLOSED"}


async def test_the_same_by_the_sdk(stack: RunningStack, tmp_path: Path) -> None:
    """Goal: the README's program works as it stands. Method: run it."""
    run("fallow funds deposit 25", stack, tmp_path)
    (program,) = blocks("By the SDK", "python")
    file = tmp_path / "first_order.py"
    file.write_text(program, "utf-8")
    assert run(f"{sys.executable} {file}", stack, tmp_path).startswith("http://127.0.0.1:")
