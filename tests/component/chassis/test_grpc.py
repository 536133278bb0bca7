"""The server's pipeline and the client over a real socket: every way to fail, and the right answer to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace

from fallow_chassis.access import AccessOptionError
from fallow_chassis.clock import SystemClock
from fallow_chassis.context import GrantClaims, current_identity, remaining_seconds
from fallow_chassis.errors import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_FIELD,
    NOT_YET_AVAILABLE,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNKNOWN_FIELD,
    DomainError,
    ErrorReason,
    FieldViolation,
)
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.grpc_server import Server
from fallow_chassis.identity import TokenSigner, TokenVerifier, generate_key_file, public_jwk, write_jwks
from fallow_chassis.settings import ServiceSettings
from fallow_chassis.status_details import DETAILS_HEADER
from fallow_chassis.telemetry import Telemetry, current_trace_id, tracer
from fallow_chassis.testing import ManualClock
from tests.unit.chassis.sample import PACKAGE, SERVICE, Answer, Request, Stub, add_servicer

SHORT = ErrorReason("FUNDS_SHORT", "FAILED_PRECONDITION", "Too little money.", "Deposit.")


async def shout(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """Each request's text, louder."""
    async for request in requests:
        yield Answer(text=request.text.upper())


async def refuse(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """No answer, and no look at the requests."""
    if context is not None:
        raise DomainError(UNAUTHENTICATED, "no token")
    yield Answer()


class Servicer:
    """Does what a test tells it to."""

    def __init__(self) -> None:
        self.behavior: Callable[[Any], Any] = lambda request: Answer(text=request.text)
        self.chat: Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]] = shout
        self.ended = asyncio.Event()

    async def Public(self, request: Any, context: Any) -> Any:
        result = self.behavior(request)
        return await result if asyncio.iscoroutine(result) else result

    async def Account(self, request: Any, context: Any) -> Any:
        return Answer(text=current_identity().subject)

    async def Service(self, request: Any, context: Any) -> Any:
        return Answer(text=current_identity().subject)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for number in range(int(request.text or 3)):
                yield Answer(text=str(number))
            result = self.behavior(request)
            if asyncio.iscoroutine(result):
                await result
        finally:
            self.ended.set()

    async def Gather(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return Answer(text=",".join([request.text async for request in requests]))

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for answer in self.chat(requests, context):
            yield answer


class World:
    """A server, its keys, and channels to it."""

    def __init__(self, folder: Path) -> None:
        keys = []
        self.signers = {}
        for name in ("order", "bidding", "settlement"):
            generate_key_file(folder / f"{name}.pem")
            keys.append(public_jwk(folder / f"{name}.pem", name))
            self.signers[name] = TokenSigner.load(folder / f"{name}.pem", name)
        write_jwks(folder / "jwks.json", keys)
        self.verifier = TokenVerifier.load(folder / "jwks.json")
        self.servicer = Servicer()
        self.server = Server(ServiceSettings(listen="127.0.0.1:0"), self.verifier)
        self.server.add(add_servicer, self.servicer, SERVICE)
        self.address = ""
        self.channels: list[Any] = []

    def channel(self, token: str | None = None) -> Any:
        opened = channel(self.address, None if token is None else lambda: token)
        self.channels.append(opened)
        return opened

    def stub(self, token: str | None = None) -> Stub:
        return Stub(self.channel(token))

    def grant(self, *rights: str) -> str:
        claims = GrantClaims("accounts/a", "orders/o", 0, 1, "leases/l", "providers/p", frozenset(rights))
        return self.signers["bidding"].grant(claims, 60)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server that serves."""
    made = World(tmp_path)
    made.address = await made.server.start()
    yield made
    for opened in made.channels:
        await opened.close(None)
    await made.server.stop(0)


async def refusal(call: Any) -> RemoteError:
    """What a call is refused with."""
    with pytest.raises(RemoteError) as caught:
        await call
    return caught.value


async def test_a_call_goes_through(world: World) -> None:
    """Goal: the plain way. Method: all four kinds of call."""
    stub = world.stub()
    assert (await stub.Public(Request(text="hello"))).text == "hello"
    assert [answer.text async for answer in stub.Watch(Request(text="3"))] == ["0", "1", "2"]

    async def requests() -> AsyncIterator[Any]:
        for text in ("a", "b"):
            yield Request(text=text)

    assert (await stub.Gather(requests())).text == "a,b"
    assert [answer.text async for answer in stub.Chat(requests())] == ["A", "B"]


async def test_a_domain_error_arrives_whole(world: World) -> None:
    """Goal: code, reason, metadata, violations and wait survive the wire. Method: raise one of each kind."""

    def fail(request: Any) -> Any:
        raise DomainError(
            SHORT,
            "5 micros short",
            metadata={"short_micros": "5"},
            violations=[FieldViolation("accounts/a", "has 1, needs 6")],
            retry_after_ms=1_500,
        )

    world.servicer.behavior = fail
    error = await refusal(world.stub().Public(Request()))
    assert (error.code, error.reason.reason, error.message) == ("FAILED_PRECONDITION", "FUNDS_SHORT", "5 micros short")
    assert error.metadata == {"short_micros": "5"}
    assert error.violations == (FieldViolation("accounts/a", "has 1, needs 6"),)
    assert error.retry_after_ms == 1_500
    assert error.has_reason(SHORT)


async def test_details_are_google_rpc_status(world: World) -> None:
    """Goal: any gRPC client reads our errors. Method: a bare channel and Google's own messages."""

    def fail(request: Any) -> Any:
        raise DomainError(INVALID_FIELD, "no", violations=[FieldViolation("order.groups[0].price_limit", "too low")])

    world.servicer.behavior = fail
    async with grpc.aio.insecure_channel(world.address) as bare:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(bare).Public(Request())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing[DETAILS_HEADER])
    info, bad, advice = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.Help()
    assert status.code == 3
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "fallow")
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "order.groups[0].price_limit"
    assert status.details[2].Unpack(advice)
    assert advice.links[0].description == INVALID_FIELD.action
    again = await refusal(world.stub().Public(Request()))
    assert again.reason.action == INVALID_FIELD.action, "a service passes on what to do"


@pytest.mark.parametrize("letter", ["m", "ü", "…", "\U0001f600"])
async def test_a_huge_error_still_arrives(world: World, letter: str) -> None:
    """Goal: metadata's bound never eats an error, with a bare client too. Method: far too much of everything."""

    def fail(request: Any) -> Any:
        raise DomainError(
            INVALID_FIELD,
            letter * 100_000,
            metadata={f"{number}": letter * 10_000 for number in range(1_000)},
            violations=[FieldViolation(letter * 5_000, letter * 5_000)] * 1_000,
        )

    world.servicer.behavior = fail
    for _ in range(5):
        error = await refusal(world.stub().Public(Request()))
        assert error.has_reason(INVALID_FIELD)
        assert len(error.violations) >= 5
    async with grpc.aio.insecure_channel(world.address) as bare:
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(bare).Public(Request())
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert DETAILS_HEADER in dict(caught.value.trailing_metadata() or ())


async def test_an_unforeseen_failure_tells_nothing_but_the_trace(world: World) -> None:
    """Goal: no detail of a bug leaves the server. Method: raise one with a secret in it."""
    Telemetry.start("sample")

    def fail(request: Any) -> Any:
        raise ValueError("password=hunter2")

    world.servicer.behavior = fail
    error = await refusal(world.stub().Public(Request()))
    assert error.has_reason(INTERNAL)
    assert "hunter2" not in str(error) + str(error.metadata)
    assert len(error.metadata["trace_id"]) == 32


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ConnectionRefusedError(), UNAVAILABLE),
        (TimeoutError(), UNAVAILABLE),
        (NotImplementedError(), NOT_YET_AVAILABLE),
        (RemoteError(PERMISSION_DENIED, "we may not"), INTERNAL),
        (RemoteError(UNAUTHENTICATED, "who are we"), INTERNAL),
        (RemoteError(SHORT, "short"), SHORT),
        (RemoteError(UNAVAILABLE, "away"), UNAVAILABLE),
    ],
)
async def test_failures_become_reasons(world: World, raised: Exception, expected: ErrorReason) -> None:
    """Goal: each kind of failure has its answer. Method: raise it in the servicer."""

    def fail(request: Any) -> Any:
        raise raised

    world.servicer.behavior = fail
    error = await refusal(world.stub().Public(Request()))
    assert (error.code, error.reason.reason) == (expected.code, expected.reason)
    if expected is UNAVAILABLE:
        assert error.retry_after_ms is not None


async def test_a_method_that_is_not_built_says_so(world: World) -> None:
    """Goal: the base class's method answers with our reason. Method: call one that the servicer lacks."""
    error = await refusal(world.stub(world.grant("logs.read")).Grant(Request()))
    assert (error.code, error.reason.reason) == ("UNIMPLEMENTED", "NOT_YET_AVAILABLE")


async def test_an_error_in_a_stream_comes_after_its_responses(world: World) -> None:
    """Goal: streams end with reasons too. Method: two responses, then an error."""

    def fail(request: Any) -> Any:
        raise DomainError(SHORT, "short")

    world.servicer.behavior = fail
    seen = []
    with pytest.raises(RemoteError) as caught:
        async for answer in world.stub().Watch(Request(text="2")):
            seen.append(answer.text)  # noqa: PERF401 - a comprehension would lose what came before the error
    assert seen == ["0", "1"]
    assert caught.value.has_reason(SHORT)


async def test_a_stream_that_is_left_ends_at_the_server(world: World) -> None:
    """Goal: a client that goes leaves nothing running. Method: break out of an endless stream."""
    world.servicer.behavior = lambda request: asyncio.Event().wait()
    call = world.stub().Watch(Request(text="1"))
    async for _ in call:
        break
    call.cancel()
    async with asyncio.timeout(10):
        await world.servicer.ended.wait()
    assert world.servicer.ended.is_set()


async def test_a_drain_in_the_middle_of_writes_tells_every_client(world: World) -> None:
    """Goal: no stream loses its status because a response was on its way. Method: a drain while many streams write."""

    async def chatter(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        while True:
            yield Answer(text="x" * 10_000)

    world.servicer.chat = chatter

    async def read() -> str:
        with pytest.raises(RemoteError) as caught:
            async for _ in world.stub().Chat(iter([Request(text="a")])):
                pass
        return caught.value.code

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        reading = [group.create_task(read()) for _ in range(30)]
        await asyncio.sleep(0.3)
        await world.server.stop(20)
    assert {task.result() for task in reading} == {"UNAVAILABLE"}


async def test_a_drain_ends_streams_at_once(world: World) -> None:
    """Goal: an open stream does not hold up the drain, and its client may go on. Method: stop with a long grace."""
    world.servicer.behavior = lambda request: asyncio.Event().wait()
    call = world.stub().Watch(Request(text="1"))
    stream = aiter(call)
    assert (await anext(stream)).text == "0"
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(world.server.stop(60))
        with pytest.raises(RemoteError) as caught:
            await anext(stream)
    assert caught.value.has_reason(UNAVAILABLE)
    assert world.servicer.ended.is_set()


async def test_the_deadline_reaches_the_servicer_and_ends_it(world: World) -> None:
    """Goal: a call's time is known and kept. Method: report what is left; then sleep past it."""
    world.servicer.behavior = lambda request: Answer(text=str(remaining_seconds()))
    left = float((await world.stub().Public(Request(), timeout=5)).text)
    # gRPC sends the time that is left in whole units, rounded up.
    assert 3 < left <= 5.1
    async with grpc.aio.insecure_channel(world.address) as bare:
        default = float((await Stub(bare).Public(Request())).text)
    assert 25 < default <= 30
    world.servicer.behavior = lambda request: asyncio.sleep(30)
    error = await refusal(world.stub().Public(Request(), timeout=0.2))
    assert error.has_reason(DEADLINE_EXCEEDED)


async def test_the_server_keeps_its_own_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a caller without a deadline gets one. Method: make the server's default short."""
    monkeypatch.setattr("fallow_chassis.grpc_server.DEFAULT_UNARY_SECONDS", 0.2)
    world.servicer.behavior = lambda request: asyncio.sleep(30)
    async with grpc.aio.insecure_channel(world.address) as bare:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(bare).Public(Request())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert DETAILS_HEADER in dict(caught.value.trailing_metadata() or ())


async def test_a_call_within_a_call_has_what_is_left(world: World) -> None:
    """Goal: a deadline is handed on. Method: the servicer calls itself with a longer timeout of its own."""
    inner = world.stub()

    async def nested(request: Any) -> Any:
        if request.text == "inner":
            return Answer(text=str(remaining_seconds()))
        return await inner.Public(Request(text="inner"), timeout=60)

    world.servicer.behavior = nested
    # gRPC rounds what is left up to whole milliseconds on the way.
    assert float((await world.stub().Public(Request(), timeout=4)).text) <= 4.1


ACCOUNT = "accounts/a"
CASES: list[tuple[str, str, Callable[[World], str | None], ErrorReason | None]] = [
    ("Public", "no token", lambda world: None, None),
    ("Public", "a stale token", lambda world: "not.a.token", None),
    ("Account", "no token", lambda world: None, UNAUTHENTICATED),
    ("Account", "nonsense", lambda world: "not.a.token", UNAUTHENTICATED),
    ("Account", "scope", lambda world: world.signers["order"].access_token(ACCOUNT, ["things.write"], 60), None),
    ("Account", "no scope", lambda world: world.signers["order"].access_token(ACCOUNT, ["x"], 60), PERMISSION_DENIED),
    (
        "Account",
        "forged",
        lambda world: world.signers["bidding"].access_token(ACCOUNT, ["things.write"], 60),
        UNAUTHENTICATED,
    ),
    ("Account", "service", lambda world: world.signers["order"].service_token(), PERMISSION_DENIED),
    ("Account", "grant", lambda world: world.grant("logs.read"), PERMISSION_DENIED),
    ("Service", "the one named", lambda world: world.signers["order"].service_token(), None),
    ("Service", "another", lambda world: world.signers["settlement"].service_token(), PERMISSION_DENIED),
    ("Service", "account", lambda world: world.signers["order"].access_token(ACCOUNT, [], 60), PERMISSION_DENIED),
    ("Grant", "right", lambda world: world.grant("logs.read"), NOT_YET_AVAILABLE),
    ("Grant", "other right", lambda world: world.grant("exec"), PERMISSION_DENIED),
    ("Grant", "any service", lambda world: world.signers["settlement"].service_token(), NOT_YET_AVAILABLE),
    ("Grant", "account", lambda world: world.signers["order"].access_token(ACCOUNT, [], 60), PERMISSION_DENIED),
]


@pytest.mark.parametrize(
    ("method", "token", "expected"),
    [(case[0], case[2], case[3]) for case in CASES],
    ids=[f"{case[0]}-{case[1]}" for case in CASES],
)
async def test_who_may_call(
    world: World, method: str, token: Callable[[World], str | None], expected: ErrorReason | None
) -> None:
    """Goal: the contract's access holds. Method: each kind of caller on each kind of method."""
    call = getattr(world.stub(token(world)), method)(Request())
    if expected is None:
        await call
        return
    error = await refusal(call)
    assert (error.code, error.reason.reason) == (expected.code, expected.reason)


async def test_an_expired_token_is_told_apart(world: World, tmp_path: Path) -> None:
    """Goal: a program knows that a fresh token helps. Method: a token whose time is over."""

    class Past(SystemClock):
        def now(self) -> datetime:
            return super().now() - timedelta(hours=1)

    past = TokenSigner.load(tmp_path / "order.pem", "order", clock=Past())
    error = await refusal(world.stub(past.access_token(ACCOUNT, ["things.write"], 60)).Account(Request()))
    assert (error.code, error.reason.reason) == ("UNAUTHENTICATED", TOKEN_EXPIRED.reason)


async def test_another_scheme_is_refused(world: World) -> None:
    """Goal: only bearer tokens. Method: basic credentials."""
    error = await refusal(world.stub().Account(Request(), metadata=(("authorization", "Basic YTpi"),)))
    assert error.has_reason(UNAUTHENTICATED)


async def test_identity_precedes_validation(world: World) -> None:
    """Goal: a stranger learns nothing about fields. Method: a bad request without a token; then with one."""
    bad = Request.FromString(b"\xfa\x3f\x01a")
    assert (await refusal(world.stub().Account(bad))).has_reason(UNAUTHENTICATED)
    assert (await refusal(world.stub().Public(bad))).has_reason(UNKNOWN_FIELD)


async def test_field_paths_arrive(world: World) -> None:
    """Goal: an error names the field. Method: a price below its bound, deep in the request."""
    request = Request(order={"shade": 1, "groups": [{"title": "a", "price_limit": {"micros": -5}}]})
    error = await refusal(world.stub().Public(request))
    assert error.has_reason(INVALID_FIELD)
    assert error.violations == (FieldViolation("order.groups[0].price_limit.micros", "must be at least 1"),)


async def test_streamed_requests_are_validated(world: World) -> None:
    """Goal: no way around validation. Method: the second request of a stream is bad."""

    async def requests() -> AsyncIterator[Any]:
        yield Request(text="good")
        yield Request.FromString(b"\xfa\x3f\x01a")

    assert (await refusal(world.stub().Gather(requests()))).has_reason(UNKNOWN_FIELD)
    seen = []
    with pytest.raises(RemoteError) as caught:
        async for answer in world.stub().Chat(requests()):
            seen.append(answer.text)  # noqa: PERF401 - a comprehension would lose what came before the error
    assert seen == ["GOOD"]
    assert caught.value.has_reason(UNKNOWN_FIELD)


async def test_a_stream_refused_while_its_client_begins_tells_why(world: World) -> None:
    """Goal: the status of a refusal is not lost. Method: clients whose first request meets the refusal."""
    world.servicer.chat = refuse

    async def begin(pause_seconds: float) -> str:
        async def requests() -> AsyncIterator[Any]:
            await asyncio.sleep(pause_seconds)
            yield Request(text="a")

        with pytest.raises(RemoteError) as caught:
            await anext(aiter(world.stub().Chat(requests())))
        return caught.value.code

    for _ in range(40):
        codes = await asyncio.gather(*(begin(pause / 1_000) for pause in range(6)))
        assert set(codes) == {"UNAUTHENTICATED"}


async def test_a_stream_that_never_begins_is_refused_too(world: World) -> None:
    """Goal: no refusal waits for a client without end. Method: a client that sends nothing."""
    silence = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        await silence.wait()
        yield Request(text="a")

    world.servicer.chat = refuse
    with pytest.raises(RemoteError) as caught:
        await anext(aiter(world.stub().Chat(requests())))
    assert caught.value.has_reason(UNAUTHENTICATED)


async def test_bytes_that_are_no_message_are_invalid(world: World) -> None:
    """Goal: garbage is the caller's fault. Method: send bytes that do not decode."""
    raw = world.channel().unary_unary(
        f"/{SERVICE}/Public", request_serializer=lambda data: data, response_deserializer=Answer.FromString
    )
    assert (await refusal(raw(b"\x0a\xff"))).has_reason(INVALID_FIELD)


async def test_the_trace_goes_on(world: World) -> None:
    """Goal: one trace from client to servicer. Method: compare the ids on both ends."""
    Telemetry.start("sample")
    world.servicer.behavior = lambda request: Answer(text=current_trace_id())
    with tracer().start_as_current_span("test") as span:
        answer = await world.stub().Public(Request())
    assert answer.text == trace.format_trace_id(span.get_span_context().trace_id)


async def test_calls_do_not_share_their_facts(world: World) -> None:
    """Goal: identity belongs to one call. Method: a public call right after one with a token."""
    world.servicer.behavior = lambda request: Answer(text=current_identity().subject)
    stub = world.stub(world.signers["order"].access_token(ACCOUNT, ["things.write"], 60))
    assert (await stub.Account(Request())).text == ACCOUNT
    error = await refusal(world.stub().Public(Request()))
    assert error.has_reason(UNAUTHENTICATED)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("ForgottenService", "option .* is missing"),
        ("NobodyService", "names no callers"),
        ("NoSuchService", "no service"),
    ],
)
def test_a_contract_without_access_stops_the_start(world_verifier: TokenVerifier, service: str, message: str) -> None:
    """Goal: no method is open by forgetting. Method: services whose option is missing or empty."""
    server = Server(ServiceSettings(), world_verifier)
    with pytest.raises(AccessOptionError, match=message):
        server.add(lambda servicer, target: None, object(), f"{PACKAGE}.{service}")


@pytest.fixture
def world_verifier(tmp_path: Path) -> TokenVerifier:
    """A verifier that knows nobody."""
    write_jwks(tmp_path / "empty.json", [])
    return TokenVerifier.load(tmp_path / "empty.json")


async def test_health_and_reflection_need_no_token(world: World) -> None:
    """Goal: probes and tools work. Method: Google's own stubs."""
    async with grpc.aio.insecure_channel(world.address) as bare:
        for name in ("", SERVICE):
            answer = await health_pb2_grpc.HealthStub(bare).Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = []
        async for reply in reflection_pb2_grpc.ServerReflectionStub(bare).ServerReflectionInfo(iter([asked])):
            listed = [service.name for service in reply.list_services_response.service]
        assert SERVICE in listed
        await world.server.stop_serving()
        answer = await health_pb2_grpc.HealthStub(bare).Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_server_that_is_away_is_unavailable(world: World) -> None:
    """Goal: a cut line has a reason too. Method: call a port where nobody listens."""
    await world.server.stop(0)
    error = await refusal(world.stub().Public(Request(), timeout=5))
    assert (error.code, error.reason.reason) == ("UNAVAILABLE", "UNAVAILABLE")


async def test_a_caller_who_calls_too_often_waits(tmp_path: Path) -> None:
    """Goal: RESOURCE_EXHAUSTED with RetryInfo, by subject, by address without one, for services never. Method: a server
    with a burst of two whose clock stands still.
    """
    world = World(tmp_path)
    clock = ManualClock(SystemClock().now())
    settings = ServiceSettings(listen="127.0.0.1:0", rate_per_second=4, rate_burst=2)
    server = Server(settings, world.verifier, clock=clock)
    server.add(add_servicer, world.servicer, SERVICE)
    world.address = await server.start()
    try:
        tokens = [world.signers["order"].access_token(f"accounts/{name}", ["things.write"], 60) for name in "ab"]
        loud, quiet = (world.stub(token) for token in tokens)
        for _ in range(2):
            await loud.Account(Request(text="x"))
        error = await refusal(loud.Account(Request(text="x")))
        assert (error.code, error.reason.reason, error.retry_after_ms) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", 250)
        assert error.metadata["caller"] == "accounts/a"
        # A public method takes from the same bucket where a token names the caller.
        assert (await refusal(loud.Public(Request(text="x")))).reason.reason == "RATE_LIMITED"
        await quiet.Account(Request(text="x"))
        for _ in range(2):
            await world.stub().Public(Request(text="x"))
        error = await refusal(world.stub().Public(Request(text="x")))
        assert error.metadata["caller"] == "peers/127.0.0.1"
        service = world.stub(world.signers["settlement"].service_token())
        for _ in range(5):
            await service.Public(Request(text="x"))
        health = health_pb2_grpc.HealthStub(world.channel())
        for _ in range(5):
            await health.Check(health_pb2.HealthCheckRequest())
        clock.advance(milliseconds=250)
        await loud.Account(Request(text="x"))
    finally:
        for opened in world.channels:
            await opened.close(None)
        await server.stop(0)
