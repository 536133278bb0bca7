"""Make what deploy/compose/compose.yaml reads: keys, credentials and passwords, in `.env` and `state/` beside it.

`tools/prepare_compose.py [FOLDER]` keeps what is there and makes what is missing, so it may be run again; the folder is
deploy/compose unless another is named. Nothing of it belongs into a repository. As root the keys are given to user 10001,
whom the containers then run as; as anybody else the containers run as that user.
"""

import base64
import os
import secrets
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Final

from eth_account import Account

from fallow_chassis.identity import generate_key_file, public_jwk, write_jwks
from fallow_chassis.nats_credentials import make_operator, service_credentials
from fallow_stack.engines.nats import configuration_text

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICES: Final = ("order", "bidding", "settlement")
IMAGE_USER: Final = 10_001
PASSWORDS: Final = ("POSTGRES_PASSWORD", "FALLOW_OWNER_PASSWORD", "FALLOW_SERVING_PASSWORD", "GRAFANA_PASSWORD")


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, "utf-8")
    draft.replace(path)


def known_settings(path: Path) -> dict[str, str]:
    """The lines of an environment file that is there; empty if there is none."""
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text("utf-8").splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def settings(kept: dict[str, str], user: str) -> dict[str, str]:
    """All variables of the compose file that are made: those that are there, and new ones for the rest."""
    Account.enable_unaudited_hdwallet_features()
    made = {name: secrets.token_urlsafe(24) for name in PASSWORDS}
    made["FALLOW_WORKLOAD_KEYS"] = "key-1:" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")
    made["FALLOW_CHAIN_MNEMONIC"] = Account.create_with_mnemonic()[1]
    version = tomllib.loads((ROOT / "libs/chassis/pyproject.toml").read_text("utf-8"))["project"]["version"]
    return made | kept | {"FALLOW_USER": user, "FALLOW_VERSION": version}


def write_keys(state: Path, operator_folder: Path) -> None:
    """A folder for each service: its identity key, its user of NATS, everybody's public keys, and no key of another's."""
    pems = {service: state / service / "identity.pem" for service in SERVICES}
    for pem in pems.values():
        if not pem.exists():
            generate_key_file(pem)
    operator = make_operator(operator_folder)
    write_private(state / "nats" / "nats.conf", configuration_text(operator, "0.0.0.0:4222", Path("/data")))
    write_private(state / "bidding" / "account.seed", operator.account_seed + "\n")
    for service in SERVICES:
        if not (credentials := state / service / "nats.creds").exists():
            write_private(credentials, service_credentials(operator.account_seed, service))
    for reader in (*SERVICES, "provider"):
        write_jwks(state / reader / "jwks.json", [public_jwk(pem, service) for service, pem in pems.items()])


def prepare(folder: Path) -> Path:
    """Make all that is missing under a folder; the environment file."""
    state = folder / "state"
    given = [state / name for name in (*SERVICES, "contracts", "provider", "provider-data")]
    for each in (state, state / "nats", *given):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    as_root = os.geteuid() == 0
    user = f"{IMAGE_USER}:{IMAGE_USER}" if as_root else f"{os.geteuid()}:{os.getegid()}"
    environment = settings(known_settings(folder / ".env"), user)
    write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in environment.items()))
    write_keys(state, state / "operator")
    anchorer = Account.from_mnemonic(environment["FALLOW_CHAIN_MNEMONIC"])
    write_private(state / "settlement" / "anchorer.key", "0x" + bytes(anchorer.key).hex() + "\n")
    if as_root:
        for path in [*given, *(file for each in given for file in each.iterdir())]:
            shutil.chown(path, IMAGE_USER, IMAGE_USER)
    return folder / ".env"


if __name__ == "__main__":
    made = prepare(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "deploy" / "compose")
    sys.stdout.write(f"prepare_compose: {made} and {made.parent / 'state'} hold all keys and passwords; keep them\n")
