"""Every method of the API, and what becomes of it when a second account tries the first one's names on it.

`$name` stands for a fact of the first account; the test fills it in, and, for the comparison, a name of the same shape
that nobody has. A method that is missing here fails the test.
"""

from enum import Enum
from typing import Any

MODULES = (
    "fallow.bidding.v1.lease_service_pb2",
    "fallow.bidding.v1.market_service_pb2",
    "fallow.bidding.v1.provider_service_pb2",
    "fallow.order.v1.order_service_pb2",
    "fallow.order.v1.session_service_pb2",
    "fallow.provider.v1.provider_service_pb2",
    "fallow.settlement.v1.programme_service_pb2",
    "fallow.settlement.v1.settlement_service_pb2",
)


class Kind(Enum):
    """What a stranger with every scope of an account learns."""

    HIDDEN = "NOT_FOUND, word for word as for a name that nobody has"
    MINE = "an answer that holds nothing of the first account's"
    CALLER = "it works on the caller's own; it names nobody else's"
    PUBLIC = "it is open to everybody"
    SERVICE = "PERMISSION_DENIED: for services, or for a scope that no account has by itself"
    OWNER = "PERMISSION_DENIED: an agent is its owner's, and no secret"
    GRANT = "PERMISSION_DENIED, whoever calls without a grant on that very generation"


REQUEST_ID = {"request_id": "$request"}
AMOUNT = {"asset": "usdc", "micros": "1"}

METHODS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "fallow.bidding.v1.LeaseService/GetLease": (Kind.HIDDEN, {"name": "$lease"}),
    "fallow.bidding.v1.LeaseService/ListLeases": (Kind.MINE, {"order": "$order"}),
    "fallow.bidding.v1.LeaseService/WatchLease": (Kind.HIDDEN, {"name": "$lease"}),
    "fallow.bidding.v1.LeaseService/IssueGrant": (Kind.HIDDEN, {"lease": "$lease", "rights": ["logs.read"]}),
    "fallow.bidding.v1.LeaseService/RelinquishLease": (Kind.HIDDEN, {"name": "$lease", **REQUEST_ID}),
    "fallow.bidding.v1.LeaseService/EndOrder": (Kind.SERVICE, {"order": "$order", "reason": 1, **REQUEST_ID}),
    "fallow.bidding.v1.LeaseService/SetOrderSuspended": (
        Kind.SERVICE,
        {"order": "$order", "suspended": False, "number": "1"},
    ),
    "fallow.bidding.v1.MatchService/EstimateMatch": (Kind.SERVICE, {}),
    "fallow.bidding.v1.MatchService/ExplainMatch": (Kind.SERVICE, {"order": "$order"}),
    "fallow.bidding.v1.AuctionService/GetAuction": (Kind.HIDDEN, {"name": "$auction"}),
    "fallow.bidding.v1.AuctionService/ListAuctions": (Kind.MINE, {}),
    "fallow.bidding.v1.AuctionService/CreateBid": (
        Kind.HIDDEN,
        {
            "parent": "$auction",
            "bid": {"provider": "$provider", "price": {"asset": "usdc", "micros_per_hour": "1"}},
            **REQUEST_ID,
        },
    ),
    "fallow.bidding.v1.AuctionService/ListBids": (Kind.HIDDEN, {"parent": "$auction"}),
    "fallow.bidding.v1.AuctionService/AcceptBid": (Kind.HIDDEN, {"name": "$auction/bids/$id", **REQUEST_ID}),
    "fallow.bidding.v1.MarketDataService/GetBook": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.MarketDataService/GetPriceIndex": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.MarketDataService/GetUtilisation": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.MarketDataService/StreamTrades": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.ProviderRegistryService/CreateProvider": (Kind.CALLER, {}),
    "fallow.bidding.v1.ProviderRegistryService/GetProvider": (Kind.PUBLIC, {"name": "$provider"}),
    "fallow.bidding.v1.ProviderRegistryService/ListProviders": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.ProviderRegistryService/UpdateProvider": (
        Kind.HIDDEN,
        {"provider": {"name": "$provider", "display_name": "x"}, "update_mask": "displayName"},
    ),
    "fallow.bidding.v1.ProviderRegistryService/DrainProvider": (Kind.HIDDEN, {"name": "$provider"}),
    "fallow.bidding.v1.ProviderRegistryService/ResumeProvider": (Kind.HIDDEN, {"name": "$provider"}),
    "fallow.bidding.v1.ProviderRegistryService/IssueProviderCredentials": (Kind.HIDDEN, {"name": "$provider"}),
    "fallow.bidding.v1.ProviderRegistryService/GetInventory": (Kind.HIDDEN, {"name": "$provider/inventory"}),
    "fallow.bidding.v1.ProviderRegistryService/CreateOffer": (
        Kind.HIDDEN,
        {
            "offer": {
                "provider": "$provider",
                "prices": {"asset": "usdc", "gpu_micros_per_hour_by_model": {"h100": "1"}},
            },
            **REQUEST_ID,
        },
    ),
    "fallow.bidding.v1.ProviderRegistryService/GetOffer": (Kind.PUBLIC, {"name": "$offer"}),
    "fallow.bidding.v1.ProviderRegistryService/ListOffers": (Kind.PUBLIC, {}),
    "fallow.bidding.v1.ProviderRegistryService/WithdrawOffer": (Kind.HIDDEN, {"name": "$offer"}),
    "fallow.order.v1.OrderService/CreateOrder": (Kind.CALLER, {"sdl": "x", **REQUEST_ID}),
    "fallow.order.v1.OrderService/GetOrder": (Kind.HIDDEN, {"name": "$order"}),
    "fallow.order.v1.OrderService/ListOrders": (Kind.MINE, {}),
    "fallow.order.v1.OrderService/UpdateOrder": (
        Kind.HIDDEN,
        {"order": {"name": "$order", "labels": {"a": "b"}}, "update_mask": "labels", **REQUEST_ID},
    ),
    "fallow.order.v1.OrderService/CloseOrder": (Kind.HIDDEN, {"name": "$order", **REQUEST_ID}),
    "fallow.order.v1.OrderService/WatchOrder": (Kind.HIDDEN, {"name": "$order"}),
    "fallow.order.v1.OrderService/EstimateOrder": (Kind.CALLER, {"sdl": "x"}),
    "fallow.order.v1.OrderService/ExplainOrder": (Kind.HIDDEN, {"name": "$order"}),
    "fallow.order.v1.WorkloadService/GetWorkload": (Kind.GRANT, {"lease": "$lease", "generation": "1"}),
    "fallow.order.v1.SessionService/CreateSignInChallenge": (Kind.PUBLIC, {"address": "0x" + "1" * 40}),
    "fallow.order.v1.SessionService/SignIn": (Kind.PUBLIC, {"message": "x", "signature": "eA=="}),
    "fallow.order.v1.SessionService/ExchangeApiKey": (Kind.PUBLIC, {"secret": "x"}),
    "fallow.order.v1.SessionService/ExchangeOidcToken": (Kind.PUBLIC, {"id_token": "x"}),
    "fallow.order.v1.SessionService/GetAccount": (Kind.HIDDEN, {"name": "$account"}),
    "fallow.order.v1.SessionService/CreateApiKey": (
        Kind.HIDDEN,
        {"parent": "$account", "api_key": {"display_name": "x"}, **REQUEST_ID},
    ),
    "fallow.order.v1.SessionService/ListApiKeys": (Kind.HIDDEN, {"parent": "$account"}),
    "fallow.order.v1.SessionService/DeleteApiKey": (Kind.HIDDEN, {"name": "$key"}),
    "fallow.provider.v1.WorkloadAccessService/GetWorkloadStatus": (Kind.GRANT, {"lease": "$lease"}),
    "fallow.provider.v1.WorkloadAccessService/StreamLogs": (Kind.GRANT, {"lease": "$lease"}),
    "fallow.provider.v1.WorkloadAccessService/StreamEvents": (Kind.GRANT, {"lease": "$lease"}),
    "fallow.provider.v1.WorkloadAccessService/StreamStats": (Kind.GRANT, {"lease": "$lease"}),
    "fallow.provider.v1.WorkloadAccessService/Exec": (
        Kind.GRANT,
        {"start": {"lease": "$lease", "command": ["true"]}},
    ),
    "fallow.provider.v1.WorkloadAccessService/ForwardPort": (Kind.GRANT, {"start": {"lease": "$lease"}}),
    "fallow.provider.v1.AgentService/GetAgentStatus": (Kind.OWNER, {}),
    "fallow.settlement.v1.EscrowService/OpenEscrow": (Kind.SERVICE, {"name": "$escrow", **REQUEST_ID}),
    "fallow.settlement.v1.EscrowService/BatchOpenEscrows": (Kind.SERVICE, {}),
    "fallow.settlement.v1.EscrowService/TopUpEscrow": (
        Kind.HIDDEN,
        {"name": "$escrow", "amount": AMOUNT, **REQUEST_ID},
    ),
    "fallow.settlement.v1.EscrowService/ResizeEscrow": (Kind.SERVICE, {"name": "$escrow", **REQUEST_ID}),
    "fallow.settlement.v1.EscrowService/ReleaseEscrow": (Kind.SERVICE, {"name": "$escrow", **REQUEST_ID}),
    "fallow.settlement.v1.EscrowService/GetEscrow": (Kind.HIDDEN, {"name": "$escrow"}),
    "fallow.settlement.v1.FundsService/GetBalance": (Kind.HIDDEN, {"name": "$account/balances/usdc"}),
    "fallow.settlement.v1.FundsService/GetDepositInstructions": (Kind.CALLER, {"asset": "usdc"}),
    "fallow.settlement.v1.FundsService/ListDeposits": (Kind.HIDDEN, {"parent": "$account"}),
    "fallow.settlement.v1.FundsService/CreateWithdrawal": (
        Kind.HIDDEN,
        {"parent": "$account", "withdrawal": {"amount": AMOUNT, "payee": "0x" + "1" * 40}, **REQUEST_ID},
    ),
    "fallow.settlement.v1.FundsService/ListWithdrawals": (Kind.HIDDEN, {"parent": "$account"}),
    "fallow.settlement.v1.FundsService/GetClaim": (Kind.HIDDEN, {"parent": "$account"}),
    "fallow.settlement.v1.FundsService/GetBalanceClaim": (Kind.HIDDEN, {"parent": "$account"}),
    "fallow.settlement.v1.FundsService/SetBalancePayee": (
        Kind.HIDDEN,
        {"parent": "$account", "payee": "0x" + "ab" * 20},
    ),
    "fallow.settlement.v1.ReceiptService/GetCharge": (Kind.HIDDEN, {"name": "$charge"}),
    "fallow.settlement.v1.ReceiptService/ListCharges": (Kind.MINE, {"order": "$order"}),
    "fallow.settlement.v1.ReceiptService/GetReceipt": (Kind.HIDDEN, {"charge": "$charge"}),
    "fallow.settlement.v1.ReceiptService/GetBatch": (Kind.PUBLIC, {"name": "batches/1"}),
    "fallow.settlement.v1.ReceiptService/ListBatches": (Kind.PUBLIC, {}),
    "fallow.settlement.v1.ReceiptService/GetStatement": (Kind.HIDDEN, {"name": "$account/statements/2026-11"}),
    "fallow.settlement.v1.LedgerService/GetLedgerAccount": (Kind.SERVICE, {"name": "ledgerAccounts/$id"}),
    "fallow.settlement.v1.LedgerService/ListLedgerAccounts": (Kind.SERVICE, {}),
    "fallow.settlement.v1.LedgerService/ListTransfers": (Kind.SERVICE, {}),
    "fallow.settlement.v1.LedgerService/BatchCreateTransfers": (
        Kind.SERVICE,
        {"transfers": [{"name": "transfers/$id"}]},
    ),
    "fallow.settlement.v1.ProgrammeService/CreateProgramme": (Kind.SERVICE, REQUEST_ID),
    "fallow.settlement.v1.ProgrammeService/GetProgramme": (Kind.PUBLIC, {"name": "programmes/$id"}),
    "fallow.settlement.v1.ProgrammeService/ListProgrammes": (Kind.PUBLIC, {}),
    "fallow.settlement.v1.ProgrammeService/EndProgramme": (Kind.SERVICE, {"name": "programmes/$id"}),
    "fallow.settlement.v1.ProgrammeService/ListProgrammeShares": (Kind.PUBLIC, {"parent": "programmes/$id"}),
    "fallow.settlement.v1.ProgrammeService/CreatePromotion": (Kind.SERVICE, REQUEST_ID),
    "fallow.settlement.v1.ProgrammeService/EndPromotion": (Kind.SERVICE, {"name": "promotions/$id"}),
    "fallow.settlement.v1.ProgrammeService/ListPromotions": (Kind.CALLER, {}),
    "fallow.settlement.v1.ProgrammeService/ProposeCommunityGrant": (Kind.SERVICE, REQUEST_ID),
    "fallow.settlement.v1.ProgrammeService/ApproveCommunityGrant": (Kind.SERVICE, {"name": "communityGrants/$id"}),
    "fallow.settlement.v1.ProgrammeService/GetCommunityGrant": (Kind.PUBLIC, {"name": "communityGrants/$id"}),
    "fallow.settlement.v1.ProgrammeService/ListCommunityGrants": (Kind.PUBLIC, {}),
}
