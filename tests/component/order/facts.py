"""Facts of bidding and settlement, as they state them about an order."""

from google.protobuf.timestamp_pb2 import Timestamp

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.bidding.v1 import lease_pb2 as bidding_lease
from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.settlement.v1 import events_pb2 as settlement_events
from fallow.type.v1 import lease_pb2, money_pb2, workload_pb2

READY_SECONDS = 1_800_000_000


def key(order: str, generation: int = 1, group: int = 0) -> lease_pb2.GenerationKey:
    """Order, group, generation."""
    return lease_pb2.GenerationKey(order=order, group=group, generation=generation)


def created(
    order: str, lease: str, generation: int = 1, group: int = 0, provider: str = "providers/p", seconds: int = 0
) -> bidding_events.LeaseCreated:
    """A match was made, at an instant if it is given."""
    return bidding_events.LeaseCreated(
        lease=bidding_lease.Lease(
            name=lease,
            key=key(order, generation, group),
            provider=provider,
            price=money_pb2.Price(asset="usdc", micros_per_hour=1_000_000),
            create_time=Timestamp(seconds=seconds) if seconds else None,
        )
    )


def running(order: str, lease: str, generation: int = 1, group: int = 0) -> bidding_events.LeaseRunning:
    """A generation is ready."""
    return bidding_events.LeaseRunning(
        lease=lease,
        key=key(order, generation, group),
        endpoints=[workload_pb2.Endpoint(service="web", container_port=8080, uri="http://127.0.0.1:31000")],
        ready_time=Timestamp(seconds=READY_SECONDS),
    )


def lost(order: str, lease: str, generation: int = 1, group: int = 0, seconds: int = 0) -> bidding_events.LeaseEnded:
    """A provider fell silent; the group is being leased again."""
    evidence = lease_pb2.Evidence(
        reason=lease_pb2.END_REASON_UNREACHABLE,
        detail="no heartbeat for 60 s",
        observe_time=Timestamp(seconds=seconds) if seconds else None,
    )
    return bidding_events.LeaseEnded(lease=lease, key=key(order, generation, group), evidence=evidence, releasing=True)


def group_ended(order: str, group: int) -> bidding_events.GroupEnded:
    """A group found no match in time."""
    return bidding_events.GroupEnded(
        order=order, group=group, reason=lease_pb2.END_REASON_EXPIRED, detail="no match within 20 s"
    )


def order_ended(
    order: str, reason: "lease_pb2.EndReason.ValueType" = lease_pb2.END_REASON_TENANT
) -> bidding_events.OrderEnded:
    """Nothing of the order runs on."""
    return bidding_events.OrderEnded(order=order, reason=reason)


def escrow_closed(order: str, charged: int, refunded: int) -> settlement_events.EscrowClosed:
    """The money has returned."""
    return settlement_events.EscrowClosed(
        escrow=charge_pb2.Escrow(
            name=order.replace("orders/", "escrows/"),
            charged=money_pb2.Amount(asset="usdc", micros=charged),
            refunded=money_pb2.Amount(asset="usdc", micros=refunded),
        )
    )


def auction_opened(order: str, *, number: int = 1, seconds: int = 0) -> bidding_events.AuctionOpened:
    """A round of sealed bids has begun."""
    return bidding_events.AuctionOpened(
        auction=f"auctions/a{number}",
        order=order,
        group_id="main",
        round=number,
        match_mode=order_pb2.MATCH_MODE_AUCTION,
        rule=order_pb2.AUCTION_RULE_FIRST_PRICE,
        create_time=Timestamp(seconds=seconds) if seconds else None,
        close_time=Timestamp(seconds=READY_SECONDS),
    )


def auction_closed(order: str, *, number: int = 1, winner: str = "", detail: str = "") -> bidding_events.AuctionClosed:
    """A round is over."""
    return bidding_events.AuctionClosed(
        auction=f"auctions/a{number}",
        order=order,
        group_id="main",
        round=number,
        winning_bid=winner,
        bids=3,
        detail=detail,
        decide_time=Timestamp(seconds=READY_SECONDS),
    )


def preempting(order: str, lease: str) -> bidding_events.LeasePreemptionAnnounced:
    """A spot lease will give way."""
    return bidding_events.LeasePreemptionAnnounced(
        lease=lease, key=key(order), preempt_time=Timestamp(seconds=READY_SECONDS)
    )


def preemption_withdrawn(order: str, lease: str) -> bidding_events.LeasePreemptionWithdrawn:
    """A spot lease goes on after all."""
    return bidding_events.LeasePreemptionWithdrawn(lease=lease, key=key(order))


def preempted(order: str, lease: str) -> bidding_events.LeaseEnded:
    """A spot lease has given way."""
    evidence = lease_pb2.Evidence(reason=lease_pb2.END_REASON_PREEMPTED)
    return bidding_events.LeaseEnded(lease=lease, key=key(order), evidence=evidence, releasing=True)
