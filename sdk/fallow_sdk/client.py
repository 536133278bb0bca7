"""A typed asynchronous client of the Fallow API.

One channel a service. Each call has a deadline, carries the access token, retries what is safe to repeat (every write
carries a `request_id`, so a repeat answers the same) while a service cannot be reached, and raises FallowError with
code, reason, field paths and facts.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.bidding.v1 import (
    lease_pb2,
    lease_service_pb2,
    lease_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from fallow.order.v1 import (
    order_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from fallow.settlement.v1 import (
    charge_pb2,
    ledger_pb2,
    programme_service_pb2_grpc,
    settlement_service_pb2,
    settlement_service_pb2_grpc,
)
from fallow.type.v1 import money_pb2
from fallow_sdk.credentials import Credential, WalletCredential
from fallow_sdk.door import DoorCalls
from fallow_sdk.errors import FallowError
from fallow_sdk.giving import GivingCalls
from fallow_sdk.request_ids import new_request_id
from fallow_sdk.wallet import Wallet

CALL_SECONDS = 15.0
ATTEMPTS = 5
STATEMENT_PAGE = 1_000
FIRST_PAUSE_SECONDS = 0.2
PAGE_SIZE = 200
RENEW_BEFORE_SECONDS = 60.0

Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class _ListRequest(Protocol):
    page_size: int
    page_token: str


class _ListAnswer(Protocol):
    next_page_token: str


Item = TypeVar("Item")
ListRequest = TypeVar("ListRequest", bound=_ListRequest)
ListAnswer = TypeVar("ListAnswer", bound=_ListAnswer)


class _FollowRequest(Protocol):
    after_sequence: int


FollowRequest = TypeVar("FollowRequest", bound=_FollowRequest)


class _Streaming(Protocol[Request_contra, Answer_co]):
    def __call__(
        self, request: Request_contra, /, *, metadata: tuple[tuple[str, str], ...]
    ) -> AsyncIterable[Answer_co]: ...


class _Unary(Protocol[Request_contra, Answer_co]):
    def __call__(
        self, request: Request_contra, /, *, timeout: float | None, metadata: tuple[tuple[str, str], ...]
    ) -> Awaitable[Answer_co]: ...


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of the services, `host:port` each."""

    order: str
    bidding: str
    settlement: str


@dataclass(frozen=True, slots=True)
class Mode:
    """How an order meets offers: at once by default; by an auction, with its rule and window; or by the tenant's choice."""

    match_mode: "order_pb2.MatchMode.ValueType" = order_pb2.MATCH_MODE_UNSPECIFIED
    auction_rule: "order_pb2.AuctionRule.ValueType" = order_pb2.AUCTION_RULE_UNSPECIFIED
    auction_window: timedelta | None = None


def _now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)  # noqa: TID251 - the SDK stands without the chassis and its clock


def may_be_claimed(claim: settlement_service_pb2.Claim) -> bool:
    """Whether the challenge window of a claim is over, by this machine's clock."""
    now = Timestamp()
    now.GetCurrentTime()
    return claim.claimable_time.ToNanoseconds() <= now.ToNanoseconds()


class Client(GivingCalls, DoorCalls):
    """The market as one signed-in account sees it. Use as `async with Client(endpoints) as client`."""

    def __init__(self, endpoints: Endpoints, *, token: str = "", credential: Credential | None = None) -> None:
        """`token` is an access token that nobody renews; a `credential` is traded at the first call and renewed."""
        self.token = token
        self.endpoints = endpoints
        self._credential = credential
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()
        self._channels: list[grpc.aio.Channel] = []

    async def __aenter__(self) -> Self:
        """Open the channels; nothing is sent yet."""
        order, bidding, settlement = (
            grpc.aio.insecure_channel(address)
            for address in (self.endpoints.order, self.endpoints.bidding, self.endpoints.settlement)
        )
        self._channels = [order, bidding, settlement]
        self._sessions = session_service_pb2_grpc.SessionServiceStub(order)
        self._orders = order_service_pb2_grpc.OrderServiceStub(order)
        self._leases = lease_service_pb2_grpc.LeaseServiceStub(bidding)
        self._auctions = market_service_pb2_grpc.AuctionServiceStub(bidding)
        self._market = market_service_pb2_grpc.MarketDataServiceStub(bidding)
        self._registry = provider_service_pb2_grpc.ProviderRegistryServiceStub(bidding)
        self._escrows = settlement_service_pb2_grpc.EscrowServiceStub(settlement)
        self._funds = settlement_service_pb2_grpc.FundsServiceStub(settlement)
        self._receipts = settlement_service_pb2_grpc.ReceiptServiceStub(settlement)
        self._programmes = programme_service_pb2_grpc.ProgrammeServiceStub(settlement)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channels."""
        for channel in self._channels:
            await channel.close()

    def _metadata(self, token: str = "") -> tuple[tuple[str, str], ...]:
        bearer = token or self.token
        return (("authorization", f"Bearer {bearer}"),) if bearer else ()

    async def _call(self, method: _Unary[Request_contra, Answer_co], request: Request_contra) -> Answer_co:
        """One call with a token that is good for it; one that ran out all the same is renewed once."""
        await self.ensure_session()
        try:
            return await self._attempt(method, request)
        except FallowError as error:
            if error.reason != "TOKEN_EXPIRED" or self._credential is None:
                raise
            await self.renew()
            return await self._attempt(method, request)

    async def _attempt(self, method: _Unary[Request_contra, Answer_co], request: Request_contra) -> Answer_co:
        """One call, repeated while a service cannot be reached or lets nobody in for the moment."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await method(request, timeout=CALL_SECONDS, metadata=self._metadata())
            except grpc.aio.AioRpcError as error:
                failure = FallowError.from_rpc(error)
                if attempt == ATTEMPTS or not failure.is_worth_a_repeat:
                    raise failure from error
                pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
                if failure.reason == "RATE_LIMITED":
                    pause = max(pause, (failure.retry_after_ms or 0) / 1_000)
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _list(
        self,
        method: _Unary[ListRequest, ListAnswer],
        request: ListRequest,
        items: Callable[[ListAnswer], Iterable[Item]],
    ) -> list[Item]:
        """All items of a list, page by page."""
        request.page_size = PAGE_SIZE
        found: list[Item] = []
        while True:
            page = await self._call(method, request)
            found += items(page)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def _follow(
        self,
        method: _Streaming[FollowRequest, Answer_co],
        request: FollowRequest,
        number: Callable[[Answer_co], int],
    ) -> AsyncGenerator[Answer_co, None]:
        """The answers of a stream; one that breaks is taken up again after the highest number that was seen."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self.ensure_session()
            try:
                async for answer in method(request, metadata=self._metadata()):
                    request.after_sequence = max(request.after_sequence, number(answer))
                    pause = FIRST_PAUSE_SECONDS
                    yield answer
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or pause > CALL_SECONDS:
                    raise FallowError.from_rpc(error) from error
                await asyncio.sleep(pause)
                pause *= 2
            else:
                return

    # Sessions

    async def sign_in(self, credential: Wallet | Credential) -> session_service_pb2.Session:
        """Sign in with a wallet (EIP-4361), an API key or an identity token; later calls carry and renew the token."""
        self._credential = WalletCredential(credential) if isinstance(credential, Wallet) else credential
        return await self.renew()

    async def ensure_session(self) -> None:
        """Trade the credential, if there is one, unless the token that it was traded for lasts a while."""
        if self._credential is None or asyncio.get_running_loop().time() < self._renew_at:
            return
        async with self._renewing:
            if asyncio.get_running_loop().time() >= self._renew_at:
                await self.renew()

    async def renew(self) -> session_service_pb2.Session:
        """Trade the credential for a new access token."""
        assert self._credential is not None, "sign in first"
        asked_at = asyncio.get_running_loop().time()
        session = await self._credential.trade(self._sessions, self._attempt)
        lasts = session.expire_time.ToDatetime(UTC) - _now()
        self._renew_at = asked_at + max(0.0, lasts.total_seconds() - RENEW_BEFORE_SECONDS)
        self.token = session.access_token
        return session

    async def create_api_key(
        self,
        display_name: str,
        scopes: Sequence[str] = (),
        *,
        lasts: timedelta | None = None,
        request_id: str = "",
    ) -> session_service_pb2.ApiKey:
        """Make an API key; its `secret` is shown here and never again."""
        key = session_service_pb2.ApiKey(display_name=display_name, scopes=scopes)
        if lasts is not None:
            key.expire_time.FromDatetime(_now() + lasts)
        request = session_service_pb2.CreateApiKeyRequest(
            parent="accounts/me", api_key=key, request_id=request_id or new_request_id()
        )
        return await self._call(self._sessions.CreateApiKey, request)

    async def list_api_keys(self) -> list[session_service_pb2.ApiKey]:
        """All API keys of the account, newest first, without secrets."""
        request = session_service_pb2.ListApiKeysRequest(parent="accounts/me")
        return await self._list(self._sessions.ListApiKeys, request, lambda page: page.api_keys)

    async def delete_api_key(self, name: str) -> None:
        """Revoke the key `accounts/{account}/apiKeys/{key}`; tokens already traded for it last 15 min at most."""
        await self._call(self._sessions.DeleteApiKey, session_service_pb2.DeleteApiKeyRequest(name=name))

    # Orders

    async def estimate_order(
        self, sdl: str, *, mode: Mode | None = None, terms: order_pb2.Terms | None = None
    ) -> order_service_pb2.EstimateOrderResponse:
        """What an order would cost now, on its own and on other terms, and the funds that it needs. Stores nothing."""
        wanted = mode or Mode()
        request = order_service_pb2.EstimateOrderRequest(
            sdl=sdl, terms=terms, match_mode=wanted.match_mode, auction_rule=wanted.auction_rule
        )
        if wanted.auction_window is not None:
            request.auction_window.FromTimedelta(wanted.auction_window)
        return await self._call(self._orders.EstimateOrder, request)

    async def create_order(
        self,
        *,
        sdl: str | None = None,
        order: order_pb2.Order | None = None,
        mode: Mode | None = None,
        terms: order_pb2.Terms | None = None,
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> order_pb2.Order:
        """Place an order, from SDL text or from an Order; the same `request_id` never places two.

        A `mode` says how it meets offers, `terms` replace those of the order, `labels` are added to its own; all are for
        orders that come as text.
        """
        assert (sdl is None) != (order is None), "give the text or the order"
        wanted = mode or Mode()
        request = order_service_pb2.CreateOrderRequest(
            request_id=request_id or new_request_id(),
            order=order,
            match_mode=wanted.match_mode,
            auction_rule=wanted.auction_rule,
            terms=terms,
            labels=labels,
        )
        if wanted.auction_window is not None:
            request.auction_window.FromTimedelta(wanted.auction_window)
        if sdl is not None:
            request.sdl = sdl
        return await self._call(self._orders.CreateOrder, request)

    async def get_order(self, name: str) -> order_pb2.Order:
        """The order `orders/{order}` as it is now."""
        return await self._call(self._orders.GetOrder, order_service_pb2.GetOrderRequest(name=name))

    async def list_orders(
        self,
        *,
        states: Sequence["order_pb2.OrderState.ValueType"] = (),
        labels: Mapping[str, str] | None = None,
        earliest: Timestamp | None = None,
        latest: Timestamp | None = None,
    ) -> list[order_pb2.Order]:
        """Orders of the account, newest first: in these states (empty: all), with all labels, created from ``earliest``
        on and before ``latest``.
        """
        request = order_service_pb2.ListOrdersRequest(
            states=states, labels=labels, min_create_time=earliest, max_create_time=latest
        )
        return await self._list(self._orders.ListOrders, request, lambda page: page.orders)

    async def update_order(
        self, order: order_pb2.Order, paths: Sequence[str], *, request_id: str = ""
    ) -> order_pb2.Order:
        """Change the fields of a live order that `paths` name; its groups are found by `group_id`.

        With `order.etag` set, ETAG_MISMATCH where the order changed since that was read. A changed workload runs as a
        new generation once it has a match; `list_leases` tells which `group_revision` runs.
        """
        request = order_service_pb2.UpdateOrderRequest(
            order=order, update_mask=FieldMask(paths=paths), request_id=request_id or new_request_id()
        )
        return await self._call(self._orders.UpdateOrder, request)

    async def close_order(self, name: str, *, reason: str = "", request_id: str = "") -> order_pb2.Order:
        """Ask the market to end an order; `wait_order` tells when its money is back."""
        request = order_service_pb2.CloseOrderRequest(
            name=name, reason=reason, request_id=request_id or new_request_id()
        )
        return await self._call(self._orders.CloseOrder, request)

    async def top_up_order(self, name: str, amount: money_pb2.Amount, *, request_id: str = "") -> charge_pb2.Escrow:
        """Hold more of the free balance for an order; one that is paused for want of funds goes on with it."""
        request = settlement_service_pb2.TopUpEscrowRequest(
            name=name.replace("orders/", "escrows/", 1), amount=amount, request_id=request_id or new_request_id()
        )
        return await self._call(self._escrows.TopUpEscrow, request)

    async def explain_order(self, name: str) -> order_service_pb2.ExplainOrderResponse:
        """Why an order has its match, or none."""
        return await self._call(self._orders.ExplainOrder, order_service_pb2.ExplainOrderRequest(name=name))

    def watch_order(self, name: str, *, after: int = 0) -> AsyncGenerator[order_service_pb2.WatchOrderResponse, None]:
        """The order as it is, then each change after that number; goes on by itself where a broken stream stopped."""
        request = order_service_pb2.WatchOrderRequest(name=name, after_sequence=after)
        return self._follow(self._orders.WatchOrder, request, lambda step: step.transition.sequence)

    async def order_history(self, name: str) -> list[order_pb2.OrderTransition]:
        """All changes of an order and its groups so far, oldest first; of closed orders too."""
        found: list[order_pb2.OrderTransition] = []
        async for step in self.watch_order(name):
            if step.HasField("transition"):
                found.append(step.transition)
            if (found[-1].sequence if found else 0) >= step.latest_sequence:
                break
        return found

    async def wait_order(
        self, name: str, states: Sequence[int], *, seconds: float, on_step: Callable[[str], None] = lambda _: None
    ) -> order_pb2.Order:
        """The order once it is in one of `states`. Raises TimeoutError, or FallowError when it closed instead."""
        async with asyncio.timeout(seconds):
            async for step in self.watch_order(name):
                on_step(order_pb2.OrderState.Name(step.order.state).removeprefix("ORDER_STATE_"))
                if step.order.state in states:
                    return step.order
        order = await self.get_order(name)
        raise FallowError(
            "FAILED_PRECONDITION",
            "ORDER_CLOSED",
            f"{name} closed: {order.close_detail}",
            action=f"See what happened by `fallow order history {name}`, then order anew.",
        )

    # Leases

    async def list_leases(self, order: str) -> list[lease_pb2.Lease]:
        """The leases of an order, newest first."""
        request = lease_service_pb2.ListLeasesRequest(order=order)
        return await self._list(self._leases.ListLeases, request, lambda page: page.leases)

    async def relinquish_lease(self, lease: str, reason: str = "", *, request_id: str = "") -> lease_pb2.Lease:
        """Give up a lease of one of the caller's sites; its group is leased elsewhere."""
        request = lease_service_pb2.RelinquishLeaseRequest(
            name=lease, reason=reason, request_id=request_id or new_request_id()
        )
        return await self._call(self._leases.RelinquishLease, request)

    # Auctions

    async def list_auctions(self, order: str = "") -> list[market_service_pb2.Auction]:
        """Auctions, newest first: of one of the account's orders, or all that it may see."""
        request = market_service_pb2.ListAuctionsRequest(order=order)
        return await self._list(self._auctions.ListAuctions, request, lambda page: page.auctions)

    async def get_auction(self, name: str) -> market_service_pb2.Auction:
        """The auction `auctions/{auction}` as it is now."""
        return await self._call(self._auctions.GetAuction, market_service_pb2.GetAuctionRequest(name=name))

    async def list_bids(self, auction: str) -> list[market_service_pb2.Bid]:
        """The bids of an auction that the account may read, best first."""
        request = market_service_pb2.ListBidsRequest(parent=auction)
        return await self._list(self._auctions.ListBids, request, lambda page: page.bids)

    async def create_bid(
        self, auction: str, provider: str, price: money_pb2.Price, *, request_id: str = ""
    ) -> market_service_pb2.Bid:
        """Place a sealed bid of a provider of the account, in the place of the one that it had."""
        request = market_service_pb2.CreateBidRequest(
            parent=auction,
            bid=market_service_pb2.Bid(provider=provider, price=price),
            request_id=request_id or new_request_id(),
        )
        return await self._call(self._auctions.CreateBid, request)

    async def accept_bid(self, bid: str, *, request_id: str = "") -> market_service_pb2.Auction:
        """Pick the bid `auctions/{auction}/bids/{bid}` of a manual auction."""
        request = market_service_pb2.AcceptBidRequest(name=bid, request_id=request_id or new_request_id())
        return await self._call(self._auctions.AcceptBid, request)

    # Market

    async def get_provider(self, name: str) -> provider_pb2.Provider:
        """One provider; anybody may ask."""
        return await self._call(self._registry.GetProvider, provider_service_pb2.GetProviderRequest(name=name))

    async def set_draining(self, provider: str, *, draining: bool) -> provider_pb2.Provider:
        """Have a provider of the caller take no new leases, or take them again; again changes nothing."""
        if draining:
            return await self._call(
                self._registry.DrainProvider, provider_service_pb2.DrainProviderRequest(name=provider)
            )
        return await self._call(
            self._registry.ResumeProvider, provider_service_pb2.ResumeProviderRequest(name=provider)
        )

    async def set_auditor_signatures(
        self, name: str, signatures: Sequence[provider_pb2.AuditorSignature]
    ) -> provider_pb2.Provider:
        """Hand in all auditors' signatures of a provider of the caller's; the market checks each."""
        provider = provider_pb2.Provider(name=name, auditor_signatures=signatures)
        request = provider_service_pb2.UpdateProviderRequest(
            provider=provider, update_mask=FieldMask(paths=["auditor_signatures"])
        )
        return await self._call(self._registry.UpdateProvider, request)

    async def list_providers(
        self, request: provider_service_pb2.ListProvidersRequest | None = None
    ) -> list[provider_pb2.Provider]:
        """Providers, newest first: all, or those that the request's filters name."""
        wanted = provider_service_pb2.ListProvidersRequest()
        if request is not None:
            wanted.CopyFrom(request)
        return await self._list(self._registry.ListProviders, wanted, lambda page: page.providers)

    async def list_offers(self) -> list[provider_pb2.Offer]:
        """All offers, newest first."""
        request = provider_service_pb2.ListOffersRequest()
        return await self._list(self._registry.ListOffers, request, lambda page: page.offers)

    async def market_book(self, model: str = "") -> list[market_service_pb2.Book.Entry]:
        """What could be leased now, best first within a model; of one model or of all."""
        request = market_service_pb2.GetBookRequest(model=model)
        return await self._list(self._market.GetBook, request, lambda page: page.entries)

    async def price_index(self, model: str = "") -> list[market_service_pb2.PriceIndex.Entry]:
        """Prices by model: on offer, of the last trade, and of what was leased over a day and a week."""
        request = market_service_pb2.GetPriceIndexRequest(model=model)
        return await self._list(self._market.GetPriceIndex, request, lambda page: page.entries)

    async def utilisation(
        self, model: str = "", *, by_region: bool = False
    ) -> list[market_service_pb2.Utilisation.Entry]:
        """Devices known, healthy and leased, by model."""
        request = market_service_pb2.GetUtilisationRequest(model=model, by_region=by_region)
        return await self._list(self._market.GetUtilisation, request, lambda page: page.entries)

    def stream_trades(
        self, model: str = "", *, after: int = 0
    ) -> AsyncGenerator[market_service_pb2.StreamTradesResponse, None]:
        """Trades from now on, or all after one that was seen; goes on by itself where a broken stream stopped."""
        request = market_service_pb2.StreamTradesRequest(model=model, after_sequence=after)
        return self._follow(self._market.StreamTrades, request, lambda trade: trade.sequence)

    # Money

    async def balance(self, asset: str) -> ledger_pb2.Balance:
        """What the account has in an asset: free, held, earned, on its way."""
        request = settlement_service_pb2.GetBalanceRequest(name=f"accounts/me/balances/{asset}")
        return await self._call(self._funds.GetBalance, request)

    async def deposit_instructions(self, asset: str) -> settlement_service_pb2.DepositInstructions:
        """Where and how to deposit an asset."""
        request = settlement_service_pb2.GetDepositInstructionsRequest(asset=asset)
        return await self._call(self._funds.GetDepositInstructions, request)

    async def wait_balance(self, least: money_pb2.Amount, *, seconds: float) -> ledger_pb2.Balance:
        """The balance once its free part is at least `least`. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                balance = await self.balance(least.asset)
                if balance.free.micros >= least.micros:
                    return balance
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def withdraw(
        self, amount: money_pb2.Amount, payee: str, *, request_id: str | None = None
    ) -> ledger_pb2.Withdrawal:
        """Take earnings, then free balance, out to an address. FallowError INSUFFICIENT_FUNDS where it is too much."""
        request = settlement_service_pb2.CreateWithdrawalRequest(
            parent="accounts/me",
            withdrawal=ledger_pb2.Withdrawal(amount=amount, payee=payee),
            request_id=request_id or new_request_id(),
        )
        return await self._call(self._funds.CreateWithdrawal, request)

    async def list_withdrawals(self) -> list[ledger_pb2.Withdrawal]:
        """Withdrawals of the account, newest first."""
        request = settlement_service_pb2.ListWithdrawalsRequest(parent="accounts/me")
        return await self._list(self._funds.ListWithdrawals, request, lambda page: page.withdrawals)

    async def get_claim(self) -> settlement_service_pb2.Claim:
        """What the account may claim at the vault. FallowError NOTHING_TO_CLAIM where no anchored root adds anything."""
        return await self._call(self._funds.GetClaim, settlement_service_pb2.GetClaimRequest(parent="accounts/me"))

    async def set_balance_payee(self, payee: str, *, keep: bool = False) -> str:
        """Name who gets the account's balance if the operator falls silent for good; answers who it is now."""
        request = settlement_service_pb2.SetBalancePayeeRequest(parent="accounts/me", payee=payee, keep=keep)
        return (await self._call(self._funds.SetBalancePayee, request)).payee

    async def get_balance_claim(self) -> settlement_service_pb2.Claim:
        """What a claim of the account's balance needs, to be kept. FallowError NOTHING_TO_CLAIM where no root holds it yet."""
        request = settlement_service_pb2.GetBalanceClaimRequest(parent="accounts/me")
        return (await self._call(self._funds.GetBalanceClaim, request)).claim

    async def wait_claim(self, *, seconds: float) -> settlement_service_pb2.Claim:
        """A claim of all that the account has withdrawn, once a root covers it and its window is over.

        Raises TimeoutError, and FallowError NOTHING_TO_CLAIM where all was claimed before.
        """
        async with asyncio.timeout(seconds):
            while True:
                withdrawals = await self.list_withdrawals()
                if all(one.state != ledger_pb2.WITHDRAWAL_STATE_PENDING for one in withdrawals):
                    claim = await self.get_claim()
                    total = sum(one.amount.micros for one in withdrawals)
                    if claim.cumulative_micros == total and may_be_claimed(claim):
                        return claim
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def statement(self, month: str) -> settlement_service_pb2.Statement:
        """What the account had at both ends of a month (such as 2026-11, in UTC), and all that moved it in between."""
        name = f"accounts/me/statements/{month}"
        request = settlement_service_pb2.GetStatementRequest(name=name, page_size=STATEMENT_PAGE)
        whole = await self._call(self._receipts.GetStatement, request)
        while whole.next_page_token:
            request.page_token = whole.next_page_token
            page = await self._call(self._receipts.GetStatement, request)
            whole.movements.extend(page.movements)
            # A month that is not over grows while it is read: the sums are those of the last page.
            del whole.closing[:]
            whole.closing.extend(page.closing)
            whole.next_page_token = page.next_page_token
        return whole

    async def list_charges(self, order: str = "", *, within: timedelta | None = None) -> list[charge_pb2.Charge]:
        """Charges to or for the caller, newest first: of one order or of all; those posted within the last span, or all."""
        request = settlement_service_pb2.ListChargesRequest(order=order)
        since = None if within is None else _now() - within

        def wanted(page: settlement_service_pb2.ListChargesResponse) -> list[charge_pb2.Charge]:
            if since is None:
                return list(page.charges)
            kept = [charge for charge in page.charges if charge.create_time.ToDatetime(UTC) >= since]
            if len(kept) < len(page.charges):
                # What follows is older still, so no further page is asked for.
                page.ClearField("next_page_token")
            return kept

        return await self._list(self._receipts.ListCharges, request, wanted)

    async def get_receipt(self, charge: str) -> charge_pb2.Receipt:
        """A charge with its proof. FallowError RECEIPT_NOT_READY until its batch is anchored."""
        return await self._call(self._receipts.GetReceipt, settlement_service_pb2.GetReceiptRequest(charge=charge))

    async def wait_receipt(self, charge: str, *, seconds: float) -> charge_pb2.Receipt:
        """The receipt once its batch is on the chain. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    receipt = await self.get_receipt(charge)
                except FallowError as error:
                    if error.reason != "RECEIPT_NOT_READY":
                        raise
                else:
                    if receipt.batch.state >= charge_pb2.BATCH_STATE_MINED:
                        return receipt
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def list_batches(self) -> list[charge_pb2.Batch]:
        """All batches, newest first."""
        request = settlement_service_pb2.ListBatchesRequest()
        return await self._list(self._receipts.ListBatches, request, lambda page: page.batches)
