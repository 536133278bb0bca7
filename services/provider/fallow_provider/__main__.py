"""`python -m fallow_provider serve|check`."""

import argparse
import asyncio
import sys

from fallow_chassis.application import run_service
from fallow_provider.app import build
from fallow_provider.checks import check
from fallow_provider.settings import ProviderSettings


def main() -> int:
    """Serve, or check what serving needs."""
    parser = argparse.ArgumentParser(
        prog="fallow_provider", description="The agent on a provider's machine; settings are FALLOW_… variables."
    )
    parser.add_argument("command", choices=["serve", "check"])
    if parser.parse_args().command == "check":
        return asyncio.run(check())
    return run_service("provider", ProviderSettings, build, "fallow_provider", ["serve"])


if __name__ == "__main__":
    sys.exit(main())
