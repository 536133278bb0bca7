"""What every service can be told from outside: environment variables that start with ``FALLOW_``.

A service subclasses ``ServiceSettings`` in its own ``settings.py``, which is the only place that reads the environment.
A field that some services do not need is empty by default; who needs it asks ``required``, whose error names the
variable. Secrets (addresses that may hold a password, key files' contents) are never in a repr.
"""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "FALLOW_"


class SettingsError(Exception):
    """A setting is missing or makes no sense; the message names the variable."""


class ServiceSettings(BaseSettings):
    """The settings that all services share. Addresses are ``host:port``; times are seconds."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    needed: ClassVar[tuple[str, ...]] = ()
    """Fields without which the service does not serve; each service names its own."""

    listen: str = Field(default="127.0.0.1:0", description="Where gRPC listens; port 0 takes a free one.")
    port_file: str = Field(default="", description="A file that gets the bound address once the service serves.")
    database_url: str = Field(default="", repr=False, description="postgresql:// address of this service's database.")
    serving_role: str = Field(
        default="",
        description="Role that `migrate` gives the rights to serve, for a `serve` that owns no table; empty: none.",
    )
    pool_size: int = Field(default=10, ge=1, le=200, description="Connections to the database at most.")
    nats_url: str = Field(default="", repr=False, description="nats:// address.")
    nats_credentials_file: str = Field(default="", description="A .creds file for NATS; empty for none.")
    stream_url: str = Field(
        default="",
        repr=False,
        description="The event stream: nats://… (JetStream), kafka://host:port,host:port, or empty for nats_url.",
    )
    identity_key_file: str = Field(default="", description="PEM file of this service's Ed25519 private key.")
    jwks: str = Field(default="", description="Path or http address of the public keys of all services.")
    jwks_refresh_seconds: float = Field(
        default=30, ge=0.1, le=300, description="How often the public keys are read again: how soon a new key counts."
    )
    otlp_endpoint: str = Field(default="", description="Where traces and metrics go (OTLP over gRPC); empty: nowhere.")
    log_format: Literal["console", "json"] = Field(default="console", description="How log events are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least level kept.")
    rate_per_second: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Calls a second that one account, or one address without a token, may make; 0 sets no limit.",
    )
    rate_burst: int = Field(default=500, ge=1, le=1_000_000, description="Calls at once of a caller who was quiet.")
    drain_wait_seconds: float = Field(
        default=0.5, ge=0, le=60, description="How long health says NOT_SERVING before the server stops."
    )
    drain_seconds: float = Field(default=10, ge=0, le=300, description="How long calls in flight may go on in a drain.")

    def required(self, field: str) -> str:
        """The text of a field that this service cannot do without; SettingsError names the variable if it is empty."""
        value = getattr(self, field)
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{_PREFIX}{field.upper()} is not set")
        return value

    def check_needed(self) -> None:
        """SettingsError names the first needed variable that is empty; `serve` and `check` both look first."""
        for field in self.needed:
            self.required(field)
