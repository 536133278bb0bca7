"""Events: what a command says (``EventDraft``), what travels (``Record``), what a handler gets (``ReceivedEvent``).

An event is a past-tense fact, a protobuf message, with CloudEvents attributes (version 1.0, binary mode) as headers.
The key is the aggregate's id: all events of one key keep their order. ``version`` counts the events of one key on one
topic from 1 without gaps, so that a consumer can drop older ones and park what comes too early; 0 says that the events
of this topic are not versioned (proofs).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.message import Message

HEADER_SPECIFICATION: Final = "ce_specversion"
HEADER_ID: Final = "ce_id"
HEADER_TYPE: Final = "ce_type"
HEADER_SOURCE: Final = "ce_source"
HEADER_SUBJECT: Final = "ce_subject"
HEADER_TIME: Final = "ce_time"
HEADER_SEQUENCE: Final = "ce_sequence"
HEADER_CONTENT_TYPE: Final = "content-type"
HEADER_TRACE: Final = "traceparent"

SPECIFICATION_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/protobuf"
DEAD_LETTER_SUFFIX: Final = ".dlq"
"""What a topic's dead-letter topic is called after it."""
MAX_EVENT_BYTES: Final = 512 * 1024
"""The largest serialized event; half of NATS's limit for a message, so that headers always fit."""


@dataclass(frozen=True, slots=True)
class EventDraft:
    """A fact that a command states; the unit of work makes an outbox row of it.

    ``key`` is the aggregate's id, ``version`` the number of this event among those of its key on its topic (1, 2, 3 …;
    0 where the topic is not versioned), ``subject`` a resource name such as ``orders/…`` (or empty). ``trace`` is the
    traceparent of the call that the fact belongs to, where a group of calls is committed together; empty: the present
    span's.
    """

    topic: str
    key: str
    version: int
    message: Message
    subject: str = ""
    trace: str = ""

    def __post_init__(self) -> None:
        """Hold what every adapter relies on."""
        assert self.topic, "an event has a topic"
        assert self.key, "an event has a key"
        assert self.version >= 0, "versions count from 1, and 0 says unversioned"


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the stream as the adapters carry it."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """What the headers of a record say; ``type`` is the full name of the protobuf message."""

    id: str
    type: str
    key: str
    version: int
    time: datetime
    topic: str
    source: str = ""
    subject: str = ""


class MalformedEventError(Exception):
    """A record whose headers or value do not make an event; it can never be handled."""


def event_headers(draft: EventDraft, *, event_id: str, source: str, time: datetime, trace: str) -> dict[str, str]:
    """The CloudEvents headers of a draft; ``trace`` is a W3C traceparent, or empty."""
    headers = {
        HEADER_SPECIFICATION: SPECIFICATION_VERSION,
        HEADER_ID: event_id,
        HEADER_TYPE: draft.message.DESCRIPTOR.full_name,
        HEADER_SOURCE: source,
        HEADER_TIME: format_time(time),
        HEADER_SEQUENCE: str(draft.version),
        HEADER_CONTENT_TYPE: CONTENT_TYPE,
    }
    if draft.subject:
        headers[HEADER_SUBJECT] = draft.subject
    if trace:
        headers[HEADER_TRACE] = trace
    return headers


def parse_event(record: Record) -> ReceivedEvent:
    """Read a record's headers; raises MalformedEventError where one is missing or makes no sense."""
    try:
        event = ReceivedEvent(
            id=record.headers[HEADER_ID],
            type=record.headers[HEADER_TYPE],
            key=record.key,
            version=int(record.headers.get(HEADER_SEQUENCE, "0")),
            time=parse_time(record.headers[HEADER_TIME]),
            topic=record.topic,
            source=record.headers.get(HEADER_SOURCE, ""),
            subject=record.headers.get(HEADER_SUBJECT, ""),
        )
    except KeyError as error:
        raise MalformedEventError(f"the header {error.args[0]} is missing") from error
    except ValueError as error:
        raise MalformedEventError(str(error)) from error
    if not event.id or not event.type or not event.key or event.version < 0:
        raise MalformedEventError("the id, the type and the key must not be empty, the version not negative")
    return event


def format_time(instant: datetime) -> str:
    """RFC 3339, UTC, milliseconds: ``2026-11-23T08:15:00.123Z``."""
    assert instant.tzinfo is not None, "an instant without a zone means nothing"
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The instant that RFC 3339 text names, in UTC; ValueError where it names none or no zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return instant.astimezone(UTC)
