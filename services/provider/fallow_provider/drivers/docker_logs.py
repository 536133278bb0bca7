"""Reads a container's log from the Docker Engine API, with its stream and its time.

The engine sends frames: one byte for the stream, three of nothing, four for the length, then the text with its time in
front (``GET /containers/{id}/logs?timestamps=1``); a long line comes in several, and Podman splits a line where the program
wrote it in two parts. aiodocker gives the text alone, so this reads the frames itself.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import aiohttp

from fallow_provider.ports import DriverUnavailableError, LogLine, LogQuery, LogStream

MAX_LINE_CHARACTERS: Final = 64 * 1024
_HEADER_BYTES: Final = 8
_NOT_FOUND: Final = 404
_STREAMS: Final = {1: LogStream.STDOUT, 2: LogStream.STDERR}
_MICROSECOND_DIGITS: Final = 6


async def read_log(docker_socket: str, container: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
    """The lines that a query asks for; nothing for a container that the engine does not know."""
    parameters = {
        "stdout": "1",
        "stderr": "1",
        "timestamps": "1",
        "follow": "1" if query.follow else "0",
        "tail": str(query.tail) if query.tail else "all",
    }
    if query.since is not None:
        parameters["since"] = f"{int(query.since.timestamp())}.{query.since.microsecond:06d}000"
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(docker_socket), timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
            session.get(f"http://docker/containers/{container}/logs", params=parameters) as answer,
        ):
            if answer.status == _NOT_FOUND:
                return
            if not answer.ok:
                raise DriverUnavailableError(f"the engine answered {answer.status}: {await answer.text()}")
            async for line in _lines(answer.content):
                if query.since is None or line.time > query.since:
                    yield line
    except (aiohttp.ClientError, OSError) as error:
        raise DriverUnavailableError(repr(error)) from error


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[LogLine, None]:
    """The lines of a stream of frames, until it ends. A frame without a line end is the first part of a line."""
    begun: dict[LogStream, LogLine] = {}
    while True:
        try:
            header = await content.readexactly(_HEADER_BYTES)
            text = await content.readexactly(int.from_bytes(header[4:], "big"))
        except asyncio.IncompleteReadError:
            for line in begun.values():
                yield line
            return
        part = _parse(header[0], text.decode("utf-8", errors="replace"))
        if part is None:
            continue
        first = begun.pop(part.stream, None)
        line = part if first is None else replace(first, text=(first.text + part.text)[:MAX_LINE_CHARACTERS])
        if text.endswith(b"\n"):
            yield line
        else:
            begun[part.stream] = line


def _parse(stream: int, text: str) -> LogLine | None:
    """One frame's line; None for a frame without a time."""
    time, _, rest = text.rstrip("\r\n").partition(" ")
    try:
        # The engine writes nanoseconds; Python reads six digits.
        seconds, _, fraction = time.rstrip("Z").partition(".")
        digits = fraction[:_MICROSECOND_DIGITS].ljust(_MICROSECOND_DIGITS, "0")
        instant = datetime.fromisoformat(f"{seconds}.{digits}+00:00").astimezone(UTC)
    except ValueError:
        return None
    return LogLine(instant, _STREAMS.get(stream, LogStream.UNSPECIFIED), rest[:MAX_LINE_CHARACTERS])
