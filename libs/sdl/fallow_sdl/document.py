"""YAML with positions.

Text becomes a tree of ``Mapping``, ``Sequence`` and ``Scalar``, each with the line it starts on. A scalar keeps the
text as it was written, because Akash's own parser reads fields by the type that they ought to have: ``2.0`` and
``"2.0"`` are the same version, ``on`` is a fine string. Anchors, aliases and merge keys are resolved, within a bound on
the number of nodes, so that a few lines of nested aliases cannot blow up. Keys that stand twice and tags of one's own
are refused. Like Akash, only the first document of a file is read; that there are more is a warning.

The tree is built from the parser's events, one at a time, and nesting is counted on the way: the parser's own composer
would recurse as deep as the text says, and slow down with the square of the depth before it fails.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from fallow_sdl.model import Place
from fallow_sdl.problems import Notes, Problem, SdlError, printable

MAX_CHARACTERS: Final = 1_048_576
MAX_BYTES: Final = 4 * MAX_CHARACTERS
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 32

_STANDARD: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    {None, "!", *(_STANDARD + name for name in ("map", "seq", "str", "int", "float", "bool", "null"))}
)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_MERGE: Final = "<<"
_BYTE_ORDER_MARKS: Final = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# An escape in double quotes can spell what no program, and no message of ours, can hold.
_UNUSABLE: Final = re.compile("[\x00\ud800-\udfff]")
_UNPRINTABLE: Final = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The parser in C where the wheel has it: the same events, many times faster.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; ``text`` is what stands in the file without its quotes, ``is_null`` says that nothing stands there."""

    text: str
    is_null: bool
    line: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple["Node", ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value; ``line`` is the key's."""

    key: str
    value: "Node"
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with values, in the order of the file; no key stands twice."""

    entries: tuple[Entry, ...]
    line: int

    def get(self, key: str) -> "Node | None":
        """The value of a key, or None."""
        for entry in self.entries:
            if entry.key == key:
                return entry.value
        return None


Node = Mapping | Sequence | Scalar


def read_text(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark as some Windows programs write it; raises SdlError."""
    if len(data) > MAX_BYTES:
        raise _refused(1, f"the text is longer than {MAX_CHARACTERS} characters")
    encoding = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _refused(data.count(b"\n", 0, error.start) + 1, "is not UTF-8 text") from None


def read_document(text: str, notes: Notes) -> Mapping:
    """The tree of a file whose top is a mapping; raises SdlError for anything else."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_CHARACTERS:
        raise _refused(1, f"the text is longer than {MAX_CHARACTERS} characters")
    unprintable = _UNPRINTABLE.search(text)
    if unprintable is not None:
        raise _refused(text.count("\n", 0, unprintable.start()) + 1, "a character that YAML does not allow")
    loader = _LOADER(text)
    try:
        tree = _Builder(loader, notes).document()
    except yaml.MarkedYAMLError as error:
        raise _explained(error, text) from None
    except yaml.YAMLError:
        raise _refused(1, "the text is not YAML") from None
    finally:
        loader.dispose()
    if tree is None:
        raise _refused(1, "the text is empty")
    if not isinstance(tree, Mapping):
        raise _refused(tree.line, "the top of the file must be a mapping with version, services, …")
    return tree


def _refused(line: int, reason: str) -> SdlError:
    """The error for a text that is malformed at a line."""
    return SdlError([Problem(line, "", reason)])


def _explained(error: yaml.MarkedYAMLError, text: str) -> SdlError:
    """The parser's words, made plain where the usual mistakes are."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _refused(1, f"malformed YAML: {error.problem}")
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)
    indentation = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
    if "\t" in indentation or "\t" in lines[number][mark.column : mark.column + 1]:
        return _refused(number + 1, "a tab stands where YAML wants spaces")
    context = f"{error.context}: " if error.context else ""
    return _refused(number + 1, f"malformed YAML: {context}{error.problem}")


class _Builder:
    """Builds the tree of one document from a parser's events."""

    def __init__(self, loader: Any, notes: Notes) -> None:
        """Take a loader that has given no event yet."""
        self._loader = loader
        self._notes = notes
        self._nodes = 0
        # Each anchor's node, with the number of nodes that a use of it adds.
        self._anchors: dict[str, tuple[Node, int]] = {}

    def document(self) -> Node | None:
        """The first document of the text; None if there is none."""
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        tree = self._node(self._next(), 0)
        end = self._next()
        try:
            after = self._next()
        except yaml.YAMLError:
            after = end
        if not isinstance(after, yaml.StreamEndEvent):
            self._notes.warn(Place(_line(after), ""), "only the first document of the file is read")
        return tree

    def _next(self) -> Any:
        """The parser's next event."""
        return self._loader.get_event()

    def _node(self, event: Any, depth: int) -> Node:
        """The node that starts with an event."""
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _refused(line, "an alias that nothing is anchored to")
            node, size = self._anchors[event.anchor]
            self._count(size, line)
            return node
        before = self._nodes
        self._count(1, line)
        if depth > MAX_DEPTH:
            raise _refused(line, f"the file nests deeper than {MAX_DEPTH} levels")
        if event.tag not in _TAGS:
            raise _refused(line, "a tag that has no meaning here")
        if isinstance(event, yaml.MappingStartEvent):
            node = Mapping(tuple(self._entries(depth)), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1))
            node = Sequence(tuple(items), line)
        else:
            is_plain = not event.style
            is_null = (is_plain and event.tag is None and event.value in _NULLS) or event.tag == _STANDARD + "null"
            if _UNUSABLE.search(event.value):
                raise _refused(line, "an escape spells a character that no field may hold")
            node = Scalar(event.value, is_null, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _entries(self, depth: int) -> list[Entry]:
        """The entries of a mapping; merged ones come last and never replace its own."""
        own: dict[str, Entry] = {}
        merged: list[Entry] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = _line(event)
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise _refused(line, "a key must be plain text")
            value = self._node(self._next(), depth + 1)
            if key.text == _MERGE and isinstance(event, yaml.ScalarEvent) and not event.style:
                merged.extend(_merged(value, line))
            elif key.text in own:
                raise _refused(line, f"the key {printable(key.text)} stands twice in one mapping")
            else:
                own[key.text] = Entry(key.text, value, line)
        for entry in merged:
            own.setdefault(entry.key, entry)
        return list(own.values())

    def _count(self, nodes: int, line: int) -> None:
        """Count nodes; aliases as often as they are used."""
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _refused(line, f"the file has more than {MAX_NODES} nodes, aliases counted in full")


def _merged(value: Node, line: int) -> list[Entry]:
    """The entries that ``<<`` brings in, from one mapping or a list of them."""
    parts = value.items if isinstance(value, Sequence) else (value,)
    entries: list[Entry] = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise _refused(line, "'<<' merges mappings only")
        entries.extend(part.entries)
    return entries


def _line(event: Any) -> int:
    """The line that an event starts on, from 1."""
    return int(event.start_mark.line) + 1
