"""What holds for every run of the tests, wherever it starts."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write into the results which engine a test needs, so that tools/check_results.py can tell what ran."""
    for item in items:
        for engine in ("kafka", "docker"):
            if item.get_closest_marker(engine):
                item.user_properties.append(("needs", engine))
