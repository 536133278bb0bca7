"""Quantities as SDL writes them: ``0.5``, ``500m``, ``512Mi``, ``1.5G``. All arithmetic is exact; the results are integers.

Where a quantity is not a whole number of our unit it is rounded up: the tenant gets at least what the file asks for.
"""

import re
from fractions import Fraction
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18}")
_QUANTITY: Final = re.compile(r"([0-9.]+)\s*([A-Za-z]*)")
_BYTES: Final = {
    "": 1,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "P": 1000**5,
    "E": 1000**6,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
    "Pi": 1024**5,
    "Ei": 1024**6,
}


def parse_number(text: str) -> Fraction:
    """An exact number of zero or more, such as ``10000`` or ``1.5``; ValueError for anything else."""
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
    """Bytes: a number with k M G T P E or Ki Mi Gi Ti Pi Ei; rounded up; ValueError for anything else."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match.group(2) not in _BYTES:
        raise ValueError("must be a size such as 512Mi or 10G")
    return ceiling(parse_number(match.group(1)) * _BYTES[match.group(2)])


def parse_card_bytes(text: str) -> int:
    """Least VRAM for a card that is sold as, say, ``80Gi``: read in powers of ten (80 × 10⁹).

    A card reports a little less than its name says (an 80 GiB H100 reports 79.6), so the size on the label, taken
    exactly, would shut out the very card that it names. ValueError as ``parse_bytes``.
    """
    return parse_bytes(text.strip().removesuffix("i"))


def ceiling(number: Fraction) -> int:
    """The least integer not below a number."""
    return -(-number.numerator // number.denominator)
