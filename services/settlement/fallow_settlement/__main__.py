"""The settlement service: ``python -m fallow_settlement serve|migrate|check``, and ``anchors``, ``deploy-contracts``, ``deposits``, ``gaps``, ``vetoes``."""

import sys

from fallow_chassis.application import run_service
from fallow_settlement import anchor_command, deployment, gap_command, stray_command, veto_command
from fallow_settlement.app import build
from fallow_settlement.checks import check_chain, check_money
from fallow_settlement.settings import SettlementSettings

OPERATORS = {
    "anchors": anchor_command.run,
    "deposits": stray_command.run,
    "deploy-contracts": deployment.run,
    "gaps": gap_command.run,
    "vetoes": veto_command.run,
}

if __name__ == "__main__":
    if (operator := OPERATORS.get("".join(sys.argv[1:2]))) is not None:
        sys.exit(operator(sys.argv[2:]))
    own_checks = {"money": check_money, "chain": check_chain}
    sys.exit(run_service("settlement", SettlementSettings, build, "fallow_settlement", checks=own_checks))
