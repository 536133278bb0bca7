"""Reading typed fields out of a document, collecting what is wrong.

A ``Fields`` wraps one mapping. Each reader takes a key, marks it as known, and gives a value of the type that the field
ought to have or a harmless default with a problem noted. ``done`` tells what was not asked for: a field that nobody
reads is likely a mistake, and silence about it would cost the tenant money. It is refused where Akash's own parser
refuses it, and warned of where that parser reads past it.
"""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from fallow_sdl.document import Mapping, Node, Scalar, Sequence
from fallow_sdl.leftovers import is_harmless
from fallow_sdl.model import Place
from fallow_sdl.problems import Notes, child, item

T = TypeVar("T")

_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n"})


def place_of(node: Node, path: str) -> Place:
    """Where a node stands."""
    return Place(node.line, path)


def is_null(node: Node) -> bool:
    """Whether nothing stands there."""
    return isinstance(node, Scalar) and node.is_null


class Fields:
    """The fields of one mapping, read one by one."""

    def __init__(self, node: Node | None, place: Place, notes: Notes) -> None:
        """Wrap a node; anything but a mapping (or nothing) is a problem and reads as empty.

        Where there is no mapping at all, what is missing in it is not told as well.
        """
        self.place = place
        self.notes = notes
        self._wants = node is not None
        self._known: set[str] = set()
        self._mapping = Mapping((), place.line)
        if isinstance(node, Mapping):
            self._mapping = node
        elif node is not None and not is_null(node):
            notes.refuse(place, "must be a mapping")
            self._wants = False

    def place_at(self, key: str) -> Place:
        """Where a field stands, or would."""
        for entry in self._mapping.entries:
            if entry.key == key:
                return Place(entry.line, child(self.place.path, key))
        return Place(self.place.line, child(self.place.path, key))

    def node(self, key: str) -> Node | None:
        """The value of a field as it is, or None where it is missing or null."""
        self._known.add(key)
        node = self._mapping.get(key)
        return None if node is None or is_null(node) else node

    def text(self, key: str, *, required: bool = False) -> str:
        """Text; a number or a boolean reads as it was written; empty where missing."""
        node = self.node(key)
        if node is None:
            self._miss(key, required=required)
            return ""
        return self._scalar(node, self.place_at(key))

    def parsed(self, key: str, parse: Callable[[str], T], default: T, *, required: bool = False) -> T:
        """Text put through ``parse``; its ValueError becomes the problem's reason."""
        text = self.text(key, required=required)
        if not isinstance(self.node(key), Scalar):
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.notes.refuse(self.place_at(key), str(error))
            return default

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """A boolean as YAML 1.1 and Akash know them, quoted or not."""
        return self.parsed(key, parse_boolean, default)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; missing and null read as empty."""
        return tuple(text for _, text in self.placed_texts(key))

    def placed_texts(self, key: str) -> Iterator[tuple[Place, str]]:
        """A list of texts with their places."""
        return ((place, self._scalar(node, place)) for place, node in self.items(key))

    def items(self, key: str) -> Iterator[tuple[Place, Node]]:
        """The items of a list with their places."""
        node = self.node(key)
        place = self.place_at(key)
        if node is None:
            return
        if not isinstance(node, Sequence):
            self.notes.refuse(place, "must be a list")
            return
        for index, entry in enumerate(node.items):
            yield place_of(entry, item(place.path, index)), entry

    def section(self, key: str, *, required: bool = False) -> "Fields":
        """A mapping below this one."""
        node = self.node(key)
        if node is None:
            self._miss(key, required=required)
        return Fields(node, self.place_at(key), self.notes)

    def entries(self) -> Iterator[tuple[str, Place, Node]]:
        """All fields of a mapping whose keys are names of the tenant's own."""
        for entry in self._mapping.entries:
            self._known.add(entry.key)
            yield entry.key, Place(entry.line, child(self.place.path, entry.key)), entry.value

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All fields as text pairs."""
        return tuple((key, self._scalar(node, place)) for key, place, node in self.entries())

    def done(self, *, strict: bool = False, lax: bool = False) -> None:
        """Tell every field that was not read: a problem, or only a warning where it is known to do no harm.

        ``strict``: nothing does no harm here, as for Akash's own parser. ``lax``: everything does.
        """
        for entry in self._mapping.entries:
            if entry.key not in self._known:
                place = Place(entry.line, child(self.place.path, entry.key))
                if lax or (not strict and is_harmless(entry.key)):
                    self.notes.warn(place, "is an unknown field and has no effect")
                else:
                    self.notes.refuse(place, "is an unknown field")

    def _miss(self, key: str, *, required: bool) -> None:
        """Note that a required field is missing, where its mapping is there at all."""
        if required and self._wants:
            self.notes.refuse(self.place_at(key), "is missing")

    def _scalar(self, node: Node, place: Place) -> str:
        """The text of a scalar; anything else is a problem and reads as empty."""
        if isinstance(node, Scalar):
            return "" if node.is_null else node.text
        self.notes.refuse(place, "must be a single value")
        return ""


def parse_boolean(text: str) -> bool:
    """A boolean; ValueError for anything else."""
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("must be true or false")
