"""Ports of a stack: none that an outgoing connection may take first, none twice, the wanted one where it is free."""

import socket
from pathlib import Path

from fallow_stack.loopback_ports import LOOPBACK, free_port


def test_ports_are_outside_the_kernels_own_range_and_never_repeat() -> None:
    """Goal: nobody takes a chosen port before its process does. Method: 200 ports against the kernel's range."""
    words = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    low, high = map(int, words)
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
    assert not [port for port in ports if low <= port <= high]


def test_a_wanted_port_is_given_where_it_is_free_and_another_where_it_is_taken() -> None:
    """Goal: a stack keeps its ports. Method: ask for a port that is free, then listen at it and ask again."""
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as taken:
        taken.bind((LOOPBACK, port))
        taken.listen()
        assert free_port(port) != port
