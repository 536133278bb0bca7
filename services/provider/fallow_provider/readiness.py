"""Learns that a container serves: by HTTP, TCP, a command in it, or a line of its log.

A check that could not run (the engine is away) is no answer; it is asked again until the time is over or the container
has stopped. What the check sees is the container's port as it is published on this machine.
"""

import asyncio
from contextlib import aclosing
from typing import Final

import aiohttp

from fallow_provider.domain.workload import Container
from fallow_provider.ports import ContainerStatus, DriverUnavailableError, HostAddress, LogQuery, RuntimeDriver

INTERVAL_SECONDS: Final = 0.1
LONGEST_INTERVAL_SECONDS: Final = 2.0
ATTEMPT_SECONDS: Final = 5.0
READY_BELOW_STATUS: Final = 400


class ContainerStoppedError(Exception):
    """The container stopped before it was ready."""


async def await_ready(driver: RuntimeDriver, container: Container) -> None:
    """Return once the container is ready; TimeoutError after its own limit, ContainerStoppedError if it stops."""
    readiness = container.readiness
    async with asyncio.timeout(readiness.timeout_ms / 1_000):
        if readiness.log_line:
            await _await_line(driver, container)
            return
        interval = INTERVAL_SECONDS
        while True:
            status = await _running(driver, container)
            if status is not None and await _passes(driver, container, status):
                return
            await asyncio.sleep(interval)
            interval = min(interval * 1.5, LONGEST_INTERVAL_SECONDS)


async def _running(driver: RuntimeDriver, container: Container) -> ContainerStatus | None:
    """The container's status; None where nobody knows, ContainerStoppedError where it does not run."""
    try:
        status = await driver.inspect(container.key)
    except DriverUnavailableError:
        return None
    if status is None or not status.is_running:
        raise ContainerStoppedError(_ending(status))
    return status


async def _passes(driver: RuntimeDriver, container: Container, status: ContainerStatus) -> bool:
    """Whether the check passes now."""
    readiness = container.readiness
    if readiness.http_port:
        address = status.ports.get(readiness.http_port)
        return address is not None and await _answers_http(address, readiness.http_path)
    if readiness.tcp_port:
        address = status.ports.get(readiness.tcp_port)
        return address is not None and await _answers_tcp(address)
    if readiness.command:
        try:
            result = await driver.exec(container.key, readiness.command, ATTEMPT_SECONDS)
        except (TimeoutError, DriverUnavailableError):
            return False
        return result.exit_status == 0
    return True


async def _answers_http(address: HostAddress, path: str) -> bool:
    """Whether a GET answers below 400; redirects count and are not followed."""
    url = f"http://{address.host}:{address.port}{path if path.startswith('/') else '/' + path}"
    limit = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url, allow_redirects=False) as answer:
            return answer.status < READY_BELOW_STATUS
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False


async def _answers_tcp(address: HostAddress) -> bool:
    """Whether a connection is taken."""
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _await_line(driver: RuntimeDriver, container: Container) -> None:
    """Wait for a line of the log that holds the text."""
    while True:
        try:
            async with aclosing(driver.logs(container.key, LogQuery(follow=True))) as lines:
                async for line in lines:
                    if container.readiness.log_line in line.text:
                        return
            await _running(driver, container)
        except DriverUnavailableError:
            pass
        await asyncio.sleep(INTERVAL_SECONDS)


def _ending(status: ContainerStatus | None) -> str:
    """How a container ended, for people."""
    if status is None:
        return "it is gone"
    return f"exit status {'unknown' if status.exit_status is None else status.exit_status}"
