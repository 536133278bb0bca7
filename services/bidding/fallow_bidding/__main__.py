"""``python -m fallow_bidding serve|migrate|check``."""

import sys

from fallow_bidding.app import build
from fallow_bidding.settings import BiddingSettings
from fallow_chassis.application import run_service

if __name__ == "__main__":
    sys.exit(run_service("bidding", BiddingSettings, build, "fallow_bidding"))
