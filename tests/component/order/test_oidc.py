"""Signing in with identity tokens of a real issuer over HTTP: rotation, outages, and every way in which a token lies."""

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fallow.order.v1 import session_service_pb2, session_service_pb2_grpc
from fallow_chassis.clock import SystemClock
from fallow_chassis.grpc_client import RemoteError
from fallow_chassis.testing import ManualClock
from fallow_chassis.wire import from_timestamp
from fallow_order.domain.oidc import Issuer
from fallow_order.oidc import FETCH_SECONDS, MAX_DOCUMENT_BYTES, FetchError, OidcVerifier, fetch_json
from tests.component.order.conftest import House
from tests.component.order.issuer import AUDIENCE, LocalIssuer, SigningKey


async def exchange(house: House, token: str) -> session_service_pb2.Session:
    """Trade a token."""
    stub = session_service_pb2_grpc.SessionServiceStub(await house.connect(""))
    return await stub.ExchangeOidcToken(session_service_pb2.ExchangeOidcTokenRequest(id_token=token))


async def refusal(house: House, token: str) -> RemoteError:
    """What a token is refused with."""
    with pytest.raises(RemoteError) as caught:
        await exchange(house, token)
    return caught.value


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_opens_one_account_for_one_subject(house: House, issuer: LocalIssuer, algorithm: str) -> None:
    """Goal: issuer and subject are who somebody is. Method: each algorithm; twice, another subject, ten at once."""
    key = issuer.rotate("k1", algorithm)
    first = await exchange(house, issuer.token(key))
    again = await exchange(house, issuer.token(key, aud=[AUDIENCE], azp=AUDIENCE, nonce="n", email="x@y"))
    other = await exchange(house, issuer.token(key, "user-2"))
    assert first.account == again.account != other.account
    assert {"orders.write", "keys.write"} <= set(first.scopes)
    crowd = await asyncio.gather(*(exchange(house, issuer.token(key, "crowd")) for _ in range(10)))
    assert len({session.account for session in crowd}) == 1
    assert await house.count("account") == 3
    identity = house.identity.verifier.verify(first.access_token)
    assert (identity.subject, identity.address) == (first.account, "")
    stub = session_service_pb2_grpc.SessionServiceStub(await house.connect(first.access_token))
    account = await stub.GetAccount(session_service_pb2.GetAccountRequest(name="accounts/me"))
    assert (account.name, account.address) == (first.account, "")
    assert issuer.asked == 1


async def test_a_session_does_not_outlive_the_token(house: House, issuer: LocalIssuer) -> None:
    """Goal: what a token is traded for ends with it. Method: one that ends in a minute, one in an hour."""
    key = issuer.rotate("k1")
    now = SystemClock().now()
    for seconds, bound in ((60, 60), (3_600, 900)):
        session = await exchange(house, issuer.token(key, exp=int(now.timestamp()) + seconds))
        assert from_timestamp(session.expire_time) - now <= timedelta(seconds=bound + 5)


async def test_keys_rotate_without_a_pause(house: House, issuer: LocalIssuer, oidc_clock: ManualClock) -> None:
    """Goal: a new key counts at once, a withdrawn one not for long. Method: rotate twice and move the clock."""
    old = issuer.rotate("k1")
    await exchange(house, issuer.token(old))
    new = issuer.rotate("k2", "RS256", keep=1)
    oidc_clock.advance(seconds=11)
    await exchange(house, issuer.token(new))
    await exchange(house, issuer.token(old))
    assert issuer.asked == 2
    newest = issuer.rotate("k3", keep=1)
    oidc_clock.advance(seconds=300)
    await exchange(house, issuer.token(newest))
    assert (await refusal(house, issuer.token(old))).reason.reason == "OIDC_TOKEN_INVALID"


async def test_unknown_keys_do_not_make_us_a_flood(house: House, issuer: LocalIssuer, oidc_clock: ManualClock) -> None:
    """Goal: nobody can make us ask an issuer often. Method: many unknown kids at once, then again later."""
    key = issuer.rotate("k1")
    await exchange(house, issuer.token(key))
    stranger = SigningKey.make("other", "ES256")
    for _ in range(2):
        asked = issuer.asked
        oidc_clock.advance(seconds=11)
        tokens = [issuer.token(stranger, header={"kid": f"unknown-{number}"}) for number in range(10)]
        errors = await asyncio.gather(*(refusal(house, token) for token in tokens))
        assert {error.reason.reason for error in errors} == {"OIDC_TOKEN_INVALID"}
        assert issuer.asked == asked + 1
        assert (await exchange(house, issuer.token(key))).account


async def test_an_issuer_that_is_down(house: House, issuer: LocalIssuer, oidc_clock: ManualClock) -> None:
    """Goal: known keys go on, for a day; else nobody can tell. Method: answers of 503, before and after a good one."""
    key = issuer.rotate("k1")
    issuer.status = 503
    error = await refusal(house, issuer.token(key))
    assert (error.code, error.retry_after_ms) == ("UNAVAILABLE", 10_000)
    assert (await refusal(house, issuer.token(key))).code == "UNAVAILABLE"
    assert issuer.asked == 1
    issuer.status = 200
    oidc_clock.advance(seconds=10)
    await exchange(house, issuer.token(key))
    issuer.status = 503
    oidc_clock.advance(seconds=3_600)
    lasting = issuer.token(key, exp=int(oidc_clock.now().timestamp()) + 60)
    await exchange(house, lasting)
    assert issuer.asked == 3
    unknown = SigningKey.make("k9", "ES256")
    oidc_clock.advance(seconds=10)
    assert (await refusal(house, issuer.token(unknown, iat=int(oidc_clock.now().timestamp())))).code == "UNAVAILABLE"
    oidc_clock.advance(seconds=86_400)
    assert (await refusal(house, issuer.token(key))).code == "UNAVAILABLE"


async def test_a_slow_issuer_holds_up_one_caller_and_not_for_long(
    house: House, issuer: LocalIssuer, oidc_clock: ManualClock
) -> None:
    """Goal: who has a known key does not wait for a slow issuer. Method: an issuer that never answers the refresh."""
    key = issuer.rotate("k1")
    await exchange(house, issuer.token(key))
    issuer.hold = asyncio.Event()
    oidc_clock.advance(seconds=301)
    tokens = [issuer.token(key, f"user-{number}", exp=int(oidc_clock.now().timestamp()) + 600) for number in range(4)]
    async with asyncio.timeout(FETCH_SECONDS + 4), asyncio.TaskGroup() as group:
        first = group.create_task(exchange(house, tokens[0]))
        while issuer.asked < 2:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(FETCH_SECONDS - 2):
            for token in tokens[1:]:
                await exchange(house, token)
        assert not first.done()
    assert first.result().account


@pytest.mark.parametrize("fault", ["status", "size", "redirect", "other issuer", "no json"])
async def test_documents_that_are_not_taken(issuer: LocalIssuer, oidc_clock: ManualClock, fault: str) -> None:
    """Goal: keys come whole, small, from where they should. Method: one fault each; then the same issuer mended."""
    key = issuer.rotate("k1")
    verifier = OidcVerifier([Issuer(issuer.address, AUDIENCE)], oidc_clock)
    if fault == "status":
        issuer.status = 404
    elif fault == "size":
        issuer.padding_bytes = MAX_DOCUMENT_BYTES
    elif fault == "redirect":
        issuer.redirect = f"{issuer.address}/keys"
    elif fault == "other issuer":
        issuer.claimed_issuer = "https://evil.test"
    else:
        issuer.extra_keys = ["not a key"]  # type: ignore[list-item]
    with pytest.raises(Exception, match="cannot be fetched"):
        await verifier.verify(issuer.token(key))
    issuer.status, issuer.padding_bytes, issuer.redirect, issuer.claimed_issuer = 200, 0, "", ""
    issuer.extra_keys = []
    oidc_clock.advance(seconds=10)
    assert (await verifier.verify(issuer.token(key))).subject == "user-1"


async def test_a_document_from_nowhere() -> None:
    """Goal: an address without a server is an outage. Method: a closed port."""
    with pytest.raises(FetchError):
        await fetch_json("http://127.0.0.1:1/keys")


def _lies(issuer: LocalIssuer, key: SigningKey) -> dict[str, str]:
    """Tokens that must not be believed, by what is wrong with them."""
    now_s = int(SystemClock().now().timestamp())
    public = key.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": issuer.address, "aud": AUDIENCE, "sub": "u", "iat": now_s, "exp": now_s + 60}
    head, body, signature = issuer.token(key).split(".")
    others_body = issuer.token(key, "somebody-else").split(".")[1]
    bare = jwt.encode(claims, "", algorithm="none", headers={"kid": key.kid})
    return {
        "another subject's claims": f"{head}.{others_body}.{signature}",
        "no signature": f"{head}.{body}.",
        "alg none": bare,
        "alg HS256 with the public key": _hashed(key.kid, body, public),
        "another algorithm": issuer.token(SigningKey.make(key.kid, "RS256")),
        "no kid": issuer.token(key, header={"kid": ""}),
        "an access token": issuer.token(key, header={"typ": "at+jwt"}),
        "a logout token": issuer.token(key, header={"typ": "logout+jwt"}),
        "crit": issuer.token(key, header={"crit": ["exp"]}),
        "its own key": issuer.token(SigningKey(key.kid, "ES256", SigningKey.make("x", "ES256").key)),
        "noise": "a.b.c",
    }


def _hashed(kid: str, body: str, secret: bytes) -> str:
    """A token with an HMAC for its signature."""
    header = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": kid, "typ": "JWT"}).encode()).rstrip(b"=").decode()
    digest = hmac.digest(secret, f"{header}.{body}".encode(), "sha256")
    return f"{header}.{body}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_tokens_that_lie_are_not_believed(house: House, issuer: LocalIssuer) -> None:
    """Goal: only the issuer's own word counts. Method: forged, altered and misused tokens; none makes an account."""
    key = issuer.rotate("k1")
    for what, token in _lies(issuer, key).items():
        error = await refusal(house, token)
        assert (error.code, error.reason.reason) == ("UNAUTHENTICATED", "OIDC_TOKEN_INVALID"), what
    assert await house.count("account") == 0
    await exchange(house, issuer.token(key))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_keys_that_may_not_sign_are_passed_over(house: House, issuer: LocalIssuer) -> None:
    """Goal: a weak, secret or encryption key opens nothing and spoils nothing. Method: such keys in the set."""
    good = issuer.rotate("good")
    weak = SigningKey("weak", "RS256", rsa.generate_private_key(65_537, 1_024))
    sealing = SigningKey.make("sealing", "ES256")
    issuer.extra_keys = [
        weak.jwk,
        {**sealing.jwk, "use": "enc"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AA", "y": "AA"},
        {"kty": "future"},
    ]
    for key in (weak, sealing):
        assert (await refusal(house, issuer.token(key))).reason.reason == "OIDC_TOKEN_INVALID"
    shared = jwt.encode({"iss": issuer.address, "sub": "u"}, "secret" * 8, algorithm="HS256", headers={"kid": "shared"})
    assert (await refusal(house, shared)).reason.reason == "OIDC_TOKEN_INVALID"
    await exchange(house, issuer.token(good))
