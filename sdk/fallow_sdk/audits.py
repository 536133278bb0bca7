"""What an auditor signs to vouch for attributes of a provider.

The format of the text stands at `AuditorSignature` in `proto/fallow/bidding/v1/provider.proto`.
"""

from collections.abc import Mapping
from urllib.parse import quote

from fallow.bidding.v1 import provider_pb2
from fallow_sdk.wallet import Wallet


def audit_text(public_key: bytes, attributes: Mapping[str, str]) -> str:
    """The text over a provider's public key and the attributes vouched for."""
    lines = sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in attributes.items())
    return "\n".join(("Fallow attribute audit v1", f"provider key {public_key.hex()}", *lines))


def sign_attributes(wallet: Wallet, public_key: bytes, attributes: Mapping[str, str]) -> provider_pb2.AuditorSignature:
    """A wallet's word for attributes of the provider with that key, as `UpdateProvider` takes it."""
    return provider_pb2.AuditorSignature(
        auditor=wallet.address,
        attributes=attributes,
        signature=wallet.sign_text(audit_text(public_key, attributes)),
    )
