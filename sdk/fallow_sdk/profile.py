"""Where the command finds the market, and who it is there. The only module of the SDK that reads the environment.

A profile is a JSON file: addresses, the wallet's key file, the last access token. The embedded stack writes one to
`.fallow/client.json`; elsewhere `FALLOW_PROFILE` names it.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fallow_sdk.client import Endpoints

VARIABLE = "FALLOW_PROFILE"
EMBEDDED = Path(".fallow") / "client.json"


class ProfileError(Exception):
    """There is no profile, or it cannot be read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Addresses and identity of one user of the market."""

    order: str
    bidding: str
    settlement: str
    wallet_key_file: str
    asset: str = "usdc"
    account: str = ""
    access_token: str = ""

    @property
    def endpoints(self) -> Endpoints:
        """The services' addresses."""
        return Endpoints(order=self.order, bidding=self.bidding, settlement=self.settlement)

    def with_session(self, account: str, access_token: str) -> "Profile":
        """The profile after a sign-in."""
        return replace(self, account=account, access_token=access_token)


def profile_path() -> Path:
    """The file that holds the profile."""
    return Path(os.environ.get(VARIABLE) or EMBEDDED)


def load_profile() -> Profile:
    """The present profile. Raises ProfileError with what to do."""
    return read_profile(profile_path())


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises ProfileError with what to do."""
    try:
        return Profile(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise ProfileError(
            f"no profile at {path}: start a stack with `fallow up`, or set {VARIABLE} to a profile file"
        ) from None
    except (ValueError, TypeError) as error:
        raise ProfileError(f"{path} is not a profile: {error}") from error


def save_profile(profile: Profile, path: Path | None = None) -> None:
    """Write a profile, readable by its owner only, whole or not at all."""
    target = path or profile_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(profile), file, indent=2)
    draft.replace(target)
