"""The embedded stack: what runs, in which order it starts, and what each process is told.

Order: engines (Postgres, NATS, local chain, Kafka where it is asked for) → databases migrated → contracts deployed →
settlement, order, bidding → provider services, each with an API key that its owner's wallet signed in for. Every
process is told its settings by environment variables and nothing else; none is imported.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client, Endpoints
from fallow_sdk.profile import Profile, save_profile
from fallow_sdk.wallet import Wallet
from fallow_stack.engines import Kafka, Nats, Postgres
from fallow_stack.faucet import Faucet
from fallow_stack.home import Home
from fallow_stack.keys import make_keys
from fallow_stack.loopback_ports import LOOPBACK
from fallow_stack.member import Service
from fallow_stack.settings import StackSettings
from fallow_stack.sites import choose_asks, write_site
from fallow_stack.supervisor import Supervisor

CHAIN_ID = 31337
ASSET = "usdc"
CONFIRMATIONS = 2
# The community pool's part of the platform's take.
POOL_BASIS_POINTS = 1_000
DATABASES = ("order", "bidding", "settlement")
# A day or so where money is real: here nobody looks at the roots, and claims need not wait.
CHALLENGE_SECONDS = 2
# Test USDC that the development tenant's wallet holds at least, in micros.
TENANT_MICROS = 1_000_000_000
PROVIDER_SCOPES = ("providers.read", "providers.write")


def provider_name(index: int) -> str:
    """Name of a provider service: `provider-1` and so on."""
    return f"provider-{index + 1}"


def serving_role(service: str) -> str:
    """The database role that a service serves as."""
    return f"fallow_{service}_serving"


class Stack:
    """One embedded stack in one folder. `start`, then `supervisor.watch`, then `stop`; `say` gets a line a step."""

    def __init__(self, home: Home, settings: StackSettings, say: Callable[[str], None]) -> None:
        self.home = home
        self.settings = settings
        self.supervisor = Supervisor(home, say)
        self._say = say
        self.providers = [provider_name(index) for index in range(settings.providers)]
        self.keys = make_keys(home, ["settlement", "tenant", *self.providers])
        self.ports = home.ports(
            ["postgres", "nats", "chain", "kafka", "settlement", "order", "bidding", *self.providers]
        )
        self._postgres = Postgres(home.folder("postgres"), port=self.ports["postgres"])
        self._nats = Nats(home.folder("nats"), port=self.ports["nats"])
        self._kafka = Kafka(
            home.folder("kafka"), libraries=settings.kafka_libraries.resolve(), port=self.ports["kafka"]
        )

    def address(self, name: str) -> str:
        """`host:port` of a member."""
        return f"{LOOPBACK}:{self.ports[name]}"

    @property
    def chain_url(self) -> str:
        """JSON-RPC address of the local chain."""
        return f"http://{self.address('chain')}"

    @property
    def endpoints(self) -> Endpoints:
        """Addresses of the services that clients talk to."""
        return Endpoints(self.address("order"), self.address("bidding"), self.address("settlement"))

    @property
    def contracts_file(self) -> Path:
        """Addresses of the contracts, written when they are deployed."""
        return self.home.root / "contracts.json"

    @property
    def _development_account(self) -> Path:
        return self.home.root / "chain" / "development-account.json"

    async def start(self) -> None:
        """Bring everything up. Raises EngineError with the log to look at; the caller stops what did start."""
        self.home.profile.unlink(missing_ok=True)
        self._say("starting Postgres, NATS and the local chain")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.start("postgres", self._postgres, self.ports["postgres"]))
            group.create_task(self.supervisor.start("nats", self._nats, self.ports["nats"]))
            group.create_task(self.supervisor.start("chain", self._chain(), self.ports["chain"]))
            if self.settings.event_stream == "kafka":
                group.create_task(self.supervisor.start("kafka", self._kafka, self.ports["kafka"]))
        self._say("migrating databases, deploying contracts")
        async with asyncio.TaskGroup() as group:
            for service in DATABASES:
                group.create_task(self._migrate(service))
            group.create_task(self._deploy_contracts())
        self._say("starting the services")
        async with asyncio.TaskGroup() as group:
            for service in DATABASES:
                group.create_task(self._start_service(service))
        await self._start_providers()
        self._write_profile()

    async def stop(self) -> None:
        """Stop everything, the last started first."""
        self.home.profile.unlink(missing_ok=True)
        await self.supervisor.stop()

    def _chain(self) -> Service:
        arguments = ["--listen", self.address("chain"), "--data", str(self.home.folder("chain"))]
        arguments += ["--chain-id", str(CHAIN_ID), "--block-ms", str(self.settings.block_ms)]
        return Service("chain", "fallow_stack.chain", arguments, {}, self.home.logs / "chain.log")

    def _environment(self, service: str) -> dict[str, str]:
        """What every service is told."""
        return {
            "FALLOW_LISTEN": self.address(service),
            "FALLOW_JWKS": str(self.keys.jwks),
            "FALLOW_LOG_FORMAT": "json",
            "FALLOW_ORDER_ADDRESS": self.address("order"),
            "FALLOW_BIDDING_ADDRESS": self.address("bidding"),
            "FALLOW_SETTLEMENT_ADDRESS": self.address("settlement"),
        }

    async def _service_environment(self, service: str) -> dict[str, str]:
        """What a service of the platform is told."""
        own = {
            "order": {
                "FALLOW_CHAIN_ID": str(CHAIN_ID),
                "FALLOW_WORKLOAD_KEYS": self.keys.workload.read_text("utf-8").strip(),
            },
            "bidding": {
                "FALLOW_NATS_ACCOUNT_SEED_FILE": str(self._nats.account_seed_file),
                "FALLOW_PROVIDER_NATS_URL": self._nats.url,
                "FALLOW_HEARTBEAT_INTERVAL_SECONDS": str(self.settings.heartbeat_seconds),
            },
            "settlement": {
                "FALLOW_CHAIN_RPC_URL": self.chain_url,
                "FALLOW_CHAIN_PUBLIC_RPC_URL": self.chain_url,
                "FALLOW_CHAIN_CONFIRMATIONS": str(CONFIRMATIONS),
                "FALLOW_CHAIN_INTERVAL_SECONDS": "0.5",
                "FALLOW_POOL_BASIS_POINTS": str(POOL_BASIS_POINTS),
                "FALLOW_CONTRACTS_FILE": str(self.contracts_file),
                "FALLOW_CHAIN_KEY_FILE": str(self.keys.wallet("settlement")),
                "FALLOW_CHARGE_INTERVAL_SECONDS": str(self.settings.charge_interval_seconds),
                "FALLOW_BATCH_INTERVAL_SECONDS": str(self.settings.batch_interval_seconds),
            },
        }
        return {
            **self._environment(service),
            "FALLOW_DATABASE_URL": await self._postgres.ensure_role(serving_role(service), f"fallow_{service}"),
            "FALLOW_NATS_URL": self._nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": str(self._nats.service_credentials_file(service)),
            "FALLOW_STREAM_URL": self._kafka.url if self.settings.event_stream == "kafka" else "",
            "FALLOW_IDENTITY_KEY_FILE": str(self.keys.identity(service)),
            **own[service],
        }

    async def _migrate(self, service: str) -> None:
        """Bring a service's database up to date as its owner; the service itself runs as a role that owns nothing."""
        owner = {"FALLOW_DATABASE_URL": await self._postgres.ensure_database(f"fallow_{service}")}
        role = {"FALLOW_SERVING_ROLE": serving_role(service)}
        environment = await self._service_environment(service) | owner | role
        log = self.home.logs / f"{service}-migrate.log"
        await Service(f"{service} migrate", f"fallow_{service}", ["migrate"], environment, log).run()

    async def _deploy_contracts(self) -> None:
        async with ChainClient(self.chain_url) as chain:
            faucet = Faucet(chain, self._development_account)
            for owner in ("settlement", "tenant"):
                await faucet.give_fee_money(Wallet.load(self.keys.wallet(owner)).address)
            arguments = ["deploy-contracts", "--test-token", "--rpc-url", self.chain_url]
            arguments += ["--key-file", str(self.keys.wallet("settlement")), "--output", str(self.contracts_file)]
            arguments += ["--challenge-seconds", str(CHALLENGE_SECONDS)]
            log = self.home.logs / "deploy-contracts.log"
            await Service("deploy-contracts", "fallow_settlement", arguments, {}, log).run()
            contracts = json.loads(self.contracts_file.read_text("utf-8"))
            tenant = Wallet.load(self.keys.wallet("tenant")).address
            await faucet.fill_tokens(contracts["token"], tenant, TENANT_MICROS)

    async def _start_service(self, service: str) -> None:
        environment = await self._service_environment(service)
        process = Service(service, f"fallow_{service}", ["serve"], environment, self.home.logs / f"{service}.log")
        await self.supervisor.start(service, process, self.ports[service])

    async def _start_providers(self) -> None:
        asks = choose_asks(len(self.providers))
        async with asyncio.TaskGroup() as group:
            for name, ask in zip(self.providers, asks, strict=True):
                site = write_site(self.home.folder("sites"), name, ask)
                group.create_task(self._start_provider(name, site))

    async def _api_key_file(self, name: str) -> Path:
        """The API key of a provider's owner; made through the sign-in that any owner would use."""
        path = self.home.keys / f"{name}-api.key"
        if not path.exists():
            async with Client(self.endpoints) as client:
                await client.sign_in(Wallet.load(self.keys.wallet(name)))
                key = await client.create_api_key(f"{name} of the embedded stack", PROVIDER_SCOPES)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{key.secret}\n")
        return path

    async def _start_provider(self, name: str, site: Path) -> None:
        environment = {
            **self._environment(name),
            "FALLOW_API_KEY_FILE": str(await self._api_key_file(name)),
            "FALLOW_SITE_FILE": str(site),
            "FALLOW_STATE_DIRECTORY": str(self.home.folder("providers", name)),
            "FALLOW_RUNTIME": self.settings.runtime,
            "FALLOW_STOP_ON_EXIT": "true",
            "FALLOW_DOCKER_SOCKET": self.settings.docker_socket,
            "FALLOW_HEARTBEAT_INTERVAL_SECONDS": str(self.settings.heartbeat_seconds),
        }
        process = Service(name, "fallow_provider", ["serve"], environment, self.home.logs / f"{name}.log")
        await self.supervisor.start(name, process, self.ports[name])

    def _write_profile(self) -> None:
        endpoints = self.endpoints
        profile = Profile(
            order=endpoints.order,
            bidding=endpoints.bidding,
            settlement=endpoints.settlement,
            wallet_key_file=str(self.keys.wallet("tenant")),
            asset=ASSET,
        )
        save_profile(profile, self.home.profile)
