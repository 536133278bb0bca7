"""What a JSON-RPC call is refused with: codes and wording follow go-ethereum, because clients match on them."""

from typing import Final

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
LIMIT_EXCEEDED: Final = -32005
SERVER_ERROR: Final = -32000
REVERTED: Final = 3


class RpcError(Exception):
    """An error object of JSON-RPC: a code, a message, and for a reverted call its data."""

    def __init__(self, code: int, message: str, *, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def to_object(self) -> dict[str, object]:
        """Return the error as the member `error` of an answer."""
        plain: dict[str, object] = {"code": self.code, "message": self.message}
        if self.data is not None:
            plain["data"] = self.data
        return plain


def refused(message: str) -> RpcError:
    """Return the error that go-ethereum gives for most refusals."""
    return RpcError(SERVER_ERROR, message)


def invalid_argument(index: int, message: str) -> RpcError:
    """Return the error for a parameter that cannot be read."""
    return RpcError(INVALID_PARAMS, f"invalid argument {index}: {message}")
