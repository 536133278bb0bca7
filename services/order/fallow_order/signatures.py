"""Who signed a text with EIP-191 ``personal_sign``: strict about the form of the signature.

65 bytes, r ‖ s ‖ v; v is 27 or 28 (0 and 1 are what some wallets write); s is in the lower half of the curve's order
(EIP-2), because otherwise each signature would have a twin.
"""

from typing import Final

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address

from fallow_chassis.errors import DomainError
from fallow_order.domain.reasons import SIGN_IN_MESSAGE_INVALID, SIGN_IN_SIGNATURE_INVALID

SIGNATURE_BYTES: Final = 65
HALF_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


def checksum_address(address: str) -> str:
    """An address of 0x and 40 hexadecimal digits with its EIP-55 checksum."""
    return str(to_checksum_address(address.lower()))


def check_checksum(address: str) -> None:
    """Refuse an address without its EIP-55 checksum, which catches a mistyped one; SIGN_IN_MESSAGE_INVALID."""
    if address != checksum_address(address):
        raise DomainError(SIGN_IN_MESSAGE_INVALID, "the address lacks its EIP-55 checksum")


def recover_address(text: str, signature: bytes, expected: str) -> None:
    """Check that ``expected`` (with its checksum) signed the text; SIGN_IN_SIGNATURE_INVALID if not."""
    if len(signature) != SIGNATURE_BYTES:
        raise _invalid(
            f"the signature must have {SIGNATURE_BYTES} bytes; those of contract wallets (EIP-1271) are not taken"
        )
    if signature[64] not in {0, 1, 27, 28}:
        raise _invalid("the last byte of the signature must be 27 or 28")
    if not 0 < int.from_bytes(signature[32:64], "big") <= HALF_ORDER:
        raise _invalid("the signature's s is not in the lower half")
    normal = signature[:64] + bytes([signature[64] % 27 + 27])
    try:
        signer = Account.recover_message(encode_defunct(text=text), signature=normal)
    except Exception:  # noqa: BLE001 - the library raises many kinds for a signature that is not on the curve
        raise _invalid("the signature is not one of the curve") from None
    if signer != expected:
        raise _invalid("the signature was made by another address; contract wallets (EIP-1271) cannot sign in")


def _invalid(why: str) -> DomainError:
    """The error for a bad signature."""
    return DomainError(SIGN_IN_SIGNATURE_INVALID, why)
