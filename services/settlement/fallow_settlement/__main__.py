"""The settlement service: ``python -m fallow_settlement serve|migrate|check``."""

import sys

from fallow_chassis.application import run_service
from fallow_settlement.app import build
from fallow_settlement.settings import SettlementSettings

if __name__ == "__main__":
    sys.exit(run_service("settlement", SettlementSettings, build, "fallow_settlement"))
