"""A seeded walk over the market's own commands on a real database, with crashes, and an auditor that believes nothing.

Workers run at once, each with connections of its own: tenants open, change and end orders; two engines of which one
leads, and a third that makes passes as a deposed leader would; a courier; agents that accept, refuse, run, fail, stop,
fall silent and come back; the watch over time; and somebody who ends connections in the middle of their transactions,
the leader's among them. A step is one thing that happened to one order, lease, agent or connection. After each block of
steps the auditor compares what the tables say of each other, and each agent watches that nothing that it was told to
run ever shares a device with more than fits, whatever the tables say.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow.bidding.v1 import provider_pb2, provider_service_pb2
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2
from fallow_bidding.app import lock_key
from fallow_bidding.commands.delivery import DeliveryCommands, Outgoing
from fallow_bidding.commands.link import LinkCommands
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.commands.orders import OrderCommands, open_order, update_order
from fallow_bidding.commands.registry import RegistryCommands
from fallow_bidding.commands.watching import WatchCommands
from fallow_bidding.convert.link import CommandAnswer
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.policy import Policy
from fallow_bidding.jobs import Engine
from fallow_bidding.topics import LEASES_TOPIC
from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_chassis.retry import is_retryable
from fallow_chassis.signals import Signals
from fallow_chassis.testing import ManualClock, TestIdentity
from tests.component.bidding.conftest import gpu_order, new_name, node

PROVIDERS = 6
DEVICES = 8
ORDERS_MAX = 26
BLOCK_STEPS = 1_000
SECOND_STEPS = 20
CRASH_SECONDS = 4.0
WHOLE = 1_000
POLICY = Policy(failures_max=3)

UNEVEN_DEVICES = """
    WITH placed AS (
        SELECT lease.provider_id, share ->> 0 AS device_id, sum((share ->> 1)::int) AS milli
        FROM lease, jsonb_array_elements(placements) AS placement, jsonb_array_elements(placement -> 'devices') AS share
        WHERE lease.state <> 'ENDED' GROUP BY 1, 2
    ), used AS (SELECT provider_id, device_id, sum(milli) AS milli FROM device_use GROUP BY 1, 2),
    counted AS (SELECT provider_id, device_id, milli_used AS milli FROM device_capacity WHERE milli_used <> 0)
    SELECT provider_id, device_id, placed.milli AS placed, used.milli AS used, counted.milli AS counted
    FROM placed FULL JOIN used USING (provider_id, device_id) FULL JOIN counted USING (provider_id, device_id)
    WHERE placed.milli IS DISTINCT FROM used.milli OR used.milli IS DISTINCT FROM counted.milli OR placed.milli > 1000
"""
UNEVEN_GROUPS = """
    SELECT grouped.order_id, grouped.group_index, grouped.state, grouped.generation, count(lease_id) AS leases
    FROM order_group AS grouped LEFT JOIN lease USING (order_id, group_index)
    GROUP BY grouped.order_id, grouped.group_index, grouped.state, grouped.generation
    HAVING count(lease_id) <> grouped.generation OR coalesce(max(lease.generation), 0) <> grouped.generation
        OR count(*) FILTER (WHERE lease.state IN ('RESERVED', 'STARTING', 'RUNNING', 'SUSPENDED'))
            <> (grouped.state = 'LEASED')::int
"""
UNEVEN_EVENTS = """
    SELECT market_order.order_id, lease_version, count(outbox.version) AS events
    FROM market_order LEFT JOIN outbox ON outbox.key = market_order.order_id AND outbox.topic = $1
    GROUP BY market_order.order_id, lease_version, market_order.state
    HAVING count(outbox.version) <> lease_version OR count(DISTINCT outbox.version) <> lease_version
        OR coalesce(max(outbox.version), 0) <> lease_version
        OR count(*) FILTER (WHERE outbox.type LIKE '%.OrderEnded') <> (market_order.state = 'ENDED')::int
        OR count(*) FILTER (WHERE outbox.type LIKE '%.LeaseCreated')
            <> (SELECT count(*) FROM lease WHERE lease.order_id = market_order.order_id)
        OR count(*) FILTER (WHERE outbox.type LIKE '%.LeaseEnded') <> (
            SELECT count(*) FROM lease WHERE lease.order_id = market_order.order_id AND end_time IS NOT NULL
        )
"""
UNEVEN_TRADES = """
    SELECT lease_id FROM lease LEFT JOIN trade USING (lease_id) GROUP BY lease_id HAVING count(trade.sequence) <> 1
"""
FINISHED = """
    SELECT order_id FROM market_order
    WHERE state = 'ENDED' AND NOT EXISTS (
        SELECT 1 FROM lease WHERE lease.order_id = market_order.order_id AND lease.state <> 'ENDED'
    )
"""
FORGET = (
    "DELETE FROM trade USING lease WHERE trade.lease_id = lease.lease_id AND lease.order_id = ANY($1)",
    "DELETE FROM command USING lease WHERE command.lease_id = lease.lease_id AND lease.order_id = ANY($1)",
    "DELETE FROM lease WHERE order_id = ANY($1)",
    "DELETE FROM order_group WHERE order_id = ANY($1)",
    "DELETE FROM market_order WHERE order_id = ANY($1)",
    "DELETE FROM outbox WHERE key = ANY($1)",
)
CRASH = """
    SELECT pg_terminate_backend(pid) FROM (
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'walk%' AND xact_start IS NOT NULL
        ORDER BY random() LIMIT 1
    ) AS chosen
"""
DEPOSE = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = $1
"""


async def add_provider(registry: RegistryCommands, links: LinkCommands, *nodes: resources_pb2.Node) -> str:
    """Register a provider that is online with these nodes, and an offer of 1 an hour for an H100; its id."""
    owner = new_name("accounts")
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    provider = await registry.create_provider(
        provider_service_pb2.CreateProviderRequest(
            provider=provider_pb2.Provider(public_key=key, region="eu-west"), request_id="create"
        ),
        owner,
    )
    name = f"providers/{provider.provider_id}"
    prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={"h100": 1_000_000})
    offer = provider_pb2.Offer(provider=name, prices=prices)
    await registry.create_offer(provider_service_pb2.CreateOfferRequest(offer=offer, request_id="offer"), owner)
    await links.take_inventory(
        provider.provider_id, market_link_pb2.InventoryReport(provider=name, sequence=1, nodes=nodes)
    )
    await beat(links, provider.provider_id)
    return provider.provider_id


async def beat(
    links: LinkCommands, provider_id: str, runs: Iterable[market_link_pb2.RunStatus] = ()
) -> market_link_pb2.HeartbeatAcknowledgement:
    """A heartbeat of a provider."""
    heartbeat = market_link_pb2.Heartbeat(
        provider=f"providers/{provider_id}", sequence=1, boot_id="boot", runs=runs, inventory_sequence=1
    )
    return (await links.take_heartbeat(provider_id, heartbeat)).heartbeat


@dataclass(eq=False)
class Run:
    """A generation that an agent was told to run; ``state`` is what the agent says of it."""

    key: lease_pb2.GenerationKey
    shares: dict[str, int]
    state: "market_link_pb2.RunState.ValueType" = market_link_pb2.RUN_STATE_STARTING

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs."""
        return self.state in {market_link_pb2.RUN_STATE_STOPPED, market_link_pb2.RUN_STATE_FAILED}


@dataclass(eq=False)
class WalkedAgent:
    """One provider's agent: what it was told, and what it knows to run."""

    provider_id: str
    heard: datetime
    is_silent: bool = False
    runs: dict[str, Run] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def answer(self, command: market_link_pb2.Command, *, refuses: bool) -> CommandAnswer:
        """Answer a command; AssertionError where a device would run more than it is."""
        run = self.runs.get(command.lease)
        if command.HasField("stop"):
            if run is None:
                self.refused.add(command.lease)
                return CommandAnswer(accepted=False, reason="UNKNOWN", detail="never ran here")
            run.state = market_link_pb2.RUN_STATE_STOPPED
            return CommandAnswer(accepted=True, reason="", detail="")
        if run is not None:
            return CommandAnswer(accepted=True, reason="", detail="")
        if refuses or command.lease in self.refused:
            self.refused.add(command.lease)
            return CommandAnswer(accepted=False, reason="BUSY", detail="")
        shares: Counter[str] = Counter()
        for replica in command.run.replicas:
            shares.update({device.device_id: device.milli for device in replica.devices})
        self.runs[command.lease] = Run(command.key, dict(shares))
        self.check()
        return CommandAnswer(accepted=True, reason="", detail="")

    def check(self) -> None:
        """No device runs more than it is."""
        taken: Counter[str] = Counter()
        for run in self.runs.values():
            if not run.is_over:
                taken.update(run.shares)
        doubled = {device: milli for device, milli in taken.items() if milli > WHOLE}
        assert not doubled, f"providers/{self.provider_id} is to run more on a device than it is: {doubled}"


class Walk:
    """One walk. ``counted`` says how often each thing happened; ``steps`` is their sum."""

    def __init__(self, url: str, seed: int, identity: TestIdentity, clock: ManualClock) -> None:
        """``url`` is an empty market's database."""
        self.url = url
        self.random = random.Random(seed)
        self.identity = identity
        self.clock = clock
        self.counted: Counter[str] = Counter()
        self.agents: list[WalkedAgent] = []
        self.orders: dict[str, order_pb2.Order] = {}
        self._databases: list[Database] = []
        self._goal = 0

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return self.counted.total()

    async def connect(self, name: str) -> Database:
        """Connections that the crasher may end."""
        database = await Database.connect(
            self.url, ids=RandomIds(SystemClock()), clock=self.clock, source=f"walk {name}", pool_size=3
        )
        self._databases.append(database)
        return database

    async def run(self, steps: int, seconds: float) -> None:
        """Walk ``steps`` steps, or for ``seconds`` (0: as long as it takes); audit after each block and at the end."""
        await self._set_up()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds if seconds else float("inf")
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._calm.close)
            for database in self._databases:
                closing.push_async_callback(database.close)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work()) for work in (*self._endless, self._pulse)]
                while self.steps < steps and loop.time() < end:
                    self._goal = min(steps, self.steps + BLOCK_STEPS)
                    async with asyncio.TaskGroup() as block:
                        for work in (
                            self._tenants,
                            self._courier,
                            self._agents,
                            self._deposed,
                            self._watch,
                            self._crashes,
                        ):
                            block.create_task(work())
                    await self.audit()
                await self._wind_up()
                for task in tasks:
                    task.cancel()
            await self.audit()

    async def _set_up(self) -> None:
        """Providers, and everybody's use-cases on connections of their own."""
        self._calm = await asyncpg.connect(self.url)
        tenants, agents, courier, watch = [
            await self.connect(name) for name in ("tenants", "agents", "courier", "watch")
        ]
        self._tenant_database = tenants
        self._ending = OrderCommands(tenants, POLICY)
        self._links = LinkCommands(agents, POLICY)
        self._delivery = DeliveryCommands(courier, POLICY, self.identity.signer("bidding"), "127.0.0.1:1")
        self._watching = WatchCommands(watch, POLICY)
        self._endless: list[Callable[[], Coroutine[Any, Any, None]]] = []
        matchings = []
        for name in ("engine a", "engine b", "deposed"):
            database = await self.connect(name)
            matchings.append(MatchingCommands(database, POLICY, lock_key("decisions", POLICY.market)))
            if name != "deposed":
                signals = Signals(database)
                engine = Engine(database, signals, matchings[-1], lock_key("leader", POLICY.market))
                self._endless += [signals.run, engine.run]
        self._passes = matchings[-1]
        await self._watching.beat()
        registry = RegistryCommands(tenants, POLICY)
        for number in range(PROVIDERS):
            provider_id = await add_provider(registry, self._links, node(devices=DEVICES, prefix=f"p{number}"))
            self.agents.append(WalkedAgent(provider_id, self.clock.now()))

    async def _pulse(self) -> None:
        """Count leases as they are made, whoever makes them."""
        seen = 0
        while True:
            await asyncio.sleep(0.2)
            newest = await self._calm.fetchval("SELECT coalesce(max(sequence), 0) FROM trade")
            self.counted["leased"] += max(0, newest - seen)
            seen = max(seen, newest)

    async def _while_block(self, what: str, work: Callable[[], Awaitable[None]], pause: float = 0.0) -> None:
        """Do work until the block's steps are made; what a crash interrupts is lost, and anything else is a defect."""
        while self.steps < self._goal:
            try:
                await work()
            except Exception as error:
                if not is_retryable(error):
                    raise
                self.counted[f"{what} interrupted"] += 1
            await asyncio.sleep(pause)

    async def _tenants(self) -> None:
        """Open, change and end orders."""
        await self._while_block("tenants", self._tenant_turn)

    async def _tenant_turn(self) -> None:
        """One tenant's turn."""
        if len(self.orders) < ORDERS_MAX:
            made = [self._new_order() for _ in range(self.random.randint(1, 6))]
            async with self._tenant_database.transaction() as unit:
                for order in made:
                    await open_order(unit, POLICY, order, unit.clock.now())
            self.orders.update({order.name: order for order in made})
            self.counted["opened"] += len(made)
            return
        name = self.random.choice(list(self.orders))
        if self.random.random() < 0.05:
            order = self.orders[name]
            for group in order.groups:
                group.revision = max(1, group.revision) + 1
            async with self._tenant_database.transaction() as unit:
                await update_order(unit, POLICY, order)
            self.counted["changed"] += 1
            return
        del self.orders[name]
        await self._ending.end(name.removeprefix("orders/"), EndReason.TENANT, "the walk")
        self.counted["ended"] += 1

    def _new_order(self) -> order_pb2.Order:
        """An order of one or two groups, of whole devices or of a share."""
        order = gpu_order(count=self.random.choice((1, 1, 1, 2, 4)), groups=self.random.choice((1, 1, 2)))
        for group in order.groups:
            if self.random.random() < 0.4:
                gpu = group.replica_sets[0].resources.gpu
                gpu.count, gpu.milli_per_device = 1, self.random.choice((200, 250, 334, 500, 999))
        if self.random.random() < 0.3:
            order.group_binding = order_pb2.GROUP_BINDING_EACH
        if self.random.random() < 0.3:
            order.terms.overlap = order_pb2.OVERLAP_FORBIDDEN
        return order

    async def _courier(self) -> None:
        """Carry commands to agents, and answers back."""

        async def turn() -> None:
            due = await self._delivery.take_due()
            self.random.shuffle(due)
            async with asyncio.TaskGroup() as group:
                for outgoing in due[:3]:
                    group.create_task(self._carry(outgoing))
            for outgoing in due[3:]:
                await self._carry(outgoing)

        await self._while_block("courier", turn)

    async def _carry(self, outgoing: Outgoing) -> None:
        """One command; a silent agent does not answer, and an answer may be lost."""
        agent = next(agent for agent in self.agents if agent.provider_id == outgoing.provider_id)
        if agent.is_silent:
            return
        answer = agent.answer(outgoing.command, refuses=self.random.random() < 0.1)
        self._check_overlap(agent, outgoing.command)
        if self.random.random() < 0.02:
            return
        await self._delivery.take_answer(outgoing, answer)
        self.counted["run accepted" if answer.accepted else "refused"] += 1

    def _check_overlap(self, agent: WalkedAgent, command: market_link_pb2.Command) -> None:
        """Where an order forbids it, no two generations of a group run at one time, as far as agents know."""
        order, run = self.orders.get(command.key.order), agent.runs.get(command.lease)
        if order is None or run is None or run.is_over or order.terms.overlap != order_pb2.OVERLAP_FORBIDDEN:
            return
        for other in self.agents:
            for rival in other.runs.values():
                same = (rival.key.order, rival.key.group) == (run.key.order, run.key.group)
                if rival is not run and same and not rival.is_over and not self._has_stopped_itself(other):
                    raise AssertionError(f"two generations run: {rival.key} and {run.key}")

    def _has_stopped_itself(self, agent: WalkedAgent) -> bool:
        """Whether an agent was unheard for so long that it has stopped everything."""
        return self.clock.now() - agent.heard >= timedelta(milliseconds=POLICY.self_stop_ms)

    async def _agents(self) -> None:
        """Let agents beat, with what they run."""
        await self._while_block("agents", self._agent_turn)

    async def _agent_turn(self) -> None:
        """One agent's turn."""
        agent = self.random.choice(self.agents)
        if self.random.random() < (0.02 if agent.is_silent else 0.01):
            agent.is_silent = not agent.is_silent
            self.counted["silent" if agent.is_silent else "back"] += 1
        if not agent.is_silent:
            await self._beat(agent)

    async def _beat(self, agent: WalkedAgent) -> None:
        """Let an agent beat."""
        if self._has_stopped_itself(agent):
            for run in agent.runs.values():
                run.state = market_link_pb2.RUN_STATE_STOPPED
        for run in agent.runs.values():
            if run.state == market_link_pb2.RUN_STATE_STARTING:
                fails = self.random.random() < 0.1
                run.state = market_link_pb2.RUN_STATE_FAILED if fails else market_link_pb2.RUN_STATE_RUNNING
                self.counted["failed" if fails else "ready"] += 1
            elif run.state == market_link_pb2.RUN_STATE_RUNNING and self.random.random() < 0.02:
                run.state = market_link_pb2.RUN_STATE_FAILED
                self.counted["failed"] += 1
        told = {lease: run.state for lease, run in agent.runs.items()}
        answer = await beat(
            self._links,
            agent.provider_id,
            [
                market_link_pb2.RunStatus(lease=lease, key=agent.runs[lease].key, state=state)
                for lease, state in told.items()
            ],
        )
        agent.heard = self.clock.now()
        self.counted["heartbeats"] += 1
        self._obey(agent, answer)

    def _obey(self, agent: WalkedAgent, answer: market_link_pb2.HeartbeatAcknowledgement) -> None:
        """Stop what is unwanted, forget what may be forgotten."""
        unwanted = {_number(key) for key in answer.unwanted}
        forgotten = {_number(key) for key in answer.forgotten}
        for lease, run in list(agent.runs.items()):
            if _number(run.key) in unwanted:
                run.state = market_link_pb2.RUN_STATE_STOPPED
            if _number(run.key) in forgotten and run.is_over:
                del agent.runs[lease]
                agent.refused.add(lease)
                self.counted["stopped"] += 1

    async def _deposed(self) -> None:
        """Make passes as somebody who believes to lead and does not."""

        async def turn() -> None:
            await self._passes.match_open_orders()
            self.counted["passes of a deposed leader"] += 1

        await self._while_block("deposed", turn, 0.15)

    async def _watch(self) -> None:
        """Let time pass, and look at what it did."""
        due = self.steps

        async def turn() -> None:
            nonlocal due
            if self.steps < due:
                return
            due = self.steps + SECOND_STEPS
            self.clock.advance(seconds=1)
            await self._watching.beat()
            lost = await self._watching.find_silent() + await self._watching.find_overdue()
            self.counted["lost"] += lost
            self.counted["expired"] += await self._watching.find_unmatched()

        await self._while_block("watch", turn, 0.01)

    async def _crashes(self) -> None:
        """End connections in the middle of what they do, and the leader."""

        async def turn() -> None:
            if await self._end_backend(CRASH):
                self.counted["crashed"] += 1
            if self.random.random() < 0.2 and await self._end_backend(DEPOSE, lock_key("leader", POLICY.market)):
                self.counted["taken over"] += 1

        await self._while_block("crashes", turn, CRASH_SECONDS)

    async def _end_backend(self, sql: str, *arguments: object) -> bool:
        """End a connection; whether there was one."""
        connection = await asyncpg.connect(self.url)
        try:
            return bool(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def audit(self) -> None:
        """Compare the tables with each other as of one instant, then forget what is finished."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction(isolation="repeatable_read"):
                for what, sql in (
                    ("devices", UNEVEN_DEVICES),
                    ("groups", UNEVEN_GROUPS),
                    ("trades", UNEVEN_TRADES),
                ):
                    wrong = await connection.fetch(sql)
                    assert not wrong, f"{what}: {[dict(row) for row in wrong[:5]]}"
                wrong = await connection.fetch(UNEVEN_EVENTS, LEASES_TOPIC)
                assert not wrong, f"events: {[dict(row) for row in wrong[:5]]}"
            finished = [row["order_id"] for row in await connection.fetch(FINISHED)]
            async with connection.transaction():
                for sql in FORGET:
                    await connection.execute(sql, finished)
        finally:
            await connection.close()
        for order_id in finished:
            self.orders.pop(f"orders/{order_id}", None)

    async def _wind_up(self) -> None:
        """End everything: afterwards no device is held."""
        for agent in self.agents:
            agent.is_silent = False
        # Whoever was interrupted may have opened an order without knowing.
        async with self._tenant_database.read() as connection:
            opened = await connection.fetch("SELECT order_id FROM market_order WHERE state = 'OPEN'")
        for row in opened:
            await self._ending.end(row["order_id"], EndReason.TENANT, "the end of the walk")
        held = -1
        for _ in range(200):
            async with self._tenant_database.read() as connection:
                held = await connection.fetchval("SELECT coalesce(sum(milli_used), 0) FROM device_capacity")
            if held == 0:
                break
            self.clock.advance(seconds=3)
            await self._watching.beat()
            for outgoing in await self._delivery.take_due():
                await self._carry(outgoing)
            for agent in self.agents:
                await self._beat(agent)
        assert held == 0, f"{held} thousandths of devices are held by nobody"


def _number(key: lease_pb2.GenerationKey) -> tuple[str, int, int]:
    """A generation."""
    return key.order, key.group, key.generation
