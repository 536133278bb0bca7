"""Between protobuf's well-known types and Python's; page tokens; the hash that recognises a repeated request.

A page token is opaque to clients: base64url of a small JSON object with the cursor (where the next page starts) and a
hash of the request's other fields, so that a token used with other filters is refused instead of giving a wrong page
(AIP-158). It is not signed: a cursor grants nothing, because every list query also filters by what the caller may see.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fallow_chassis.errors import PAGE_TOKEN_INVALID, DomainError, invalid_field

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1_000
_MAX_TOKEN_CHARACTERS: Final = 2_048
_PAGING_FIELDS: Final = ("page_token", "page_size")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_timestamp(instant: datetime) -> Timestamp:
    """The Timestamp of an aware instant, to the millisecond (truncated)."""
    assert instant.tzinfo is not None, "an instant without a zone means nothing"
    milliseconds = (instant - _EPOCH) // _MILLISECOND
    return Timestamp(seconds=milliseconds // 1_000, nanos=milliseconds % 1_000 * 1_000_000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """The UTC instant of a Timestamp, truncated to the millisecond."""
    milliseconds = timestamp.seconds * 1_000 + timestamp.nanos // 1_000_000
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_duration(milliseconds: int) -> Duration:
    """The Duration of whole milliseconds, of either sign."""
    sign = -1 if milliseconds < 0 else 1
    seconds, rest = divmod(abs(milliseconds), 1_000)
    return Duration(seconds=sign * seconds, nanos=sign * rest * 1_000_000)


def from_duration(duration: Duration) -> int:
    """Whole milliseconds of a Duration, truncated towards zero."""
    nanos = duration.seconds * 1_000_000_000 + duration.nanos
    return nanos // 1_000_000 if nanos >= 0 else -(-nanos // 1_000_000)


def request_hash(message: Message) -> bytes:
    """SHA-256 over a message's full name and deterministic serialization: 32 bytes, equal for equal input."""
    digest = hashlib.sha256(message.DESCRIPTOR.full_name.encode())
    digest.update(b"\x00")
    digest.update(message.SerializeToString(deterministic=True))
    return digest.digest()


def page_size(requested: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """How many items a page holds: ``default`` for 0, at most ``maximum`` (AIP-158); negative is INVALID_FIELD."""
    if requested < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(requested, maximum) if requested else default


def encode_page_token(cursor: Mapping[str, str | int], request: Message) -> str:
    """An opaque token that continues ``request``'s list at ``cursor``."""
    payload = json.dumps({"c": dict(cursor), "h": _list_hash(request)}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")


def decode_page_token(token: str, request: Message) -> dict[str, str | int]:
    """The cursor of a token made for the same list; empty for an empty token; PAGE_TOKEN_INVALID for any other."""
    if not token:
        return {}
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise DomainError(PAGE_TOKEN_INVALID, "the page token is too long")
    try:
        payload = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise DomainError(PAGE_TOKEN_INVALID, "the page token is malformed") from error
    if not isinstance(payload, dict) or set(payload) != {"c", "h"} or not isinstance(payload["c"], dict):
        raise DomainError(PAGE_TOKEN_INVALID, "the page token is malformed")
    if payload["h"] != _list_hash(request):
        raise DomainError(PAGE_TOKEN_INVALID, "the page token was made for other arguments")
    cursor: dict[str, str | int] = {}
    for name, value in payload["c"].items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DomainError(PAGE_TOKEN_INVALID, "the page token is malformed")
        cursor[name] = value
    return cursor


def _list_hash(request: Message) -> str:
    """A short hash of a list request without its paging fields."""
    bare = type(request)()
    bare.CopyFrom(request)
    for name in _PAGING_FIELDS:
        if name in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(name)
    return base64.urlsafe_b64encode(request_hash(bare)[:12]).decode()


def resource_id(name: str, collection: str, *, field: str = "name") -> str:
    """The id in a resource name of one segment (``orders/abc`` → ``abc``); INVALID_FIELD for any other text."""
    prefix, slash, identifier = name.partition("/")
    if prefix != collection or not slash or not identifier or "/" in identifier:
        raise invalid_field(field, f"must have the form {collection}/{{id}}")
    return identifier
