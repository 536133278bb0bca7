"""Lists by pages (AIP-158): how long a page is, where it starts, and the token of the next one.

A page token is opaque to clients: base64url of a small JSON object with the place after which the next page starts and a
hash of the request's other fields, so that a token used with other filters is refused instead of giving a wrong page. It
is not signed: a place grants nothing, because every list query also filters by what the caller may see.

A servicer asks its query for ``limit`` items after the page's place, one more than it shows: that one says whether there
is a next page.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.message import Message

from fallow_chassis.errors import PAGE_TOKEN_INVALID, DomainError, invalid_field
from fallow_chassis.wire import request_hash

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1_000

_MAX_TOKEN_CHARACTERS: Final = 2_048
_NUMBERS_END: Final = 2**63
_PAGING_FIELDS: Final = ("page_token", "page_size")

T = TypeVar("T")
TimePlace: TypeAlias = tuple[datetime, str]
"""An item's time and id, for lists by time."""
Place: TypeAlias = str | int | TimePlace
"""Where an item stands in its list."""


class Page:
    """The page that a list request asks for."""

    def __init__(self, request: Any) -> None:
        """``request`` has ``page_size`` and ``page_token``. Raises INVALID_FIELD and PAGE_TOKEN_INVALID."""
        self._list_hash = _list_hash(request)
        self._size = _page_size(request.page_size)
        self._place = _decode(request.page_token, self._list_hash) if request.page_token else []

    @property
    def limit(self) -> int:
        """How many items to ask the query for: one more than are shown."""
        return self._size + 1

    def after_text(self) -> str:
        """The place to start after, in a list by id; empty for the first page."""
        match self._place:
            case []:
                return ""
            case [str(text)] if text.isprintable():
                return text
        raise _malformed()

    def after_number(self) -> int:
        """The place to start after, in a list by number; 0 for the first page."""
        match self._place:
            case []:
                return 0
            case [int(number)] if number is not True and 0 < number < _NUMBERS_END:
                return number
        raise _malformed()

    def after_time(self) -> TimePlace | None:
        """The place to start after, in a list by time and id; None for the first page."""
        match self._place:
            case []:
                return None
            case [str(text), str(identifier)] if identifier.isprintable():
                try:
                    time = datetime.fromisoformat(text)
                    if time.tzinfo is not None:
                        return time.astimezone(UTC), identifier
                except (ValueError, OverflowError) as error:
                    raise _malformed() from error
        raise _malformed()

    def cut(self, found: Sequence[T], place: Callable[[T], Place]) -> tuple[Sequence[T], str]:
        """The items to show of those found, and the token of the next page: empty at the end of the list."""
        assert len(found) <= self.limit, "the query returns no more than it was asked for"
        shown = found[: self._size]
        if len(found) <= self._size:
            return shown, ""
        return shown, _encode(place(shown[-1]), self._list_hash)


def _page_size(requested: int) -> int:
    """How many items a page holds: the default for 0, at most the maximum; negative is INVALID_FIELD."""
    if requested < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(requested, MAX_PAGE_SIZE) if requested else DEFAULT_PAGE_SIZE


def _encode(place: Place, list_hash: str) -> str:
    """The token of the page after a place."""
    parts = [place[0].isoformat(), place[1]] if isinstance(place, tuple) else [place]
    payload = json.dumps({"p": parts, "h": list_hash}, separators=(",", ":"))
    return base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")


def _decode(token: str, list_hash: str) -> list[Any]:
    """The place in a token made for the same list; PAGE_TOKEN_INVALID for any other."""
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise DomainError(PAGE_TOKEN_INVALID, "the page token is too long")
    try:
        payload = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _malformed() from error
    match payload:
        case {"p": [*parts], "h": str(made_for), **rest} if parts and not rest:
            if made_for != list_hash:
                raise DomainError(PAGE_TOKEN_INVALID, "the page token was made for other arguments")
            return parts
    raise _malformed()


def _malformed() -> DomainError:
    """The refusal of a token that we did not make."""
    return DomainError(PAGE_TOKEN_INVALID, "the page token is malformed")


def _list_hash(request: Message) -> str:
    """A short hash of a list request without its paging fields."""
    bare = type(request)()
    bare.CopyFrom(request)
    for name in _PAGING_FIELDS:
        bare.ClearField(name)
    return base64.urlsafe_b64encode(request_hash(bare)[:12]).decode()
