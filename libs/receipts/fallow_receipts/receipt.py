"""A receipt: a charge, its place in a batch, the batch's header; and its one JSON form.

The JSON form is strict on purpose: what a reader shows to a person must be all that the hashes cover, so an unknown,
missing or repeated field is refused, and every value has one spelling (integers are decimal strings without leading
zeros, hashes and addresses lower-case hexadecimal). `anchor` alone is not covered by any hash: it says where to look.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from fallow_receipts import errors
from fallow_receipts.errors import ReceiptError
from fallow_receipts.headers import Header
from fallow_receipts.leaves import Charge
from fallow_receipts.merkle import PROOF_LENGTH_MAX
from fallow_receipts.words import (
    INT64_MAX,
    UINT256_MAX,
    checked_address,
    checked_integer,
    checked_word,
    word_from_hexadecimal,
    word_to_hexadecimal,
)

FORMAT: Final = "fallow.receipt.v1"
RECEIPT_BYTES_MAX: Final = 64 * 1024
_INTEGER_CHARACTERS_MAX: Final = 78  # 2**256 - 1 in decimal
_RECEIPT_FIELDS: Final = ("format", "charge", "index", "proof", "header", "anchor")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the header stands: the chain, the SettlementAnchor and, if known, the transaction that anchored it."""

    chain_id: int
    contract: str
    transaction: str | None = None

    def __post_init__(self) -> None:
        checked_integer(self.chain_id, "chain_id", 0, UINT256_MAX)
        object.__setattr__(self, "contract", checked_address(self.contract, "contract"))
        if self.transaction is not None:
            word_from_hexadecimal(self.transaction, "transaction")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A charge with its proof: enough to verify it against a root or commitment that the reader trusts."""

    charge: Charge
    index: int
    proof: tuple[bytes, ...]
    header: Header
    anchor: Anchor | None = None

    def __post_init__(self) -> None:
        checked_integer(self.index, "index", 0, INT64_MAX)
        if len(self.proof) > PROOF_LENGTH_MAX:
            raise ReceiptError(errors.INVALID_FIELD, f"must be at most {PROOF_LENGTH_MAX} hashes", field="proof")
        for position, sibling in enumerate(self.proof):
            checked_word(sibling, f"proof[{position}]")

    def to_json(self) -> str:
        """Return the receipt's JSON form, indented, with a line end."""
        document = {
            "format": FORMAT,
            "charge": _plain(self.charge),
            "index": str(self.index),
            "proof": [word_to_hexadecimal(sibling) for sibling in self.proof],
            "header": _plain(self.header),
            "anchor": None if self.anchor is None else _plain(self.anchor),
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Receipt":
        """Read a receipt. ReceiptError tells the reason and the path of the first field at fault."""
        document = _object(_parse(text), "", _RECEIPT_FIELDS)
        if document["format"] != FORMAT:
            raise ReceiptError(errors.FORMAT_UNSUPPORTED, f"this reader knows {FORMAT} only", field="format")
        proof = document["proof"]
        if not isinstance(proof, list):
            raise ReceiptError(errors.INVALID_FIELD, "must be a list", field="proof")
        return cls(
            charge=_charge(document["charge"]),
            index=_integer(document["index"], "index"),
            proof=tuple(word_from_hexadecimal(item, f"proof[{position}]") for position, item in enumerate(proof)),
            header=_header(document["header"]),
            anchor=None if document["anchor"] is None else _anchor(document["anchor"]),
        )


def _plain(value: Charge | Header | Anchor) -> dict[str, str | None]:
    """Return the fields as JSON strings, in their order."""
    plain: dict[str, str | None] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        plain[field.name] = word_to_hexadecimal(item) if isinstance(item, bytes) else _spelled(item)
    return plain


def _spelled(item: str | int | None) -> str | None:
    return str(item) if isinstance(item, int) else item


def _parse(text: str | bytes) -> object:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > RECEIPT_BYTES_MAX:
        raise ReceiptError(errors.MALFORMED_JSON, f"a receipt is at most {RECEIPT_BYTES_MAX} bytes, this has {size}")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ReceiptError(errors.MALFORMED_JSON, f"is not JSON: {error}") from error


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise ReceiptError(errors.DUPLICATE_FIELD, "appears twice in one object", field=name)
        result[name] = value
    return result


def _no_constant(name: str) -> object:
    raise ReceiptError(errors.MALFORMED_JSON, f"{name} is not JSON")


def _object(value: object, path: str, names: tuple[str, ...]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ReceiptError(errors.INVALID_FIELD, "must be an object", field=path)
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in names:
            raise ReceiptError(errors.UNKNOWN_FIELD, "is not a field of a receipt", field=prefix + str(name))
    for name in names:
        if name not in value:
            raise ReceiptError(errors.MISSING_FIELD, "is missing", field=prefix + name)
    return value


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ReceiptError(errors.INVALID_FIELD, "must be a string", field=path)
    return value


def _integer(value: object, path: str) -> int:
    text = _string(value, path)
    canonical = text.isascii() and text.isdigit() and len(text) <= _INTEGER_CHARACTERS_MAX
    if not canonical or (len(text) > 1 and text[0] == "0"):
        raise ReceiptError(errors.INVALID_FIELD, "must be a decimal string, without sign or leading zeros", field=path)
    return int(text)


def _charge(value: object) -> Charge:
    plain = _object(value, "charge", tuple(field.name for field in fields(Charge)))

    def text(name: str) -> str:
        return _string(plain[name], f"charge.{name}")

    def integer(name: str) -> int:
        return _integer(plain[name], f"charge.{name}")

    try:
        return Charge(
            charge_id=text("charge_id"),
            order_id=text("order_id"),
            group=integer("group"),
            generation=integer("generation"),
            sequence=integer("sequence"),
            tenant=text("tenant"),
            provider=text("provider"),
            asset=text("asset"),
            from_running_ms=integer("from_running_ms"),
            to_running_ms=integer("to_running_ms"),
            price_micros_per_hour=integer("price_micros_per_hour"),
            amount_micros=integer("amount_micros"),
            fee_micros=integer("fee_micros"),
            pool_micros=integer("pool_micros"),
            evidence=text("evidence"),
            short_micros=integer("short_micros"),
        )
    except ReceiptError as error:
        raise _rooted(error, "charge") from error


def _header(value: object) -> Header:
    plain = _object(value, "header", tuple(field.name for field in fields(Header)))

    def word(name: str) -> bytes:
        return word_from_hexadecimal(plain[name], f"header.{name}")

    def integer(name: str) -> int:
        return _integer(plain[name], f"header.{name}")

    try:
        return Header(
            batch_id=integer("batch_id"),
            prev=word("prev"),
            payout_parent=integer("payout_parent"),
            settlement_root=word("settlement_root"),
            payout_root=word("payout_root"),
            count=integer("count"),
            payout_total=integer("payout_total"),
            totals_hash=word("totals_hash"),
        )
    except ReceiptError as error:
        raise _rooted(error, "header") from error


def _anchor(value: object) -> Anchor:
    plain = _object(value, "anchor", tuple(field.name for field in fields(Anchor)))
    transaction = plain["transaction"]
    try:
        return Anchor(
            chain_id=_integer(plain["chain_id"], "anchor.chain_id"),
            contract=_string(plain["contract"], "anchor.contract"),
            transaction=None if transaction is None else _string(transaction, "anchor.transaction"),
        )
    except ReceiptError as error:
        raise _rooted(error, "anchor") from error


def _rooted(error: ReceiptError, prefix: str) -> ReceiptError:
    """Return the error with a path from the document's root; the dataclasses know only their own fields."""
    return error if error.field.startswith(prefix + ".") else error.below(prefix)
