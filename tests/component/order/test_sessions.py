"""Signing in, tokens, API keys, and workloads by grant."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.bidding.v1 import lease_pb2 as bidding_lease
from fallow.order.v1 import order_service_pb2, order_service_pb2_grpc, session_service_pb2, session_service_pb2_grpc
from fallow.type.v1 import lease_pb2
from fallow_chassis.clock import SystemClock
from fallow_chassis.grpc_client import RemoteError
from fallow_chassis.wire import from_timestamp, to_timestamp
from fallow_order import session_store, store
from fallow_order.consumers import LEASES_TOPIC
from fallow_order.domain.session import ApiKey
from tests.component.order.conftest import House, grant_on, new_name, small_order

WALLET = Account.from_key("0x" + "1" * 64)
OTHER = Account.from_key("0x" + "2" * 64)


def _signed(text: str, wallet: Any = WALLET) -> bytes:
    return bytes(wallet.sign_message(encode_defunct(text=text)).signature)


async def _sessions(house: House, token: str = "") -> "session_service_pb2_grpc.SessionServiceAsyncStub":
    return session_service_pb2_grpc.SessionServiceStub(await house.connect(token))


async def _sign_in(house: House, wallet: Any = WALLET) -> session_service_pb2.Session:
    stub = await _sessions(house)
    challenge = await stub.CreateSignInChallenge(
        session_service_pb2.CreateSignInChallengeRequest(address=wallet.address.lower())
    )
    return await stub.SignIn(
        session_service_pb2.SignInRequest(message=challenge.message, signature=_signed(challenge.message, wallet))
    )


async def test_a_wallet_signs_in_and_its_token_works(house: House) -> None:
    """Goal: wallet → token → calls. Method: challenge, signature, account, a second sign-in, another wallet."""
    session = await _sign_in(house)
    assert from_timestamp(session.expire_time) - SystemClock().now() <= timedelta(minutes=15)
    assert {"orders.write", "keys.write", "leases.grant"} <= set(session.scopes)
    assert "ledger.audit" not in session.scopes
    identity = house.identity.verifier.verify(session.access_token)
    assert (identity.subject, identity.address) == (session.account, WALLET.address)
    stub = await _sessions(house, session.access_token)
    account = await stub.GetAccount(session_service_pb2.GetAccountRequest(name="accounts/me"))
    assert (account.name, account.address) == (session.account, WALLET.address)
    assert (await _sign_in(house)).account == session.account
    other = await _sign_in(house, OTHER)
    assert other.account != session.account
    with pytest.raises(RemoteError) as caught:
        await stub.GetAccount(session_service_pb2.GetAccountRequest(name=other.account))
    assert caught.value.reason.reason == "ACCOUNT_NOT_FOUND"


async def test_a_challenge_works_once(house: House) -> None:
    """Goal: no replay. Method: sign in five times at once with one signature; one gets in."""
    stub = await _sessions(house)
    challenge = await stub.CreateSignInChallenge(
        session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address)
    )
    request = session_service_pb2.SignInRequest(message=challenge.message, signature=_signed(challenge.message))
    outcomes = []

    async def attempt() -> None:
        try:
            await stub.SignIn(request)
            outcomes.append("in")
        except RemoteError as error:
            outcomes.append(error.reason.reason)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(attempt())
    assert sorted(outcomes) == ["SIGN_IN_NONCE_USED"] * 4 + ["in"]


async def test_bad_sign_ins_have_reasons_and_leave_the_nonce(house: House) -> None:
    """Goal: each lie is told apart, and none uses up the challenge. Method: other domain, signer, nonce, form."""
    stub = await _sessions(house)
    challenge = await stub.CreateSignInChallenge(
        session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address)
    )
    good = challenge.message
    elsewhere = good.replace("fallow.test wants", "evil.test wants")
    stranger = good.replace(challenge.nonce, "0" * 32)
    theirs = good.replace(WALLET.address, OTHER.address)
    late = good.replace(good.rpartition("Expiration Time: ")[2], "2020-01-01T00:00:00Z")
    for text, wallet, reason in (
        (elsewhere, WALLET, "SIGN_IN_MESSAGE_INVALID"),
        (good + "\n", WALLET, "SIGN_IN_MESSAGE_INVALID"),
        (good.replace(WALLET.address, WALLET.address.lower()), WALLET, "SIGN_IN_MESSAGE_INVALID"),
        (late, WALLET, "SIGN_IN_EXPIRED"),
        (good, OTHER, "SIGN_IN_SIGNATURE_INVALID"),
        (stranger, WALLET, "SIGN_IN_NONCE_USED"),
    ):
        with pytest.raises(RemoteError) as caught:
            await stub.SignIn(session_service_pb2.SignInRequest(message=text, signature=_signed(text, wallet)))
        assert caught.value.reason.reason == reason, text
    session = await stub.SignIn(session_service_pb2.SignInRequest(message=good, signature=_signed(good)))
    assert session.account
    # Another's nonce under one's own signature: refused, whoever made the challenge.
    again = await stub.CreateSignInChallenge(session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address))
    theirs = again.message.replace(WALLET.address, OTHER.address)
    with pytest.raises(RemoteError) as caught:
        await stub.SignIn(session_service_pb2.SignInRequest(message=theirs, signature=_signed(theirs, OTHER)))
    assert caught.value.reason.reason == "SIGN_IN_NONCE_USED"


@pytest.mark.parametrize("expiry", ["", "\nExpiration Time: 2999-01-01T00:00:00Z"])
async def test_a_challenge_runs_out_whatever_its_message_says(house: House, expiry: str) -> None:
    """Goal: the time of a challenge is ours, not the signer's to extend. Method: sign the message with no expiry and
    with a late one, in time and after its challenge ran out; there is a new sign-in for a new challenge.
    """
    stub = await _sessions(house)

    async def signed() -> session_service_pb2.SignInRequest:
        challenge = await stub.CreateSignInChallenge(
            session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address)
        )
        head, _, rest = challenge.message.partition("\nExpiration Time: ")
        text = head + expiry + rest[len(rest.partition("\n")[0]) :]
        return session_service_pb2.SignInRequest(message=text, signature=_signed(text))

    assert (await stub.SignIn(await signed())).account
    late = await signed()
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE sign_in_nonce SET expires_at = expires_at - interval '1 day'")
    with pytest.raises(RemoteError) as caught:
        await stub.SignIn(late)
    assert caught.value.reason.reason == "SIGN_IN_EXPIRED"


async def test_api_keys_live_once_shown_scoped_and_revocable(house: House) -> None:
    """Goal: keys for programs. Method: make, trade, narrow, repeat, list, revoke; look for the secret in the database."""
    session = await _sign_in(house)
    stub = await _sessions(house, session.access_token)
    request = session_service_pb2.CreateApiKeyRequest(
        parent="accounts/me",
        api_key=session_service_pb2.ApiKey(display_name="ci", scopes=["orders.read"]),
        request_id="k1",
    )
    key = await stub.CreateApiKey(request)
    assert key.secret.startswith("fallow_")
    repeat = await stub.CreateApiKey(request)
    assert (repeat.name, repeat.secret) == (key.name, "")
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT t::text FROM api_key t UNION ALL SELECT t::text FROM idempotency t")
    assert all(key.secret not in row[0] for row in rows)

    public = await _sessions(house)
    traded = await public.ExchangeApiKey(session_service_pb2.ExchangeApiKeyRequest(secret=key.secret))
    assert (traded.account, list(traded.scopes)) == (session.account, ["orders.read"])
    weak = await _sessions(house, traded.access_token)
    with pytest.raises(RemoteError) as caught:
        await weak.CreateApiKey(request)
    assert caught.value.code == "PERMISSION_DENIED"

    (listed,) = (await stub.ListApiKeys(session_service_pb2.ListApiKeysRequest(parent="accounts/me"))).api_keys
    assert (listed.name, listed.secret, listed.HasField("last_use_time")) == (key.name, "", True)
    stranger = await _sessions(house, (await _sign_in(house, OTHER)).access_token)
    with pytest.raises(RemoteError) as caught:
        await stranger.DeleteApiKey(session_service_pb2.DeleteApiKeyRequest(name=key.name))
    assert caught.value.code == "NOT_FOUND"
    mine = key.name.replace(session.account, "accounts/me")
    with pytest.raises(RemoteError) as caught:
        await stranger.DeleteApiKey(session_service_pb2.DeleteApiKeyRequest(name=mine))
    assert caught.value.reason.reason == "API_KEY_NOT_FOUND"
    await stub.DeleteApiKey(session_service_pb2.DeleteApiKeyRequest(name=mine))
    with pytest.raises(RemoteError) as caught:
        await public.ExchangeApiKey(session_service_pb2.ExchangeApiKeyRequest(secret=key.secret))
    assert (caught.value.code, caught.value.reason.reason) == ("UNAUTHENTICATED", "API_KEY_INVALID")


async def test_a_key_runs_out_and_cannot_be_made_for_the_past(house: House) -> None:
    """Goal: expiry holds. Method: a key that is over by the database's hand, one asked for in the past."""
    session = await _sign_in(house)
    stub = await _sessions(house, session.access_token)
    now = SystemClock().now()
    key = await stub.CreateApiKey(
        session_service_pb2.CreateApiKeyRequest(
            parent=session.account,
            api_key=session_service_pb2.ApiKey(expire_time=to_timestamp(now + timedelta(hours=1))),
            request_id="k1",
        )
    )
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE api_key SET expires_at = now() - interval '1 second'")
    with pytest.raises(RemoteError) as caught:
        await stub.ExchangeApiKey(session_service_pb2.ExchangeApiKeyRequest(secret=key.secret))
    assert caught.value.reason.reason == "API_KEY_INVALID"
    with pytest.raises(RemoteError) as caught:
        await stub.CreateApiKey(
            session_service_pb2.CreateApiKeyRequest(
                parent="accounts/me",
                api_key=session_service_pb2.ApiKey(expire_time=to_timestamp(now - timedelta(hours=1))),
                request_id="k2",
            )
        )
    assert caught.value.violations[0].field == "api_key.expire_time"


async def _create_key(
    house: House, token: str, request_id: str, *, hours: float = 0, scopes: tuple[str, ...] = ()
) -> session_service_pb2.ApiKey:
    """CreateApiKey with a token; ``hours`` 0 asks for no expiry."""
    key = session_service_pb2.ApiKey(scopes=scopes)
    if hours:
        key.expire_time.CopyFrom(to_timestamp(SystemClock().now() + timedelta(hours=hours)))
    stub = await _sessions(house, token)
    return await stub.CreateApiKey(
        session_service_pb2.CreateApiKeyRequest(parent="accounts/me", api_key=key, request_id=request_id)
    )


async def _trade(house: House, secret: str) -> session_service_pb2.Session:
    """ExchangeApiKey."""
    stub = await _sessions(house)
    return await stub.ExchangeApiKey(session_service_pb2.ExchangeApiKeyRequest(secret=secret))


async def test_a_key_makes_no_key_that_is_wider_than_itself(house: House) -> None:
    """Goal: a key's own keys can do no more, live no longer, and end with it. Method: wider, longer, none named, after
    the first was revoked.
    """
    session = await _sign_in(house)
    first = await _create_key(house, session.access_token, "k1", hours=2, scopes=("keys.write", "orders.read"))
    traded = await _trade(house, first.secret)
    assert house.identity.verifier.verify(traded.access_token).api_key == first.name
    with pytest.raises(RemoteError) as caught:
        await _create_key(house, traded.access_token, "k2", scopes=("orders.write",))
    assert (caught.value.code, caught.value.metadata["scope"]) == ("PERMISSION_DENIED", "orders.write")
    with pytest.raises(RemoteError) as caught:
        await _create_key(house, traded.access_token, "k3", hours=3)
    assert caught.value.violations[0].field == "api_key.expire_time"
    second = await _create_key(house, traded.access_token, "k4")
    assert second.expire_time == first.expire_time
    assert list(second.scopes) == ["keys.write", "orders.read"]
    shorter = await _create_key(house, traded.access_token, "k5", hours=1)
    assert from_timestamp(shorter.expire_time) < from_timestamp(first.expire_time)
    stub = await _sessions(house, session.access_token)
    await stub.DeleteApiKey(session_service_pb2.DeleteApiKeyRequest(name=first.name))
    with pytest.raises(RemoteError) as caught:
        await _create_key(house, traded.access_token, "k6")
    assert caught.value.reason.reason == "API_KEY_INVALID"


async def test_contract_wallets_are_refused_clearly(house: House) -> None:
    """Goal: EIP-1271 is told apart from a bad message. Method: a long signature, and an owner's for the contract."""
    stub = await _sessions(house)
    for signature in (b"\x01" * 325, _signed("x", OTHER)):
        challenge = await stub.CreateSignInChallenge(
            session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address)
        )
        with pytest.raises(RemoteError, match="EIP-1271") as caught:
            await stub.SignIn(session_service_pb2.SignInRequest(message=challenge.message, signature=signature))
        assert caught.value.reason.reason == "SIGN_IN_SIGNATURE_INVALID"


async def test_a_session_ends_with_its_key(house: House) -> None:
    """Goal: a key that runs out in a minute opens a minute. Method: trade it and look at the token's time."""
    session = await _sign_in(house)
    key = await _create_key(house, session.access_token, "k1", hours=1 / 60)
    traded = await _trade(house, key.secret)
    assert from_timestamp(traded.expire_time) <= from_timestamp(key.expire_time)


async def test_live_keys_have_a_quota(house: House) -> None:
    """Goal: at the limit of five, one of many wins; room comes by deleting and by expiry. Method: nine at once."""
    session = await _sign_in(house)
    for number in range(4):
        await _create_key(house, session.access_token, f"k{number}")
    tries = (_create_key(house, session.access_token, f"more-{number}") for number in range(5))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    made = [outcome for outcome in outcomes if isinstance(outcome, session_service_pb2.ApiKey)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, RemoteError)]
    assert (len(made), len(refused)) == (1, 4)
    for error in refused:
        assert (error.code, error.reason.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert error.metadata == {"quota": "api_keys", "limit": "5", "used": "5"}
        assert error.retry_after_ms
    stub = await _sessions(house, session.access_token)
    await stub.DeleteApiKey(session_service_pb2.DeleteApiKeyRequest(name=made[0].name))
    await _create_key(house, session.access_token, "after-delete")
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE api_key SET expires_at = now() - interval '31 days' WHERE id = (SELECT min(id) FROM api_key)"
        )
    await _create_key(house, session.access_token, "after-expiry")
    assert await house.count("api_key") == 6
    await house.sessions.forget()
    assert await house.count("api_key") == 5
    assert (await _create_key(house, (await _sign_in(house, OTHER)).access_token, "k")).secret


async def test_a_key_that_is_being_made_counts(house: House) -> None:
    """Goal: the quota is exact. Method: hold the account's lock with a fifth key unseen; a sixth waits, and is refused."""
    session = await _sign_in(house)
    for number in range(4):
        await _create_key(house, session.access_token, f"k{number}")
    account = session.account.removeprefix("accounts/")
    async with asyncio.TaskGroup() as group, house.database.transaction() as unit:
        await store.lock_quotas(unit.connection, [f"api_keys|{account}"])
        made = ApiKey(unit.ids.new(), account, "fifth", (), unit.clock.now())
        await session_store.insert_api_key(unit.connection, made, b"x" * 32)
        sixth = group.create_task(_refused_key(house, session.access_token))
        async with asyncio.timeout(5):
            while not await unit.connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    assert sixth.result().metadata["used"] == "5"


async def _refused_key(house: House, token: str) -> RemoteError:
    """What CreateApiKey is refused with."""
    with pytest.raises(RemoteError) as caught:
        await _create_key(house, token, "refused")
    return caught.value


async def test_unanswered_challenges_have_a_quota(house: House) -> None:
    """Goal: nobody fills the table, and nobody is locked out by another's address. Method: 25 at once for 20 places,
    then an answer to one, then the others run out.
    """
    stub = await _sessions(house)
    request = session_service_pb2.CreateSignInChallengeRequest(address=WALLET.address)
    outcomes = await asyncio.gather(*(stub.CreateSignInChallenge(request) for _ in range(25)), return_exceptions=True)
    made = [outcome for outcome in outcomes if isinstance(outcome, session_service_pb2.SignInChallenge)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, RemoteError)]
    assert (len(made), len(refused)) == (20, 5)
    assert refused[0].metadata == {"quota": "sign_in_challenges", "limit": "20", "used": "20"}
    assert 0 < (refused[0].retry_after_ms or 0) <= 300_000
    await stub.SignIn(session_service_pb2.SignInRequest(message=made[0].message, signature=_signed(made[0].message)))
    await stub.CreateSignInChallenge(request)
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE sign_in_nonce SET expires_at = now()")
    await stub.CreateSignInChallenge(request)
    # Another caller's address is not in the way, whichever wallet was named.
    assert (await house.sessions.challenge(WALLET.address, "10.0.0.1")).text


async def _workload(house: House, token: str, lease: str, generation: int = 1) -> str:
    """The secret in the workload that a token gets, or the reason of the refusal."""
    stub = order_service_pb2_grpc.WorkloadServiceStub(await house.connect(token))
    try:
        answer = await stub.GetWorkload(order_service_pb2.GetWorkloadRequest(lease=lease, generation=generation))
    except RemoteError as error:
        return error.reason.reason
    return answer.workload.containers[0].environment[0].value


async def test_a_workload_goes_to_the_holder_of_the_newest_grant_alone(house: House) -> None:
    """Goal: secrets reach the winner only. Method: grants early, right, for other leases, old, after the end."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    order = await tenant.create(order=small_order(secret="pl4nted"))
    first, second = new_name("leases"), new_name("leases")
    old = house.identity.grant(grant_on(order.name, lease=first))
    # The grant may come before the event that tells of its lease.
    assert await _workload(house, old, first) == "pl4nted"
    assert await _workload(house, old, second) == "PERMISSION_DENIED"
    assert await _workload(house, old, first, 2) == "PERMISSION_DENIED"
    assert await _workload(house, house.identity.account_token(tenant.name, ("orders.read",)), first) == (
        "PERMISSION_DENIED"
    )
    new = house.identity.grant(grant_on(order.name, lease=second, generation=2))
    assert await _workload(house, new, second, 2) == "pl4nted"
    assert await _workload(house, old, first) == "GENERATION_OLD"
    key = order.name.removeprefix("orders/")
    lease = bidding_lease.Lease(name=second, key=lease_pb2.GenerationKey(order=order.name, generation=3))
    await house.deliver(LEASES_TOPIC, key, bidding_events.LeaseCreated(lease=lease))
    assert await _workload(house, new, second, 2) == "GENERATION_OLD"
    wrong = house.identity.grant(grant_on(order.name, lease=first, generation=3))
    assert await _workload(house, wrong, first, 3) == "LEASE_NOT_FOUND"
    outside = house.identity.grant(grant_on(order.name, lease=first, generation=9, group=1))
    assert await _workload(house, outside, first, 9) == "LEASE_NOT_FOUND"
    stub = await tenant.orders()
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c"))
    current = house.identity.grant(grant_on(order.name, lease=second, generation=3))
    assert await _workload(house, current, second, 3) == "LEASE_NOT_FOUND"


async def test_a_secret_lies_nowhere_in_the_clear(
    house: House, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: neither database, events nor logs hold a secret. Method: plant one, search every row of every table."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    await tenant.create(order=small_order(secret="pl4nted-s3cret"))
    async with house.database.read() as connection:
        tables = [
            row["relname"]
            for row in await connection.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        ]
        assert "workload" in tables
        needles = ["pl4nted-s3cret", b"pl4nted-s3cret".hex()]
        for table in tables:
            for row in await connection.fetch(f'SELECT t::text AS text FROM "{table}" t'):
                assert not any(needle in row["text"] for needle in needles), table
    assert "pl4nted" not in caplog.text + "".join(capfd.readouterr())
