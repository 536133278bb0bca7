"""Holds what stands in files of any kind: no addresses of registries, no paths of one machine, no notes to self."""

import re

import pytest

from tests.tidy import source

# Written in parts, so that this file does not find itself.
REGISTRIES = re.compile(
    "|".join(
        (
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"registry\.npm" + r"js",
            r"repo1?\.maven" + r"\.(org|apache)",
            r"proxy\.gol" + r"ang",
            r"crates" + r"\.io",
            r"(extra-)?index-" + r"url[= ]+\S*//",
            r"arti" + r"factory",
        )
    ),
    re.IGNORECASE,
)
MACHINE_PATHS = re.compile(r"(?<![\w.~>})-])(/" + r"root|/ho" + r"me/[a-z]+|/Us" + r"ers|/wo" + r"rk|/tm" + r"p)/\w")
NOTES = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
BINARY = (".png", ".jpg", ".gif", ".ico", ".woff2", ".gz", ".zip", ".binpb", ".pdf")
# Other people's files, kept as they are because tests read them.
FOREIGN = re.compile(r"/data/|^LICENSE$")


def lines(pattern: re.Pattern[str], name: str) -> list[str]:
    """Places in a file that match."""
    found = []
    for number, line in enumerate(source.text(name).splitlines(), start=1):
        match = pattern.search(line)
        if match:
            found.append(f"{name}:{number}: {match[0]}")
    return found


def texts() -> list[str]:
    """Our text files."""
    return [name for name in source.tracked() if not name.endswith(BINARY)]


def test_files_are_text() -> None:
    """Goal: everything can be reviewed. Method: read every file that is not of a known binary kind as UTF-8."""
    broken = []
    for name in texts():
        try:
            source.text(name)
        except UnicodeDecodeError:
            broken.append(name)
    assert not broken, source.report(broken)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(REGISTRIES, "address of a registry"), (MACHINE_PATHS, "path of one machine"), (NOTES, "note to self")],
)
def test_files_hold_none(pattern: re.Pattern[str], what: str) -> None:
    """Goal: the tree works anywhere and says what it means. Method: search every text file of ours."""
    findings = [f"{line} ({what})" for name in texts() if not FOREIGN.search(name) for line in lines(pattern, name)]
    assert not findings, source.report(findings)


def test_pins_carry_hashes_only() -> None:
    """Goal: constraints.txt installs from whatever index the machine has. Method: every line is a pin or a hash."""
    shape = re.compile(r"^(#.*|[\w.-]+(\[[\w,-]+\])?==\S+( ; .+?)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)$")
    odd = [line for line in source.text("constraints.txt").splitlines() if line and not shape.match(line)]
    assert not odd, source.report(odd)


def test_the_patterns_see() -> None:
    """Goal: the checks can fail. Method: samples that must match, and some that must not."""
    assert REGISTRIES.search("https://py" + "pi.org/simple")
    assert MACHINE_PATHS.search('path = "/ro' + 'ot/x"')
    assert MACHINE_PATHS.search("cd /ho" + "me/ann/x")
    assert not MACHINE_PATHS.search('folder / "work/x"')
    assert not MACHINE_PATHS.search("read_only_paths=/tmp,")
    assert NOTES.search("# TO" + "DO later")
