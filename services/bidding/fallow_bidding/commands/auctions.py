"""Bids are placed, a tenant picks one, and providers are told of new rounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_pb2
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.commands.rounds import close_rounds, load_bids
from fallow_bidding.convert import auctions as convert
from fallow_bidding.convert.market import order_demand
from fallow_bidding.domain.auctions import REPLACED, Auction, AuctionMode, Bid, BidState, with_choices
from fallow_bidding.domain.matching import MAX_PRICE_MICROS, Market, fitting, obstacle
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Provider
from fallow_bidding.domain.reasons import (
    AUCTION_CLOSED,
    AUCTION_NOT_FOUND,
    AUCTION_NOT_MANUAL,
    BID_DOES_NOT_FIT,
    BID_NOT_FOUND,
    PROVIDER_NOT_FOUND,
)
from fallow_bidding.domain.supply import Supplier
from fallow_bidding.store import auctions, orders, providers
from fallow_bidding.store.auctions import AuctionOfOrder
from fallow_bidding.store.suppliers import load_suppliers
from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.idempotency import claim
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_chassis.wire import resource_id

ANNOUNCE_BATCH: Final = 64
"""The most rounds that are announced in one go."""
_SERVICE: Final = "fallow.bidding.v1.AuctionService"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A round as providers hear of it, and where: (region, GPU model) of those whose inventory fits."""

    message: market_service_pb2.Auction
    audience: tuple[tuple[str, str], ...]


class AuctionCommands:
    """Use-cases of auctions; ``caller`` is the account that calls, ``accounts/…``."""

    def __init__(self, database: Database, policy: Policy, matching_of: Callable[[str], MatchingCommands]) -> None:
        """Take the database, the market's rules, and, by market, what decides and writes matches."""
        self._database = database
        self._policy = policy
        self._matching_of = matching_of

    async def create_bid(self, request: market_service_pb2.CreateBidRequest, caller: str) -> Bid:
        """Place a bid in the place of the provider's own. Whether it is within the tenant's limit is not looked at."""
        auction_id = resource_id(request.parent, "auctions", field="parent")
        provider_id = resource_id(request.bid.provider, "providers", field="bid.provider")
        async with self._database.transaction() as unit:
            # The provider's row is held, so that of two bids at once one replaces the other.
            provider = await providers.lock_provider(unit.connection, provider_id)
            if provider is None or provider.account != caller:
                raise DomainError(
                    PROVIDER_NOT_FOUND,
                    "there is no such provider of yours",
                    metadata={"provider": request.bid.provider},
                )
            known = await auctions.load_auction(unit.connection, auction_id)
            if known is None:
                raise _not_found(request.parent)
            bid_id = unit.ids.new()
            taken = await claim(
                unit,
                caller=caller,
                method=f"{_SERVICE}/CreateBid",
                request_id=request.request_id,
                request=request,
                resource=convert.bid_name(auction_id, bid_id),
            )
            if not taken.first:
                made = await auctions.load_bid(unit.connection, *convert.bid_ids(taken.resource))
                assert made is not None, "a claim that stands made its bid"
                return made
            bid = Bid(
                auction_id=auction_id,
                bid_id=bid_id,
                provider_id=provider_id,
                asset=request.bid.price.asset,
                price_micros=request.bid.price.micros_per_hour,
                create_time=unit.clock.now(),
            )
            await self._check(unit, known, bid)
            # Whoever decides the round waits for this transaction; what was decided meanwhile is seen here.
            auction = await auctions.share_auction(unit.connection, auction_id)
            if auction is None or not auction.takes_bids(unit.clock.now()):
                raise _closed(request.parent)
            await auctions.replace_bid(unit.connection, auction_id, provider_id, REPLACED)
            await auctions.save_bids(unit.connection, [bid])
            return bid

    async def _check(self, unit: UnitOfWork, known: AuctionOfOrder, bid: Bid) -> None:
        """Refuse a bid that comes too late, names another asset, or that its provider could not keep."""
        auction = known.auction
        if not auction.takes_bids(unit.clock.now()):
            raise _closed(convert.auction_name(auction))
        demand = order_demand(order_pb2.Order.FromString(known.body))
        group = demand.groups[auction.group_index]
        if bid.asset != group.asset:
            raise invalid_field("bid.price.asset", f"must be {group.asset}, which the order is paid in")
        if bid.price_micros > MAX_PRICE_MICROS:
            raise invalid_field("bid.price.micros_per_hour", f"must be at most {MAX_PRICE_MICROS}")
        constraint = obstacle(
            demand, group, Market(await self._suppliers(unit.connection, known.market, bid.provider_id))
        )
        if constraint:
            raise _does_not_fit(constraint, bid.provider_id)

    async def accept_bid(self, request: market_service_pb2.AcceptBidRequest, caller: str) -> AuctionOfOrder:
        """Pick a bid of a manual auction. The lease is made at once, or, where other groups of the order are decided with
        this one, with the last choice. A bid that fits no more is refused, and all stays open.
        """
        auction_id, bid_id = convert.bid_ids(request.name)
        async with self._database.transaction() as unit:
            known = await auctions.load_auction(unit.connection, auction_id)
            if known is None or known.tenant != caller:
                raise _not_found(f"auctions/{auction_id}")
            matching = self._matching_of(known.market)
            await matching.lock(unit)
            taken = await claim(
                unit,
                caller=caller,
                method=f"{_SERVICE}/AcceptBid",
                request_id=request.request_id,
                request=request,
                resource=request.name,
            )
            if taken.first:
                await self._accept(unit, matching, known.auction, bid_id)
            after = await auctions.load_auction(unit.connection, auction_id)
            assert after is not None, "auctions are never deleted"
            return after

    async def _accept(self, unit: UnitOfWork, matching: MatchingCommands, auction: Auction, bid_id: str) -> None:
        """Note the choice, and make the leases if it was the last one."""
        name = convert.auction_name(auction)
        if auction.mode is not AuctionMode.MANUAL:
            raise DomainError(AUCTION_NOT_MANUAL, "the market decides this auction", metadata={"auction": name})
        order = (await orders.lock_orders(unit.connection, [auction.order_id]))[auction.order_id]
        rounds = (await auctions.lock_open_auctions(unit.connection, [order.order_id]))[order.order_id]
        present = rounds.get(auction.group_index)
        if present is None or present.auction_id != auction.auction_id or not present.takes_bids(unit.clock.now()):
            raise _closed(name)
        await auctions.choose_bid(unit.connection, auction.auction_id, bid_id)
        wanted = {auction.group_index: bid_id}
        if order.together:
            chosen = {index: opened.chosen_bid_id for index, opened in rounds.items()}
            wanted = {**chosen, **wanted}
        market, sellers = await matching.load_market(unit)
        placed = await load_bids(unit, rounds)
        choices = {
            index: _pick(rounds[index], wanted_id, placed[index], market)
            for index, wanted_id in wanted.items()
            if wanted_id
        }
        if len(choices) == len(wanted):
            part = {index: rounds[index] for index in wanted}
            await self._match(unit, matching, order, part, choices, market, sellers)
        else:
            self._must_fit(order, auction, choices[auction.group_index], market)

    async def _match(
        self,
        unit: UnitOfWork,
        matching: MatchingCommands,
        order: MarketOrder,
        rounds: Mapping[int, Auction],
        choices: Mapping[int, Bid],
        market: Market,
        sellers: Mapping[str, Provider],
    ) -> None:
        """Make the leases that the tenant has chosen, all or none."""
        assert order.body is not None, "an order that takes bids was opened"
        body = order_pb2.Order.FromString(order.body)
        groups = (await orders.load_groups(unit.connection, [order.order_id]))[order.order_id]
        part: dict[int, MarketGroup] = {index: groups[index] for index in rounds}
        demand = with_choices(order_demand(body, part), choices, list(sellers))
        decision = matching.decide(demand, market)
        if len(decision.matches) < len(part):
            for group, story in zip(demand.groups, decision.explanations, strict=True):
                stopped = next((step.constraint for step in story.funnel if not step.providers_after), "")
                if stopped:
                    raise _does_not_fit(stopped, choices[group.index].provider_id)
            raise _does_not_fit("placement", choices[min(rounds)].provider_id)
        bids = await load_bids(unit, rounds)
        await close_rounds(unit, order, body, part, rounds, bids, decision)
        await matching.write(unit, sellers, order, part, demand, decision)

    def _must_fit(self, order: MarketOrder, auction: Auction, chosen: Bid, market: Market) -> None:
        """Refuse a first choice of several that could not stand even alone."""
        assert order.body is not None, "an order that takes bids was opened"
        demand = order_demand(order_pb2.Order.FromString(order.body))
        sellers = [supplier for supplier in market.suppliers if supplier.provider_id == chosen.provider_id]
        constraint = obstacle(demand, demand.groups[auction.group_index], Market(sellers))
        if constraint:
            raise _does_not_fit(constraint, chosen.provider_id)

    async def take_unannounced(self) -> list[Announcement]:
        """Rounds that providers were not told of, with those who could take them. Each is taken once: it is a hint."""
        async with self._database.read() as connection:
            if not await auctions.load_unannounced(connection, self._policy.market, 1):
                return []
        async with self._database.transaction() as unit:
            found = await auctions.load_unannounced(unit.connection, self._policy.market, ANNOUNCE_BATCH)
            await auctions.set_announced(unit.connection, [item.auction.auction_id for item in found])
            suppliers = await self._suppliers(unit.connection, self._policy.market)
        market = Market(suppliers)
        return [_announcement(item, market) for item in found]

    async def _suppliers(self, connection: Connection, market: str, provider_id: str = "") -> list[Supplier]:
        """A market's providers with what is free now, or one of them."""
        policy = replace(self._policy, market=market)
        loaded = await load_suppliers(connection, policy, self._database.clock.now())
        return [supplier for _, supplier in loaded if provider_id in {"", supplier.provider_id}]


def _pick(auction: Auction, bid_id: str, placed: list[Bid], market: Market) -> Bid:
    """The bid of that id: one that was placed, or a standing offer of a provider that has placed none."""
    for bid in placed:
        if bid.bid_id == bid_id:
            return bid
    explicit = {bid.provider_id for bid in placed}
    for supplier in market.suppliers:
        for asset, offer in supplier.offers.items():
            if offer.offer_id == bid_id and supplier.provider_id not in explicit:
                return Bid(
                    auction_id=auction.auction_id,
                    bid_id=bid_id,
                    provider_id=supplier.provider_id,
                    asset=asset,
                    price_micros=0,
                    create_time=auction.create_time,
                    from_offer=True,
                    state=BidState.PLACED,
                )
    raise DomainError(
        BID_NOT_FOUND,
        "there is no such bid in the auction",
        metadata={"bid": convert.bid_name(auction.auction_id, bid_id)},
    )


def _announcement(item: AuctionOfOrder, market: Market) -> Announcement:
    """A round and whom to tell of it."""
    demand = order_demand(order_pb2.Order.FromString(item.body))
    group = demand.groups[item.auction.group_index]
    audience = {
        (supplier.region, model)
        for supplier, models in fitting(demand, group, market)
        for model in models or frozenset({""})
    }
    return Announcement(convert.auction_message(item.auction, item.body, shows_order=False), tuple(sorted(audience)))


def _not_found(name: str) -> DomainError:
    """The refusal of a name that is no auction, or not the caller's."""
    return DomainError(AUCTION_NOT_FOUND, "there is no such auction of yours", metadata={"auction": name})


def _closed(name: str) -> DomainError:
    """The refusal of what comes too late."""
    return DomainError(AUCTION_CLOSED, "the auction is over", metadata={"auction": name})


def _does_not_fit(constraint: str, provider_id: str) -> DomainError:
    """The refusal of a bid that could not be kept."""
    return DomainError(
        BID_DOES_NOT_FIT,
        f"the provider does not meet the constraint {constraint}",
        metadata={"constraint": constraint, "provider": f"providers/{provider_id}"},
    )
