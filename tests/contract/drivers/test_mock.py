"""The mock driver keeps the suite, so that what is tested on it holds on the real ones; its faults are faults."""

import pytest

from fallow_provider.ports import DriverRefusedError, DriverUnavailableError
from tests.contract.drivers.conftest import House, MockHouse
from tests.contract.drivers.suite import DriverSuite


class TestMock(DriverSuite):
    """The suite on a dictionary."""

    @pytest.fixture
    def house(self, mock_house: MockHouse) -> House:
        """The mock driver."""
        return mock_house


async def test_an_engine_that_is_away_is_unknown(mock_house: MockHouse) -> None:
    """Goal: away is not down. Method: every question raises DriverUnavailableError, and the container still runs."""
    container = mock_house.container("serve")
    await mock_house.driver.start(container)
    mock_house.engine.is_away = True
    with pytest.raises(DriverUnavailableError):
        await mock_house.driver.recover()
    with pytest.raises(DriverUnavailableError):
        await mock_house.driver.stop(container.key, 0)
    assert not (await mock_house.driver.fingerprint()).is_available
    assert mock_house.engine.containers[container.key].is_running


async def test_a_start_failure_is_a_refusal(mock_house: MockHouse) -> None:
    """Goal: the field works. Method: set it and start."""
    mock_house.engine.start_failure = "no such thing"
    with pytest.raises(DriverRefusedError):
        await mock_house.driver.start(mock_house.container("serve"))
    assert not mock_house.engine.containers
