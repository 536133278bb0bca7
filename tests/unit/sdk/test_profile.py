"""The profile file: whole or not at all, private, and clear when it is missing or broken."""

from pathlib import Path

import pytest

from fallow_sdk.profile import Profile, ProfileError, load_profile, read_profile, save_profile

PROFILE = Profile(order="127.0.0.1:1", bidding="127.0.0.1:2", settlement="127.0.0.1:3", wallet_key_file="wallet.key")


def test_a_profile_comes_back_as_it_went(tmp_path: Path) -> None:
    """Goal: nothing is lost, nobody else reads it. Method: write, read, look at the mode."""
    file = tmp_path / "folder" / "client.json"
    save_profile(PROFILE.with_session("accounts/a", "secret"), file)
    assert read_profile(file) == PROFILE.with_session("accounts/a", "secret")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_missing_profile_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a new user learns the next step. Method: no file."""
    monkeypatch.setenv("FALLOW_PROFILE", str(tmp_path / "none.json"))
    with pytest.raises(ProfileError, match="fallow up"):
        load_profile()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"order": "x", "unknown": 1}'])
def test_a_broken_profile_is_named(tmp_path: Path, text: str) -> None:
    """Goal: the file to mend is in the message. Method: a table of broken files."""
    file = tmp_path / "client.json"
    file.write_text(text, "utf-8")
    with pytest.raises(ProfileError, match=r"client\.json is not a profile"):
        read_profile(file)
