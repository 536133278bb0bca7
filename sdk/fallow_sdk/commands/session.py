"""`fallow login`: sign in, and keep what later commands sign in with."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fallow_sdk.commands.connection import signed_in
from fallow_sdk.profile import Profile, load_profile, profile_path, save_profile, save_secret


def login(
    api_key: Annotated[
        str,
        typer.Option("--api-key", help="Use the API key in FILE from now on; - reads and keeps it.", metavar="FILE|-"),
    ] = "",
    oidc_token: Annotated[
        str,
        typer.Option(
            "--oidc-token",
            help="Use the identity token in FILE from now on, read anew each time; - reads and keeps it.",
            metavar="FILE|-",
        ),
    ] = "",
    wallet: Annotated[bool, typer.Option("--wallet", help="Use the profile's wallet from now on.")] = False,
    print_token: Annotated[bool, typer.Option("--print-token", help="Print the access token alone.")] = False,
) -> None:
    """Sign in and keep the access token (15 min); without an option, with what was used before."""
    if sum((bool(api_key), bool(oidc_token), wallet)) > 1:
        raise typer.BadParameter("choose one of --api-key, --oidc-token and --wallet")
    before = load_profile()
    is_changed = bool(api_key or oidc_token or wallet)
    if is_changed:
        save_profile(_chosen(before, api_key, oidc_token))

    async def run() -> None:
        async with signed_in() as (_, profile):
            typer.echo(profile.access_token if print_token else f"signed in as {profile.account}")

    try:
        asyncio.run(run())
    except Exception:
        if is_changed:
            # What does not sign in is not kept.
            save_profile(before)
        raise


def _chosen(profile: Profile, api_key: str, oidc_token: str) -> Profile:
    """The profile with another way in; neither file means the wallet."""
    return replace(
        profile,
        api_key_file=_kept(api_key, "api-key"),
        oidc_token_file=_kept(oidc_token, "oidc-token"),
        account="",
        access_token="",
    )


def _kept(source: str, kind: str) -> str:
    """The file that holds a secret: the one that was named, or one beside the profile with what standard input holds."""
    if not source:
        return ""
    if source != "-":
        path = Path(source).absolute()
        if not path.is_file():
            raise typer.BadParameter(f"{path} is no file")
        return str(path)
    text = sys.stdin.read().strip()
    if not text:
        raise typer.BadParameter("standard input is empty")
    path = profile_path().absolute().with_suffix(f".{kind}")
    save_secret(f"{text}\n", path)
    return str(path)
