"""Holds that the distributions agree with each other: licence, version, Python, builder, no tool settings."""

import tomllib
from typing import Any

import pytest

from tests.tidy import source

DISTRIBUTIONS = [name for name in source.tracked() if name.endswith("/pyproject.toml")]


def project(name: str) -> dict[str, Any]:
    """The table of a distribution's project."""
    return dict(tomllib.loads(source.text(name))["project"])


def test_there_are_ten() -> None:
    """Goal: the list below is not empty by accident. Method: count."""
    assert len(DISTRIBUTIONS) == 10


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_complete(name: str) -> None:
    """Goal: each can be installed and used alone under the same terms. Method: read its pyproject.toml."""
    document = tomllib.loads(source.text(name))
    assert document["build-system"]["build-backend"] == "hatchling.build"
    assert document["project"]["license"] == "Apache-2.0"
    assert document["project"]["description"].endswith(".")
    assert document["project"]["requires-python"] == ">=3.11,<3.14"
    assert set(document["tool"]) == {"hatch"}, "tool settings stand in the root pyproject.toml"


def test_versions_are_equal() -> None:
    """Goal: one release, one version. Method: compare all."""
    assert len({project(name)["version"] for name in DISTRIBUTIONS}) == 1


def test_setup_installs_every_distribution() -> None:
    """Goal: make setup forgets none. Method: each folder stands in the script."""
    script = source.text("tools/setup.sh")
    missing = [
        name
        for name in DISTRIBUTIONS
        if f" {name.removesuffix('/pyproject.toml')}" not in f" {script}".replace('"', " ")
    ]
    assert not missing, source.report(missing)


def test_packages_are_typed() -> None:
    """Goal: users of a package get its types. Method: a py.typed beside each top package."""
    folders = {name.removesuffix("pyproject.toml") for name in DISTRIBUTIONS}
    tops = {
        name for name in source.tracked() if name.endswith("/__init__.py") and name.rsplit("/", 2)[0] + "/" in folders
    }
    assert len(tops) == len(DISTRIBUTIONS)
    missing = [name for name in tops if name.replace("__init__.py", "py.typed") not in source.tracked()]
    assert not missing, source.report(missing)
