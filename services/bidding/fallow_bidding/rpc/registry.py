"""The registry of providers and offers as gRPC."""

from typing import Any

from fallow.bidding.v1 import provider_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow_bidding.commands.registry import RegistryCommands
from fallow_bidding.convert import market as convert
from fallow_bidding.queries import Queries
from fallow_chassis.clock import Clock
from fallow_chassis.context import current_identity
from fallow_chassis.nats_credentials import provider_credentials
from fallow_chassis.paging import Page
from fallow_chassis.wire import resource_id


class ProviderRegistryServicer(provider_service_pb2_grpc.ProviderRegistryServiceServicer):
    """Registers providers and keeps what they offer."""

    def __init__(
        self, commands: RegistryCommands, queries: Queries, clock: Clock, *, account_seed: str, nats_url: str
    ) -> None:
        """``account_seed`` signs NATS users (empty where NATS asks for none); ``nats_url`` is what providers dial."""
        self._commands = commands
        self._queries = queries
        self._clock = clock
        self._account_seed = account_seed
        self._nats_url = nats_url

    async def CreateProvider(
        self, request: provider_service_pb2.CreateProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Register a site of the caller."""
        provider = await self._commands.create_provider(request, current_identity().subject)
        return convert.provider_message(provider)

    async def GetProvider(
        self, request: provider_service_pb2.GetProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Return a provider."""
        return convert.provider_message(await self._queries.provider(request.name))

    async def ListProviders(
        self, request: provider_service_pb2.ListProvidersRequest, context: Any
    ) -> provider_service_pb2.ListProvidersResponse:
        """List providers, newest first, narrowed by what the request names."""
        page = Page(request)
        found = await self._queries.providers(convert.provider_filter_of(request), page.after_text(), page.limit)
        shown, token = page.cut(found, lambda provider: provider.provider_id)
        return provider_service_pb2.ListProvidersResponse(
            providers=[convert.provider_message(provider) for provider in shown], next_page_token=token
        )

    async def UpdateProvider(
        self, request: provider_service_pb2.UpdateProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Change a provider's profile."""
        fields = list(request.update_mask.paths)
        provider = await self._commands.update_provider(request.provider, fields, current_identity().subject)
        return convert.provider_message(provider)

    async def DrainProvider(
        self, request: provider_service_pb2.DrainProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Stop new leases at a provider."""
        provider = await self._commands.set_draining(request.name, current_identity().subject, draining=True)
        return convert.provider_message(provider)

    async def ResumeProvider(
        self, request: provider_service_pb2.ResumeProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Take new leases again."""
        provider = await self._commands.set_draining(request.name, current_identity().subject, draining=False)
        return convert.provider_message(provider)

    async def IssueProviderCredentials(
        self, request: provider_service_pb2.IssueProviderCredentialsRequest, context: Any
    ) -> provider_service_pb2.IssueProviderCredentialsResponse:
        """Issue NATS credentials for the provider's own subjects and inbox."""
        provider = await self._queries.owned_provider(request.name, current_identity().subject)
        credentials = ""
        if self._account_seed:
            credentials = provider_credentials(self._account_seed, provider.provider_id, clock=self._clock)
        return provider_service_pb2.IssueProviderCredentialsResponse(
            nats_credentials=credentials, nats_url=self._nats_url
        )

    async def GetInventory(
        self, request: provider_service_pb2.GetInventoryRequest, context: Any
    ) -> provider_pb2.Inventory:
        """Return a provider's inventory with what is reserved."""
        return await self._queries.inventory(request.name, current_identity().subject)

    async def CreateOffer(self, request: provider_service_pb2.CreateOfferRequest, context: Any) -> provider_pb2.Offer:
        """Publish a standing offer."""
        offer = await self._commands.create_offer(request, current_identity().subject)
        return convert.offer_message(offer, self._clock.now())

    async def GetOffer(self, request: provider_service_pb2.GetOfferRequest, context: Any) -> provider_pb2.Offer:
        """Return an offer."""
        return convert.offer_message(await self._queries.offer(request.name), self._clock.now())

    async def ListOffers(
        self, request: provider_service_pb2.ListOffersRequest, context: Any
    ) -> provider_service_pb2.ListOffersResponse:
        """List offers, newest first."""
        page = Page(request)
        provider_id = resource_id(request.provider, "providers", field="provider") if request.provider else ""
        found = await self._queries.offers(provider_id, page.after_text(), page.limit)
        shown, token = page.cut(found, lambda offer: offer.offer_id)
        now = self._clock.now()
        return provider_service_pb2.ListOffersResponse(
            offers=[convert.offer_message(offer, now) for offer in shown], next_page_token=token
        )

    async def WithdrawOffer(
        self, request: provider_service_pb2.WithdrawOfferRequest, context: Any
    ) -> provider_pb2.Offer:
        """Withdraw an offer."""
        offer = await self._commands.withdraw_offer(request.name, current_identity().subject)
        return convert.offer_message(offer, self._clock.now())
