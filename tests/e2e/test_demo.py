"""`fallow demo`, as a user runs it: the exit status tells the truth, twice works, both runtimes do the same."""

import os
import subprocess
from pathlib import Path

import pytest

from fallow_stack.testing import FALLOW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run_demo(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end where no container engine answers."""
    return subprocess.run(
        [FALLOW, "demo", "--home", home, *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200", "DOCKER_HOST": f"unix://{home}/none.sock"},
    )


def test_the_demo_works_twice(tmp_path: Path) -> None:
    """Goal: the first command of the README works, and works again on its own data. Method: run it twice.

    The second run finds no engine and says that it goes on without.
    """
    for runtime, why in (("exec", "asked for"), ("auto", f"no container engine answers at {tmp_path}/none.sock")):
        result = run_demo(tmp_path, "--runtime", runtime)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"exec driver, with no isolation ({why}" in result.stdout
        assert "lost: " in result.stdout, "the losing offers and why"
        assert "answered /" in result.stdout, "the workload's live log"
        assert "good: charge" in result.stdout
        assert "refused: " in result.stdout, "the tampered receipt"


def test_a_demo_that_cannot_work_says_so(tmp_path: Path) -> None:
    """Goal: no success without the thing itself. Method: ask for a container engine where none answers."""
    result = run_demo(tmp_path, "--runtime", "docker")
    assert result.returncode == 1
    assert f"error: no container engine answers at {tmp_path}/none.sock: there is no such socket" in result.stdout
