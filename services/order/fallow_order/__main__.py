"""``python -m fallow_order serve|migrate|check``."""

import sys

from fallow_chassis.application import run_service
from fallow_order.app import build
from fallow_order.settings import OrderSettings
from fallow_order.workload_keys import check_keys

if __name__ == "__main__":
    sys.exit(run_service("order", OrderSettings, build, "fallow_order", checks={"workload keys": check_keys}))
