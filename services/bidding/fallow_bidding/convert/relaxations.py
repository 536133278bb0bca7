"""What would let a group match, on the wire and in words."""

from datetime import datetime
from typing import Final

from fallow.order.v1 import order_service_pb2
from fallow.type.v1 import money_pb2
from fallow_bidding.domain.relaxation import Relaxation
from fallow_chassis.wire import to_timestamp

_Explanation = order_service_pb2.ExplainOrderResponse.GroupExplanation
_GIB = 1 << 30
ADVICE: Final = {
    "price_limit": "Raise the price limit to {price} an hour.",
    "gpu_model": "Accept the model {value} as well.",
    "gpu_alternatives": "Accept the model {value} with any VRAM and interface.",
    "gpu_vendor": "Accept the vendor {value}.",
    "gpu_interface": "Accept the interface {value}.",
    "vram": "Ask for devices of {gib} GiB.",
    "gpu_count": "Ask for at most {limit} GPUs a replica.",
    "placement": "Ask for at most {limit} replicas of a service.",
    "cpu": "Ask for at most {cores} cores a replica.",
    "memory": "Ask for at most {gib} GiB of memory a replica.",
    "storage": "Ask for at most {gib} GiB of {value} storage a replica.",
    "region": "Accept the region {value} as well.",
    "attributes": "Do not ask for the attribute {value}.",
    "auditors": "Ask for no auditor.",
    "reputation": "Accept a reputation of {limit} thousandths.",
    "term": "Ask for a term of at most {minutes} min.",
}
"""What to change, by the constraint that gives way."""


def add_relaxations(
    message: _Explanation, changes: tuple[Relaxation, ...], free_time: datetime | None, asset: str
) -> None:
    """Put into a group's story what would let it match."""
    for change in changes:
        message.relaxations.add(
            constraint=change.constraint,
            value=change.value,
            limit=change.limit,
            price=money_pb2.Price(asset=asset, micros_per_hour=change.price_micros),
            advice=advice_of(change, asset),
        )
    if free_time is not None:
        message.free_time.CopyFrom(to_timestamp(free_time))


def advice_of(change: Relaxation, asset: str) -> str:
    """A change in words; a constraint without words is a defect."""
    limit = change.limit
    return ADVICE[change.constraint].format(
        value=change.value,
        limit=limit,
        price=f"{limit // 1_000_000}.{limit % 1_000_000:06d} {asset}",
        cores=f"{limit // 1_000}.{limit % 1_000:03d}",
        gib=_gib(limit),
        minutes=limit // 60_000,
    )


def _gib(size_bytes: int) -> str:
    """Bytes as GiB, rounded down to a hundredth: nobody is told to ask for more than was tried."""
    hundredths = size_bytes * 100 // _GIB
    return f"{hundredths // 100}.{hundredths % 100:02d}"
