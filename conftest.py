"""What holds for every run of the tests, wherever it starts."""

import pytest

# Folders whose files take longest: they start first, so that no worker is left with one of them at the end.
LONGEST = ("tests/chaos/", "tests/e2e/", "tests/contract/", "tests/component/")


def _rank(item: pytest.Item) -> int:
    """The place of a test's folder among the longest; those that are not named come last."""
    return next((rank for rank, folder in enumerate(LONGEST) if item.nodeid.startswith(folder)), len(LONGEST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, in random order within; write which engine a test needs into the results.

    tools/check_results.py reads the latter, to tell whether Apache Kafka was tested.
    """
    items.sort(key=_rank)
    for item in items:
        for engine in ("kafka", "docker"):
            if item.get_closest_marker(engine):
                item.user_properties.append(("needs", engine))
