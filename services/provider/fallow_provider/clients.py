"""The market and the order service behind the agent's ports.

``OwnerSession`` trades the owner's API key for access tokens; ``Registry`` registers the site with them; ``Workloads``
fetches workloads with a grant; ``NatsMarket`` speaks over NATS. Channels are opened here and closed by ``close``.
"""

import hashlib
from pathlib import Path
from typing import Final

import grpc

from fallow.bidding.v1 import provider_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.order.v1 import order_service_pb2, order_service_pb2_grpc, session_service_pb2, session_service_pb2_grpc
from fallow.provider.v1.market_link_pb2 import (
    Heartbeat,
    HeartbeatAcknowledgement,
    InventoryAcknowledgement,
    InventoryReport,
    LinkReply,
)
from fallow.type.v1.workload_pb2 import Workload
from fallow_chassis.clock import Clock
from fallow_chassis.errors import INTERNAL, DomainError, ErrorReason
from fallow_chassis.grpc_client import channel
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.settings import SettingsError
from fallow_chassis.wire import from_timestamp, resource_id
from fallow_provider.convert import provider_message, schedule_message
from fallow_provider.domain.inventory import Site

RENEW_BEFORE_SECONDS: Final = 60
MAX_KEY_CHARACTERS: Final = 256


class OwnerSession:
    """The owner's access token, traded for the API key and renewed before it runs out."""

    def __init__(self, order_address: str, api_key_file: str, clock: Clock) -> None:
        """The key file is read anew at each trade, so a changed key works without a restart."""
        self._channel = channel(order_address)
        self._sessions = session_service_pb2_grpc.SessionServiceStub(self._channel)
        self._api_key_file = Path(api_key_file)
        self._clock = clock
        self._session: session_service_pb2.Session | None = None

    async def renew(self) -> str:
        """The owner's account, with a token that still lives for a while; DomainError where the key is refused."""
        if self._session is None or self._is_ending(self._session):
            try:
                secret = self._api_key_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"FALLOW_API_KEY_FILE: {error}") from error
            if not 0 < len(secret) <= MAX_KEY_CHARACTERS:
                raise SettingsError("FALLOW_API_KEY_FILE holds no API key")
            request = session_service_pb2.ExchangeApiKeyRequest(secret=secret)
            self._session = await self._sessions.ExchangeApiKey(request)
        return self._session.account

    def token(self) -> str:
        """The present token; ``renew`` first."""
        assert self._session is not None, "renew before a call"
        return self._session.access_token

    async def close(self) -> None:
        """Let the channel go."""
        await self._channel.close(None)

    def _is_ending(self, session: session_service_pb2.Session) -> bool:
        """Whether the token's time is nearly over."""
        left = from_timestamp(session.expire_time) - self._clock.now()
        return left.total_seconds() < RENEW_BEFORE_SECONDS


class Registry:
    """Registers the site at the bidding service as its owner."""

    def __init__(self, bidding_address: str, session: OwnerSession) -> None:
        """Calls carry the session's token."""
        self._session = session
        self._channel = channel(bidding_address, session.token)
        self._registry = provider_service_pb2_grpc.ProviderRegistryServiceStub(self._channel)

    async def register(self, site: Site, public_key: bytes, address: str) -> provider_pb2.Provider:
        """The provider with this key, made at the first call; what has changed since is told to the market."""
        await self._session.renew()
        wanted = provider_message(site, public_key, address)
        # The same site asks with the same id; one that changed asks with another and gets the same provider by its key.
        digest = hashlib.sha256(wanted.SerializeToString(deterministic=True)).hexdigest()
        present = await self._registry.CreateProvider(
            provider_service_pb2.CreateProviderRequest(
                provider=wanted, request_id=f"agent-{public_key.hex()[:16]}-{digest[:32]}"
            )
        )
        same = (present.display_name, present.address, dict(present.attributes))
        if same != (wanted.display_name, wanted.address, dict(wanted.attributes)):
            request = provider_service_pb2.UpdateProviderRequest(provider=wanted)
            request.provider.name = present.name
            request.update_mask.paths.extend(["display_name", "attributes", "address"])
            present = await self._registry.UpdateProvider(request)
        return present

    async def find(self, display_name: str) -> str | None:
        """The name of the owner's provider that is called so, among its newest; None where there is none."""
        account = await self._session.renew()
        answer = await self._registry.ListProviders(provider_service_pb2.ListProvidersRequest(account=account))
        return next((found.name for found in answer.providers if found.display_name == display_name), None)

    async def credentials(self, provider: str) -> tuple[str, str]:
        """The text of the provider's NATS credentials, and the address of NATS."""
        await self._session.renew()
        answer = await self._registry.IssueProviderCredentials(
            provider_service_pb2.IssueProviderCredentialsRequest(name=provider)
        )
        return answer.nats_credentials, answer.nats_url

    async def offer(self, provider: str, site: Site, number: int) -> provider_pb2.Offer:
        """The standing offer of the site's prices; ``number`` counts the changes of the schedule."""
        await self._session.renew()
        offer = provider_pb2.Offer(provider=provider, prices=schedule_message(site.prices))
        request_id = f"agent-{resource_id(provider, 'providers')}-{number}-{schedule_digest(site)[:32]}"
        return await self._registry.CreateOffer(
            provider_service_pb2.CreateOfferRequest(offer=offer, request_id=request_id)
        )

    async def close(self) -> None:
        """Let the channel go."""
        await self._channel.close(None)


def schedule_digest(site: Site) -> str:
    """Names a price schedule: equal for equal prices."""
    return hashlib.sha256(schedule_message(site.prices).SerializeToString(deterministic=True)).hexdigest()


class Workloads:
    """Fetches workloads from the order service; one channel an address."""

    def __init__(self, default_address: str) -> None:
        """``default_address`` is asked where a command names none."""
        self._default_address = default_address
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def workload(self, order_address: str, grant: str, lease: str, generation: int) -> Workload:
        """The containers of a generation."""
        address = order_address or self._default_address
        opened = self._channels.get(address)
        if opened is None:
            opened = self._channels[address] = channel(address)
        answer = await order_service_pb2_grpc.WorkloadServiceStub(opened).GetWorkload(
            order_service_pb2.GetWorkloadRequest(lease=lease, generation=generation),
            metadata=(("authorization", f"Bearer {grant}"),),
        )
        return answer.workload

    async def close(self) -> None:
        """Let the channels go."""
        for opened in self._channels.values():
            await opened.close(None)


class NatsMarket:
    """The market over NATS, on the provider's own subjects."""

    def __init__(self, link: NatsLink, provider: str) -> None:
        """``provider`` is the resource name."""
        self._link = link
        self._prefix = f"fallow.provider.{resource_id(provider, 'providers')}"

    @property
    def command_subject(self) -> str:
        """Where the market sends commands."""
        return f"{self._prefix}.command"

    async def heartbeat(self, heartbeat: Heartbeat, timeout: float) -> HeartbeatAcknowledgement:
        """Send a sign of life."""
        payload = heartbeat.SerializeToString()
        reply = _reply_of(await self._link.request(f"{self._prefix}.heartbeat", payload, timeout))
        if not reply.HasField("heartbeat"):
            raise DomainError(INTERNAL, "the market answered a heartbeat with something else")
        return reply.heartbeat

    async def report_inventory(self, report: InventoryReport, timeout: float) -> InventoryAcknowledgement:
        """Send nodes and devices."""
        payload = report.SerializeToString()
        reply = _reply_of(await self._link.request(f"{self._prefix}.inventory", payload, timeout))
        if not reply.HasField("inventory"):
            raise DomainError(INTERNAL, "the market answered an inventory report with something else")
        return reply.inventory


def _reply_of(payload: bytes) -> LinkReply:
    """The market's answer; DomainError where it is an error."""
    reply = LinkReply.FromString(payload)
    if reply.HasField("error"):
        raise _refused(reply.error.reason, reply.error.message)
    return reply


def _refused(reason: str, message: str) -> DomainError:
    """What the market said, as an error of ours; a reason of a shape that we do not know is INTERNAL."""
    try:
        return DomainError(ErrorReason(reason, "FAILED_PRECONDITION", "", ""), message)
    except AssertionError:
        return DomainError(INTERNAL, f"{reason}: {message}")
