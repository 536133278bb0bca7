"""Reads the log files that the exec driver's shim writes: `log`, and the full one before it, `log.1`.

Each line is `milliseconds S text`, S being O for standard output and E for standard error. A reader that follows keeps
the file open that it reads, so a rotation loses nothing: it reads the old file to its end and then opens the new one.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from fallow_provider.ports import LogLine, LogQuery, LogStream

POLL_SECONDS: Final = 0.1
BATCH_LINES: Final = 1_000
"""Lines after which a reader lets others run."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STREAMS: Final = {b"O": LogStream.STDOUT, b"E": LogStream.STDERR}


async def read_log(folder: Path, query: LogQuery, is_over: Callable[[], bool]) -> AsyncGenerator[LogLine, None]:
    """The lines that a query asks for; with ``follow``, until ``is_over`` says that no more will come."""
    with _open(folder / "log") as file:
        past = _matching([folder / "log.1"], file, query)
        for number, line in enumerate(past):
            yield line
            if number % BATCH_LINES == 0:
                await asyncio.sleep(0)
        if not query.follow:
            return
        async for line in _follow(folder / "log", file, is_over):
            if query.since is None or line.time > query.since:
                yield line


def _matching(older: list[Path], file: BinaryIO, query: LogQuery) -> "deque[LogLine]":
    """What is kept now, oldest first; leaves ``file`` behind its last whole line."""
    limit = query.tail or None
    lines: deque[LogLine] = deque(maxlen=limit)
    for path in older:
        if path.exists():
            with path.open("rb") as old:
                lines.extend(_wanted(_whole_lines(old), query.since))
    lines.extend(_wanted(_whole_lines(file), query.since))
    return lines


async def _follow(path: Path, file: BinaryIO, is_over: Callable[[], bool]) -> AsyncGenerator[LogLine, None]:
    """The lines that come, until no more will."""
    current = file
    try:
        while True:
            # Asked before reading: what was written before the end is then read for sure.
            over = is_over()
            for line in _whole_lines(current):
                yield line
            if _is_replaced(path, current):
                rest = list(_whole_lines(current))
                if current is not file:
                    current.close()
                current = _open(path)
                for line in rest:
                    yield line
                continue
            if over:
                return
            await asyncio.sleep(POLL_SECONDS)
    finally:
        if current is not file:
            current.close()


def _whole_lines(file: BinaryIO) -> Iterator[LogLine]:
    """Lines from where the file stands; a line that is still being written is left for the next time."""
    while True:
        start = file.tell()
        raw = file.readline()
        if not raw.endswith(b"\n"):
            file.seek(start)
            return
        line = _parse(raw)
        if line is not None:
            yield line


def _parse(raw: bytes) -> LogLine | None:
    """One line of the file; None for one that the shim did not write."""
    time, _, rest = raw[:-1].partition(b" ")
    letter, _, text = rest.partition(b" ")
    if not time.isdigit() or letter not in _STREAMS:
        return None
    instant = _EPOCH + timedelta(milliseconds=int(time))
    return LogLine(instant, _STREAMS[letter], text.decode("utf-8", errors="replace"))


def _wanted(lines: Iterator[LogLine], since: datetime | None) -> Iterator[LogLine]:
    """Those after ``since``."""
    return lines if since is None else (line for line in lines if line.time > since)


def _open(path: Path) -> BinaryIO:
    """The file, made empty if the shim has not written yet."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    return os.fdopen(descriptor, "rb")


def _is_replaced(path: Path, file: BinaryIO) -> bool:
    """Whether the path leads to another file by now."""
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    return current.st_ino != os.fstat(file.fileno()).st_ino
