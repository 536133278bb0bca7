"""Write constraints.txt: every package that the distributions and the tools need, pinned, with hashes.

It gathers the third-party requirements of all distributions and requirements-development.in, and resolves them
for every platform and Python 3.11 up. The result names no index and no download address.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "constraints.txt"
DISTRIBUTIONS = ("libs/*", "sdk", "stack", "services/*")


def requirements() -> list[str]:
    """Third-party requirements of all distributions and of the tools, sorted."""
    found: set[str] = set()
    own: set[str] = set()
    for pattern in DISTRIBUTIONS:
        for path in ROOT.glob(f"{pattern}/pyproject.toml"):
            project = tomllib.loads(path.read_text("utf-8"))["project"]
            own.add(project["name"])
            found.update(project.get("dependencies", []))
            for extra in project.get("optional-dependencies", {}).values():
                found.update(extra)
    for line in (ROOT / "requirements-development.in").read_text("utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            found.add(text)
    return sorted(found - own)


def main() -> int:
    """Resolve and write; the status is the resolver's."""
    command = [
        str(Path(sys.executable).parent / "uv"),
        "pip",
        "compile",
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-header",
        "--no-annotate",
        "--quiet",
        *sys.argv[1:],
        f"--output-file={OUTPUT}",
        "-",
    ]
    return subprocess.run(command, input="\n".join(requirements()), text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
