"""Keeps the processes of a stack: starts them, sees when one ends, starts it again and says so.

A member that ends by itself is started again after a pause that grows, and the table shows how often. One that ends
more than RESTARTS_MAX times within RESTART_WINDOW_MS stops the whole stack: something is wrong that a restart
does not mend. Members stop in the reverse of the order in which they started.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from fallow_chassis.clock import Clock, SystemClock
from fallow_stack.engines import EngineError
from fallow_stack.home import Home, MemberStatus, StackStatus
from fallow_stack.member import Engine

RESTARTS_MAX = 5
RESTART_WINDOW_MS = 60_000
FIRST_PAUSE_SECONDS = 0.5
WATCH_SECONDS = 0.2


class MemberFailedError(Exception):
    """A member ended too often; the stack stops."""


@dataclass(slots=True)
class Member:
    """One process with its history."""

    name: str
    engine: Engine
    port: int
    state: str = "starting"
    started: float = 0.0
    restarts: int = 0
    note: str = ""
    ends: list[int] = field(default_factory=list)

    def status(self) -> MemberStatus:
        """The member as the status file shows it."""
        pid = self.engine.pid if self.engine.is_running else 0
        return MemberStatus(self.name, self.state, pid, self.port, self.started, self.restarts, self.note)


class Supervisor:
    """The members of one stack. `say` gets one line for each thing that a person should know."""

    def __init__(self, home: Home, say: Callable[[str], None], clock: Clock | None = None) -> None:
        self._home = home
        self._say = say
        self._clock = clock or SystemClock()
        self.members: list[Member] = []

    def status(self) -> StackStatus:
        """All members as they are now."""
        return StackStatus(os.getpid(), tuple(member.status() for member in self.members))

    def _publish(self) -> None:
        self._home.write_status(self.status())

    async def start(self, name: str, engine: Engine, port: int) -> Member:
        """Start a member and keep it. Raises EngineError when it does not come up."""
        member = Member(name, engine, port)
        self.members.append(member)
        self._publish()
        await self._bring_up(member)
        return member

    async def _bring_up(self, member: Member) -> None:
        member.state = "starting"
        self._publish()
        try:
            await member.engine.start()
        except EngineError:
            member.state = "failed"
            self._publish()
            raise
        member.state, member.started = "running", self._clock.now().timestamp()
        self._publish()

    async def watch(self) -> None:
        """Watch all members until cancelled. Raises MemberFailedError when one ends too often."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._watch(member), name=member.name)

    async def _watch(self, member: Member) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not member.engine.is_running:
                await self._restart(member)

    async def _restart(self, member: Member) -> None:
        now = self._clock.monotonic_ms()
        member.ends = [end for end in member.ends if now - end < RESTART_WINDOW_MS] + [now]
        member.state, member.note = "restarting", "ended by itself"
        member.restarts += 1
        self._publish()
        if len(member.ends) > RESTARTS_MAX:
            raise MemberFailedError(
                f"{member.name} ended {len(member.ends)} times within {RESTART_WINDOW_MS // 1000} s; "
                f"see its log in {self._home.logs}"
            )
        pause = FIRST_PAUSE_SECONDS * 2 ** (len(member.ends) - 1)
        self._say(f"{member.name} ended by itself; starting it again in {pause:g} s")
        await asyncio.sleep(pause)
        try:
            await self._bring_up(member)
        except EngineError as error:
            self._say(f"{member.name} did not come up: {error}")
        else:
            self._say(f"{member.name} runs again (restart {member.restarts})")

    async def stop(self) -> None:
        """Stop all members, the last started first."""
        for member in reversed(self.members):
            member.state = "stopping"
            self._publish()
            await member.engine.stop()
            member.state = "stopped"
            self._publish()
