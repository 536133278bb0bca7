"""A new lease is a trade, or one for each model of its devices, in the transaction that makes it."""

from fallow_bidding.domain.leases import Lease
from fallow_bidding.domain.market_data import trades_of
from fallow_bidding.store import market_data, providers
from fallow_chassis.postgres import UnitOfWork


async def state_trades(unit: UnitOfWork, market: str, lease: Lease) -> None:
    """Tell the open market of a new lease.

    The market's decisions lock is held, so that trades are numbered in the order in which they commit.
    """
    prices = {}
    if len({placement.model for placement in lease.placements if placement.devices}) > 1:
        offer = await providers.load_offer(unit.connection, lease.offer_id)
        assert offer is not None, "offers are never deleted"
        prices = dict(offer.prices.gpu_micros_by_model)
    await market_data.insert_trades(unit.connection, market, lease, trades_of(lease, prices))
