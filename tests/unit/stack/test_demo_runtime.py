"""Which engine the stack uses, how the demo chooses between it and plain processes, and that it says so."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from fallow_stack.commands import DemoError, stack_settings
from fallow_stack.demo import EXEC_IMAGE, choose_runtime
from fallow_stack.settings import StackSettings


@pytest.fixture(autouse=True)
def no_engine_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no engine."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("FALLOW_DOCKER_SOCKET", raising=False)


@pytest.fixture
async def broken_engine(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of an engine that answers a ping and nothing else."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.path == "/_ping" else 507, text="no space left")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "broken.sock")).start()
    yield tmp_path / "broken.sock"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("environment", "socket"),
    [
        ({}, "/var/run/docker.sock"),
        ({"DOCKER_HOST": ""}, "/var/run/docker.sock"),
        ({"DOCKER_HOST": "unix:///run/a.sock"}, "/run/a.sock"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:2375"}, "tcp://127.0.0.1:2375"),
        ({"FALLOW_DOCKER_SOCKET": "/run/b.sock"}, "/run/b.sock"),
        ({"FALLOW_DOCKER_SOCKET": "unix:///run/b.sock", "DOCKER_HOST": "unix:///run/a.sock"}, "/run/b.sock"),
    ],
)
def test_the_environment_names_the_engine(
    environment: dict[str, str], socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: whoever has told Docker's own tools has told us. Method: both variables, alone and together."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert StackSettings().docker_socket == socket
    assert stack_settings(runtime="docker").docker_socket == socket


def test_providers_get_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: providers, which have a working directory of their own, find the socket. Method: a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FALLOW_DOCKER_SOCKET", "engine.sock")
    assert StackSettings().docker_socket == str(tmp_path / "engine.sock")


async def test_no_engine_is_said_and_gone_without(tmp_path: Path) -> None:
    """Goal: nobody takes a plain process for a container. Method: `auto` with no socket, and `exec`."""
    for runtime, why in (("auto", f"{tmp_path}/none.sock: there is no such socket)"), ("exec", "(asked for)")):
        said: list[str] = []
        settings = stack_settings(runtime=runtime, docker_socket=f"{tmp_path}/none.sock")
        assert await choose_runtime(settings, said.append) == ("exec", EXEC_IMAGE)
        (line,) = said
        assert line.startswith("workload: a plain process by the exec driver, with no isolation")
        assert line.rstrip(")") + ")" == line
        assert why in line


async def test_an_engine_that_was_asked_for_must_answer(tmp_path: Path) -> None:
    """Goal: a clear error. Method: no socket, a file, an address of the network, a folder in which none is."""
    (tmp_path / "file").touch()
    for socket, why in (
        (f"{tmp_path}/none.sock", "there is no such socket"),
        (f"{tmp_path}/file", "there is no such socket"),
        ("tcp://127.0.0.1:2375", "only an engine on a Unix socket can be used"),
    ):
        settings = StackSettings(runtime="docker", docker_socket=socket)
        with pytest.raises(DemoError) as error:
            await choose_runtime(settings, print)
        assert f"no container engine answers at {socket}: {why}" in str(error.value)
        assert "--runtime exec" in str(error.value)


@pytest.mark.parametrize("runtime", ["docker", "auto"])
async def test_an_engine_that_takes_no_image_ends_the_demo(runtime: str, broken_engine: Path) -> None:
    """Goal: an engine's trouble is told, not gone round. Method: an engine that answers each request with an error."""
    settings = stack_settings(runtime=runtime, docker_socket=str(broken_engine))
    with pytest.raises(DemoError, match="answered 507: no space left"):
        await choose_runtime(settings, print)
