"""Holds that whatever our distributions install is under terms that let anybody use, change and sell it: no copyleft."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy.test_distributions import DISTRIBUTIONS, project

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "PSF-2.0",
    "PostgreSQL", "Public Domain", "Unlicense", "Zlib",
}  # fmt: skip
# Words of packages that do not write an SPDX expression.
WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}


def may_be_used(expression: str) -> bool:
    """Whether an SPDX expression without parentheses leaves a choice that is allowed."""
    choices = [re.split(r"\s+AND\s+", choice) for choice in re.split(r"\s+OR\s+", expression.strip())]
    return any(all(part.strip() in ALLOWED for part in choice) for choice in choices)


def licence(package: metadata.Distribution) -> str:
    """What a package says of its terms, as an SPDX expression where we know its words; empty if it says nothing."""
    if expression := package.metadata.json.get("license_expression"):
        return str(expression)
    classifiers = [text for text in package.metadata.get_all("Classifier") or [] if text.startswith("License :: ")]
    said = [text.rpartition(" :: ")[2] for text in classifiers] or [
        str(package.metadata.json.get("license", "")).strip()
    ]
    return " AND ".join(WORDS.get(text, text) for text in said)


def installed() -> dict[str, metadata.Distribution]:
    """All that our distributions need on this machine, extras of theirs included, by name."""
    own = {canonicalize_name(project(name)["name"]) for name in DISTRIBUTIONS}
    waiting = [
        (name, {"", *project(path).get("optional-dependencies", {})})
        for path in DISTRIBUTIONS
        for name in [project(path)["name"]]
    ]
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extras = waiting.pop()
        package = metadata.distribution(name)
        found[canonicalize_name(name)] = package
        for text in package.requires or []:
            needed = Requirement(text)
            for extra in extras:
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    key = (canonicalize_name(needed.name), ",".join(sorted(needed.extras)))
                    if key not in seen:
                        seen.add(key)
                        waiting.append((needed.name, {"", *needed.extras}))
    return {name: package for name, package in found.items() if name not in own}


def test_what_we_install_is_free_of_copyleft() -> None:
    """Goal: who deploys Fallow owes nobody their own source. Method: the terms of each package that is installed with it."""
    packages = installed()
    assert len(packages) > 50
    assert {name: licence(package) for name, package in packages.items() if not may_be_used(licence(package))} == {}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("Apache-2.0 AND MIT", True),
        ("AGPL-3.0-or-later", False),
        ("MIT AND AGPL-3.0-only", False),
        ("GPL-2.0-only OR AGPL-3.0-only", False),
        ("", False),
        ("UNKNOWN", False),
    ],
)
def test_terms_are_judged(expression: str, allowed: bool) -> None:  # noqa: FBT001
    """Goal: the rule finds what it must. Method: expressions of each kind."""
    assert may_be_used(expression) is allowed
