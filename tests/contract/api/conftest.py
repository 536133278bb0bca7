"""The descriptor set of all protos, compiled once a run, with comments."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.api.descriptors import Api

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    """Our files of the descriptor set, with comments and options."""
    path = tmp_path_factory.mktemp("descriptors") / "fallow.binpb"
    script = ROOT / "tools" / "generate_proto.py"
    subprocess.run([sys.executable, str(script), "--descriptors", str(path)], cwd=ROOT, check=True)
    return Api.parse(path.read_bytes())
