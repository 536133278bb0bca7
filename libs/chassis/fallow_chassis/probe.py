"""``python -m fallow_chassis.probe``: whether the service of this container serves, for who can only run a command.

It asks the standard gRPC health service at the port of ``FALLOW_LISTEN``, over loopback where that is every address. The
exit status is 0 if the answer is SERVING, 1 if it is anything else or none; standard error says which. It imports nothing
of a service, so that it costs little however often it runs. Kubernetes asks the same by itself and needs no command.
"""

import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fallow_chassis.settings import ServiceSettings

PROBE_SECONDS: Final = 3.0
_ANY_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where a service listens, not we


def probe(address: str) -> str:
    """What keeps the service at ``host:port`` from being healthy; empty if nothing does."""
    host, _, port = address.rpartition(":")
    with grpc.insecure_channel(f"{_ANY_HOSTS.get(host, host)}:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
        except grpc.RpcError as error:
            return f"no answer: {error.code().name}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def main() -> int:
    """The exit status for whoever runs the probe."""
    wrong = probe(ServiceSettings().listen)
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
