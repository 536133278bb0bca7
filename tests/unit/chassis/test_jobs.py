"""Jobs: again and again, never twice at once, and loud when broken."""

import asyncio

import pytest

from fallow_chassis.jobs import every


class Job:
    """Counts its runs and fails as told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.runs = 0
        self.running = 0
        self.stop = asyncio.Event()

    async def __call__(self) -> None:
        self.running += 1
        assert self.running == 1, "a job runs once at a time"
        await asyncio.sleep(0)
        self.running -= 1
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.runs >= 4:
            self.stop.set()


async def test_a_job_runs_until_it_is_stopped() -> None:
    """Goal: again and again, then a clean end. Method: stop it at the fourth run."""
    job = Job()
    await every(0.001, job, name="job", stop=job.stop)
    assert job.runs == 4


async def test_a_failure_that_passes_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a database that restarts ends nothing. Method: two such failures, then good runs."""
    monkeypatch.setattr("fallow_chassis.jobs.wait_seconds", lambda attempt: 0.001)
    job = Job(ConnectionError(), TimeoutError())
    await every(0.001, job, name="job", stop=job.stop)
    assert job.runs == 4


async def test_a_bug_is_raised() -> None:
    """Goal: no job dies in silence. Method: a failure that would come again."""
    job = Job(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await every(0.001, job, name="job", stop=job.stop)


async def test_stop_ends_the_pause() -> None:
    """Goal: a drain does not wait for an hourly job. Method: stop in its pause."""
    job = Job()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(every(3_600, job, name="job", stop=job.stop))
        while not job.runs:
            await asyncio.sleep(0.001)
        job.stop.set()
    assert job.runs == 1
