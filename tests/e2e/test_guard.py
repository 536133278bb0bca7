"""Who may see what, on a whole running marketplace: others' names on every method, planted secrets, rotated keys."""

import asyncio
import base64
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import nats
import pytest
import pytest_asyncio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from fallow.order.v1 import order_pb2
from fallow.type.v1 import workload_pb2
from fallow_chassis.access import MethodAccess, method_access
from fallow_chassis.context import RIGHTS, GrantClaims
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.identity import TokenSigner, generate_key_file, public_jwk, write_jwks
from fallow_sdk.client import Client, Mode
from fallow_sdk.errors import FallowError
from fallow_sdk.wallet import Wallet
from fallow_sdl import SdlSettings
from fallow_sdl import parse as parse_sdl
from fallow_stack.testing import RunningStack
from tests.e2e.methods import METHODS, MODULES, Kind
from tests.e2e.test_whole_way import WAIT_SECONDS, fund, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(240)]

PLANTED = {name: f"planted-{name}-{secrets.token_hex(8)}" for name in ("environment", "argument", "password")}
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID = re.compile(rf"[{ALPHABET}]{{26}}")
FALLOW_SERVICES = ("order", "bidding", "settlement")


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector that keeps what it gets."""

    requests: list[bytes] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def Export(self, request: Any, context: Any) -> Any:
        """Keep the spans."""
        self.requests.append(request.SerializeToString())
        for resource in request.resource_spans:
            self.names |= {span.name for scope in resource.scope_spans for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


@dataclass
class World:
    """A stack with one running order of a first account, and a second account with all scopes."""

    stack: RunningStack
    collector: Collector
    client: Client
    facts: dict[str, str]
    stranger: str

    def signer(self, service: str) -> TokenSigner:
        """Signs as a service does now."""
        return TokenSigner.load(self.stack.home.keys / f"{service}-identity.pem", service)

    def grant(self, lease: str, *, rights: frozenset[str] = RIGHTS, subject: str = "") -> str:
        """A grant with the bidding service's signature."""
        claims = GrantClaims(
            subject or self.facts["provider"], self.facts["order"], 0, 1, lease, self.facts["provider"], rights
        )
        return self.signer("bidding").grant(claims, 600)

    def address(self, method: str) -> str:
        """Where a method is served."""
        member = method.split(".")[1]
        return f"127.0.0.1:{self.stack.member('provider-1' if member == 'provider' else member).port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The marketplace with every log line and span, and a running order with secrets in it."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_servicer: Callable[[Any, Any], None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_servicer(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    environment = {
        "FALLOW_OTLP_ENDPOINT": f"127.0.0.1:{port}",
        "FALLOW_LOG_LEVEL": "debug",
        "FALLOW_JWKS_REFRESH_SECONDS": "0.5",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    root = tmp_path_factory.mktemp("guard")
    stack = RunningStack(root, "--providers", "1", "--runtime", "exec", environment=environment)
    await stack.start()
    try:
        async with stack.tenant() as client, Client(stack.endpoints) as other:
            facts = await _facts(stack, client)
            session = await other.sign_in(Wallet.load_or_create(root / "stranger.key"))
            yield World(stack, collector, client, facts, session.access_token)
    finally:
        assert await stack.stop() == 0, stack.output.read_text("utf-8")
        server.stop(0).wait()


async def _facts(stack: RunningStack, client: Client) -> dict[str, str]:
    """An order of the first account's that runs and has charges, and the names that come of it."""
    await fund(stack, client)
    order = _order_with_secrets()
    order = await client.create_order(order=order)
    order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
    async with asyncio.timeout(WAIT_SECONDS):
        while not (charges := await client.list_charges(order.name)):
            await asyncio.sleep(0.2)
    manual = await client.create_order(sdl=sdl(), mode=Mode(order_pb2.MATCH_MODE_MANUAL))
    async with asyncio.timeout(WAIT_SECONDS):
        while not (auctions := await client.list_auctions(manual.name)):
            await asyncio.sleep(0.2)
    return {
        "auction": auctions[0].name,
        "account": order.account,
        "order": order.name,
        "escrow": order.name.replace("orders/", "escrows/"),
        "lease": order.groups[0].lease,
        "provider": order.groups[0].provider,
        "charge": charges[0].name,
        "offer": (await client.list_offers())[0].name,
        "key": (await client.create_api_key("planted")).name,
    }


def _order_with_secrets() -> order_pb2.Order:
    """The demo's order with a secret in each place that may hold one."""
    order = order_pb2.Order()
    order.CopyFrom(parse_sdl(sdl(), SdlSettings()))
    container = order.groups[0].workload.containers[0]
    container.environment.append(workload_pb2.EnvironmentVariable(key="PASSWORD", value=PLANTED["environment"]))
    container.arguments.append(PLANTED["argument"])
    container.credentials.host = "registry.test"
    container.credentials.username = "somebody"
    container.credentials.password = PLANTED["password"]
    return order


def all_methods() -> list[MethodDescriptor]:
    """Every method of the contract."""
    files = [import_module(module).DESCRIPTOR for module in MODULES]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def name_of(method: MethodDescriptor) -> str:
    """Package.Service/Method."""
    return f"{method.containing_service.full_name}/{method.name}"


def filled(template: Any, facts: Mapping[str, str]) -> Any:
    """A request's JSON with its facts."""
    if isinstance(template, dict):
        return {name: filled(value, facts) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, facts) for value in template]
    if not isinstance(template, str):
        return template
    known = {**facts, "request": secrets.token_hex(8), "id": new_id()}
    return re.sub(r"\$(\w+)", lambda match: known[match[1]], template)


def new_id() -> str:
    """An id that nobody has."""
    return "01" + "".join(secrets.choice(ALPHABET) for _ in range(24))


def of_nobody(facts: Mapping[str, str]) -> dict[str, str]:
    """Names of the same shape that nobody has; the caller's own account stays out of it."""
    return {name: ID.sub(lambda _: new_id(), value) for name, value in facts.items()}


@dataclass(frozen=True)
class Outcome:
    """What came of a call: the first answer as JSON, or code, reason and words, with all ids alike."""

    code: str
    reason: str = ""
    words: str = ""
    answer: str = ""


async def call(world: World, method: MethodDescriptor, request: dict[str, Any], token: str) -> Outcome:
    """Make a call; of a stream, wait for the first answer."""
    path = f"/{name_of(method)}"
    message = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
    codec: dict[str, Any] = {
        "request_serializer": message_factory.GetMessageClass(method.input_type).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    async with channel(world.address(name_of(method)), (lambda: token) if token else None) as connection:
        try:
            if method.client_streaming:
                stream = connection.stream_stream(path, **codec)(iter([message]), timeout=10)
                answer = await anext(aiter(stream))
            elif method.server_streaming:
                answer = await anext(aiter(connection.unary_stream(path, **codec)(message, timeout=10)))
            else:
                answer = await connection.unary_unary(path, **codec)(message, timeout=10)
        except RemoteError as error:
            words = f"{error.message} {sorted(error.metadata.items())} {error.violations}"
            return Outcome(error.code, error.reason.reason, ID.sub("ID", words))
    return Outcome("OK", answer=json_format.MessageToJson(answer))


async def test_every_method_is_covered() -> None:
    """Goal: a new method cannot be forgotten here. Method: the contract's methods against the table, both ways."""
    assert {name_of(method) for method in all_methods()} == set(METHODS)


@pytest.mark.parametrize("method", all_methods(), ids=name_of)
async def test_a_stranger_learns_nothing(world: World, method: MethodDescriptor) -> None:
    """Goal: what is another's is as if it were not there. Method: a second account, with all scopes, and the first's
    names; the same call with names that nobody has must be answered with the same words.
    """
    kind, template = METHODS[name_of(method)]
    outcome = await call(world, method, filled(template, world.facts), world.stranger)
    nobody = await call(world, method, filled(template, of_nobody(world.facts)), world.stranger)
    if kind in {Kind.HIDDEN, Kind.MINE}:
        assert outcome == nobody
    if kind is Kind.HIDDEN:
        assert outcome.code in {"NOT_FOUND", "UNIMPLEMENTED"}
        assert outcome.code == "NOT_FOUND" or outcome.reason == "NOT_YET_AVAILABLE"
    elif kind is Kind.MINE:
        assert outcome.code == "OK"
        ids = {found for value in world.facts.values() for found in ID.findall(value)}
        assert not ids & set(ID.findall(outcome.answer))
    elif kind in {Kind.SERVICE, Kind.OWNER, Kind.GRANT}:
        assert outcome.code == "PERMISSION_DENIED"
    else:
        assert outcome.code not in {"PERMISSION_DENIED", "INTERNAL", "UNKNOWN"}


def _wrong_tokens(world: World, access: MethodAccess) -> dict[str, tuple[str, str]]:
    """Tokens that must not open a method, with the code that each gets."""
    order = world.signer("order")
    account = world.facts["account"]
    lease = world.facts["lease"]
    own_issuer = world.signer("settlement").access_token(account, ["orders.read", access.scope], 600)
    wrong = {
        "none": ("", "UNAUTHENTICATED"),
        "noise": ("x.y.z", "UNAUTHENTICATED"),
        "of a service that may not name accounts": (own_issuer, "UNAUTHENTICATED"),
        "too long a life": (order.access_token(account, [access.scope], 3_600), "UNAUTHENTICATED"),
    }
    if access.account and access.scope:
        wrong["without the scope"] = (order.access_token(account, ["nothing.read"], 600), "PERMISSION_DENIED")
    if not access.account:
        every = world.client.token
        wrong["an account's"] = (every, "PERMISSION_DENIED")
    if not access.grant:
        wrong["a grant"] = (world.grant(lease, subject=account), "PERMISSION_DENIED")
        wrong["a provider's"] = (world.grant(lease), "PERMISSION_DENIED")
    else:
        without = RIGHTS - {access.grant_right}
        wrong["a grant without the right"] = (world.grant(lease, rights=without), "PERMISSION_DENIED")
        wrong["a grant on another lease"] = (world.grant(f"leases/{new_id()}"), "PERMISSION_DENIED")
    outside = [
        name for name in FALLOW_SERVICES if not access.service or (access.services and name not in access.services)
    ]
    for name in outside:
        wrong[f"the {name} service's"] = (world.signer(name).service_token(), "PERMISSION_DENIED")
    return wrong


@pytest.mark.parametrize("method", [item for item in all_methods() if not method_access(item).public], ids=name_of)
async def test_a_wrong_token_opens_nothing(world: World, method: MethodDescriptor) -> None:
    """Goal: each method is for whom the contract says. Method: every other kind of caller, with the first's names."""
    kind, template = METHODS[name_of(method)]
    access = method_access(method)
    for what, (token, code) in _wrong_tokens(world, access).items():
        outcome = await call(world, method, filled(template, world.facts), token)
        is_late = kind is Kind.GRANT and what == "a grant on another lease" and outcome.reason == "NOT_YET_AVAILABLE"
        assert outcome.code == code or is_late, what


def _forms(secret: str) -> list[bytes]:
    """A secret as it may lie about: plain, hexadecimal (dumps of bytes), base64 at each of its three offsets."""
    plain = secret.encode()
    encoded = [base64.b64encode(b"x" * shift + plain)[4 * (shift > 0) : -4] for shift in range(3)]
    return [plain, plain.hex().encode(), *encoded]


def finds(content: bytes) -> set[str]:
    """The planted secrets that a content holds."""
    return {name for name, secret in PLANTED.items() if any(form in content for form in _forms(secret))}


async def _events(stack: RunningStack) -> dict[str, bytes]:
    """All messages of all streams, the dead letters among them."""
    environment = _environment(stack, "order")
    connection = await nats.connect(
        environment["FALLOW_NATS_URL"], user_credentials=environment["FALLOW_NATS_CREDENTIALS_FILE"]
    )
    found: dict[str, bytes] = {}
    try:
        streams = connection.jetstream()
        for info in await streams.streams_info():
            name = info.config.name
            assert name is not None
            for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
                try:
                    message = await streams.get_msg(name, sequence)
                except nats.js.errors.NotFoundError:
                    continue
                found[f"{name} {sequence}"] = (message.data or b"") + repr(message.headers).encode()
    finally:
        await connection.close()
    return found


def _environment(stack: RunningStack, member: str) -> dict[str, str]:
    """What a member was told."""
    content = Path(f"/proc/{stack.member(member).pid}/environ").read_text()
    return dict(line.split("=", 1) for line in content.split("\0") if "=" in line)


async def _dumps(stack: RunningStack) -> dict[str, bytes]:
    """Every row of every table of the three databases, as text."""
    found: dict[str, bytes] = {}
    for service in FALLOW_SERVICES:
        connection = await asyncpg.connect(_environment(stack, service)["FALLOW_DATABASE_URL"])
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for table in tables:
                rows = await connection.fetch(f'SELECT t::text AS row FROM "{table[0]}" t')
                found[f"{service}.{table[0]}"] = "\n".join(row["row"] for row in rows).encode()
        finally:
            await connection.close()
    return found


async def test_a_planted_secret_is_nowhere(world: World) -> None:
    """Goal: a workload's secrets are in no event, log, trace or database. Method: an order that runs, with secrets in
    its environment, arguments and registry credential; search everything, and find a canary in each place.
    """
    await asyncio.sleep(2)
    events, dumps = await _events(world.stack), await _dumps(world.stack)
    logs = {file.name: file.read_bytes() for file in [*world.stack.home.logs.glob("*.log"), world.stack.output]}
    spans = b"".join(world.collector.requests)
    # What was searched is what it should be: it knows of the order, and the workload lies there, sealed.
    order_id = world.facts["order"].removeprefix("orders/")
    assert sum(order_id.encode() in content for content in events.values()) >= 3
    assert order_id.encode() in dumps["order.workload"]
    assert {"order.log", "bidding.log", "settlement.log", "provider-1.log"} <= set(logs)
    assert order_id.encode() in logs["order.log"]
    assert world.facts["lease"].removeprefix("leases/").encode() in logs["provider-1.log"]
    assert all(b"call_ended" in logs[f"{name}.log"] for name in FALLOW_SERVICES)
    assert {"fallow.order.v1.OrderService/CreateOrder", "fallow.order.v1.WorkloadService/GetWorkload"} <= (
        world.collector.names
    )
    for place, content in {**events, **dumps, **logs, "spans": spans}.items():
        assert not finds(content), place
        for form in _forms(PLANTED["environment"]):
            assert finds(content + form + b".") == {"environment"}


async def _is_let_in(world: World, token: str) -> dict[str, bool]:
    """Whether each service believes a token of the first account's."""
    calls: dict[str, Callable[[Client], Any]] = {
        "order": lambda client: client.list_orders(),
        "bidding": lambda client: client.list_leases(world.facts["order"]),
        "settlement": lambda client: client.balance("usdc"),
    }
    found = {}
    async with Client(world.stack.endpoints, token=token) as client:
        for service, made in calls.items():
            try:
                await made(client)
            except FallowError as error:
                if error.code != "UNAUTHENTICATED":
                    raise
                found[service] = False
            else:
                found[service] = True
    return found


async def _until(world: World, token: str, *, let_in: bool) -> None:
    """Wait, bounded, until all services do, or do not, believe a token."""
    async with asyncio.timeout(20):
        while set((await _is_let_in(world, token)).values()) != {let_in}:
            await asyncio.sleep(0.2)


async def test_the_signing_key_rotates_without_a_pause(world: World) -> None:
    """Goal: rotation as the operating guide tells it. Method: publish the new key beside the old one, swap the order
    service's key, restart it; tokens of both keys are good; take the old key out; its tokens are not.
    """
    keys = world.stack.home.keys
    old_token = world.client.token
    own, fresh = keys / "order-identity.pem", keys / "order-fresh.pem"
    generate_key_file(fresh)
    others = [public_jwk(keys / f"{name}-identity.pem", name) for name in ("bidding", "settlement")]
    old, new = public_jwk(own, "order"), public_jwk(fresh, "order")
    before = TokenSigner.load(fresh, "order").access_token(world.facts["account"], ["orders.read", "funds.read"], 600)
    assert set((await _is_let_in(world, before)).values()) == {False}
    write_jwks(keys / "jwks.json", [old, new, *others])
    await _until(world, before, let_in=True)
    fresh.replace(own)
    await world.stack.kill("order")
    async with world.stack.tenant() as client:
        new_token = client.token
    assert json.loads(_part(new_token, 0))["kid"] == new["kid"] != json.loads(_part(old_token, 0))["kid"]
    for token in (old_token, new_token):
        await _until(world, token, let_in=True)
    write_jwks(keys / "jwks.json", [new, *others])
    await _until(world, old_token, let_in=False)
    assert set((await _is_let_in(world, new_token)).values()) == {True}
    world.client.token = new_token
    async with Client(world.stack.endpoints) as other:
        world.stranger = (await other.sign_in(Wallet.load(world.stack.home.root / "stranger.key"))).access_token


def _part(token: str, index: int) -> bytes:
    """A part of a token, decoded."""
    part = token.split(".")[index]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
