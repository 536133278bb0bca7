"""A base image for builds where no registry of images can be reached: Debian's packages, unpacked by debootstrap.

It stands in for the pinned base of deploy/images/Dockerfile: an interpreter with its venv, and nothing of ours. The archive
is kept under `.build`; the next run loads it in seconds. What this machine trusts, the base trusts too, since the package
index is reached from inside a build.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / ".build" / "images" / "base.tar"
TAG = "fallow-test/base:1"
RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def missing() -> str | None:
    """Why no base can be made here; None if one can."""
    if ARCHIVE.exists() or shutil.which("debootstrap") is not None:
        return None
    return "there is no debootstrap, which makes a base image from Debian's packages"


def load_base(docker: list[str]) -> str:
    """The tag of the base, once the engine that the command line `docker` speaks to has it."""
    if not ARCHIVE.exists():
        _make()
    changes = [f"ENV {name}={CERTIFICATES}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
    options = [option for change in changes for option in ("--change", change)]
    subprocess.run([*docker, "import", *options, str(ARCHIVE), TAG], check=True, capture_output=True, timeout=120)
    return TAG


def _make() -> None:
    """Unpack the packages and write the archive, whole or not at all."""
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fallow-base-") as folder:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, folder]
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
        target = Path(folder)
        for leftover in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(target / leftover, ignore_errors=True)
        if CERTIFICATES.exists():
            shutil.copyfile(CERTIFICATES, target / CERTIFICATES.relative_to("/"))
        draft = ARCHIVE.with_name(f"base.{os.getpid()}.new")
        subprocess.run(["tar", "-C", folder, "-cf", str(draft), "."], check=True, capture_output=True, timeout=120)
        draft.replace(ARCHIVE)
