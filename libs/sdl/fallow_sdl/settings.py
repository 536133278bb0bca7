"""How prices in a file become prices of ours.

A file prices each profile in a denomination per block. Ours are micros of one asset per hour. The bridge is the block
time and, for each denomination, what a million of its smallest unit is worth in micros of our asset. All are integers;
the price limit of a group is summed exactly and rounded up once, in favour of a match.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from fallow.type.v1 import money_pb2, resources_pb2
from fallow_sdl.bounds import rules_of

MILLISECONDS_PER_HOUR: Final = 3_600_000

_USDC_ON_AKASH: Final = "ibc/170C677610AC31DF0904FFE09CD3B5C657492170E7E52372E48756B71E56F2F1"
_USDC_ON_SANDBOX: Final = "ibc/12C6A0C374171B595A0A9E18B83FA09D295FB1F2D8C6DAA3AC28683471752D84"
_DEFAULT_RATES: Final = MappingProxyType(
    {
        # ACT is pegged to one US dollar, and so is USDC.
        "uact": 1_000_000,
        "uusdc": 1_000_000,
        _USDC_ON_AKASH: 1_000_000,
        _USDC_ON_SANDBOX: 1_000_000,
        # AKT floats: a platform that takes it sets the rate that it stands by.
        "uakt": 500_000,
    }
)


@dataclass(frozen=True, slots=True)
class SdlSettings:
    """``asset`` that limits are stated in; ``block_milliseconds`` of Akash's chain, 6,098 on average;
    ``micros_per_million`` by denomination: worth of 10⁶ smallest units in micros of the asset;
    ``persistent_class``: storage class of a persistent volume that names none.
    """

    asset: str = "usdc"
    block_milliseconds: int = 6_098
    micros_per_million: Mapping[str, int] = field(default_factory=lambda: _DEFAULT_RATES)
    persistent_class: str = "beta2"

    def __post_init__(self) -> None:
        """Hold the bounds that the arithmetic relies on; ValueError for what no order can hold."""
        assert self.block_milliseconds > 0, "a block takes time"
        if not re.fullmatch(rules_of(money_pb2.Price, "asset").pattern, self.asset):
            raise ValueError("an asset is 2 to 16 lower-case letters and digits, such as usdc")
        if (
            not 1
            <= len(self.persistent_class)
            <= rules_of(resources_pb2.StorageRequirement, "storage_class").max_length
        ):
            raise ValueError("a storage class has 1 to 32 characters")
        assert all(rate > 0 for rate in self.micros_per_million.values()), "a rate is positive"

    def micros_per_hour(self, denomination: str, amount_per_block: Fraction) -> Fraction:
        """The exact price per hour; KeyError for a denomination without a rate."""
        micros_per_block = amount_per_block * self.micros_per_million[denomination] / 1_000_000
        return micros_per_block * MILLISECONDS_PER_HOUR / self.block_milliseconds


def parse_rates(text: str) -> Mapping[str, int]:
    """The default rates with those of a text such as ``uakt=620000, ibc/…=1000000`` over them; ValueError otherwise."""
    rates = dict(_DEFAULT_RATES)
    for entry in filter(None, (part.strip() for part in text.split(","))):
        denomination, _, micros = entry.partition("=")
        if not denomination or not re.fullmatch("[1-9][0-9]{0,17}", micros.strip()):
            raise ValueError("a rate is DENOM=MICROS, such as uakt=620000")
        rates[denomination.strip()] = int(micros)
    return rates


DEFAULTS: Final = SdlSettings()
"""What a command or a service uses unless it is told otherwise."""
