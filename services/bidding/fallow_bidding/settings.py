"""What the bidding service can be told from outside."""

from typing import Self

from pydantic import Field, model_validator

from fallow_bidding.domain.markets import Markets
from fallow_bidding.domain.policy import Policy
from fallow_chassis.settings import ServiceSettings


class BiddingSettings(ServiceSettings):
    """Settings of the bidding service, beside those of every service. Times are seconds."""

    needed = ("database_url", "nats_url", "identity_key_file", "jwks", "order_address")

    market: str = Field(default="world", description="The market that this service keeps.")
    markets: str = Field(
        default="", description="Regions with a market of their own, as region=market, separated by commas."
    )
    default_market: str = Field(default="world", description="The market of all other regions.")
    assets: str = Field(default="usdc", description="Assets that are traded here, separated by commas.")
    order_address: str = Field(default="", description="host:port of the order service, as providers reach it.")
    nats_account_seed_file: str = Field(
        default="",
        description="File with the NATS account's seed, which signs providers' users; empty: NATS asks none.",
    )
    provider_nats_url: str = Field(default="", description="NATS as providers reach it; empty: FALLOW_NATS_URL.")
    heartbeat_interval_seconds: float = Field(default=5, gt=0, le=60, description="Usual time between two heartbeats.")
    unreachable_seconds: float = Field(default=15, gt=0, description="Silence after which no new lease is given.")
    grace_seconds: float = Field(default=60, gt=0, description="Silence after which leases are lost.")
    self_stop_seconds: float = Field(default=90, gt=0, description="Silence after which an agent stops by itself.")
    overlap_margin_seconds: float = Field(default=10, ge=0, description="Wait on top of the self-stop.")
    accept_timeout_seconds: float = Field(default=15, gt=0, description="Longest wait for a command to be accepted.")
    start_timeout_seconds: float = Field(default=600, gt=0, description="Longest time from acceptance to readiness.")
    resend_seconds: float = Field(default=2, gt=0, description="Time between two sendings of one command.")
    spot_run_seconds_min: float = Field(default=600, ge=0, description="Least running time of a spot lease.")
    preempt_notice_seconds: float = Field(default=30, ge=30, description="Notice of a spot lease's end.")
    failures_max: int = Field(default=5, ge=1, description="Workload failures of a group after which its order ends.")
    decisions_folder: str = Field(
        default="",
        description="Folder for the decisions about each order, for `fallow market replay`; empty: none.",
    )

    @model_validator(mode="after")
    def _keeps_a_market_that_is(self) -> Self:
        """Refuse regions that are no pairs, and an engine for a market that nobody belongs to, before anything starts."""
        markets = Markets.parse(self.default_market, self.markets)
        if self.market not in {markets.default, *markets.by_region.values()}:
            raise ValueError(
                f"no region is in the market {self.market!r}; FALLOW_MARKETS and FALLOW_DEFAULT_MARKET name them"
            )
        return self

    def policy(self) -> Policy:
        """The market's rules."""
        return Policy(
            market=self.market,
            markets=Markets.parse(self.default_market, self.markets),
            assets=frozenset(part.strip() for part in self.assets.split(",") if part.strip()),
            heartbeat_interval_ms=_ms(self.heartbeat_interval_seconds),
            unreachable_ms=_ms(self.unreachable_seconds),
            grace_ms=_ms(self.grace_seconds),
            self_stop_ms=_ms(self.self_stop_seconds),
            overlap_margin_ms=_ms(self.overlap_margin_seconds),
            accept_timeout_ms=_ms(self.accept_timeout_seconds),
            start_timeout_ms=_ms(self.start_timeout_seconds),
            resend_ms=_ms(self.resend_seconds),
            failures_max=self.failures_max,
            spot_run_ms_min=_ms(self.spot_run_seconds_min),
            preempt_notice_ms=_ms(self.preempt_notice_seconds),
        )


def _ms(seconds: float) -> int:
    """Whole milliseconds."""
    return round(seconds * 1_000)
