"""Quantities as SDL writes them: ``0.5``, ``500m``, ``512Mi``, ``1.5G``. All arithmetic is exact; the results are integers.

Where a quantity is not a whole number of our unit it is rounded up: the tenant gets at least what the file asks for.
"""

import re
from fractions import Fraction
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18}")
_LONG_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_EXPONENT: Final = re.compile(r"[0-9.]+[eE][+-]?[0-9]+")
_QUANTITY: Final = re.compile(r"([0-9.]+)\s*([A-Za-z]*)")
_DECIMAL: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}
_BINARY: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}
_SECONDS: Final = {
    "ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "ms": Fraction(1, 1000),
    "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600),
}  # fmt: skip
_DURATION_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|us|ms|s|m|h)")
_DURATION: Final = re.compile(rf"(?:{_DURATION_PART.pattern}){{1,8}}")
_SIZE: Final = re.compile(r"(?P<prefix>[kKmMgGtTpPeE])(?P<binary>[iI]?)[bB]?|")


def parse_number(text: str) -> Fraction:
    """An exact number of zero or more, such as ``10000`` or ``1.5``; ValueError for anything else."""
    if _EXPONENT.fullmatch(text):
        raise ValueError("must be a number written out, such as 2000 for 2e3")
    if text.startswith("-") and _LONG_NUMBER.fullmatch(text[1:]):
        raise ValueError("must be zero or more, not negative")
    if _LONG_NUMBER.fullmatch(text) and not _NUMBER.fullmatch(text):
        raise ValueError("must be a number of at most 18 digits before the point and 18 after it")
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a number of zero or more, such as 2 or 0.5")
    return Fraction(text if not text.endswith(".") else text + "0")


def parse_whole(text: str) -> int:
    """A whole number of zero or more; ``2.0`` counts as 2; ValueError for anything else."""
    number = parse_number(text)
    if number.denominator != 1:
        raise ValueError("must be a whole number")
    return number.numerator


def parse_cpu_milli(text: str) -> int:
    """Thousandths of a core: ``2``, ``0.5`` or ``500m``; rounded up; ValueError for anything else."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match.group(2) not in {"", "m"}:
        raise ValueError("must be cores such as 0.5, or thousandths such as 500m")
    number = parse_number(match.group(1))
    return ceiling(number if match.group(2) == "m" else number * 1000)


def parse_bytes(text: str) -> int:
    """Bytes: a number with k M G T P E or Ki Mi Gi Ti Pi Ei; rounded up; ValueError for anything else.

    Public files also write ``8gb``, ``512Mb`` and ``2gi``, which Akash's Console takes: letters of either case, with or
    without a ``b`` at the end, mean the same. A lone ``m`` is refused, for it means thousandths elsewhere.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = None if match is None or match.group(2) == "m" else _SIZE.fullmatch(match.group(2))
    if match is None or unit is None:
        raise ValueError("must be a size such as 512Mi or 10G")
    prefix = (unit.group("prefix") or "").lower()
    return ceiling(parse_number(match.group(1)) * (_BINARY if unit.group("binary") else _DECIMAL)[prefix])


def parse_card_bytes(text: str) -> int:
    """Least VRAM for a card that is sold as, say, ``80Gi``: read in powers of ten (80 × 10⁹).

    A card reports a little less than its name says (an 80 GiB H100 reports 79.6), so the size on the label, taken
    exactly, would shut out the very card that it names. ValueError as ``parse_bytes``.
    """
    return parse_bytes(text.strip().replace("i", "").replace("I", ""))


def parse_duration_seconds(text: str) -> Fraction:
    """A time such as ``24h`` or ``1h30m``, exact; ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError("must be a time such as 24h or 1h30m")
    return sum((Fraction(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)), Fraction(0))


def ceiling(number: Fraction) -> int:
    """The least integer not below a number."""
    return -(-number.numerator // number.denominator)
