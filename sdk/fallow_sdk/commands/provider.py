"""`fallow provider`: for owners of sites, and for auditors."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError

from fallow.bidding.v1 import lease_pb2, provider_pb2
from fallow_sdk.audits import sign_attributes
from fallow_sdk.client import Client
from fallow_sdk.commands.connection import as_json, signed_in
from fallow_sdk.commands.options import Json, parse_pairs
from fallow_sdk.commands.provider_site import drain, earnings
from fallow_sdk.profile import load_profile
from fallow_sdk.wallet import Wallet

app = typer.Typer(no_args_is_help=True, help="For owners of sites, and for auditors.")
app.command()(drain)
app.command()(earnings)


def parse_public_key(text: str) -> bytes:
    """64 hexadecimal digits; raises a usage error."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:  # an Ed25519 public key
        raise typer.BadParameter("must be providers/{provider}, or a public key of 64 hexadecimal digits")
    return key


@app.command("sign-attributes")
def sign(
    provider: Annotated[str, typer.Argument(help="`providers/{provider}`, or its public key, which needs no network.")],
    attributes: Annotated[list[str], typer.Argument(help="NAME=VALUE of each attribute that you vouch for.")],
    key_file: Annotated[Path, typer.Option("--key", help="File with your EVM key.")],
) -> None:
    """Vouch for attributes of a provider as an auditor. Prints the signature as JSON, for its owner's add-signature."""
    wanted = parse_pairs(attributes, "NAME=VALUE")
    try:
        wallet = Wallet.load(key_file)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    if provider.startswith("providers/"):

        async def look_up() -> bytes:
            async with Client(load_profile().endpoints) as client:
                return (await client.get_provider(provider)).public_key

        public_key = asyncio.run(look_up())
    else:
        public_key = parse_public_key(provider)
    typer.echo(as_json(sign_attributes(wallet, public_key, wanted)))


@app.command("add-signature")
def add_signature(
    provider: Annotated[str, typer.Argument(help="One of yours, `providers/{provider}`.")],
    file: Annotated[Path, typer.Argument(help="What the auditor's sign-attributes printed.")],
    json: Json = False,
) -> None:
    """Hand in an auditor's signature, beside those that the provider has; the market checks it."""
    try:
        signature = Parse(file.read_text("utf-8"), provider_pb2.AuditorSignature())
    except (OSError, UnicodeDecodeError, ParseError) as error:
        raise typer.BadParameter(f"{file} holds no signature: {error}") from error

    async def run() -> provider_pb2.Provider:
        async with signed_in() as (client, _):
            present = await client.get_provider(provider)
            return await client.set_auditor_signatures(provider, [*present.auditor_signatures, signature])

    changed = asyncio.run(run())
    typer.echo(as_json(changed) if json else f"{signature.auditor} vouches for attributes of {changed.name}")


@app.command()
def relinquish(
    lease: Annotated[str, typer.Argument(help="Lease, `leases/{lease}`.")],
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    json: Json = False,
) -> None:
    """Give up a lease of one of your sites. Its tenant is moved elsewhere, and it counts against the site's reputation."""

    async def run() -> lease_pb2.Lease:
        async with signed_in() as (client, _):
            return await client.relinquish_lease(lease, reason)

    ended = asyncio.run(run())
    typer.echo(as_json(ended) if json else f"gave up {ended.name}")
