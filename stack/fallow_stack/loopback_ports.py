"""Ports of loopback for the processes of a stack."""

import itertools
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_FIRST: Final = 10_000
_OUTGOING_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The ports that the kernel gives to outgoing connections: one of them may be taken between our choice and its use."""


def free_port(wanted: int = 0) -> int:
    """`wanted` when it can be bound on loopback, otherwise a port that can and that this process was not given yet."""
    for port in itertools.chain([wanted] if wanted else [], _candidates):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                if not port:
                    raise
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("candidates never end")


def _shuffled_ports() -> Iterator[int]:
    """Every port below the kernel's own range once, in an order of this process's; then those above it, then any."""
    low, high = (int(word) for word in _OUTGOING_RANGE.read_text(encoding="ascii").split())
    for ports in (range(_FIRST, low), range(high + 1, 65_536)):
        yield from random.sample(ports, len(ports))
    yield from itertools.repeat(0)


_candidates = _shuffled_ports()
