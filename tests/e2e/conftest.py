"""A running marketplace for the end-to-end tests, one a module and event stream."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fallow_stack.testing import RunningStack

ADAPTERS = ["jetstream", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ADAPTERS)
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningStack]:
    """`fallow up` with two providers on the exec driver."""
    options = ["--event-stream", request.param, "--providers", "2", "--runtime", "exec"]
    if request.param == "kafka":
        options += ["--kafka-libraries", str(request.getfixturevalue("kafka_libraries"))]
    stack = RunningStack(tmp_path_factory.mktemp("stack"), *options)
    await stack.start()
    yield stack
    assert await stack.stop() == 0, stack.output.read_text("utf-8")
