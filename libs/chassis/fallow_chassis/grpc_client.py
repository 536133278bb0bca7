"""Channels to other services: every call has a deadline, a token, a trace, and errors that a program can act on.

A unary call takes the smaller of what is left of the present call's deadline and ``DEFAULT_SECONDS``, unless it names a
timeout of its own (which the present deadline still bounds). A stream has the present deadline, or none. The token is
asked for anew at each call, so it may be renewed in between. An error of the other side is raised as ``RemoteError``.
Nothing is retried here: who calls knows whether a repeat is safe.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from opentelemetry.trace import SpanKind

from fallow_chassis.context import remaining_seconds
from fallow_chassis.status_details import RemoteError, from_rpc_error
from fallow_chassis.telemetry import TRACE_HEADER, current_traceparent, mark_failed, tracer

DEFAULT_SECONDS: Final = 10.0
"""The deadline of a unary call where nothing else sets one."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)

__all__ = ["DEFAULT_SECONDS", "MAX_MESSAGE_BYTES", "RemoteError", "channel"]


def channel(address: str, token: Callable[[], str] | None = None) -> grpc.aio.Channel:
    """A channel to ``host:port``; ``token`` gives the bearer token of each call, such as ``signer.service_token``.

    It connects at the first call and reconnects by itself. Close it when done.
    """
    caller = _Caller(token)
    return grpc.aio.insecure_channel(
        address,
        options=_OPTIONS,
        interceptors=[
            _UnaryUnary(caller),
            _UnaryStream(caller),
            _StreamUnary(caller),
            _StreamStream(caller),
        ],
    )


class _Caller:
    """What all four kinds of call share."""

    def __init__(self, token: Callable[[], str] | None) -> None:
        self._token = token

    def details(self, details: Any, *, unary: bool) -> grpc.aio.ClientCallDetails:
        """The details of a call with its deadline, token and trace."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._token is not None and metadata.get("authorization") is None:
            metadata.add("authorization", f"Bearer {self._token()}")
        traceparent = current_traceparent()
        if traceparent and metadata.get(TRACE_HEADER) is None:
            metadata.add(TRACE_HEADER, traceparent)
        limits = [limit for limit in (details.timeout, remaining_seconds()) if limit is not None]
        if details.timeout is None and unary:
            limits.append(DEFAULT_SECONDS)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=min(limits, default=None),
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """One request, one response."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        with tracer().start_as_current_span(_name(client_call_details), kind=SpanKind.CLIENT) as span:
            call = await continuation(self._caller.details(client_call_details, unary=True), request)
            try:
                await call
            except grpc.aio.AioRpcError as error:
                remote = from_rpc_error(error)
                mark_failed(span, remote.reason.reason)
                raise remote from error
            return call


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    """A stream of requests, one response."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        with tracer().start_as_current_span(_name(client_call_details), kind=SpanKind.CLIENT) as span:
            call = await continuation(self._caller.details(client_call_details, unary=False), request_iterator)
            try:
                await call
            except grpc.aio.AioRpcError as error:
                remote = from_rpc_error(error)
                mark_failed(span, remote.reason.reason)
                raise remote from error
            return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    """One request, a stream of responses."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(self._caller.details(client_call_details, unary=False), request)
        return _responses(call)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    """A stream of requests, a stream of responses."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        call = await continuation(self._caller.details(client_call_details, unary=False), request_iterator)
        return _responses(call)


async def _responses(call: Any) -> AsyncIterator[Any]:
    """A stream's responses with its error made ours; leaving early cancels the call."""
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        if not call.done():
            call.cancel()


def _name(details: Any) -> str:
    """The name of a call's span: package.Service/Method."""
    method = details.method
    text = method.decode() if isinstance(method, bytes) else str(method)
    return text.lstrip("/")
