"""Akash's Stack Definition Language, 2.0 and 2.1, in; a Fallow order out.

Four stages: ``document`` (YAML with lines), ``reader`` and ``profiles`` (fields and types into ``model``), ``checks``
(do the parts fit), ``convert`` (the order). A stage that finds problems ends the work with all of them.
"""

from dataclasses import dataclass

from fallow.order.v1 import order_pb2
from fallow_sdl.checks import check_stack
from fallow_sdl.convert import convert_stack
from fallow_sdl.document import read_document, read_text
from fallow_sdl.problems import Notes, Problem, SdlError
from fallow_sdl.reader import read_stack
from fallow_sdl.settings import SdlSettings, parse_rates

__all__ = ["Conversion", "Problem", "SdlError", "SdlSettings", "convert", "parse", "parse_rates", "read_text"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """An order, and what in the file has no effect or another one than on Akash."""

    order: order_pb2.Order
    warnings: tuple[Problem, ...]


def parse(text: str, settings: SdlSettings | None = None) -> order_pb2.Order:
    """The order that the text asks for; raises SdlError with every problem of the first stage that fails."""
    return convert(text, settings).order


def convert(text: str, settings: SdlSettings | None = None) -> Conversion:
    """As ``parse``, with the warnings."""
    chosen = settings or SdlSettings()
    notes = Notes()
    document = read_document(text, notes)
    stack = read_stack(document, notes)
    notes.settle()
    check_stack(stack, chosen, notes)
    notes.settle()
    order = convert_stack(stack, chosen, notes)
    notes.settle()
    return Conversion(order, tuple(sorted(notes.warnings)))
