"""`fallow market providers`: the table's words, and what is refused before anybody is asked."""

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from typer.testing import CliRunner

from fallow.bidding.v1 import provider_pb2
from fallow_sdk.command import build
from fallow_sdk.commands.market_providers import parse_states, providers_table

NAME = "providers/0123456789abcdefghjkmnpqrs"


def test_the_table_shows_the_parts() -> None:
    """Goal: everything that makes the score can be read off. Method: a provider with all parts, and a new one."""
    known = provider_pb2.Provider(
        name=NAME, display_name="Fjord", region="eu-west", state=provider_pb2.PROVIDER_STATE_ONLINE,
        auditor_signatures=[provider_pb2.AuditorSignature(auditor="0xab")],
        reputation=provider_pb2.Reputation(
            score_milli=842, reliability_milli=896, uptime_week_milli=913, uptime_milli=979, start_success_milli=628,
            time_to_start=Duration(seconds=20, nanos=500_000_000), early_closes=1, leases=4,
        ),
    )  # fmt: skip
    new = provider_pb2.Provider(name=NAME, state=provider_pb2.PROVIDER_STATE_REGISTERED)
    console = Console(width=250)
    with console.capture() as capture:
        console.print(providers_table([known, new]))
    _, first, second = capture.get().splitlines()
    assert first.split() == [
        NAME, "Fjord", "ONLINE", "eu-west", "842", "89.6", "%", "91.3", "%", "97.9", "%", "62.8", "%", "20.5", "s", "4", "1",
        "0xab",
    ]  # fmt: skip
    assert second.split()[:3] == [NAME, "-", "REGISTERED"]


def test_states_are_named() -> None:
    """Goal: a mistyped state is a usage error that names the real ones. Method: two good ones and a bad one."""
    assert parse_states(["online", "DRAINING"]) == [
        provider_pb2.PROVIDER_STATE_ONLINE,
        provider_pb2.PROVIDER_STATE_DRAINING,
    ]
    result = CliRunner().invoke(build("market"), ["market", "providers", "--state", "asleep"])
    assert result.exit_code == 2
    assert "unreachable" in result.output


@pytest.mark.parametrize("score", ["-1", "1001", "high"])
def test_a_score_is_within_the_scale(score: str) -> None:
    """Goal: nonsense asks nobody. Method: scores that cannot be."""
    result = CliRunner().invoke(build("market"), ["market", "providers", "--reputation", score])
    assert result.exit_code == 2
