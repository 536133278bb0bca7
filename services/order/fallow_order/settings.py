"""What the order service can be told from outside; the only place that reads the environment."""

from pydantic import Field

from fallow_chassis.settings import ServiceSettings


class OrderSettings(ServiceSettings):
    """Settings of the order service, each from ``FALLOW_`` and its name in capitals."""

    needed = ("database_url", "identity_key_file", "jwks", "settlement_address", "bidding_address", "workload_keys")

    settlement_address: str = Field(default="", description="host:port of settlement's gRPC.")
    bidding_address: str = Field(default="", description="host:port of bidding's gRPC.")
    workload_keys: str = Field(
        default="", repr=False, description="Keys for workloads at rest: id:base64 of 32 bytes, …; the first one seals."
    )
    chain_id: int = Field(default=31_337, ge=1, description="EIP-155 id of the chain that sign-in messages name.")
    sign_in_domain: str = Field(
        default="localhost", description="Domain that sign-in messages name (RFC 3986 authority)."
    )
    sign_in_uri: str = Field(default="", description="URI that sign-in messages name; empty: https:// and the domain.")
    sign_in_seconds: int = Field(default=300, ge=30, le=3_600, description="How long a challenge may be answered.")
    access_token_seconds: int = Field(default=900, ge=30, le=900, description="How long an access token lasts.")
    oidc_issuers: str = Field(
        default="",
        description='Issuers whose identity tokens are taken, a JSON list of {"issuer", "audience", "jwks", '
        '"authorized_parties"}; without jwks the address comes by discovery.',
    )
    audit_accounts: str = Field(
        default="", description="Accounts or addresses, separated by commas, whose tokens get ledger.audit."
    )
    treasury_accounts: str = Field(
        default="",
        description="Accounts or addresses, separated by commas, whose tokens get ledger.write and programmes.write.",
    )
    sdl_block_milliseconds: int = Field(default=6_098, ge=1, description="Time of a block, for prices in SDL files.")
    sdl_rates: str = Field(
        default="uakt=500000",
        description="denomination=micros, …: what a million of it is worth in sdl_asset; uact and USDC are known.",
    )
    sdl_asset: str = Field(default="usdc", description="Asset that limits of SDL files are stated in.")
    sdl_persistent_class: str = Field(
        default="beta2", description="Storage class of a persistent volume that names none in its SDL file."
    )
    max_live_orders: int = Field(
        default=1_000, ge=0, description="Orders of one account that are not CLOSED, at most; 0 sets no limit."
    )
    max_api_keys: int = Field(
        default=100, ge=0, description="API keys of one account that have not run out, at most; 0 sets no limit."
    )
    max_sign_in_challenges: int = Field(
        default=100, ge=0, description="Challenges that one caller's address leaves unanswered, at most; 0: no limit."
    )
    pending_finish_seconds: float = Field(
        default=5, gt=0, description="Age at which an order left PENDING is finished by the sweeper."
    )
    pending_release_seconds: float = Field(
        default=120, gt=0, description="Age at which an order left PENDING is withdrawn and its escrow released."
    )
