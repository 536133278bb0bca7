"""Fixed-width words, as Solidity's ABI encodes them, and keccak-256.

Every leaf and header is a row of 32-byte big-endian words, so `abi.encode` is concatenation and no ABI library is
needed. Values are checked before they become words: a word never wraps, and a bool is not an integer.
"""

import re
from functools import lru_cache
from typing import Final

from tiny_keccak import keccak256

from fallow_receipts import errors
from fallow_receipts.errors import ReceiptError

WORD_BYTES: Final = 32
ID_CHARACTERS: Final = 26
ID_BYTES: Final = 16
ADDRESS_CHARACTERS: Final = 42
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
UINT256_MAX: Final = 2**256 - 1

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
_ID: Final = re.compile(f"[0-7][{_CROCKFORD}]{{{ID_CHARACTERS - 1}}}")
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def keccak(data: bytes) -> bytes:
    """Return keccak-256 of the data (Ethereum's, not SHA3-256 of FIPS 202)."""
    return keccak256(data)


def checked_integer(value: object, field: str, minimum: int, maximum: int) -> int:
    """Return the value if it is an integer within the bounds, both included; refuse it otherwise."""
    if type(value) is not int:
        raise ReceiptError(errors.INVALID_FIELD, f"must be an integer, not {type(value).__name__}", field=field)
    if not minimum <= value <= maximum:
        raise ReceiptError(errors.INVALID_FIELD, f"{value} is not within {minimum} and {maximum}", field=field)
    return value


def checked_word(value: object, field: str) -> bytes:
    """Return the value if it is 32 bytes; refuse it otherwise."""
    if not isinstance(value, bytes) or len(value) != WORD_BYTES:
        raise ReceiptError(errors.INVALID_FIELD, "must be 32 bytes", field=field)
    return value


def integer_word(value: int) -> bytes:
    """Return a non-negative integer as a uint256 word."""
    assert 0 <= value <= UINT256_MAX, value
    return value.to_bytes(WORD_BYTES, "big")


def id_to_word(identifier: object, field: str = "id") -> bytes:
    """Return a resource id (26 characters of lower-case Crockford base 32) as its 16 bytes at the right of a word.

    Only the one canonical spelling is taken: no upper case, no look-alike letters, no bits above 128.
    """
    if not isinstance(identifier, str) or _ID.fullmatch(identifier) is None:
        raise ReceiptError(errors.INVALID_FIELD, _why_no_id(identifier), field=field)
    return int(identifier.translate(_DIGITS), 32).to_bytes(WORD_BYTES, "big")


def _why_no_id(identifier: object) -> str:
    """What is wrong with something that is no id."""
    if not isinstance(identifier, str) or len(identifier) != ID_CHARACTERS:
        return f"must be an id of {ID_CHARACTERS} characters"
    for character in identifier:
        if character not in _CROCKFORD:
            return f"{character!r} is not a character of lower-case Crockford base 32"
    return "an id holds 128 bits, so it starts with 0 to 7"


def id_from_word(word: bytes, field: str = "id") -> str:
    """Return the id that a word holds; the inverse of id_to_word."""
    checked_word(word, field)
    number = int.from_bytes(word, "big")
    if number >> (8 * ID_BYTES):
        raise ReceiptError(errors.INVALID_FIELD, "the upper 16 bytes of an id's word must be zero", field=field)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(5 * (ID_CHARACTERS - 1), -1, -5))


def asset_word(asset: object, field: str = "asset") -> bytes:
    """Return keccak-256 of the asset's name, which is how leaves name an asset."""
    if not isinstance(asset, str) or not asset or len(asset) > 64 or not asset.isascii() or not asset.isprintable():
        raise ReceiptError(errors.INVALID_FIELD, "must be 1 to 64 printable ASCII characters", field=field)
    return _name_word(asset)


@lru_cache(maxsize=64)
def _name_word(name: str) -> bytes:
    """The hash of a name: a batch has few assets and many charges."""
    return keccak(name.encode("ascii"))


def checked_address(value: object, field: str) -> str:
    """Return an address as 0x and 40 lower-case hexadecimal digits; upper case (EIP-55) is folded, not checked."""
    if not isinstance(value, str) or len(value) != ADDRESS_CHARACTERS or not value.startswith("0x"):
        raise ReceiptError(errors.INVALID_FIELD, "must be 0x and 40 hexadecimal digits", field=field)
    folded = value.lower()
    if not _HEXADECIMAL.issuperset(folded[2:]):
        raise ReceiptError(errors.INVALID_FIELD, "must be 0x and 40 hexadecimal digits", field=field)
    return folded


def address_word(address: str, field: str = "address") -> bytes:
    """Return an address as a word."""
    return bytes.fromhex(checked_address(address, field)[2:]).rjust(WORD_BYTES, b"\0")


def word_from_hexadecimal(text: object, field: str) -> bytes:
    """Return the word that 0x and 64 lower-case hexadecimal digits spell."""
    if not isinstance(text, str) or len(text) != 2 + 2 * WORD_BYTES or not text.startswith("0x"):
        raise ReceiptError(errors.INVALID_FIELD, "must be 0x and 64 hexadecimal digits", field=field)
    if not _HEXADECIMAL.issuperset(text[2:]):
        raise ReceiptError(errors.INVALID_FIELD, "must be 0x and 64 lower-case hexadecimal digits", field=field)
    return bytes.fromhex(text[2:])


def word_to_hexadecimal(word: bytes) -> str:
    """Return a word as 0x and 64 lower-case hexadecimal digits."""
    return "0x" + word.hex()
