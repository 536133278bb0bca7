"""The gRPC server: one pipeline around every method, health and reflection, and an orderly stop.

The pipeline, from outside in: trace and metrics; errors to ``google.rpc.Status``; the deadline; who is calling and
whether they may; whether they call too often; the request against the contract's rules; the servicer. A servicer raises ``DomainError`` and never
touches the context's status. What it did not foresee becomes INTERNAL with the trace id and no detail; a database or
network that is away becomes UNAVAILABLE with a time to wait.

What a method needs (its access option, its request's rules) is read from the contract when the service is added, so a
contract that makes no sense stops the start and not a call.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import Span, SpanKind

from fallow_chassis.access import (
    AccessOptionError,
    MethodAccess,
    bearer_token,
    method_access,
    public_access,
    service_methods,
)
from fallow_chassis.clock import Clock, SystemClock
from fallow_chassis.context import Identity, deadline_in, identity_set
from fallow_chassis.errors import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_FIELD,
    NOT_YET_AVAILABLE,
    UNAVAILABLE,
    DomainError,
)
from fallow_chassis.identity import TokenVerifier
from fallow_chassis.logging import get_logger, is_debugged
from fallow_chassis.rate_limit import RateLimiter, limited_caller
from fallow_chassis.retry import is_retryable
from fallow_chassis.settings import ServiceSettings
from fallow_chassis.status_details import DETAILS_HEADER, RemoteError, to_status
from fallow_chassis.telemetry import TRACE_HEADER, current_trace_id, mark_failed, meter, span_from
from fallow_chassis.validation import compile_rules, validate

DEFAULT_UNARY_SECONDS: Final = 30.0
"""The deadline of a unary call whose caller set none; streams without one go on until a side ends them."""
RETRY_AFTER_MS: Final = 1_000
"""How long a caller is asked to wait when something that the call needs is away."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_CONCURRENT_CALLS: Final = 2_000

_log = get_logger(__name__)

_LATE_MARGIN_SECONDS: Final = 0.01
_FIRST_REQUEST_SECONDS: Final = 1.0
_AUTHORIZATION_HEADER: Final = "authorization"
_PUBLIC_SERVICES: Final = frozenset({health.SERVICE_NAME, reflection.SERVICE_NAME})
_OURS_TO_ANSWER_FOR: Final = frozenset(
    {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "DATA_LOSS", "CANCELLED"}
)
"""Codes of another service that say that we called it wrongly or that it broke: our caller can act on neither."""
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class _Undecodable:
    """Stands in for a request whose bytes are no message of its type."""


@dataclass(frozen=True, slots=True)
class _Method:
    """What the pipeline knows about one method."""

    name: str
    access: MethodAccess
    validated: bool


class Server:
    """A gRPC server with the pipeline; add services, ``start``, and ``stop`` in the drain."""

    def __init__(
        self, settings: ServiceSettings, verifier: TokenVerifier | None, *, clock: Clock | None = None
    ) -> None:
        """``verifier`` checks tokens; None is for a server whose methods are all public."""
        self._settings = settings
        ticking = clock or SystemClock()
        limiter = RateLimiter(settings.rate_per_second, settings.rate_burst, ticking)
        self._pipeline = _Pipeline(verifier, ticking, limiter)
        self._server: grpc.aio.Server | None = None
        self._services: list[tuple[Callable[[Any, Any], None], Any, str]] = []
        self._health = health.aio.HealthServicer()
        self._address = ""
        self._bound = asyncio.Event()

    def add(self, servicer_adder: Callable[[Any, Any], None], servicer: Any, full_service_name: str) -> None:
        """Add a servicer by its generated adder and its service's full name (``fallow.order.v1.OrderService``).

        Raises AccessOptionError or FieldRulesError where the contract of a method makes no sense.
        """
        assert self._server is None, "services are added before the start"
        for method in service_methods(full_service_name):
            compile_rules(method.input_type)
            self._pipeline.add(_Method(f"{full_service_name}/{method.name}", method_access(method), validated=True))
        self._services.append((servicer_adder, servicer, full_service_name))

    async def start(self) -> str:
        """Bind ``settings.listen`` and serve; returns the address, with the port that port 0 became."""
        assert self._server is None, "a server starts once"
        # A server belongs to the loop that runs when it is made, so it is made here.
        server = grpc.aio.server(
            interceptors=[self._pipeline], options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
        )
        names = [name for _, _, name in self._services]
        for adder, servicer, _ in self._services:
            adder(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        host = self._settings.listen.rpartition(":")[0]
        port = server.add_insecure_port(self._settings.listen)
        self._address = f"{host}:{port}"
        self._server = server
        await server.start()
        self._bound.set()
        for name in ["", *names]:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self._address

    @property
    def address(self) -> str:
        """``host:port`` once started."""
        assert self._address, "a server has an address once it is started"
        return self._address

    async def bound(self) -> str:
        """``host:port``, once the server has started; for background work that tells others where it serves."""
        await self._bound.wait()
        return self._address

    async def stop_serving(self) -> None:
        """Say NOT_SERVING on every service's health, for good; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Take no new call, end streams of responses with UNAVAILABLE (they would never end by themselves), wait up to
        ``grace_seconds`` for the other calls in flight, then cut them off.
        """
        if self._server is not None:
            await self.stop_serving()
            self._pipeline.end_streams()
            await self._server.stop(grace_seconds)


class _Pipeline(grpc.aio.ServerInterceptor):
    """Wraps each method's handler once, in what the module's docstring tells."""

    def __init__(self, verifier: TokenVerifier | None, clock: Clock, limiter: RateLimiter) -> None:
        self._verifier = verifier
        self._clock = clock
        self._limiter = limiter
        self._methods: dict[str, _Method] = {}
        self._wrapped: dict[str, Any] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._writing: set[asyncio.Task[Any]] = set()
        self._is_draining = False
        self._duration = meter().create_histogram("fallow.rpc.server.duration", unit="ms")

    def add(self, method: _Method) -> None:
        """Make a method known."""
        self._methods[method.name] = method

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of a call, wrapped; None (UNIMPLEMENTED) for a method that nobody added."""
        name = handler_call_details.method.lstrip("/")
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrap(handler, self._method(name))
            self._wrapped[name] = wrapped
        return wrapped

    def _method(self, name: str) -> _Method:
        """What is known about a method; health and reflection are open to all."""
        known = self._methods.get(name)
        if known is not None:
            return known
        if name.partition("/")[0] not in _PUBLIC_SERVICES:
            raise AccessOptionError(f"{name} was added to the server past Server.add")
        return _Method(name, public_access(name), validated=False)

    def _wrap(self, handler: Any, method: _Method) -> Any:
        """A handler of the same kind with the pipeline around it."""
        deserializer = _lenient(handler.request_deserializer)
        serializer = handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            behavior = self._streaming(handler.stream_stream, method, request_streaming=True)
            return grpc.stream_stream_rpc_method_handler(behavior, deserializer, serializer)
        if handler.response_streaming:
            behavior = self._streaming(handler.unary_stream, method, request_streaming=False)
            return grpc.unary_stream_rpc_method_handler(behavior, deserializer, serializer)
        if handler.request_streaming:
            behavior = self._unary(handler.stream_unary, method, request_streaming=True)
            return grpc.stream_unary_rpc_method_handler(behavior, deserializer, serializer)
        behavior = self._unary(handler.unary_unary, method, request_streaming=False)
        return grpc.unary_unary_rpc_method_handler(behavior, deserializer, serializer)

    def _unary(self, behavior: Any, method: _Method, *, request_streaming: bool) -> Callable[..., Awaitable[Any]]:
        """A method that answers once."""
        limit = None if request_streaming else DEFAULT_UNARY_SECONDS

        async def call(request: Any, context: Any) -> Any:
            requests = _Requests(request, method) if request_streaming else None

            async def work() -> Any:
                result = behavior(requests or _checked(request, method), context)
                return await result if inspect.isawaitable(result) else result

            return await self._carry_out(work, method, context, limit, requests)

        return call

    def _streaming(self, behavior: Any, method: _Method, *, request_streaming: bool) -> Callable[..., Awaitable[None]]:
        """A method that answers with a stream. It writes instead of yielding: a generator that grpc drops in the
        middle would be closed in another task, where neither deadline nor identity could be undone.
        """

        async def call(request: Any, context: Any) -> None:
            requests = _Requests(request, method) if request_streaming else None

            async def work() -> None:
                async with self._until_drain():
                    writing = _StreamContext(context, self._write)
                    result = behavior(requests or _checked(request, method), writing)
                    if not inspect.isasyncgen(result):
                        await result
                        return
                    async with aclosing(result) as responses:
                        async for response in responses:
                            await self._write(context, response)

            await self._carry_out(work, method, context, None, requests)

        return call

    async def _write(self, context: Any, response: Any) -> None:
        """Write a response of a stream; where streams end meanwhile, this one does after it."""
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._writing.add(task)
        try:
            await context.write(response)
        finally:
            self._writing.discard(task)
        if self._is_draining:
            raise _draining()

    def end_streams(self) -> None:
        """End every stream of responses, those to come too: the server is going away. One that writes ends by itself after
        that: a call takes no status in the middle of a write.
        """
        self._is_draining = True
        for task in self._streams - self._writing:
            task.cancel()

    @asynccontextmanager
    async def _until_drain(self) -> AsyncIterator[None]:
        """Run a stream of responses until ``end_streams``; its client learns that it may go on elsewhere."""
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._streams.add(task)
        try:
            if self._is_draining:
                raise _draining()
            yield
        except asyncio.CancelledError:
            # A client that leaves in the same moment has cancelled the task once more.
            if self._is_draining and task.uncancel() == 0:
                raise _draining() from None
            raise
        finally:
            self._streams.discard(task)

    async def _carry_out(
        self,
        work: Callable[[], Awaitable[Any]],
        method: _Method,
        context: Any,
        default_seconds: float | None,
        requests: "_Requests | None",
    ) -> Any:
        """Everything of the pipeline but the request itself, around the work on that."""
        authorization, traceparent = _headers(context)
        started_ms = self._clock.monotonic_ms()
        with span_from(traceparent, method.name, kind=SpanKind.SERVER) as span:
            code = "OK"
            remaining = context.time_remaining()
            seconds = default_seconds if remaining is None else max(0.0, remaining)
            try:
                with deadline_in(seconds):
                    async with asyncio.timeout(seconds):
                        identity = self._identify(authorization, method)
                        self._limit(identity, method, context)
                        with identity_set(identity):
                            return await work()
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001 - the one place where any failure becomes an answer
                elapsed_seconds = (self._clock.monotonic_ms() - started_ms) / 1_000
                late = seconds is not None and elapsed_seconds >= seconds - _LATE_MARGIN_SECONDS
                failure = _translate(error, method.name, late=late)
                code = failure.code
                mark_failed(span, failure.reason.reason)
                if requests is not None:
                    await requests.await_first()
                await _abort(context, failure)
            finally:
                self._note(span, method.name, code, started_ms)

    def _identify(self, authorization: str, method: _Method) -> Identity | None:
        """The caller, if the token verifies and the method is open to them."""
        if method.access.public:
            return self._optional_identity(authorization)
        token = bearer_token(authorization)
        identity = self._verifier.verify(token) if token and self._verifier is not None else None
        method.access.check(identity)
        return identity

    def _optional_identity(self, authorization: str) -> Identity | None:
        """The caller of a public method if they show a token that verifies; a stale one must not lock them out."""
        if self._verifier is None:
            return None
        try:
            token = bearer_token(authorization)
            return self._verifier.verify(token) if token else None
        except DomainError:
            return None

    def _limit(self, identity: Identity | None, method: _Method, context: Any) -> None:
        """Take a call from the caller's bucket; health and reflection are asked by probes and cost nothing."""
        caller = limited_caller(identity, context.peer()) if method.validated else ""
        if caller:
            self._limiter.take(caller)

    def _note(self, span: Span, method: str, code: str, started_ms: int) -> None:
        """Measure and log the end of a call."""
        elapsed_ms = self._clock.monotonic_ms() - started_ms
        span.set_attribute("rpc.grpc.status_code", code)
        self._duration.record(elapsed_ms, {"method": method, "code": code})
        if is_debugged():
            _log.debug("call_ended", method=method, code=code, elapsed_ms=elapsed_ms)


def _headers(context: Any) -> tuple[str, str]:
    """What a call's metadata says of its caller and its trace, each empty where it says nothing."""
    authorization = traceparent = ""
    for name, value in context.invocation_metadata() or ():
        if name == _AUTHORIZATION_HEADER and isinstance(value, str):
            authorization = value
        elif name == TRACE_HEADER and isinstance(value, str):
            traceparent = value
    return authorization, traceparent


def _translate(error: Exception, method: str, *, late: bool) -> DomainError:
    """The error that the caller is told; ``late`` says that the call's time is over."""
    if isinstance(error, RemoteError) and error.code in _OURS_TO_ANSWER_FOR:
        _log.error("call_failed", method=method, remote_code=error.code, exc_info=error)
        return _internal()
    if isinstance(error, DomainError):
        if error.code == "UNAVAILABLE" and error.retry_after_ms is None:
            error.retry_after_ms = RETRY_AFTER_MS
        _log.info("call_refused", method=method, code=error.code, reason=error.reason.reason, message=error.message)
        return error
    if isinstance(error, TimeoutError) and late:
        return DomainError(DEADLINE_EXCEEDED, "the call's time ran out")
    if isinstance(error, NotImplementedError):
        return DomainError(NOT_YET_AVAILABLE, f"not available yet: {method}", metadata={"feature": method})
    if is_retryable(error):
        _log.warning("call_failed", method=method, error=repr(error))
        return DomainError(
            UNAVAILABLE, "something that the call needs cannot be reached now", retry_after_ms=RETRY_AFTER_MS
        )
    _log.error("call_failed", method=method, exc_info=error)
    return _internal()


def _draining() -> DomainError:
    """What the client of a stream learns when the server goes away."""
    return DomainError(UNAVAILABLE, "the service is stopping; go on at another one, or here once it is back")


def _internal() -> DomainError:
    """The answer to what was not foreseen: the trace to look for, and nothing else."""
    trace_id = current_trace_id()
    return DomainError(
        INTERNAL, "the server failed; report it with the trace id", metadata={"trace_id": trace_id} if trace_id else {}
    )


async def _abort(context: Any, error: DomainError) -> None:
    """End a call with an error."""
    status = to_status(error)
    await context.abort(
        grpc.StatusCode[error.code], status.message, trailing_metadata=((DETAILS_HEADER, status.SerializeToString()),)
    )


def _lenient(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that lets undecodable bytes through as such, so that the pipeline can name the error."""

    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return _Undecodable()

    return deserialize


def _checked(request: Any, method: _Method) -> Any:
    """A request that holds to the contract; raises INVALID_FIELD or UNKNOWN_FIELD."""
    if isinstance(request, _Undecodable):
        raise DomainError(INVALID_FIELD, "the request's bytes are no message of the method's type")
    if method.validated:
        validate(request)
    return request


class _StreamContext:
    """The context of a method that writes its answers instead of yielding them: it writes as the pipeline does."""

    def __init__(self, context: Any, write: Callable[[Any, Any], Awaitable[None]]) -> None:
        self._context = context
        self._write = write

    async def write(self, response: Any) -> None:
        """Write a response; from the task of the call alone."""
        await self._write(self._context, response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Requests:
    """A stream of requests, each held to the contract as it comes."""

    def __init__(self, requests: AsyncIterator[Any], method: _Method) -> None:
        self._requests = requests
        self._method = method
        self._has_begun = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        self._has_begun = True
        return _checked(request, self._method)

    async def await_first(self) -> None:
        """Let the client send its first request, if it sends one soon, before the call ends without it: a grpc.aio client
        whose write meets the end of its call reports INTERNAL, and never the status that the call ended with.
        """
        if not self._has_begun:
            with suppress(TimeoutError, StopAsyncIteration):
                async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                    await anext(self._requests)
