"""The settlement service: ``python -m fallow_settlement serve|migrate|check``, and ``deploy-contracts`` (see there)."""

import sys

from fallow_chassis.application import run_service
from fallow_settlement import deployment
from fallow_settlement.app import build
from fallow_settlement.checks import check_chain, check_money
from fallow_settlement.settings import SettlementSettings

DEPLOY = "deploy-contracts"

if __name__ == "__main__":
    if sys.argv[1:2] == [DEPLOY]:
        sys.exit(deployment.run(sys.argv[2:]))
    own_checks = {"money": check_money, "chain": check_chain}
    sys.exit(run_service("settlement", SettlementSettings, build, "fallow_settlement", checks=own_checks))
