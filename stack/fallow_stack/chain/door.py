"""JSON-RPC 2.0 over HTTP: one POST address, single calls and batches.

The chain is not shared between threads: each call runs to its end on the event loop, some milliseconds at most, which
makes the order of blocks the order of arrival.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from fallow_stack.chain.errors import INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError, refused
from fallow_stack.chain.methods import Method

REQUEST_BYTES_MAX: Final = 5 * 1024 * 1024
BATCH_CALLS_MAX: Final = 1000

logger = logging.getLogger(__name__)


class Door:
    """Answers requests from a table of methods."""

    def __init__(self, table: Mapping[str, Method]) -> None:
        self._table = table

    def application(self) -> web.Application:
        """Return the HTTP application."""
        application = web.Application(client_max_size=REQUEST_BYTES_MAX)
        application.router.add_post("/", self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            return web.json_response(_failure(None, RpcError(PARSE_ERROR, "parse error")))
        if not isinstance(body, list):
            answer = self.answer(body)
            return web.Response(status=204) if answer is None else web.json_response(answer)
        if not body:
            return web.json_response(_failure(None, RpcError(INVALID_REQUEST, "empty batch")))
        if len(body) > BATCH_CALLS_MAX:
            return web.json_response(_failure(None, RpcError(INVALID_REQUEST, "batch too large")))
        answers = [answer for call in body if (answer := self.answer(call)) is not None]
        return web.json_response(answers) if answers else web.Response(status=204)

    def answer(self, call: object) -> dict[str, Any] | None:
        """Answer one call; None for a notification, which has no id."""
        if not isinstance(call, dict) or call.get("jsonrpc") != "2.0" or not isinstance(call.get("method"), str):
            identifier = call.get("id") if isinstance(call, dict) else None
            return _failure(identifier, RpcError(INVALID_REQUEST, "invalid request"))
        identifier = call.get("id")
        if isinstance(identifier, dict | list | bool):
            return _failure(None, RpcError(INVALID_REQUEST, "invalid request"))
        try:
            answer = {"jsonrpc": "2.0", "id": identifier, "result": self._result(call)}
        except RpcError as error:
            answer = _failure(identifier, error)
        except Exception:
            # One bad call must not take the chain away from the others; the failure is told and logged in full.
            logger.exception("the method %s failed", call["method"])
            answer = _failure(identifier, refused(f"internal error in {call['method']}"))
        return answer if "id" in call else None

    def _result(self, call: Mapping[str, Any]) -> object:
        name = call["method"]
        method = self._table.get(name)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name} does not exist/is not available")
        params = call.get("params")
        if params is None:
            params = []
        if not isinstance(params, list):
            raise RpcError(INVALID_REQUEST, "non-array args")
        return method(params)


def _failure(identifier: object, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": error.to_object()}
