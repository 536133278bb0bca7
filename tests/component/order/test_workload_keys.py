"""Rotation of the keys that seal workloads, on a real database."""

import base64

import pytest
from structlog.testing import capture_logs

from fallow_chassis.errors import DomainError
from fallow_order.vault import Vault
from fallow_order.workload_keys import MissingKeyError, WorkloadKeys
from tests.component.order.conftest import KEYS, House, grant_on, new_name, small_order
from tests.component.order.test_sessions import _workload

NEW = f"k2:{base64.b64encode(b'n' * 32).decode()}"


async def _orders(house: House, count: int) -> list[str]:
    """Orders with workloads that the house's key sealed."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 1_000_000_000
    created = [await tenant.create(f"r{number}", small_order(secret=f"s-{number}")) for number in range(count)]
    return [order.name for order in created]


async def test_a_key_rotates_while_workloads_lie_under_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: new key first, old still opens, all is sealed anew, then the old may go. Method: each step, in batches."""
    names = await _orders(house, 5)
    rotated = Vault.parse(f"{NEW},{KEYS}")
    keys = WorkloadKeys(house.database, rotated)
    assert await WorkloadKeys(house.database, Vault.parse(KEYS)).describe() == "k1 seals; in use: k1 (5)"
    assert await keys.describe() == "k2 seals; in use: k1 (5)"
    monkeypatch.setattr("fallow_order.workload_keys.BATCH_WORKLOADS", 2)
    await keys.reseal()
    assert await keys.in_use() == {"k2": 5}
    assert await keys.describe() == "k2 seals; in use: k2 (5); may go: k1"
    monkeypatch.setattr(house.commands, "_vault", Vault.parse(NEW))
    for number, name in enumerate(names):
        lease = new_name("leases")
        assert await _workload(house, house.identity.grant(grant_on(name, lease=lease)), lease) == f"s-{number}"


async def test_a_key_that_was_taken_away_too_early(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a clear error, an alert, and nothing lost. Method: take the key out, ask, put it back, ask again."""
    (name,) = await _orders(house, 1)
    only_new = Vault.parse(NEW)
    with monkeypatch.context() as patched:
        patched.setattr(house.commands, "_vault", only_new)
        lease = new_name("leases")
        grant = house.identity.grant(grant_on(name, lease=lease))
        assert await _workload(house, grant, lease) == "WORKLOAD_KEY_MISSING"
    keys = WorkloadKeys(house.database, only_new)
    with capture_logs() as logs:
        await keys.reseal()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["workload_keys_missing"]
    with pytest.raises(MissingKeyError, match=r"k1 \(1\)"):
        await keys.describe()
    with pytest.raises(DomainError, match="k1"):
        only_new.open("o", 0, Vault.parse(KEYS).seal("o", 0, b"x"))
    assert await keys.in_use() == {"k1": 1}
    assert await _workload(house, grant, lease) == "s-0"


async def test_a_row_that_somebody_holds_is_left_for_later(house: House) -> None:
    """Goal: the job never waits for an order's own transaction. Method: hold a row, run the job, let go, run again."""
    await _orders(house, 2)
    keys = WorkloadKeys(house.database, Vault.parse(f"{NEW},{KEYS}"))
    async with house.database.transaction() as unit:
        await unit.connection.fetch("SELECT 1 FROM workload ORDER BY order_id LIMIT 1 FOR UPDATE")
        await keys.reseal()
        assert await keys.in_use() == {"k1": 1, "k2": 1}
    await keys.reseal()
    assert await keys.in_use() == {"k2": 2}
