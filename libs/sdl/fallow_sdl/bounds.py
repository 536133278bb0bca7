"""The contract's own bounds, read from the contract.

What converts must be an order that the service takes, so lengths, numbers of items and patterns are held here already,
where line and path are known. They stand in the proto (``(fallow.type.v1.rules)``) and are not repeated.
"""

import re
from typing import Final

from google.protobuf.message import Message

from fallow.type.v1 import annotations_pb2
from fallow_sdl.model import Place
from fallow_sdl.problems import Notes

# Where the contract names no bound, the services take these.
DEFAULT_MAX_CHARACTERS: Final = 65_536
MAX_INTEGER: Final = (1 << 63) - 1


_read: dict[str, annotations_pb2.FieldRules] = {}


def rules_of(message: type[Message], field: str) -> annotations_pb2.FieldRules:
    """The rules of a field."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    if descriptor.full_name not in _read:
        _read[descriptor.full_name] = descriptor.GetOptions().Extensions[annotations_pb2.rules]
    return _read[descriptor.full_name]


def check_text(notes: Notes, place: Place, text: str, message: type[Message], field: str) -> None:
    """Length and pattern of a text; the text itself is not repeated in a reason."""
    rules = rules_of(message, field)
    most = rules.max_length or DEFAULT_MAX_CHARACTERS
    if len(text) > most:
        notes.refuse(place, f"must have at most {most} characters")
    elif text and rules.pattern and not re.fullmatch(rules.pattern, text):
        notes.refuse(place, "has a character that is not allowed there")


def check_count(notes: Notes, place: Place, count: int, message: type[Message], field: str) -> None:
    """The number of items of a list or map."""
    most = rules_of(message, field).max_items
    assert most, "the contract bounds this list"
    if count > most:
        notes.refuse(place, f"must have at most {most} entries")
