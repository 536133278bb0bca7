"""The SDK and the command against the real service: keys and identity tokens sign in, and renew by themselves."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from eth_account import Account
from typer.testing import CliRunner, Result

from fallow_sdk.client import Client, Endpoints
from fallow_sdk.command import build
from fallow_sdk.credentials import ApiKeyCredential
from fallow_sdk.errors import FallowError
from fallow_sdk.profile import Profile, read_profile, save_profile
from fallow_sdk.wallet import Wallet
from tests.component.order.conftest import House
from tests.component.order.issuer import LocalIssuer

WALLET = Wallet(Account.from_key("0x" + "3" * 64))


def endpoints(house: House) -> Endpoints:
    """All at the order service's address; nothing else is called here."""
    return Endpoints(house.address, house.address, house.address)


async def test_a_key_is_traded_and_renewed_without_being_asked(house: House) -> None:
    """Goal: a program holds a key and never thinks of tokens. Method: a long key, an expired token, a key of 30 s."""
    async with Client(endpoints(house)) as owner:
        await owner.sign_in(WALLET)
        long = await owner.create_api_key("long", ["orders.read"])
        short = await owner.create_api_key("short", ["orders.read"], lasts=timedelta(seconds=30))
        async with Client(endpoints(house), credential=ApiKeyCredential(long.secret)) as program:
            assert await program.list_orders() == []
            first = program.token
            assert await program.list_orders() == []
            assert program.token == first
            account = long.name.partition("/apiKeys/")[0]
            stale = house.identity.account_token(account, ("orders.read",), lifetime_seconds=1)
            await asyncio.sleep(1)
            program.token = stale
            async with asyncio.timeout(10):
                while program.token == stale:
                    assert await program.list_orders() == []
                    await asyncio.sleep(0.5)
        async with Client(endpoints(house), credential=ApiKeyCredential(short.secret)) as program:
            await program.list_orders()
            first_use = (await owner.list_api_keys())[0].last_use_time
            await asyncio.gather(*(program.list_orders() for _ in range(3)))
            assert (await owner.list_api_keys())[0].last_use_time != first_use
        await owner.delete_api_key(long.name)
        async with Client(endpoints(house), credential=ApiKeyCredential(long.secret)) as program:
            with pytest.raises(FallowError) as caught:
                await program.list_orders()
            assert caught.value.reason == "API_KEY_INVALID"


class Shell:
    """The command with a profile of its own, in a thread, since the service runs in this loop."""

    def __init__(self, folder: Path, house: House) -> None:
        self.profile = folder / "client.json"
        key_file = folder / "wallet.key"
        key_file.write_text("0x" + "3" * 64)
        save_profile(Profile(house.address, house.address, house.address, wallet_key_file=str(key_file)), self.profile)

    async def run(self, *words: str, text: str = "", **environment: str) -> Result:
        """`fallow WORDS`."""
        environment = {"FALLOW_PROFILE": str(self.profile), "FALLOW_API_KEY": "", **environment}
        return await asyncio.to_thread(
            CliRunner().invoke, build(words[0]), list(words), input=text or None, env=environment
        )


def who(result: Result) -> str:
    """Whom `fallow login` signed in; the service in this process writes to the same output."""
    assert result.exit_code == 0, result.output
    return next(line for line in result.output.splitlines() if line.startswith("signed in as "))


async def test_keys_by_the_command(house: House, tmp_path: Path) -> None:
    """Goal: make, use, list, revoke from the shell. Method: a file, standard input, the variable, a dead key."""
    shell = Shell(tmp_path, house)
    owner = who(await shell.run("login"))
    secret_file = tmp_path / "ci.key"
    made = await shell.run("key", "create", "ci", "--scope", "keys.write", "--expires", "1d", "-o", str(secret_file))
    assert made.exit_code == 0, made.output
    assert secret_file.stat().st_mode & 0o777 == 0o600
    secret = secret_file.read_text().strip()
    assert secret not in made.output
    assert (await shell.run("key", "create", "x", "--expires", "soon")).exit_code == 2
    assert who(await shell.run("login", "--api-key", str(secret_file))) == owner
    assert read_profile(shell.profile).api_key_file == str(secret_file)
    listed = await shell.run("key", "list")
    assert "ci" in listed.stdout
    assert secret not in listed.stdout
    # It signs in as the key now, which may not make a wider one.
    refused = await shell.run("key", "create", "wider", "--scope", "funds.write")
    assert isinstance(refused.exception, FallowError)
    assert refused.exception.code == "PERMISSION_DENIED"
    assert who(await shell.run("login", "--wallet")) == owner
    assert who(await shell.run("login", "--api-key", "-", text=f"{secret}\n")) == owner
    kept = Path(read_profile(shell.profile).api_key_file)
    assert (kept.read_text().strip(), kept.stat().st_mode & 0o777) == (secret, 0o600)
    assert who(await shell.run("login", "--wallet")) == owner
    before = read_profile(shell.profile)
    wrong = await shell.run("login", "--api-key", "-", text="fallow_wrong")
    assert wrong.exit_code == 1
    assert read_profile(shell.profile) == before
    variable = await shell.run("key", "create", "wider", "--scope", "funds.write", FALLOW_API_KEY=secret)
    assert isinstance(variable.exception, FallowError)
    name = next(line for line in made.output.splitlines() if line.startswith("accounts/")).partition(":")[0]
    assert (await shell.run("key", "delete", name)).exit_code == 0
    dead = await shell.run("key", "list", FALLOW_API_KEY=secret)
    assert isinstance(dead.exception, FallowError)
    assert dead.exception.reason == "API_KEY_INVALID"


async def test_an_identity_token_by_the_command(house: House, issuer: LocalIssuer, tmp_path: Path) -> None:
    """Goal: a program in a cluster or a CI signs in with the token it is given. Method: a file that is renewed, stdin."""
    shell = Shell(tmp_path, house)
    key = issuer.rotate("k1")
    token_file = tmp_path / "id.token"
    token_file.write_text(issuer.token(key))
    first = who(await shell.run("login", "--oidc-token", str(token_file)))
    token_file.write_text(issuer.token(key, "user-2"))
    assert who(await shell.run("login")) != first
    assert who(await shell.run("login", "--oidc-token", "-", text=issuer.token(key))) == first
    assert (await shell.run("login", "--oidc-token", "x", "--wallet")).exit_code == 2
