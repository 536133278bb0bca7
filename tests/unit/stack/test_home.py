"""The stack's folder: one supervisor, a status that is never half, ports that stay."""

import os
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from fallow_stack.commands import down
from fallow_stack.engines import EngineError, Kafka
from fallow_stack.home import Home, MemberStatus, StackRunningError, StackStatus


def nowhere(data: Path) -> Path:
    """No Postgres keeps its data elsewhere."""
    return data / "elsewhere"


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


def test_who_holds_the_folder_is_known(tmp_path: Path) -> None:
    """Goal: `fallow down` ends the supervisor and nobody else. Method: the pid under the lock, not of a stale status."""
    first, second = Home(tmp_path), Home(tmp_path)
    first.write_status(StackStatus(7, ()))
    assert second.holder() is None
    first.lock()
    assert second.holder() == os.getpid()
    first.unlock()
    assert second.holder() is None


def test_a_running_stack_is_not_forgotten(tmp_path: Path) -> None:
    """Goal: no wipe under a running stack, its own or one inside. Method: hold each lock; all data is still there."""
    outer, inner = Home(tmp_path), Home(tmp_path / "demo")
    for home in (outer, inner):
        (home.folder("postgres") / "data").write_text("x", "utf-8")
        home.lock()
        with pytest.raises(StackRunningError, match=str(home.root)):
            Home(tmp_path).wipe(nowhere)
        home.unlock()
        assert (home.root / "postgres" / "data").exists()
    inner.lock()
    inner.unlock()
    outer.wipe(nowhere)
    assert not tmp_path.exists()


def test_down_wipes_nothing_under_a_running_demo(tmp_path: Path) -> None:
    """Goal: the command says who runs, and fails. Method: `down --wipe` while the folder inside is held."""
    app = Typer()
    app.command()(down)
    demo = Home(tmp_path / "demo")
    (demo.folder("postgres") / "data").write_text("x", "utf-8")
    demo.lock()
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "--wipe"])
    assert result.exit_code == 1
    assert "stop it first, nothing was forgotten" in " ".join(result.output.split())
    assert (tmp_path / "demo" / "postgres" / "data").exists()
    demo.unlock()
    assert CliRunner().invoke(app, ["--home", str(tmp_path), "--wipe"]).exit_code == 0
    assert not tmp_path.exists()


def test_what_make_kafka_keeps_stays(tmp_path: Path) -> None:
    """Goal: jars and the node of `make kafka` are no stack's to forget. Method: both beside a stack's own Kafka data."""
    home = Home(tmp_path)
    for name in ("lib", "node", "logs"):
        (home.folder("kafka", name) / "file").write_text("x", "utf-8")
    home.folder("postgres")
    home.wipe(nowhere)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file", "kafka", "lib", "node"]


async def test_kafka_without_its_jars_says_what_to_do(tmp_path: Path) -> None:
    """Goal: no message of Java's for what a command mends. Method: start a node over an empty folder of jars."""
    node = Kafka(tmp_path / "data", libraries=tmp_path / "lib")
    with pytest.raises(EngineError, match="run `make kafka` first"):
        await node.start()
    assert not (tmp_path / "data").exists()


def test_wipe_forgets(tmp_path: Path) -> None:
    """Goal: nothing is left, here or where another user's Postgres keeps it. Method: a file in each, then none."""
    home = Home(tmp_path / "stack")
    (home.folder("postgres") / "data").write_text("x", "utf-8")
    (tmp_path / "elsewhere").mkdir()
    home.wipe(lambda data: tmp_path / "elsewhere" if data == home.root / "postgres" else data / "elsewhere")
    assert list(tmp_path.iterdir()) == []
