"""The client process of the benchmark of orders: calls one method at a fixed concurrency and says how it went.

`python -m benchmarks.orders_client`, told by a JSON object on the standard input (`Load`), prints one JSON object: the
names that were answered, each call's milliseconds, the seconds from the first call to the last answer and those that its
processor worked, what failed.
Both the service and the ceiling are called by this very code, with the same messages. They are made before the first call
and answers are read after the last one, so that of the client's work only the calls are measured.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import grpc

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import money_pb2, resources_pb2, workload_pb2

CREATE_METHOD = "/fallow.order.v1.OrderService/CreateOrder"
CEILING_METHOD = "/fallow.benchmarks.Ceiling/Commit"
CALL_SECONDS = 60.0
LIMIT_MICROS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Load:
    """What one client process does: calls number ``first`` up to ``first + calls``, ``concurrency`` at a time."""

    address: str
    method: str
    tokens: list[str]
    first: int
    calls: int
    concurrency: int


def requests_of(first: int, calls: int) -> list[bytes]:
    """As many requests on the wire, alike but for their ids: one message's bytes behind another's are both merged."""
    order = order_service_pb2.CreateOrderRequest(order=order_of()).SerializeToString()
    return [
        order_service_pb2.CreateOrderRequest(request_id=f"benchmark-{number}").SerializeToString() + order
        for number in range(first, first + calls)
    ]


def order_of() -> order_pb2.Order:
    """An order: one container with one GPU, as a small inference service asks for it."""
    order = order_pb2.Order(labels={"team": "research", "run": "benchmark"})
    group = order.groups.add(
        group_id="main", price_limit=money_pb2.Price(asset="usdc", micros_per_hour=LIMIT_MICROS_PER_HOUR)
    )
    group.workload.containers.add(
        service="web",
        image="docker.io/library/model-server:1.4.2",
        command=["serve", "--model", "/models/main", "--port", "8080"],
        environment=[
            workload_pb2.EnvironmentVariable(key="MODEL", value="main"),
            workload_pb2.EnvironmentVariable(key="TOKEN", value="0123456789abcdef0123456789abcdef"),
        ],
        ports=[workload_pb2.Port(container_port=8080, public=True)],
        resources=resources_pb2.ResourceRequirement(
            cpu_milli=4_000, memory_bytes=16 << 30, gpu=resources_pb2.GpuRequirement(count=1, vendor="nvidia")
        ),
        replicas=1,
    )
    return order


async def run(load: Load) -> dict[str, object]:
    """All calls of a load, over one connection."""
    milliseconds: list[float] = []
    answers: list[bytes] = []
    failures: list[str] = []
    requests = iter(enumerate(requests_of(load.first, load.calls), load.first))
    headers = [(("authorization", f"Bearer {token}"),) for token in load.tokens]

    async with grpc.aio.insecure_channel(load.address) as channel:
        await channel.channel_ready()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(load.method)

        async def work() -> None:
            for number, request in requests:
                started = time.perf_counter()
                try:
                    answer = await call(request, timeout=CALL_SECONDS, metadata=headers[number % len(headers)])
                except grpc.aio.AioRpcError as error:
                    failures.append(f"{number}: {error.code().name}: {error.details()}")
                    continue
                milliseconds.append((time.perf_counter() - started) * 1_000)
                answers.append(answer)

        started, worked = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(load.concurrency):
                group.create_task(work())
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "milliseconds": milliseconds,
        "names": [order_pb2.Order.FromString(one).name for one in answers] if load.method == CREATE_METHOD else [],
        "failures": failures,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(Load(**json.load(sys.stdin))))) + "\n")
