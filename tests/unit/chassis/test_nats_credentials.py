"""Credentials of NATS: what a user's JWT says, and how long keys last."""

import base64
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nkeys
import pytest

from fallow_chassis.nats_credentials import (
    inbox_prefix,
    make_operator,
    provider_credentials,
    service_credentials,
    user_credentials,
    user_name,
)
from fallow_chassis.testing import ManualClock

SUBJECT = "fallow.provider.p1"


def claims_of(jwt: str) -> dict[str, Any]:
    """What a JWT says."""
    body = jwt.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def jwt_in(credentials: str) -> str:
    """The JWT of a .creds file."""
    return credentials.splitlines()[1]


def test_a_provider_gets_its_own_subjects_and_no_others(tmp_path: Path) -> None:
    """Goal: no provider hears or speaks for another. Method: read the permissions in the JWT."""
    operator = make_operator(tmp_path)
    claims = claims_of(jwt_in(provider_credentials(operator.account_seed, "p1")))
    assert claims["iss"] == operator.account
    assert claims["nats"]["pub"] == {
        "allow": [f"{SUBJECT}.{word}" for word in ("heartbeat", "inventory", "bid", "log")]
    }
    assert claims["nats"]["sub"] == {"allow": [f"{SUBJECT}.command", "fallow.market.auction.>", "_INBOX_p1.>"]}
    assert claims["nats"]["resp"]["max"] == 1


def test_no_subject_means_none(tmp_path: Path) -> None:
    """Goal: an empty list, which NATS takes for everything, denies all. Method: a user who may do nothing."""
    operator = make_operator(tmp_path)
    claims = claims_of(jwt_in(user_credentials(operator.account_seed, "mute", publish=[], subscribe=[], responses=0)))
    assert claims["nats"]["pub"] == claims["nats"]["sub"] == {"deny": [">"]}
    assert "resp" not in claims["nats"]


def test_an_expiry_is_written(tmp_path: Path) -> None:
    """Goal: credentials may end. Method: make some with an end, by a clock that stands still."""
    clock = ManualClock()
    operator = make_operator(tmp_path, clock=clock)
    end = datetime(2026, 2, 1, tzinfo=UTC)
    claims = claims_of(jwt_in(provider_credentials(operator.account_seed, "p1", expires_at=end, clock=clock)))
    assert claims["exp"] == int(end.timestamp())
    assert claims["iat"] == int(clock.now().timestamp())


def test_the_signature_is_the_accounts(tmp_path: Path) -> None:
    """Goal: the server can check offline. Method: verify with the account's public key; a changed byte fails."""
    operator = make_operator(tmp_path)
    signed, _, signature = jwt_in(service_credentials(operator.account_seed, "order")).rpartition(".")
    key = nkeys.from_seed(operator.account_seed.encode())
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    assert key.verify(signed.encode(), raw)
    with pytest.raises(nkeys.ErrInvalidSignature):
        key.verify(signed.encode() + b"x", raw)


def test_an_operator_is_made_once(tmp_path: Path) -> None:
    """Goal: providers' credentials outlive a restart. Method: make it twice in one folder, and once elsewhere."""
    first, second, other = (make_operator(tmp_path / name) for name in ("a", "a", "b"))
    assert first.account_seed == second.account_seed
    assert (first.account, first.system_account) == (second.account, second.system_account)
    assert first.account != other.account
    assert stat.S_IMODE((tmp_path / "a" / "account.seed").stat().st_mode) == 0o600
    assert first.account_seed not in repr(first)


def test_a_users_name_is_read_back(tmp_path: Path) -> None:
    """Goal: the inbox prefix needs no setting. Method: read the name from the text; text that is none is refused."""
    operator = make_operator(tmp_path)
    assert inbox_prefix(user_name(provider_credentials(operator.account_seed, "p1"))) == "_INBOX_p1"
    for nonsense in ("", "-----BEGIN NATS USER JWT-----\nxx\n------END NATS USER JWT------"):
        with pytest.raises(ValueError, match="JWT"):
            user_name(nonsense)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a/b"])
def test_a_name_that_is_no_token_is_refused(tmp_path: Path, name: str) -> None:
    """Goal: no name widens a subject. Method: names with the marks of NATS's subjects in them."""
    operator = make_operator(tmp_path)
    with pytest.raises(AssertionError):
        provider_credentials(operator.account_seed, name)
