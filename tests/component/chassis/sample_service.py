"""A whole service on the chassis, as a process of its own: `python sample_service.py serve|migrate|check`.

It serves the sample contract, emits an event for each call of Account, and consumes its own events into a table.
"""

import asyncio
import sys
from typing import Any

from fallow_chassis.application import Application, run_service
from fallow_chassis.context import current_identity
from fallow_chassis.events import EventDraft, ReceivedEvent
from fallow_chassis.inbox import Consumer
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.settings import ServiceSettings
from tests.unit.chassis.sample import SERVICE, Answer, ThingHappened, add_servicer


class SampleSettings(ServiceSettings):
    """What a test wants to go wrong."""

    needed = ("database_url",)

    fault: str = ""
    topic: str = ""


class Servicer:
    """Public waits as long as it is told; Account states a fact."""

    def __init__(self, application: Application[SampleSettings], database: Database) -> None:
        self.topic = application.settings.required("topic")
        self.database = database

    async def Public(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(float(request.text or 0))
        return Answer(text="done")

    async def Account(self, request: Any, context: Any) -> Any:
        async with self.database.transaction() as unit:
            version = 1 + await unit.connection.fetchval("SELECT count(*) FROM outbox WHERE key = $1", request.text)
            unit.emit(EventDraft(self.topic, request.text, version, ThingHappened(thing=request.text, number=version)))
        return Answer(text=current_identity().subject)


async def handle(unit: UnitOfWork, event: ReceivedEvent, message: Any) -> None:
    await unit.connection.execute("INSERT INTO seen (key, number) VALUES ($1, $2)", event.key, message.number)


async def fail() -> None:
    raise ZeroDivisionError("a job with a bug")


async def build(application: Application[SampleSettings]) -> None:
    database = await application.database()
    async with database.transaction() as unit:
        await unit.connection.execute("CREATE TABLE IF NOT EXISTS seen (key text, number bigint)")
    stream = await application.stream()
    topic = application.settings.required("topic")
    application.server.add(add_servicer, Servicer(application, database), SERVICE)
    if application.settings.fault != "no relay":
        application.relay()

    async def read() -> None:
        async with database.read() as connection:
            await connection.fetchval("SELECT count(*) FROM seen")

    application.consume(Consumer("sample", [topic], database, stream, {ThingHappened: handle}))
    application.every(60, read, name="read")
    if application.settings.fault == "job":
        application.every(60, fail, name="fail")

    async def last_words() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with database.transaction() as unit:
                unit.emit(EventDraft(topic, "late", 1, ThingHappened(thing="late", number=1)))

    if application.settings.fault == "late event":
        application.background(last_words, name="last words")

    async def closing() -> None:
        await read()
        sys.stderr.write("closing with the pool still open\n")

    application.on_close(closing)


if __name__ == "__main__":
    sys.exit(run_service("order", SampleSettings, build, "fallow_chassis"))
