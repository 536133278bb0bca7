"""The stack's folder: one supervisor, a status that is never half, ports that stay."""

from pathlib import Path

import pytest

from fallow_stack.home import Home, MemberStatus, StackRunningError, StackStatus


def test_one_supervisor_a_folder(tmp_path: Path) -> None:
    """Goal: a second one is refused, and let in after the first. Method: two homes over one folder."""
    first, second = Home(tmp_path), Home(tmp_path)
    first.lock()
    with pytest.raises(StackRunningError):
        second.lock()
    assert second.is_locked()
    first.unlock()
    assert not second.is_locked()
    second.lock()
    second.unlock()


def test_the_status_comes_back(tmp_path: Path) -> None:
    """Goal: `fallow status` shows what the supervisor wrote. Method: write and read."""
    home = Home(tmp_path)
    assert home.read_status() is None
    status = StackStatus(7, (MemberStatus("order", "running", 8, 9, 10.5, 1, "ended by itself"),))
    home.write_status(status)
    assert home.read_status() == status


def test_wipe_forgets(tmp_path: Path) -> None:
    """Goal: nothing is left. Method: a file, then none."""
    home = Home(tmp_path / "stack")
    (home.folder("postgres") / "data").write_text("x", "utf-8")
    home.wipe()
    assert not (tmp_path / "stack").exists()
