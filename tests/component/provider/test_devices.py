"""Cards that are found: by the probe on a stand-in for NVML that plays states, by a real agent on it, and on a real card where there is one."""

import asyncio
import ctypes
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pynvml
import pytest

from fallow.provider.v1 import market_link_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.type.v1 import resources_pb2
from fallow_chassis.gpu_models import gpu_model_of
from fallow_provider.domain.device_reading import CardEvent, Snapshot, cards_after
from fallow_provider.domain.inventory import DeviceHealth, DeviceSource
from fallow_provider.ports import ProbeError, ProbeMissingError
from fallow_provider.probes.nvml import NvmlProbe
from tests.component.provider.conftest import SITE, Market, door
from tests.nvml_shim import LIBRARY, STATES_VARIABLE, compiled

GIB = 1 << 30
HEALTHY = "card uuid=GPU-0 name=NVIDIA_H100_80GB_HBM3 vram=85520809984 used=1000 temp=41 limit=90 power=70000 gpu=3 ecc=0 pending=0\n"
SECOND = "card uuid=GPU-1 name=NVIDIA_GeForce_RTX_4090 vram=25757220864 temp=35\n"
FOUND_SITE = SITE[: SITE.index("[[nodes.devices]]")] + "find_devices = true\n\n" + SITE[SITE.index("[prices]") :]
FAILED, WELL = resources_pb2.DEVICE_HEALTH_FAILED, resources_pb2.DEVICE_HEALTH_HEALTHY


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, compiled once."""
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def states(tmp_path: Path) -> Path:
    """What the stand-in plays; two healthy cards to begin with."""
    path = tmp_path / "cards.txt"
    path.write_text(HEALTHY + SECOND, "utf-8")
    return path


@pytest.fixture
def probe(library: Path, states: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlProbe]:
    """The probe on the stand-in, opened."""
    # Loaded under its own name, it is what the driver's name stands for from then on.
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    monkeypatch.setenv(STATES_VARIABLE, str(states))
    found = NvmlProbe()
    found.open()
    yield found
    found.close()


def test_the_probe_reads_what_cards_tell(probe: NvmlProbe, states: Path) -> None:
    """Goal: each fact of NVML's, and None for what a card does not tell. Method: a card that tells all, one that tells little, one cut by MIG."""
    with states.open("a", encoding="utf-8") as file:
        file.write("card uuid=GPU-2 name=NVIDIA_A100-SXM4-40GB vram=42949672960\n")
        file.write("slice of=GPU-2 uuid=MIG-0 name=NVIDIA_A100-SXM4-40GB_MIG_1g.5gb vram=5100273664\n")
    full, little, cut = probe.read().cards
    assert (full.name, full.pci_bus_id) == ("NVIDIA H100 80GB HBM3", "00000000:01:00.0")
    assert (full.temperature_celsius, full.temperature_limit_celsius, full.power_milliwatts) == (41, 90, 70_000)
    assert (full.gpu_percent, full.memory_used_bytes, full.uncorrected_errors) == (3, 1_000, 0)
    assert (little.power_milliwatts, little.gpu_percent, little.uncorrected_errors, little.slices) == (None,) * 4
    assert [part.device_id for part in cut.slices or ()] == ["MIG-0"]


def test_the_probe_tells_lost_cards_from_silent_drivers(probe: NvmlProbe, states: Path) -> None:
    """Goal: a lost card is told as lost, a driver that does not answer as nothing known. Method: lost, gone from the list, sick."""
    states.write_text(HEALTHY.replace("pending=0", "pending=0 state=lost") + SECOND, "utf-8")
    snapshot = probe.read()
    assert [(card.card_id, card.is_lost) for card in snapshot.cards] == [("GPU-0", True), ("GPU-1", False)]
    states.write_text(SECOND, "utf-8")
    snapshot = probe.read()
    assert ([card.card_id for card in snapshot.cards], snapshot.is_complete) == (["GPU-1"], True)
    states.write_text("dead\n" + SECOND, "utf-8")
    with pytest.raises(ProbeError, match="does not answer"):
        probe.read()


def test_the_probe_hands_out_each_xid_once(probe: NvmlProbe, states: Path) -> None:
    """Goal: what the driver reports is heard, once. Method: two Xids of two cards, then silence."""
    assert probe.wait(0.01) == []
    with states.open("a", encoding="utf-8") as file:
        file.write("xid uuid=GPU-1 code=31\nxid uuid=GPU-0 code=79\n")
    assert probe.wait(0.01) == [CardEvent("GPU-1", 31), CardEvent("GPU-0", 79)]
    assert probe.wait(0.01) == []


def devices_of(market: Market) -> dict[str, resources_pb2.Device]:
    """The devices of the last report."""
    return (
        {device.device_id: device for device in market.inventories[-1].nodes[0].devices} if market.inventories else {}
    )


async def test_an_agent_offers_the_cards_that_it_finds_and_tells_of_their_end(
    market: Market, library: Path, states: Path
) -> None:
    """Goal: found, named as the market names them, leased, failed by an Xid and by loss, and failed still after a restart. Method: a real
    agent on the stand-in; a lease on one card; an Xid 79 of it; the other card gone from the list; SIGKILL of the agent.
    """
    (market.folder / "site.toml").write_text(FOUND_SITE, "utf-8")
    played = {
        "LD_LIBRARY_PATH": str(library.parent),
        STATES_VARIABLE: str(states),
        "FALLOW_DEVICE_READ_SECONDS": "0.2",
    }
    await market.start_agent(**played)
    await market.until(lambda: len(devices_of(market)) == 2, "a report of both cards")
    first, second = (devices_of(market)[name] for name in ("GPU-0", "GPU-1"))
    assert (first.model, first.interface, first.vram_bytes, first.health) == ("h100", "sxm", 85_520_809_984, WELL)
    assert (second.model, second.vendor, second.source) == ("rtx4090", "nvidia", resources_pb2.DEVICE_SOURCE_NVML)
    lease, key = market.new_lease()
    answer = await market.command(market.run_command(lease, key, device="GPU-0"))
    assert answer.outcome == market_link_pb2.COMMAND_OUTCOME_ACCEPTED, answer
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)

    with states.open("a", encoding="utf-8") as file:
        file.write("xid uuid=GPU-0 code=79\n")
    await market.until(lambda: devices_of(market)["GPU-0"].health == FAILED, "the end of a card")
    assert devices_of(market)["GPU-0"].health_detail == "Xid 79: fell off the bus"
    assert devices_of(market)["GPU-1"].health == WELL
    states.write_text(states.read_text("utf-8").replace(SECOND, ""), "utf-8")
    await market.until(lambda: devices_of(market)["GPU-1"].health == FAILED, "the loss of a card")
    assert devices_of(market)["GPU-1"].health_detail == "the driver lists it no more"
    other, other_key = market.new_lease()
    refused = await market.command(market.run_command(other, other_key, device="GPU-1"))
    assert (refused.outcome, refused.reason) == (market_link_pb2.COMMAND_OUTCOME_REFUSED, "DEVICE_FAILED")

    assert await market.end_agent(signal.SIGKILL) == -signal.SIGKILL
    market.inventories.clear()
    await market.start_agent(**played)
    await market.until(lambda: len(devices_of(market)) == 2, "a report after the restart")
    assert {device.health for device in devices_of(market).values()} == {FAILED}
    async with await door(
        market, lambda: market.identity.account_token(market.order.account, ["providers.read"])
    ) as opened:
        stub = provider_service_pb2_grpc.AgentServiceStub(opened)
        status = await stub.GetAgentStatus(provider_service_pb2.GetAgentStatusRequest())
    assert [card.health for card in status.cards] == [FAILED, FAILED]


async def test_an_agent_without_a_driver_says_what_to_do(market: Market, library: Path) -> None:
    """Goal: nobody wonders why nothing is offered. Method: devices are to be found where the stand-in tells that no driver is loaded."""
    (market.folder / "site.toml").write_text(FOUND_SITE, "utf-8")
    await market.launch_agent(LD_LIBRARY_PATH=str(library.parent))
    assert market.process is not None
    assert await market.process.wait() == 2
    told = market.log()
    for part in ("node-1 has find_devices = true", LIBRARY, "amdsmi", "declare the node's devices"):
        assert part in told


FAULT = (sys.executable, str(Path(__file__).with_name("cuda_fault.py")))
ACCESS_XIDS = {13, 31}
"""An address that a program may not use: found by an engine of the card, or by its memory management."""


def read_real_cards(*, with_fault: bool) -> tuple[Snapshot, list[CardEvent], int]:
    """What the probe reads in a process of its own, where no stand-in was loaded; the reading of no card where there is no driver.

    Events are those that a program's forbidden write brings, or what is reported without one.
    """
    probe = NvmlProbe()
    try:
        probe.open()
    except ProbeMissingError:
        return Snapshot(()), [], 0
    try:
        events: list[CardEvent] = probe.wait(0.1)
        if with_fault:
            subprocess.run(FAULT, check=True, timeout=60)
            events = next((heard for heard in (probe.wait(1) for _ in range(20)) if heard), [])
        return probe.read(), events, pynvml.nvmlDeviceGetCount()
    finally:
        probe.close()


def real_cards(*, with_fault: bool = False) -> tuple[Snapshot, list[CardEvent]]:
    """The cards of this machine; the test is skipped where there is none."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        snapshot, events, count = pool.submit(partial(read_real_cards, with_fault=with_fault)).result()
    if not count:
        pytest.skip("no GPU of NVIDIA's here")
    assert snapshot.is_complete
    assert len(snapshot.cards) == count
    return snapshot, events


@pytest.mark.gpu
def test_a_real_card_tells_what_the_stand_in_plays() -> None:
    """Goal: the probe holds on NVIDIA's own library. Method: read every card of this machine; skipped where there is none."""
    snapshot, events = real_cards()
    for card in snapshot.cards:
        assert card.card_id.startswith("GPU-")
        assert card.vram_bytes > GIB
        assert not card.is_lost
        assert gpu_model_of(card.name, card.vendor, card.vram_bytes).is_listed, card.name
    assert events == []


@pytest.mark.gpu
def test_a_real_driver_reports_the_xid_of_a_faulty_program() -> None:
    """Goal: Xids of NVIDIA's own library are heard, and a workload's fault is none of the card. Method: a kernel writes where it may not."""
    snapshot, events = real_cards(with_fault=True)
    assert {event.xid for event in events} <= ACCESS_XIDS, events
    assert {event.card_id for event in events} == {snapshot.cards[0].card_id}
    cards = cards_after({}, snapshot, DeviceSource.NVML, events)
    assert cards[snapshot.cards[0].card_id].health is DeviceHealth.HEALTHY


@pytest.mark.gpu
async def test_an_agent_leases_a_real_card(market: Market) -> None:
    """Goal: found, named, leased, and well after a workload's fault. Method: a real agent on NVIDIA's own library; a kernel that writes where
    it may not while a lease runs.
    """
    snapshot, _ = real_cards()
    (market.folder / "site.toml").write_text(FOUND_SITE, "utf-8")
    await market.start_agent(FALLOW_DEVICE_READ_SECONDS="0.2")
    await market.until(lambda: len(devices_of(market)) == len(snapshot.cards), "a report of every card")
    card = snapshot.cards[0]
    device = devices_of(market)[card.card_id]
    assert (device.vram_bytes, device.health, device.source) == (
        card.vram_bytes,
        WELL,
        resources_pb2.DEVICE_SOURCE_NVML,
    )
    lease, key = market.new_lease()
    answer = await market.command(market.run_command(lease, key, device=card.card_id))
    assert answer.outcome == market_link_pb2.COMMAND_OUTCOME_ACCEPTED, answer
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    await asyncio.to_thread(subprocess.run, FAULT, check=True, timeout=60)
    proofs = len(market.proofs(lease))
    await market.until(lambda: len(market.proofs(lease)) > proofs + 1, "proofs after the fault")
    assert devices_of(market)[card.card_id].health == WELL
