"""A real Podman service for tests, in namespaces and folders of its own, as `tests/dockerd.py` has its engine.

Podman has no daemon: what can be killed is the process behind the socket, and containers are kept by monitors of their
own. It is never fetched: where the machine lacks the package, `missing` says so.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.dockerd import START_SECONDS, Dockerd

PROGRAMS: Final = ("podman", "conmon", "runc", "unshare")
# A machine may lack the right to raise limits above its own, which Podman does unasked.
CONFIGURATION: Final = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def missing() -> str | None:
    """Why no service can be started here; None if one can."""
    if os.geteuid() != 0:
        return "a container engine of the test's own needs root"
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(lacking)} is not there" if lacking else None


class Podman(Dockerd):
    """One service in a network of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "own")
        self.socket = folder / "podman.sock"

    def start(self) -> None:
        """Start it, or start it again on the same data; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cdi_folder.mkdir(exist_ok=True)
        (self.folder / "containers.conf").write_text(CONFIGURATION, "utf-8")
        if self._holder is None:
            self._holder = self._hold()
        self.socket.unlink(missing_ok=True)
        podman = [
            "podman", "--root", f"{self.folder}/data", "--runroot", f"{self.folder}/run", "--tmpdir", f"{self.folder}/tmp",
            "--network-config-dir", f"{self.folder}/networks", "system", "service", "--time=0", f"unix://{self.socket}",
        ]  # fmt: skip
        # This release of Podman reads specifications of devices in one folder, so that is ours in its own mounts.
        script = f'mkdir -p /var/run/cdi && mount --bind {self.cdi_folder} /var/run/cdi && exec "$@"'
        with (self.folder / "podman.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self._entering("mnt", "pid_for_children", "net", command=["sh", "-c", script, "_", *podman]),
                env={"PATH": os.environ["PATH"], "CONTAINERS_CONF": f"{self.folder}/containers.conf", "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            said = (self.folder / "podman.log").read_text("utf-8")[-4000:]
            assert self._daemon.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
