"""Ports of the embedded stack, on real sockets."""

import socket
from pathlib import Path

from fallow_stack.home import Home


def test_ports_stay_while_they_are_free(tmp_path: Path) -> None:
    """Goal: addresses survive a restart; a taken port is left alone. Method: ask twice, take one, ask again."""
    home = Home(tmp_path)
    ports = home.ports(["order", "bidding"])
    assert len(set(ports.values())) == 2
    assert home.ports(["order", "bidding"]) == ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["order"]))
        taken.listen()
        again = home.ports(["order", "bidding"])
    assert again["order"] != ports["order"]
    assert again["bidding"] == ports["bidding"]
