"""Hold what a run of the tests must have covered, from its JUnit file: Apache Kafka where it can be run.

`tools/check_results.py FILE` prints why tests were skipped, and fails when there are no results, or when Java and
Maven are on the path but no test marked `kafka` ran to its end.
"""

import collections
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def cases(path: Path) -> list[ET.Element]:
    """All test cases of a JUnit file; it was written by our own run."""
    return list(ET.parse(path).iter("testcase"))  # noqa: S314 (written by our own run)


def is_kafka(case: ET.Element) -> bool:
    """Whether a case carries the property that tests/conftest.py gives to tests marked `kafka`."""
    return any(item.get("name") == "needs" and item.get("value") == "kafka" for item in case.iter("property"))


def main() -> int:
    """Judge the file named by the first argument."""
    path = Path(sys.argv[1])
    if not path.exists():
        print(f"results: {path} is missing: the tests did not run to their end")
        return 1
    found = cases(path)
    skips = collections.Counter(
        skip.get("message", "") for case in found for skip in case.iter("skipped") if skip.get("type") != "pytest.xfail"
    )
    for reason, count in sorted(skips.items()):
        print(f"results: {count} skipped: {reason}")
    ran = [case for case in found if is_kafka(case) and case.find("skipped") is None]
    possible = all(shutil.which(program) for program in ("java", "mvn"))
    print(f"results: {len(found)} tests, {len(ran)} of them on Apache Kafka")
    if possible and not ran:
        print("results: Java and Maven are here, but no test ran on Apache Kafka")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
