"""Wires the agent and keeps its three loops: what runs, when to stop by itself, the link to the market.

The first two need nobody, so they run from the first moment: what ran before is adopted and watched while the market
cannot be reached. The link registers the site, then takes commands and sends heartbeats; where the market's doors are
away but the agent is registered already, it goes on with what it knows.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import nats.errors

from fallow.provider.v1 import provider_service_pb2_grpc
from fallow_chassis.application import Application
from fallow_chassis.ids import Ids
from fallow_chassis.logging import get_logger
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.retry import keep_trying, wait_seconds
from fallow_chassis.settings import SettingsError
from fallow_provider.clients import NatsMarket, OwnerSession, Registry, Workloads, schedule_digest
from fallow_provider.commands import Commands
from fallow_provider.device_watch import DeviceWatch
from fallow_provider.devices import DeclaredSite
from fallow_provider.domain.inventory import DeviceSource
from fallow_provider.drivers.processes import machine_boot_id
from fallow_provider.drivers.selection import choose_driver
from fallow_provider.heartbeat import Acknowledgements, Heartbeats
from fallow_provider.ports import Fingerprint, SiteSource
from fallow_provider.probes.amd_smi import AmdSmiProbe
from fallow_provider.probes.nvml import NvmlProbe
from fallow_provider.proof_key import ProofKey
from fallow_provider.rpc import AgentFacts, AgentServicer, WorkloadAccessServicer
from fallow_provider.sessions import Sessions
from fallow_provider.settings import ProviderSettings
from fallow_provider.store import Store
from fallow_provider.supervisor import Supervisor

WATCH_SECONDS: Final = 0.2
"""How often the self-stop of each run is looked at."""
REGISTRATION_WAIT_SECONDS: Final = 5.0
"""How long a registered agent waits for the market's doors before it goes on with what it knows."""
_log = get_logger(__name__)


async def build(application: Application[ProviderSettings]) -> None:
    """Wire the agent on an application."""
    settings = application.settings
    folder = Path(settings.required("state_directory")).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    declared = DeclaredSite.load(settings.required("site_file"))
    store = Store.open(folder / "state.sqlite")
    application.on_close(_closing(store.close))
    agent = agent_id(store, application.ids)
    driver, fingerprint = await choose_driver(
        settings, folder / "exec", agent, application.clock, known=store.fact("driver") or ""
    )
    application.on_close(driver.close)
    store.save_fact("driver", driver.name)
    check_gives_devices(declared, fingerprint)
    changed = asyncio.Event()
    boot_id = machine_boot_id()
    sites = DeviceWatch(
        declared,
        (NvmlProbe(), AmdSmiProbe()),
        store,
        application.clock,
        machine_boot_id=boot_id,
        read_seconds=settings.device_read_seconds,
        on_change=changed.set,
    )
    application.on_close(sites.close)
    await sites.start()
    warn(fingerprint, sites)
    workloads = Workloads(settings.order_address)
    application.on_close(workloads.close)
    supervisor = Supervisor(
        store,
        driver,
        workloads,
        sites,
        application.clock,
        machine_boot_id=boot_id,
        endpoint_host=settings.endpoint_host or settings.publish_host,
        on_change=changed.set,
    )
    facts = AgentFacts(
        start_time=application.clock.now(),
        provider=store.fact("provider") or "",
        account=store.fact("account") or "",
        drivers=[driver.name],
    )
    link = MarketLink(
        application, store, supervisor, sites, ProofKey.load(folder / "proof.key"), facts, changed, boot_id
    )
    application.on_close(link.close)
    if settings.stop_on_exit:
        application.on_close(supervisor.put_down)
    application.server.add(
        provider_service_pb2_grpc.add_WorkloadAccessServiceServicer_to_server,
        WorkloadAccessServicer(store, supervisor, driver, Sessions(store, application.clock)),
        "fallow.provider.v1.WorkloadAccessService",
    )
    application.server.add(
        provider_service_pb2_grpc.add_AgentServiceServicer_to_server,
        AgentServicer(facts, link.acknowledgements, store, supervisor, sites),
        "fallow.provider.v1.AgentService",
    )
    # Before anything is adopted: what nobody has heard of for too long must not be counted on.
    supervisor.stop_unheard(link.acknowledgements.sent_at_ms)
    application.background(supervisor.run, name="supervisor")
    application.background(sites.run, name="devices")
    application.background(link.watch_silence, name="self-stop")
    application.background(link.register, name="registration")
    application.background(link.run, name="market link")


def agent_id(store: Store, ids: Ids) -> str:
    """The agent's own id, with which it marks what it runs; made at the first start."""
    known = store.fact("agent")
    if known is None:
        known = ids.new()
        store.save_fact("agent", known)
    return known


def check_gives_devices(declared: DeclaredSite, fingerprint: Fingerprint) -> None:
    """Refuse to offer found cards where the driver gives containers none: tenants would pay for what they do not get."""
    if declared.found_on and not fingerprint.gives_devices:
        raise SettingsError(
            f"FALLOW_SITE_FILE: node {declared.found_on} has find_devices = true, and the {fingerprint.driver} driver cannot "
            f"give containers its cards ({fingerprint.isolation}). Write a CDI specification, such as "
            "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, with an engine that reads it"
        )


def warn(fingerprint: Fingerprint, sites: SiteSource) -> None:
    """Say what the driver does not hold, and that declared devices are nobody's but the operator's word."""
    devices = [device for node in sites.site().nodes for device in node.devices]
    declared = sum(device.source is DeviceSource.DECLARED for device in devices)
    _log.info("driver_chosen", driver=fingerprint.driver, version=fingerprint.version, isolation=fingerprint.isolation)
    if fingerprint.driver == "exec":
        _log.warning("no_isolation", driver="exec", detail=fingerprint.isolation)
    for device in devices:
        if device.source is not DeviceSource.DECLARED:
            _log.info("device_found", device=device.device_id, model=device.model, health=device.health.name)
    if declared:
        _log.warning("devices_declared", devices=declared, detail="none of them was looked for")


class MarketLink:
    """Registration, commands and heartbeats."""

    def __init__(
        self,
        application: Application[ProviderSettings],
        store: Store,
        supervisor: Supervisor,
        sites: SiteSource,
        key: ProofKey,
        facts: AgentFacts,
        changed: asyncio.Event,
        machine_boot: str,
    ) -> None:
        """Nothing is opened before ``register`` and ``run``."""
        settings = application.settings
        self._application = application
        self._settings = settings
        self._store = store
        self._supervisor = supervisor
        self._sites = sites
        self._key = key
        self._facts = facts
        self._changed = changed
        self._machine_boot = machine_boot
        self._session = OwnerSession(
            settings.required("order_address"), settings.required("api_key_file"), application.clock
        )
        self._registry = Registry(settings.required("bidding_address"), self._session)
        self._credentials_file = Path(settings.state_directory) / "nats.creds"
        self._registered = asyncio.Event()
        self._link: NatsLink | None = None
        self.acknowledgements = Acknowledgements(store, application.clock, machine_boot)

    async def register(self) -> None:
        """Register, and get credentials and an offer; asked until the market answers, then done for this life."""
        address = self._settings.door_address or await self._application.server.bound()
        await keep_trying("registration", lambda: self._register(address))
        self._registered.set()
        await asyncio.Event().wait()

    async def run(self) -> None:
        """Take commands and send heartbeats until cancelled."""
        await self._await_identity()
        link = await self._connect()
        market = NatsMarket(link, self._facts.provider)
        commands = Commands(
            self._store,
            self._supervisor,
            self._sites,
            self._application.clock,
            machine_boot_id=self._machine_boot,
            is_draining=self._settings.draining,
        )
        await link.serve(market.command_subject, "agent", commands.respond, concurrency=1)
        heartbeats = Heartbeats(
            self._store,
            self._supervisor,
            market,
            self._sites,
            self._key,
            self._application.clock,
            provider=self._facts.provider,
            boot_id=self._application.ids.new(),
            drivers=self._facts.drivers,
            interval_seconds=self._settings.heartbeat_interval_seconds,
            changed=self._changed,
            acknowledgements=self.acknowledgements,
        )
        await heartbeats.run()

    async def watch_silence(self) -> None:
        """Stop each run whose self-stop has passed."""
        while True:
            self._supervisor.stop_unheard(self.acknowledgements.sent_at_ms)
            await asyncio.sleep(WATCH_SECONDS)

    async def close(self) -> None:
        """Close what was opened; what runs goes on."""
        if self._link is not None:
            await self._link.close()
        await self._registry.close()
        await self._session.close()

    async def _register(self, address: str) -> None:
        """One attempt."""
        site = self._sites.site()
        self._facts.account = await self._session.renew()
        provider = await self._registry.register(site, self._key.public_key, address)
        text, url = await self._registry.credentials(provider.name)
        write_private(self._credentials_file, text)
        offer = await self._registry.offer(provider.name, site, self._offer_number())
        with self._store.transaction():
            self._store.save_fact("account", self._facts.account)
            self._store.save_fact("provider", provider.name)
            self._store.save_fact("nats_url", url)
        self._facts.provider = provider.name
        _log.info("registered", provider=provider.name, offer=offer.name, region=site.region, address=address)

    def _offer_number(self) -> int:
        """How often the prices have changed; a change is written down before it is published."""
        number, _, digest = (self._store.fact("offer") or "0 ").partition(" ")
        current = schedule_digest(self._sites.site())
        if digest == current:
            return int(number)
        self._store.save_fact("offer", f"{int(number) + 1} {current}")
        return int(number) + 1

    async def _await_identity(self) -> None:
        """Wait until the agent is registered, or until it is clear that what it knows must do for now."""
        is_known = bool(self._facts.provider) and self._credentials_file.exists()
        try:
            async with asyncio.timeout(REGISTRATION_WAIT_SECONDS if is_known else None):
                await self._registered.wait()
        except TimeoutError:
            _log.warning("going_on_unregistered", provider=self._facts.provider)

    def _credentials(self) -> str:
        """The file of credentials for NATS; empty where the market issued none, since its NATS asks for none."""
        file = self._credentials_file
        return str(file) if file.exists() and file.stat().st_size > 0 else ""

    async def _connect(self) -> NatsLink:
        """Connect to NATS, for as long as it takes."""
        attempt = 0
        while True:
            url = self._settings.nats_url or self._store.fact("nats_url") or ""
            try:
                self._link = await NatsLink.connect(url, self._credentials(), name=self._facts.provider)
                return self._link
            except nats.errors.AuthorizationError as error:
                # Credentials of an earlier registration; a fresh one writes new ones.
                _log.warning("nats_refused", error=str(error))
                await self._registered.wait()
                await asyncio.sleep(wait_seconds(attempt := attempt + 1))
            except (OSError, TimeoutError, nats.errors.Error) as error:
                attempt += 1
                _log.warning("nats_not_reached", attempt=attempt, error=repr(error))
                await asyncio.sleep(wait_seconds(attempt))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def _closing(function: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """A function as the application's list of what to close wants it."""

    async def close() -> None:
        function()

    return close
