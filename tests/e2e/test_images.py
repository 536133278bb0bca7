"""The images as `make images` builds them, on a real engine: what they hold, and a market whose four services are containers.

The base is made of Debian's packages, as this machine reaches no registry of images; everything else is as for anybody.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fallow.bidding.v1 import provider_pb2
from fallow_chassis.testing import DatabaseFactory, TestIdentity
from fallow_sdk.client import Client, Endpoints
from fallow_sdk.wallet import Wallet
from fallow_stack.engines import Nats
from tests import base_image, dockerd

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).resolve().parents[2]
SERVICES: Final = ("order", "bidding", "settlement", "provider")
USER: Final = 10_001
STOP_SECONDS: Final = 30
WAIT_SECONDS: Final = 90.0
# What a platform would give a container: no rights, nothing to write but a small scratch folder.
HARD: Final = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


class Images:
    """The images of the four services on an engine of the test's own, and the containers started from them."""

    def __init__(self, engine: dockerd.Dockerd) -> None:
        self._environment = os.environ | {"DOCKER_HOST": f"unix://{engine.socket}", "HOME": str(engine.folder)}
        program = shutil.which("docker") or str(dockerd.UNPACKED / "usr/bin/docker")
        self._command = [program]
        self.version = re.findall(
            r'^version = "(.+)"$', (ROOT / "libs/chassis/pyproject.toml").read_text(), re.MULTILINE
        )[0]
        base = base_image.load_base([program, "--host", f"unix://{engine.socket}"])
        self._environment |= {"DOCKER": program, "BASE": base, "BUILD_ARGUMENTS": "--network=host"}

    def build(self) -> str:
        """Build all four as `make images` does; what was printed."""
        ran = subprocess.run(
            ["sh", "tools/images.sh"], cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def docker(self, *arguments: str) -> str:
        """What a command of the engine's client prints; AssertionError where it fails."""
        status, output = self.docker_status(*arguments)
        assert status == 0, output
        return output.strip()

    def docker_status(self, *arguments: str) -> tuple[int, str]:
        """The exit status of a command of the engine's client, and all that it printed."""
        ran = subprocess.run(
            [*self._command, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        return ran.returncode, ran.stdout + ran.stderr

    def name(self, service: str) -> str:
        """An image by its tag."""
        return f"fallow/{service}:{self.version}"

    def run_inside(self, service: str, script: str) -> str:
        """What a shell's script prints in an image's container."""
        return self.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", self.name(service), "-c", script)

    def options(self, environment: Mapping[str, str], *mounted: Path) -> list[str]:
        """What a service's container is run with."""
        settings = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        folders = [part for folder in mounted for part in ("--volume", f"{folder}:{folder}:ro")]
        return ["--network", "host", *HARD, "--volume", "/var/lib/fallow", *settings, *folders]

    async def healthy(self, container: str) -> None:
        """Wait until the image's own health check says that the service serves."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            state = json.loads(await asyncio.to_thread(self.docker, "inspect", container))[0]["State"]
            if state["Health"]["Status"] == "healthy":
                return
            assert state["Running"], self.docker_status("logs", container)[1]
            assert time.monotonic() < deadline, [state["Health"], self.docker_status("logs", container)[1]]
            await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """All images, built."""
    for reason in (dockerd.missing(), base_image.missing()):
        if reason is not None:
            pytest.skip(reason)
    engine = dockerd.Dockerd(tmp_path_factory.mktemp("docker"), "host")
    try:
        engine.start()
        built = Images(engine)
        output = built.build()
        assert output.count("holds what") == len(SERVICES), output
        yield built
    finally:
        engine.stop()


def pinned() -> dict[str, set[str]]:
    """The versions that constraints.txt allows, by package; some have one for older interpreters too."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if "==" in line and not line.startswith(" "):
            requirement = Requirement(line.rstrip(" \\"))
            versions = {specifier.version for specifier in requirement.specifier}
            found.setdefault(canonicalize_name(requirement.name), set()).update(versions)
    return found


def test_an_image_holds_a_service_and_its_pinned_packages_alone(images: Images) -> None:
    """Goal: an image is no larger than it must be, and its list is true. Method: each list against constraints.txt and
    against what the interpreter inside finds; tools, tests and foreign services are looked for.
    """
    allowed = pinned()
    for service in SERVICES:
        listed = json.loads((ROOT / ".build/images" / f"{service}.cdx.json").read_text("utf-8"))
        assert listed["bomFormat"] == "CycloneDX"
        packages = {canonicalize_name(part["name"]): part["version"] for part in listed["components"]}
        own = {name for name in packages if name.startswith("fallow-")}
        libraries = {"order": {"fallow-sdl"}, "settlement": {"fallow-receipts"}}.get(service, set())
        assert own == {"fallow-api", "fallow-chassis", f"fallow-{service}"} | libraries
        assert {
            name: version for name, version in packages.items() if version not in allowed.get(name, {version})
        } == {}
        assert {name for name in packages if name not in allowed} == own
        assert packages.keys().isdisjoint({"pip", "uv", "pytest", "mypy", "hatchling", "cyclonedx-bom"})
        script = "from importlib import metadata as m; print(*(d.metadata['Name'] for d in m.distributions()), sep=' ')"
        inside = images.run_inside(service, f'python -I -c "{script}"').split()
        there = {canonicalize_name(name) for name in inside}
        assert packages.keys() <= there, "the list names what is not there"
        assert images.run_inside(service, "id -u; ls /source 2>&1 || true").splitlines()[0] == str(USER)
        assert "No such file" in images.run_inside(service, "ls /source 2>&1 || true")


async def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def handed_over(folder: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """Copies of files that the containers' user may read, as a mounted secret would be; their paths by name."""
    folder.mkdir(exist_ok=True)
    given: dict[str, str] = {}
    for name, source in files.items():
        target = folder / name
        shutil.copyfile(source, target)
        os.chown(target, USER, USER)
        target.chmod(0o400)
        given[name] = str(target)
    folder.chmod(0o755)
    return given


async def settings_of_all(
    databases: DatabaseFactory, nats: Nats, identity: TestIdentity, folder: Path
) -> dict[str, dict[str, str]]:
    """What each service of the platform is told, by service; addresses are loopback's."""
    platform = SERVICES[:3]
    files = {f"{service}.pem": identity.key_file(service) for service in platform}
    files |= {f"{service}.creds": nats.service_credentials_file(service) for service in platform}
    files |= {"jwks.json": identity.jwks, "account.seed": nats.account_seed_file}
    given = await asyncio.to_thread(handed_over, folder, files)
    addresses = {
        service: f"127.0.0.1:{port}" for service, port in zip(platform, await free_ports(len(platform)), strict=True)
    }
    shared = {f"FALLOW_{service.upper()}_ADDRESS": address for service, address in addresses.items()}
    own = {
        "order": {"FALLOW_WORKLOAD_KEYS": "test-1:" + "QUFB" * 10 + "QUE="},
        "bidding": {"FALLOW_NATS_ACCOUNT_SEED_FILE": given["account.seed"], "FALLOW_PROVIDER_NATS_URL": nats.url},
    }
    return {
        service: shared
        | {
            "FALLOW_LISTEN": addresses[service],
            "FALLOW_DATABASE_URL": await databases.empty(),
            "FALLOW_NATS_URL": nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": given[f"{service}.creds"],
            "FALLOW_IDENTITY_KEY_FILE": given[f"{service}.pem"],
            "FALLOW_JWKS": given["jwks.json"],
        }
        | own.get(service, {})
        for service in platform
    }


async def provider_settings(shared: dict[str, str], folder: Path) -> dict[str, str]:
    """What the agent is told: its owner signs in and makes a key, as any owner does."""
    endpoints = Endpoints(*(shared[f"FALLOW_{name}_ADDRESS"] for name in ("ORDER", "BIDDING", "SETTLEMENT")))
    async with Client(endpoints) as client:
        await client.sign_in(Wallet.load_or_create(folder.parent / "owner.key"))
        key = await client.create_api_key("site", ("providers.read", "providers.write"))
    (folder.parent / "api.key").write_text(key.secret, "ascii")
    given = handed_over(folder, {"api.key": folder.parent / "api.key", "site.toml": ROOT / "docs/examples/site.toml"})
    (port,) = await free_ports(1)
    return {name: value for name, value in shared.items() if name.endswith(("_ADDRESS", "_JWKS"))} | {
        "FALLOW_LISTEN": f"127.0.0.1:{port}",
        "FALLOW_API_KEY_FILE": given["api.key"],
        "FALLOW_SITE_FILE": given["site.toml"],
        "FALLOW_STATE_DIRECTORY": "/var/lib/fallow",
        "FALLOW_RUNTIME": "exec",
    }


async def providers_of(settings: Mapping[str, str], wallet: Wallet) -> list[provider_pb2.Provider]:
    """The providers that the market knows, waited for."""
    endpoints = Endpoints(*(settings[f"FALLOW_{name}_ADDRESS"] for name in ("ORDER", "BIDDING", "SETTLEMENT")))
    async with asyncio.timeout(WAIT_SECONDS), Client(endpoints) as client:
        await client.sign_in(wallet)
        while True:
            found = [each for each in await client.list_providers() if each.state == provider_pb2.PROVIDER_STATE_ONLINE]
            if found:
                return found
            await asyncio.sleep(0.2)


async def test_the_services_run_from_their_images(
    images: Images, database_factory: DatabaseFactory, identity: TestIdentity, private_nats: Nats, tmp_path: Path
) -> None:
    """Goal: an image starts where a platform takes every right away, tells its health, and stops in order. Method: the
    migrations, the checks and then all four services as containers on real engines; an owner's provider joins the market.
    """
    folder = tmp_path / "given"
    settings = await settings_of_all(database_factory, private_nats, identity, folder)
    tag = secrets.token_hex(4)
    names = {service: f"{service}-{tag}" for service in SERVICES}

    async def start(service: str, environment: Mapping[str, str], given: Path) -> None:
        options = images.options(environment, given, folder)
        options = [*options, "--name", names[service], images.name(service)]
        await asyncio.to_thread(images.docker, "run", "--detach", *options)
        await images.healthy(names[service])

    async def migrate_and_start(service: str, environment: Mapping[str, str]) -> None:
        once = [*images.options(environment, folder), "--rm", images.name(service)]
        await asyncio.to_thread(images.docker, "run", *once, "migrate")
        await asyncio.to_thread(images.docker, "run", *once, "check")
        await start(service, environment, folder)

    async with asyncio.TaskGroup() as group:
        for service, environment in settings.items():
            group.create_task(migrate_and_start(service, environment))
    await start("provider", await provider_settings(settings["order"], tmp_path / "site"), tmp_path / "site")
    (joined,) = await providers_of(settings["order"], Wallet.load(tmp_path / "owner.key"))
    assert joined.display_name == "Fjord GPUs"
    await asyncio.to_thread(images.docker, "stop", "--time", str(STOP_SECONDS), *names.values())
    for service in SERVICES:
        ended: dict[str, Any] = json.loads(images.docker("inspect", names[service]))[0]["State"]
        assert ended["ExitCode"] == 0, images.docker_status("logs", names[service])[1]


def test_an_image_without_settings_says_what_is_missing(images: Images) -> None:
    """Goal: who forgets a setting is told which. Method: each image with nothing; the health check beside it."""
    for service in SERVICES:
        status, output = images.docker_status("run", "--rm", "--network", "none", images.name(service))
        assert status == 2, output
        assert re.fullmatch(r"FALLOW_[A-Z_]+ is not set", output.strip().splitlines()[-1]), output
        probed = ("run", "--rm", "--network", "none", "--entrypoint", "python", images.name(service))
        status, output = images.docker_status(*probed, "-m", "fallow_chassis.probe")
        assert (status, output.strip()) == (1, "no answer: UNAVAILABLE")
