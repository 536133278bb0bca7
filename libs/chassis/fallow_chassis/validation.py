"""Requests held against the contract before a servicer sees them.

The rules stand in the proto: ``(fallow.type.v1.rules)`` and ``google.api.field_behavior = REQUIRED``. They are compiled
once per message type. A request with a field that this release does not know is refused (UNKNOWN_FIELD) rather than
half understood: a caller who sends a limit that we would ignore must learn it. All violations of a request are told at
once, with paths such as ``order.groups[0].price_limit.micros``.

Semantics: ``required`` means present (message, oneof or optional field), non-zero, non-empty. ``min`` and ``max`` hold
for every integer that is set, and for an integer without presence even when it is 0. ``max_length``, ``pattern`` and the
general bounds hold for each text; an empty text passes a pattern, because emptiness is ``required``'s matter. The rules
of a list hold for each item, those of a map for each value. An enum must have a value that the contract names. A
Timestamp and a Duration are what protobuf says of them, so that they fit into a datetime. Where a request has an
``update_mask``, ``required`` is held only at the top level: the mask says what is meant. One that must be there and
names nothing is all that such a request is told.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from fallow.type.v1 import annotations_pb2
from fallow_chassis.errors import INVALID_FIELD, UNKNOWN_FIELD, DomainError, FieldViolation

MAX_TEXT_CHARACTERS: Final = 65_536
"""The longest text, and the longest bytes value in bytes, where the contract names no other bound."""
MAX_ITEMS: Final = 10_000
"""The most items of a list or map where the contract names no other bound."""
MAX_DEPTH: Final = 32
MAX_VIOLATIONS: Final = 20

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DURATION: Final = "google.protobuf.Duration"
_FIELD_MASK: Final = "google.protobuf.FieldMask"
_LEAST_TIMESTAMP_SECONDS: Final = -62_135_596_800
"""0001-01-01T00:00:00Z."""
_MOST_TIMESTAMP_SECONDS: Final = 253_402_300_799
"""9999-12-31T23:59:59Z."""
_MOST_DURATION_SECONDS: Final = 315_576_000_000
"""10 000 years."""
_MOST_NANOS: Final = 999_999_999

_INTEGER_KINDS: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
    }
)


class FieldRulesError(Exception):
    """A rule of the contract makes no sense, such as a pattern that does not compile."""


@dataclass(frozen=True, slots=True)
class _FieldCheck:
    """What one field must hold; ``zero_fails`` says that an integer which is not there is a 0 that does not hold it.

    ``time_type`` is Timestamp's or Duration's full name, or empty.
    """

    name: str
    number: int
    required: bool
    zero_fails: bool
    repeated: bool
    map_value: FieldDescriptor | None
    is_message: bool
    time_type: str
    is_integer: bool
    is_text: bool
    is_bytes: bool
    least: int | None
    most: int | None
    max_length: int
    max_items: int
    pattern: re.Pattern[str] | None
    enum: EnumDescriptor | None

    @property
    def can_fail(self) -> bool:
        """Whether a value of the field can break a rule at all."""
        is_bounded = self.least is not None or self.most is not None
        is_listed = self.repeated or self.map_value is not None
        return (
            is_listed
            or self.is_message
            or self.is_text
            or self.is_bytes
            or self.enum is not None
            or (self.is_integer and is_bounded)
        )


@dataclass(frozen=True, slots=True)
class _Checks:
    """What the fields of a message type must hold: when they are set, by number, and when they are not."""

    by_number: Mapping[int, _FieldCheck]
    absent: tuple[_FieldCheck, ...]


_compiled: dict[str, _Checks] = {}


def compile_rules(descriptor: Descriptor) -> None:
    """Compile the rules of a message type and of all that it holds; FieldRulesError where one makes no sense."""
    waiting, seen = [descriptor], set[str]()
    while waiting:
        current = waiting.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        _checks_of(current)
        waiting.extend(field.message_type for field in current.fields if field.message_type is not None)


def validate(request: Message) -> None:
    """Pass, or raise UNKNOWN_FIELD or INVALID_FIELD with every violation (the first ``MAX_VIOLATIONS``)."""
    unknown = _take(_unknown_fields(request, "", 0)) if _has_unknown_fields(request) else []
    if unknown:
        raise DomainError(
            UNKNOWN_FIELD,
            f"the request holds fields that this server does not know: {unknown[0].field}",
            violations=unknown,
        )
    invalid: list[FieldViolation] = []
    mask = _mask_of(request)
    names_fields = mask is not None and bool(request.update_mask.paths)  # type: ignore[attr-defined]  # a request with this check has it
    if mask is not None and mask.required and not names_fields:
        invalid.append(FieldViolation(mask.name, "must name the fields to change"))
    else:
        _look_through(request, "", 0, invalid, partial=names_fields)
    if invalid:
        first = invalid[0]
        raise DomainError(INVALID_FIELD, f"{first.field}: {first.description}", violations=invalid[:MAX_VIOLATIONS])


def _take(violations: Iterator[FieldViolation]) -> list[FieldViolation]:
    """The first violations, as many as an error holds."""
    return [violation for violation, _ in zip(violations, range(MAX_VIOLATIONS), strict=False)]


def _mask_of(request: Message) -> _FieldCheck | None:
    """The check of the mask by which a request says which fields it means; None where it has none."""
    field = request.DESCRIPTOR.fields_by_name.get("update_mask")
    if field is None or field.message_type is None or field.message_type.full_name != _FIELD_MASK:
        return None
    return _checks_of(request.DESCRIPTOR).by_number[field.number]


def _has_unknown_fields(request: Message) -> bool:
    """Whether a request or anything in it has a field that the contract does not have; looks for none of them."""
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    return known.ByteSize() != request.ByteSize()


def _unknown_fields(message: Message, path: str, depth: int) -> Iterator[FieldViolation]:
    """The fields of a message and of all in it that the contract does not have, by number."""
    if depth > MAX_DEPTH:
        yield FieldViolation(path, f"is nested more than {MAX_DEPTH} deep")
        return
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        yield FieldViolation(f"{path}#{unknown[index].field_number}", "is not known to this server")
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for place, inner in _inner_messages(field, value, path):
            yield from _unknown_fields(inner, place + ".", depth + 1)


def _inner_messages(field: FieldDescriptor, value: Any, path: str) -> Iterator[tuple[str, Message]]:
    """The messages that a message-typed field holds, each with its path."""
    name = f"{path}{field.name}"
    if not field.is_repeated:
        yield name, value
        return
    entry_value = _map_value(field)
    if entry_value is None:
        for index, item in enumerate(value):
            yield f"{name}[{index}]", item
    elif entry_value.message_type is not None:
        for key in value:
            yield f'{name}["{key}"]', value[key]


def _look_through(message: Message, path: str, depth: int, found: list[FieldViolation], *, partial: bool) -> None:
    """Find the violations in a message and in all that it holds; ``partial`` drops ``required`` below the top."""
    if depth > MAX_DEPTH:
        found.append(FieldViolation(path.removesuffix("."), f"is nested more than {MAX_DEPTH} deep"))
        return
    checks = _checks_of(message.DESCRIPTOR)
    # Only what is set is listed: fields with presence that are there, and others that are not zero or empty.
    fields = message.ListFields()
    if checks.absent:
        listed = {field.number for field, _ in fields}
        for absent in checks.absent:
            if absent.number in listed:
                continue
            if not absent.required:
                _hold_value(absent, 0, path + absent.name, depth, found, partial=partial)
            elif not (partial and depth > 0):
                found.append(FieldViolation(path + absent.name, "must be set"))
    for field, value in fields:
        check = checks.by_number.get(field.number)
        if check is None:
            continue
        name = path + check.name
        if check.repeated:
            _look_at_items(check, value, name, depth, found, partial=partial)
        elif check.map_value is not None:
            _look_at_entries(check, value, name, depth, found, partial=partial)
        else:
            _hold_value(check, value, name, depth, found, partial=partial)
        if len(found) >= MAX_VIOLATIONS:
            return


def _look_at_items(
    check: _FieldCheck, items: Any, name: str, depth: int, found: list[FieldViolation], *, partial: bool
) -> None:
    """Find the violations of a list."""
    if len(items) > check.max_items:
        found.append(FieldViolation(name, f"must have at most {check.max_items} items"))
        return
    for index, item in enumerate(items):
        _hold_value(check, item, f"{name}[{index}]", depth, found, partial=partial)
        if len(found) >= MAX_VIOLATIONS:
            return


def _look_at_entries(
    check: _FieldCheck, entries: Any, name: str, depth: int, found: list[FieldViolation], *, partial: bool
) -> None:
    """Find the violations of a map."""
    if len(entries) > check.max_items:
        found.append(FieldViolation(name, f"must have at most {check.max_items} items"))
        return
    for key in entries:
        if isinstance(key, str) and len(key) > MAX_TEXT_CHARACTERS:
            found.append(FieldViolation(name, f"must have keys of at most {MAX_TEXT_CHARACTERS} characters"))
        elif isinstance(key, str) and "\x00" in key:
            found.append(FieldViolation(name, "must not hold NUL characters in its keys"))
        else:
            _hold_value(check, entries[key], f'{name}["{key}"]', depth, found, partial=partial)
        if len(found) >= MAX_VIOLATIONS:
            return


def _hold_value(
    check: _FieldCheck, value: Any, name: str, depth: int, found: list[FieldViolation], *, partial: bool
) -> None:
    """Find the violations of one value: a field's, an item's or a map entry's."""
    if check.time_type:
        wrong = _wrong_with_time(check.time_type, value.seconds, value.nanos)
        if wrong:
            found.append(FieldViolation(name, wrong))
    elif check.is_message:
        _look_through(value, name + ".", depth + 1, found, partial=partial)
    elif check.is_integer:
        if check.least is not None and value < check.least:
            found.append(FieldViolation(name, f"must be at least {check.least}"))
        if check.most is not None and value > check.most:
            found.append(FieldViolation(name, f"must be at most {check.most}"))
    elif check.is_text:
        # Postgres keeps no such text, and a C string ends there.
        if "\x00" in value:
            found.append(FieldViolation(name, "must not hold NUL characters"))
        if len(value) > check.max_length:
            found.append(FieldViolation(name, f"must have at most {check.max_length} characters"))
        elif check.pattern is not None and value and not check.pattern.fullmatch(value):
            found.append(FieldViolation(name, f"must match {check.pattern.pattern}"))
    elif check.is_bytes:
        if len(value) > check.max_length:
            found.append(FieldViolation(name, f"must have at most {check.max_length} bytes"))
    elif check.enum is not None and value not in check.enum.values_by_number:
        found.append(FieldViolation(name, f"{value} is no value of {check.enum.name}"))


def _wrong_with_time(time_type: str, seconds: int, nanos: int) -> str:
    """What is wrong with a Timestamp or a Duration; empty where nothing is."""
    if time_type == _TIMESTAMP:
        if not _LEAST_TIMESTAMP_SECONDS <= seconds <= _MOST_TIMESTAMP_SECONDS:
            return "must be a time in the years 0001 to 9999"
        return "" if 0 <= nanos <= _MOST_NANOS else f"must have nanos from 0 to {_MOST_NANOS}"
    if abs(seconds) > _MOST_DURATION_SECONDS:
        return "must be at most 10000 years long"
    if abs(nanos) > _MOST_NANOS:
        return f"must have nanos from -{_MOST_NANOS} to {_MOST_NANOS}"
    return "must have seconds and nanos of the same sign" if seconds * nanos < 0 else ""


def _checks_of(descriptor: Any) -> _Checks:
    """The compiled checks of a message type."""
    checks = _compiled.get(descriptor.full_name)
    if checks is None:
        compiled = [_compile(field) for field in descriptor.fields]
        checks = _Checks(
            {check.number: check for check in compiled if check.can_fail},
            tuple(check for check in compiled if check.required or check.zero_fails),
        )
        _compiled[descriptor.full_name] = checks
    return checks


def _compile(field: FieldDescriptor) -> _FieldCheck:
    """The check of one field, from its options."""
    options = field.GetOptions()
    rules = options.Extensions[annotations_pb2.rules]
    behaviors = options.Extensions[field_behavior_pb2.field_behavior]
    map_value = _map_value(field)
    value_field = map_value or field
    try:
        pattern = re.compile(rules.pattern) if rules.pattern else None
    except re.error as error:
        raise FieldRulesError(f"{field.full_name}: the pattern {rules.pattern!r} does not compile: {error}") from error
    is_integer = value_field.type in _INTEGER_KINDS
    message_type = value_field.message_type.full_name if value_field.message_type is not None else ""
    least = rules.min if rules.HasField("min") else None
    most = rules.max if rules.HasField("max") else None
    if least is not None and most is not None and least > most:
        raise FieldRulesError(f"{field.full_name}: the least value {least} is above the most, {most}")
    is_zero_fine = (least is None or least <= 0) and (most is None or most >= 0)
    return _FieldCheck(
        name=field.name,
        number=field.number,
        required=rules.required or field_behavior_pb2.REQUIRED in behaviors,
        zero_fails=is_integer and not field.is_repeated and not field.has_presence and not is_zero_fine,
        repeated=field.is_repeated and map_value is None,
        map_value=map_value,
        is_message=bool(message_type),
        time_type=message_type if message_type in {_TIMESTAMP, _DURATION} else "",
        is_integer=is_integer,
        is_text=value_field.type == FieldDescriptor.TYPE_STRING,
        is_bytes=value_field.type == FieldDescriptor.TYPE_BYTES,
        least=least,
        most=most,
        max_length=rules.max_length or MAX_TEXT_CHARACTERS,
        max_items=rules.max_items or MAX_ITEMS,
        pattern=pattern,
        enum=value_field.enum_type,
    )


def _map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of a map's values; None where the field is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["value"]
