"""Signs of life: what runs, with a signed proof of how long, every few seconds and at once when something changes.

Running time is written down before it is signed, so a proof never says more than the next life of the agent knows. An
acknowledgement counts from the moment its heartbeat was sent, and is written down too: the next life reads when the
market last heard of us. A heartbeat that fails is not an acknowledgement, whatever it failed with.
"""

import asyncio
from datetime import datetime
from typing import Final

from fallow.provider.v1.market_link_pb2 import Heartbeat, HeartbeatAcknowledgement, InventoryReport
from fallow.type.v1 import lease_pb2
from fallow_chassis.clock import Clock
from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.wire import to_timestamp
from fallow_provider.convert import key_of, node_message, proof_message, status_message
from fallow_provider.domain.inventory import DeviceHealth, Node, changed_nodes, worst_health
from fallow_provider.domain.run import (
    DEFAULT_GRACE_MS,
    PROVING,
    Run,
    RunKey,
    acknowledge_final,
    final_proof,
    prove,
)
from fallow_provider.ports import Market, SiteSource
from fallow_provider.proof_key import ProofKey
from fallow_provider.store import Store
from fallow_provider.supervisor import Supervisor

MIN_TIMEOUT_SECONDS: Final = 2.0
LEAST_PAUSE_SECONDS: Final = 0.05
"""Changes within this time share one heartbeat."""
_log = get_logger(__name__)


class Acknowledgements:
    """When the last acknowledged heartbeat was sent, in this life of the machine; survives the agent."""

    def __init__(self, store: Store, clock: Clock, machine_boot_id: str) -> None:
        """Read what the last life of the agent wrote, if the machine has not restarted since."""
        self._store = store
        self._clock = clock
        self.time: datetime | None = None
        self._machine_boot_id = machine_boot_id
        boot_id, _, text = (store.fact("acknowledged") or "").partition(" ")
        self.sent_at_ms: int | None = int(text) if boot_id == machine_boot_id else None

    def save(self, sent_at_ms: int) -> None:
        """Note an acknowledgement of a heartbeat that was sent then."""
        self.sent_at_ms = sent_at_ms
        self.time = self._clock.now()
        self._store.save_fact("acknowledged", f"{self._machine_boot_id} {sent_at_ms}")


class Heartbeats:
    """Sends them; ``run`` goes on until it is cancelled."""

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        market: Market,
        sites: SiteSource,
        key: ProofKey,
        clock: Clock,
        *,
        provider: str,
        boot_id: str,
        drivers: list[str],
        interval_seconds: float,
        changed: asyncio.Event,
        acknowledgements: Acknowledgements,
    ) -> None:
        """``changed`` is set by the supervisor when the market should hear of a run soon."""
        self._store = store
        self._supervisor = supervisor
        self._market = market
        self._sites = sites
        self._key = key
        self._clock = clock
        self._provider = provider
        self._boot_id = boot_id
        self._drivers = drivers
        self._interval_seconds = interval_seconds
        self._timeout_seconds = max(interval_seconds, MIN_TIMEOUT_SECONDS)
        self._changed = changed
        self._acknowledgements = acknowledgements
        self._sequence = 0
        # What the market is known to have taken in this life of the agent; None asks for a full report.
        self._known_nodes: tuple[Node, ...] | None = None
        self._known_sequence = 0

    async def run(self) -> None:
        """Report what of the inventory the market does not know, then a heartbeat, every interval and at each change."""
        while True:
            self._changed.clear()
            await self.report_inventory()
            is_heard = await self.beat()
            await asyncio.sleep(LEAST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self._interval_seconds):
                    if is_heard:
                        await self._changed.wait()
                    else:
                        await asyncio.sleep(self._interval_seconds)
            except TimeoutError:
                continue

    async def report_inventory(self) -> bool:
        """Tell the market of the nodes and devices: all of them at first and where it asks, then what has changed.

        Returns whether it knows them now. Where nothing has changed nothing is sent.
        """
        nodes = self._sites.site().nodes
        if nodes == self._known_nodes:
            return True
        sequence = int(self._store.fact("inventory_sequence") or "0") + 1
        self._store.save_fact("inventory_sequence", str(sequence))
        report = self._inventory_report(sequence, nodes)
        try:
            answer = await self._market.report_inventory(report, self._timeout_seconds)
        except DomainError as error:
            _log.warning("inventory_not_taken", sequence=sequence, error=str(error))
            return False
        if answer.reason:
            _log.warning("inventory_refused", sequence=sequence, known=answer.sequence, reason=answer.reason)
            # Numbers grow above what the market knows, and what it knows is not what we think.
            self._store.save_fact("inventory_sequence", str(max(sequence, answer.sequence)))
            self._known_nodes = None
            return False
        self._known_nodes, self._known_sequence = nodes, sequence
        _log.info("inventory_reported", sequence=sequence, nodes=len(report.nodes), base=report.base_sequence)
        return True

    def _inventory_report(self, sequence: int, nodes: tuple[Node, ...]) -> InventoryReport:
        """The report that tells the market of these nodes."""
        report = InventoryReport(
            provider=self._provider, sequence=sequence, report_time=to_timestamp(self._clock.now())
        )
        told = list(nodes)
        if self._known_nodes is not None:
            told, removed = changed_nodes(self._known_nodes, nodes)
            report.base_sequence = self._known_sequence
            report.removed_node_ids.extend(removed)
        report.nodes.extend(node_message(node, self._drivers) for node in told)
        return report

    async def beat(self) -> bool:
        """Send one heartbeat and do what its acknowledgement asks; whether it was acknowledged."""
        heartbeat = self._compose()
        sent_at_ms = self._clock.monotonic_ms()
        try:
            answer = await self._market.heartbeat(heartbeat, self._timeout_seconds)
        except DomainError as error:
            _log.warning("heartbeat_not_acknowledged", sequence=heartbeat.sequence, error=str(error))
            return False
        with self._store.transaction():
            self._acknowledgements.save(sent_at_ms)
            self._supervisor.heard(sent_at_ms)
            self._take_in(heartbeat, answer)
        return True

    def _compose(self) -> Heartbeat:
        """The next heartbeat; all that it proves is on the disk when this returns."""
        self._sequence += 1
        heartbeat = Heartbeat(
            provider=self._provider,
            sequence=self._sequence,
            boot_id=self._boot_id,
            inventory_sequence=int(self._store.fact("inventory_sequence") or "0"),
        )
        with self._store.transaction():
            for run in self._store.runs():
                self._supervisor.accrue(run.key)
                proof = self._proof(run.key)
                if proof is not None:
                    heartbeat.proofs.append(proof)
                current = self._store.run(run.key)
                assert current is not None, "nothing is forgotten while a heartbeat is made"
                heartbeat.runs.append(status_message(current, self._supervisor.endpoints(run.key)))
        return heartbeat

    def _proof(self, key: RunKey) -> lease_pb2.Proof | None:
        """The next proof of a run that runs, the final one of a run that is over until it was heard, else none."""
        run = self._store.run(key)
        assert run is not None, "nothing is forgotten while a heartbeat is made"
        if run.state in PROVING:
            after, facts = prove(run, self._health(run))
            self._store.save_run(after)
            return proof_message(facts, self._key.sign(facts))
        if run.state.is_terminal and not run.final_acknowledged:
            facts = final_proof(run, self._health(run))
            return proof_message(facts, self._key.sign(facts))
        return None

    def _take_in(self, heartbeat: Heartbeat, answer: HeartbeatAcknowledgement) -> None:
        """Write down what the market has heard, and stop or forget what it says."""
        for refusal in answer.refusals:
            _log.warning("proof_refused", lease=refusal.lease, sequence=refusal.sequence, reason=refusal.reason)
        for proof in heartbeat.proofs:
            run = self._store.run(key_of(proof.key))
            if proof.final and run is not None:
                self._store.save_run(acknowledge_final(run))
        for unwanted in answer.unwanted:
            self._supervisor.stop(key_of(unwanted), DEFAULT_GRACE_MS)
        suspended = {key_of(paused) for paused in answer.suspended}
        for run in self._store.runs():
            if run.key in suspended:
                self._supervisor.suspend(run.key)
            else:
                self._supervisor.resume(run.key)
        for forgotten in answer.forgotten:
            run = self._store.run(key_of(forgotten))
            if run is not None and run.state.is_terminal:
                self._store.forget_run(run)
        if answer.inventory_wanted:
            self._known_nodes = None
            self._changed.set()

    def _health(self, run: Run) -> int:
        """The worst health of the run's devices; a device that is not in the inventory any more is not known."""
        devices = {device.device_id: device for node in self._sites.site().nodes for device in node.devices}
        used = [use.device_id for placement in run.placements for use in placement.devices]
        return int(
            worst_health([devices[name].health if name in devices else DeviceHealth.UNSPECIFIED for name in used])
        )
