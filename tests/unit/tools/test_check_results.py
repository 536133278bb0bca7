"""The gate of continuous integration: what it takes and what it refuses."""

import shutil
from pathlib import Path

import pytest

from tools import check_results

CASE = '<testcase classname="t" name="x"><properties><property name="needs" value="{need}"/></properties>{outcome}</testcase>'


def results(folder: Path, *cases: str) -> Path:
    """A JUnit file of those cases."""
    path = folder / "tests.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>", "utf-8")
    return path


@pytest.fixture(autouse=True)
def _java_and_maven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has both."""
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


def test_a_run_on_kafka_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a complete run is taken. Method: one case on Kafka that ran."""
    path = results(tmp_path, CASE.format(need="kafka", outcome=""))
    monkeypatch.setattr("sys.argv", ["check_results", str(path)])
    assert check_results.main() == 0


def test_a_skip_on_kafka_fails_where_kafka_could_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a skip that hides Kafka is seen. Method: the only case on Kafka was skipped, with Java and Maven there."""
    skipped = CASE.format(need="kafka", outcome='<skipped type="pytest.skip" message="none"/>')
    path = results(tmp_path, skipped, CASE.format(need="docker", outcome=""))
    monkeypatch.setattr("sys.argv", ["check_results", str(path)])
    assert check_results.main() == 1


def test_a_skip_on_kafka_is_fine_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a machine without Java can pass. Method: the same results, nothing on the path."""
    monkeypatch.setattr(shutil, "which", lambda program: None)
    skipped = CASE.format(need="kafka", outcome='<skipped type="pytest.skip" message="none"/>')
    monkeypatch.setattr("sys.argv", ["check_results", str(results(tmp_path, skipped))])
    assert check_results.main() == 0


def test_missing_results_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a run that died is no success. Method: name a file that is not there."""
    monkeypatch.setattr("sys.argv", ["check_results", str(tmp_path / "none.xml")])
    assert check_results.main() == 1
