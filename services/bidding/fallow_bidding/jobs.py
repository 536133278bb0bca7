"""What runs by itself: the engine's leader loop, the courier of commands, the watch over time.

A signal of the database makes the engine and the courier look sooner; each also looks by itself after a while.
"""

import asyncio
import re
from typing import Final

import asyncpg

from fallow_bidding.channels import COMMAND_CHANNEL, MARKET_CHANNEL
from fallow_bidding.commands.auctions import AuctionCommands
from fallow_bidding.commands.delivery import DeliveryCommands, Outgoing
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.commands.orders import OrderCommands
from fallow_bidding.commands.watching import WatchCommands
from fallow_bidding.convert.link import command_answer
from fallow_bidding.store import QUERIES
from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.postgres import Database
from fallow_chassis.retry import keep_trying
from fallow_chassis.signals import Signals
from fallow_chassis.telemetry import meter

ENGINE_POLL_SECONDS: Final = 1.0
"""How often the leader looks without being woken: holds run out, offers expire, providers come back."""
STANDBY_POLL_SECONDS: Final = 0.5
"""How often a standby tries to lead."""
ANNOUNCER_POLL_SECONDS: Final = 2.0
SILENCE_SECONDS: Final = 3.0
"""A leader that says nothing for this long leads no more."""
PING_SECONDS: Final = 1.0
"""How often the leader says something."""
COURIER_POLL_SECONDS: Final = 0.5
REQUEST_SECONDS: Final = 2.0
"""How long an agent has to answer a command before it is sent again."""
COMMANDS_IN_FLIGHT: Final = 64
"""The most commands that wait for an answer at one time."""

_NOT_OF_A_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")
"""What a token of a NATS subject cannot hold, or should not."""
_log = get_logger(__name__)


class Engine:
    """The market's one writer. Any number may run: one leads, the others stand by."""

    def __init__(self, database: Database, signals: Signals, matching: MatchingCommands, leader_lock_key: int) -> None:
        """``leader_lock_key`` is the market's advisory lock for the lead, held by a session."""
        self._database = database
        self._bell = signals.bell(MARKET_CHANNEL)
        self._matching = matching
        self._leader_lock_key = leader_lock_key
        self.is_leading = False
        self._leases = meter().create_counter("fallow.bidding.leases", unit="{lease}")

    async def run(self) -> None:
        """Lead or stand by until cancelled."""
        with self._bell:
            await keep_trying("engine", self._lead)

    async def _lead(self) -> None:
        """Wait for the lead, then match as long as the session lives.

        A leader that is silent for ``SILENCE_SECONDS`` (its host is dead, its process is stopped) loses the session by
        the server's own clock. Whoever leads next first ends what the last one left half done: nothing of a pass is
        seen before it commits, and one that goes on after all reads everything anew under the decisions lock.
        """
        async with self._database.session(silence_seconds=SILENCE_SECONDS) as session:
            while not await session.fetchval(QUERIES.get("try_lead"), self._leader_lock_key):
                await self._bell.wait(STANDBY_POLL_SECONDS)
            ended = await session.fetch(QUERIES.get("end_other_passes"), self._matching.lock_key)
            term = await session.fetchval(QUERIES.get("next_term"), self._matching.market)
            _log.info("engine_leads", term=term, passes_ended=len(ended))
            self.is_leading = True
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_lead(session))
                    group.create_task(self._match(term))
            finally:
                self.is_leading = False

    async def _keep_lead(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Say something on the session that holds the lead; fails, and ends the pass, once it is gone."""
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                await session.fetchval("SELECT 1")
            await asyncio.sleep(PING_SECONDS)

    async def _match(self, term: int) -> None:
        """Match whenever something changed, as long as nobody leads by a later term."""
        while True:
            made = await self._matching.match_open_orders(term)
            if made:
                self._leases.add(made)
                _log.info("leases_made", leases=made)
            await self._bell.wait(min(ENGINE_POLL_SECONDS, await self._matching.seconds_to_close()))


class Courier:
    """Sends commands to providers until they are answered."""

    def __init__(self, signals: Signals, link: NatsLink, commands: DeliveryCommands) -> None:
        """Take the signals that wake it, the link, and the use-cases."""
        self._bell = signals.bell(COMMAND_CHANNEL)
        self._link = link
        self._commands = commands
        self._answers = meter().create_counter("fallow.bidding.commands", unit="{command}")

    async def run(self) -> None:
        """Send until cancelled."""
        with self._bell:
            await keep_trying("courier", self._deliver)

    async def _deliver(self) -> None:
        """Send what is due, whenever something is; an agent that is slow to answer holds up nobody else."""
        slots = asyncio.Semaphore(COMMANDS_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            while True:
                due = await self._commands.take_due()
                for outgoing in due:
                    await slots.acquire()
                    sending = group.create_task(self._send(outgoing))
                    sending.add_done_callback(lambda _: slots.release())
                if not due:
                    await self._bell.wait(COURIER_POLL_SECONDS)

    async def _send(self, outgoing: Outgoing) -> None:
        """Send one command and take its answer; one that is not answered is due again by itself."""
        subject = f"fallow.provider.{outgoing.provider_id}.command"
        kind = outgoing.command.WhichOneof("action")
        try:
            payload = await self._link.request(subject, outgoing.command.SerializeToString(), REQUEST_SECONDS)
        except DomainError as error:
            self._answers.add(1, {"kind": str(kind), "outcome": "none"})
            _log.warning("command_not_answered", lease=outgoing.command.lease, kind=kind, error=str(error))
            return
        try:
            answer = command_answer(payload, outgoing.command.command_id)
        except DomainError as error:
            self._answers.add(1, {"kind": str(kind), "outcome": "none"})
            _log.warning("command_answer_refused", lease=outgoing.command.lease, kind=kind, error=str(error))
            return
        self._answers.add(1, {"kind": str(kind), "outcome": "accepted" if answer.accepted else "refused"})
        _log.info(
            "command_answered",
            lease=outgoing.command.lease,
            kind=kind,
            accepted=answer.accepted,
            reason=answer.reason,
        )
        await self._commands.take_answer(outgoing, answer)


class Announcer:
    """Tells providers of new rounds. A hint: who misses it finds the round by ListAuctions."""

    def __init__(self, signals: Signals, link: NatsLink, commands: AuctionCommands) -> None:
        """Take the signals that wake it, the link, and the use-cases."""
        self._bell = signals.bell(MARKET_CHANNEL)
        self._link = link
        self._commands = commands

    async def run(self) -> None:
        """Announce until cancelled."""
        with self._bell:
            await keep_trying("announcer", self._announce)

    async def _announce(self) -> None:
        """Tell of what is new, whenever something is."""
        while True:
            taken = await self._commands.take_unannounced()
            for announcement in taken:
                payload = announcement.message.SerializeToString()
                for region, model in announcement.audience:
                    await self._link.publish(announcement_subject(region, model), payload)
            if not taken:
                await self._bell.wait(ANNOUNCER_POLL_SECONDS)


def announcement_subject(region: str, model: str) -> str:
    """Where rounds for a GPU model in a region are told of; ``none`` is a group without GPUs."""
    tokens = (_NOT_OF_A_TOKEN.sub("_", text) or "none" for text in (region, model))
    return f"fallow.market.auction.{'.'.join(tokens)}"


class Watch:
    """One pass over everything that time changes; ``run_once`` is a job."""

    def __init__(self, link: NatsLink, watching: WatchCommands, orders: OrderCommands) -> None:
        """The market hears providers through ``link``: while that is away, so is the market."""
        self._link = link
        self._watching = watching
        self._orders = orders

    async def run_once(self) -> None:
        """Beat, then look at silence, at what is overdue, at notices that are over, at waits for a match, and at terms."""
        if not self._link.is_connected:
            return
        await self._watching.beat()
        await self._watching.find_silent()
        await self._watching.find_overdue()
        await self._watching.end_preempted()
        await self._watching.find_unmatched()
        await self._orders.end_terms()
