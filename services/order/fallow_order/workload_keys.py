"""Which keys seal the workloads at rest, and getting rid of an old one.

To rotate: put a new key first in ``FALLOW_WORKLOAD_KEYS`` and restart. New workloads are sealed with it at once, the
others are sealed anew by a job, a batch at a time; rows that a transaction holds are left for the next turn. Once
``check`` says that no workload is sealed with the old key any more, it may go.
"""

from typing import Final

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database
from fallow_chassis.telemetry import meter
from fallow_order import store
from fallow_order.settings import OrderSettings
from fallow_order.vault import Vault

BATCH_WORKLOADS: Final = 100

_log = get_logger(__name__)


class MissingKeyError(Exception):
    """Workloads are sealed with a key that the settings do not hold."""


class WorkloadKeys:
    """What is sealed with which key."""

    def __init__(self, database: Database, vault: Vault) -> None:
        """Work on a database with the keys of the settings."""
        self._database = database
        self._vault = vault
        self._missing = meter().create_gauge("fallow.workloads.without_key", unit="{workload}")

    async def reseal(self) -> None:
        """Seal anew what old keys sealed, and raise the alert for what no key of ours opens."""
        old = sorted(self._vault.key_ids - {self._vault.current})
        while old and await self._reseal_batch(old) == BATCH_WORKLOADS:
            pass
        missing = self._lacking(await self.in_use())
        self._missing.set(sum(missing.values()))
        if missing:
            _log.error("workload_keys_missing", workloads_by_key=missing)

    async def in_use(self) -> dict[str, int]:
        """How many workloads each key has sealed."""
        async with self._database.read() as connection:
            return await store.count_workload_keys(connection)

    async def describe(self) -> str:
        """One line for an operator; MissingKeyError where a key is lacking."""
        counts = await self.in_use()
        missing = self._lacking(counts)
        if missing:
            raise MissingKeyError(f"not in FALLOW_WORKLOAD_KEYS, but in use: {_listed(missing)}")
        idle = sorted(self._vault.key_ids - set(counts) - {self._vault.current})
        found = f"{self._vault.current} seals; in use: {_listed(counts) or 'none'}"
        return f"{found}; may go: {', '.join(idle)}" if idle else found

    def _lacking(self, counts: dict[str, int]) -> dict[str, int]:
        """What is sealed with keys that are not in the settings: these workloads do not open."""
        return {key: count for key, count in counts.items() if key not in self._vault.key_ids}

    async def _reseal_batch(self, old: list[str]) -> int:
        """Seal a batch anew, in one transaction; returns how many."""
        async with self._database.transaction() as unit:
            found = await store.lock_workloads_of_keys(unit.connection, old, BATCH_WORKLOADS)
            for order_id, index, revision, sealed in found:
                workload = self._vault.open(order_id, index, sealed, revision)
                fresh = self._vault.seal(order_id, index, workload, revision)
                await store.reseal_workload(unit.connection, order_id, index, revision, fresh)
        if found:
            _log.info("workloads_resealed", workloads=len(found), key=self._vault.current)
        return len(found)


async def check_keys(settings: OrderSettings) -> str:
    """For the command ``check``: which keys are in use, which may go; MissingKeyError where one is lacking."""
    vault = Vault.parse(settings.workload_keys)
    clock = SystemClock()
    database = await Database.connect(
        settings.required("database_url"), pool_size=1, ids=RandomIds(clock), clock=clock, source="services/order"
    )
    try:
        return await WorkloadKeys(database, vault).describe()
    finally:
        await database.close()


def _listed(counts: dict[str, int]) -> str:
    """Keys with their counts."""
    return ", ".join(f"{key} ({count})" for key, count in sorted(counts.items()))
