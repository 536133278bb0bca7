"""The environment of the local chain: what it reads, and the one thing it sets before anything else is imported.

Import this module first: eth_hash picks its implementation at import, and its own choice is six times slower than
safe-pysha3.
"""

import os
from pathlib import Path
from typing import Final

DEFAULT_CHAIN_ID: Final = 31337

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")


def default_port_file() -> Path | None:
    """Return the file that FALLOW_PORT_FILE names, where the bound address is to be written."""
    named = os.environ.get("FALLOW_PORT_FILE")
    return Path(named) if named else None
