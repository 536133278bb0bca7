"""Timers: functions that run again and again, never two of one at a time, and stop cleanly.

A job fetches what is due, locks it, applies it; it must be safe to run again from the start. A failure that passes by
itself (network, database) is waited out with growing pauses; any other ends the process, because a service whose timers
died in silence only looks alive.
"""

import asyncio
from collections.abc import Awaitable, Callable

from opentelemetry.trace import SpanKind

from fallow_chassis.logging import get_logger
from fallow_chassis.retry import is_retryable, wait_seconds
from fallow_chassis.telemetry import meter, span_from

_log = get_logger(__name__)


async def every(seconds: float, function: Callable[[], Awaitable[object]], *, name: str, stop: asyncio.Event) -> None:
    """Run ``function`` at once and then ``seconds`` after each end, until ``stop`` is set.

    ``stop`` does not interrupt a run; who cannot wait cancels. Raises what the function raises unless it is retryable.
    """
    assert seconds > 0, "a job needs a pause"
    runs = meter().create_counter("fallow.job.runs", unit="{run}")
    failures = 0
    while not stop.is_set():
        try:
            with span_from("", f"job {name}", kind=SpanKind.INTERNAL):
                await function()
        except Exception as error:
            runs.add(1, {"job": name, "outcome": "failed"})
            if not is_retryable(error):
                _log.error("job_failed", job=name, exc_info=error)
                raise
            failures += 1
            pause = wait_seconds(failures)
            _log.warning("job_waits", job=name, attempt=failures, wait_seconds=pause, error=repr(error))
        else:
            runs.add(1, {"job": name, "outcome": "done"})
            failures = 0
            pause = seconds
        await pause_or_stop(pause, stop)


async def pause_or_stop(seconds: float, stop: asyncio.Event) -> None:
    """Wait ``seconds``, or less if ``stop`` is set meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
