"""Work that is tried until it is done: failures that pass are waited out, others are not."""

import asyncio

import pytest

from fallow_chassis import retry
from fallow_chassis.retry import keep_trying


class Work:
    """Fails as told, then answers; ``steps`` holds how often it was tried and how long was waited."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.steps: list[float | str] = []

    async def __call__(self) -> int:
        await asyncio.sleep(0)
        self.steps.append("try")
        if self.failures:
            raise self.failures.pop(0)
        return 7

    async def pause(self, seconds: float) -> None:
        self.steps.append(seconds)


async def test_failures_that_pass_are_waited_out() -> None:
    """Goal: growing waits, then the outcome. Method: three failures, then none."""
    work = Work(ConnectionError(), TimeoutError(), OSError())
    assert await keep_trying("work", work, pause=work.pause) == 7
    assert work.steps == ["try", 0.1, "try", 0.2, "try", 0.4, "try"]


async def test_after_a_steady_while_waits_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: yesterday's failures do not slow today's. Method: call every run a steady one."""
    monkeypatch.setattr(retry, "STEADY_SECONDS", -1.0)
    work = Work(ConnectionError(), TimeoutError(), OSError())
    assert await keep_trying("work", work, pause=work.pause) == 7
    assert work.steps == ["try", 0.1, "try", 0.1, "try", 0.1, "try"]


async def test_a_bug_is_raised() -> None:
    """Goal: no retry without hope. Method: a failure that would come again."""
    work = Work(ConnectionError(), ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await keep_trying("work", work, pause=work.pause)
    assert work.steps == ["try", 0.1, "try"]
