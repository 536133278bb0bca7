"""Between protobuf's well-known types and Python's; resource names; the hash that recognises a repeated request."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fallow_chassis.errors import invalid_field

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


def resource_id(name: str, collection: str, *, field: str = "name") -> str:
    """The id in a resource name of one segment (``orders/abc`` → ``abc``); INVALID_FIELD for any other text."""
    prefix, slash, identifier = name.partition("/")
    if prefix != collection or not slash or not identifier or "/" in identifier:
        raise invalid_field(field, f"must have the form {collection}/{{id}}")
    return identifier
