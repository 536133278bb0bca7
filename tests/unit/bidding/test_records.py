"""Decisions written out as files, and decided again from them alone."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fallow_bidding.domain.demand import GpuNeed, OrderDemand
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.supply import Supplier
from fallow_bidding.records import RECORD, DecisionFolder, plain, replay
from fallow_sdk.command import build
from tests.unit.bidding.market import CORE, GIB, device, group, node, order, replica_set, supplier
from tests.unit.bidding.test_matching_properties import orders, suppliers

MIX = Snapshot(((Need(CORE, GIB, 1, 500), 3), (Need(CORE, GIB, 1, 1_000), 2), (Need(CORE, GIB, 2, 1_000), 1)))


def keep(folder: Path) -> tuple[Path, list[str]]:
    """Two decisions in a folder: the second order finds what the first one left."""
    gpus = tuple(device(f"d{at}", free_milli=600 if at == 1 else 1_000) for at in range(4))
    market = Market([supplier("p1", node("a", gpus), node("b", 2)), supplier("p2", micros=2_000_000)], mix=MIX)
    keeper = DecisionFolder(folder / "decisions")
    names = []
    for number, count in enumerate((2, 1)):
        wanted = order(group(replica_set(gpu=GpuNeed(count))), order_id=f"order{number}")
        assert keeper.decide(wanted, market).matches, "there is room"
        names.append(f"order{number}.json")
    return folder / "decisions", names


def test_a_kept_decision_is_made_again(tmp_path: Path) -> None:
    """Goal: `fallow market replay` confirms what the market did. Method: two decisions, both files."""
    folder, names = keep(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == names, "one file an order, and no drafts"
    result = CliRunner().invoke(build("market"), ["market", "replay", *(str(folder / name) for name in names)])
    assert result.exit_code == 0, result.output
    assert [line.rpartition(":")[0].endswith("the same") for line in result.output.splitlines()] == [True, True]


def test_a_decision_that_differs_is_told(tmp_path: Path) -> None:
    """Goal: a file that was changed, cut, or is not there ends with 1. Method: one of each, beside a good one."""
    folder, (first, second) = keep(tmp_path)
    record = json.loads((folder / first).read_bytes())
    record["suppliers"][0]["unavailable"] = "draining"
    changed, cut = tmp_path / "changed.json", tmp_path / "cut.json"
    changed.write_text(json.dumps(record))
    cut.write_bytes((folder / first).read_bytes()[:-20])
    for path, told in (
        (changed, "decides otherwise now"),
        (cut, "is no decision"),
        (tmp_path / "none", "cannot be read"),
    ):
        result = CliRunner().invoke(build("market"), ["market", "replay", str(path), str(folder / second)])
        assert result.exit_code == 1, f"{path.name} does not hold"
        assert told in " ".join(result.output.split()), "and says why"
        assert "the same" in result.output, "the other file is looked at all the same"


@settings(deadline=None, max_examples=60)
@given(suppliers(), orders(), st.sampled_from((MIX, Snapshot())))
def test_whatever_was_decided_is_decided_again(
    market: list[Supplier], wanted: list[OrderDemand], mix: Snapshot
) -> None:
    """Goal: a decision follows from its record. Method: any orders one after another, each through its file and back."""
    room = Market(market, mix=mix)
    with tempfile.TemporaryDirectory() as folder:
        keeper = DecisionFolder(Path(folder))
        for demand in wanted:
            decision = keeper.decide(demand, room)
            record = RECORD.validate_json((Path(folder) / f"{demand.order_id}.json").read_bytes())
            assert plain(record.decision) == plain(decision), "the file holds what was decided"
            assert plain(replay(record)) == plain(decision), "and what it followed from"
