"""YAML with positions.

Text becomes a tree of ``Mapping``, ``Sequence`` and ``Scalar``, each with the line it starts on. A scalar keeps the
text as it was written, because Akash's own parser reads fields by the type that they ought to have: ``2.0`` and
``"2.0"`` are the same version, ``on`` is a fine string. Anchors, aliases and merge keys are resolved, within a bound on
the number of nodes, so that a few lines of nested aliases cannot blow up. Keys that stand twice, tags of one's own and
more than one document are refused.
"""

from dataclasses import dataclass
from typing import Final

import yaml

from fallow_sdl.problems import Problem, SdlError

MAX_CHARACTERS: Final = 1_048_576
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 32

_NULL_TAG: Final = "tag:yaml.org,2002:null"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)


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


def read_document(text: str) -> Mapping:
    """The tree of a file whose top is a mapping; raises SdlError for anything else."""
    if len(text) > MAX_CHARACTERS:
        raise SdlError([Problem(1, "", f"the text is longer than {MAX_CHARACTERS} characters")])
    root = _compose(text.removeprefix("\ufeff"))
    if root is None:
        raise SdlError([Problem(1, "", "the text is empty")])
    tree = _Builder().build(root, 0)
    if not isinstance(tree, Mapping):
        raise SdlError([Problem(tree.line, "", "the top of the file must be a mapping with version, services, …")])
    return tree


def _compose(text: str) -> yaml.Node | None:
    """PyYAML's own tree; its errors become problems with a line."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise SdlError([Problem(line, "", _explain(error))]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SdlError([Problem(line, "", "a character that YAML does not allow")]) from None
    except RecursionError:
        raise SdlError([Problem(1, "", "the file nests too deeply")]) from None


def _explain(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's words, made plain where the usual mistakes are."""
    problem = error.problem or "malformed"
    if "'\\t'" in problem:
        return "a tab stands where YAML wants spaces"
    if "expected a single document" in (error.context or ""):
        return "more than one document in the file"
    context = f"{error.context}: " if error.context else ""
    return f"malformed YAML: {context}{problem}"


class _Builder:
    """Turns PyYAML's tree into ours and counts nodes on the way, aliases as often as they are used."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._nodes = 0

    def build(self, node: yaml.Node, depth: int) -> Node:
        """Our node for PyYAML's; raises SdlError beyond the bounds."""
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SdlError([Problem(line, "", f"the file has more than {MAX_NODES} nodes, aliases counted in full")])
        if depth > MAX_DEPTH:
            raise SdlError([Problem(line, "", f"the file nests deeper than {MAX_DEPTH} levels")])
        if node.tag not in _TAGS:
            raise SdlError([Problem(line, "", f"the tag {node.tag} has no meaning here")])
        if isinstance(node, yaml.MappingNode):
            return Mapping(tuple(self._entries(node, depth)), line)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple(self.build(child, depth + 1) for child in node.value), line)
        assert isinstance(node, yaml.ScalarNode), "YAML knows three kinds of node"
        return Scalar(node.value, node.tag == _NULL_TAG, line)

    def _entries(self, node: yaml.MappingNode, depth: int) -> list[Entry]:
        """The entries of a mapping; merged ones come last and never replace its own."""
        own: dict[str, Entry] = {}
        merged: list[Entry] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SdlError([Problem(line, "", "a key must be plain text")])
            if key.tag == _MERGE_TAG:
                merged.extend(self._merged(value, line, depth))
                continue
            if key.value in own:
                raise SdlError([Problem(line, "", f"the key {key.value!r} stands twice in one mapping")])
            own[key.value] = Entry(key.value, self.build(value, depth + 1), line)
        for entry in merged:
            own.setdefault(entry.key, entry)
        return list(own.values())

    def _merged(self, value: yaml.Node, line: int, depth: int) -> list[Entry]:
        """The entries that ``<<`` brings in, from one mapping or a list of them."""
        tree = self.build(value, depth + 1)
        parts = tree.items if isinstance(tree, Sequence) else (tree,)
        entries: list[Entry] = []
        for part in parts:
            if not isinstance(part, Mapping):
                raise SdlError([Problem(line, "", "'<<' merges mappings only")])
            entries.extend(part.entries)
        return entries
