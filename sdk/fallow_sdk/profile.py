"""Where the command finds the market, and who it is there. The only module of the SDK that reads the environment.

A profile is a JSON file: addresses, what to sign in with, the last access token. The embedded stack writes one to
`.fallow/client.json`; elsewhere `FALLOW_PROFILE` names it. What signs in, the first that there is: the API key in
`FALLOW_API_KEY`, or in the file that `FALLOW_API_KEY_FILE` names; the profile's identity token; its API key; its wallet.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fallow_sdk.client import Endpoints
from fallow_sdk.credentials import ApiKeyCredential, Credential, OidcTokenFile, WalletCredential
from fallow_sdk.wallet import Wallet

VARIABLE = "FALLOW_PROFILE"
KEY_VARIABLE = "FALLOW_API_KEY"
KEY_FILE_VARIABLE = "FALLOW_API_KEY_FILE"
EMBEDDED = Path(".fallow") / "client.json"


class ProfileError(Exception):
    """There is no profile, or it cannot be read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Addresses and identity of one user of the market."""

    order: str
    bidding: str
    settlement: str
    wallet_key_file: str = ""
    asset: str = "usdc"
    account: str = ""
    access_token: str = ""
    api_key_file: str = ""
    oidc_token_file: str = ""

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


def credential_of(profile: Profile) -> Credential:
    """What to sign in with. Raises ProfileError with what to do."""
    if secret := os.environ.get(KEY_VARIABLE, "").strip():
        return ApiKeyCredential(secret)
    key_file = os.environ.get(KEY_FILE_VARIABLE) or ("" if profile.oidc_token_file else profile.api_key_file)
    try:
        if key_file:
            return ApiKeyCredential.load(Path(key_file))
        if profile.oidc_token_file:
            return OidcTokenFile(Path(profile.oidc_token_file))
        if profile.wallet_key_file:
            return WalletCredential(Wallet.load(Path(profile.wallet_key_file)))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot sign in: {error}") from error
    raise ProfileError(f"nothing to sign in with: set {KEY_VARIABLE}, or use `fallow login --api-key FILE`")


def save_secret(text: str, path: Path) -> None:
    """Write a secret to a file that its owner alone may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def save_profile(profile: Profile, path: Path | None = None) -> None:
    """Write a profile, readable by its owner only, whole or not at all."""
    save_secret(json.dumps(asdict(profile), indent=2), path or profile_path())
