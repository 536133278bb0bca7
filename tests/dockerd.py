"""A real Docker Engine for tests: dockerd of this machine, or Debian's packages unpacked under `.build/docker`.

It runs as a process of the test on a socket and folders of its own. `OWN` puts it into a network namespace of its own
(`unshare -n`), with its bridge and published ports there and nothing of it in the machine's network; a port is then
reached from inside (`in_network`). `HOST` stays in the machine's namespace without a bridge, for containers on the
host's network. Nothing is installed and nothing of the machine is changed; where it cannot run, `missing` says why.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parent.parent
UNPACKED: Final = ROOT / ".build" / "docker"
PACKAGES: Final = ("docker.io", "containerd", "runc")
START_SECONDS: Final = 60.0
NAMESPACE: Final = 'ip link set lo up 2>/dev/null || ifconfig lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec "$@"'


def missing() -> str | None:
    """Why no engine can be started here; None if one can. Unpacks the packages if the machine has no dockerd."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a container engine of the test's own needs root on Linux"
    if shutil.which("unshare") is None:
        return "unshare is not there"
    if _search_path() is not None:
        return None
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "there is no dockerd, and no apt-get to fetch one"
    try:
        _unpack()
    except subprocess.CalledProcessError as error:
        return f"there is no dockerd, and apt-get cannot fetch one: {error.stderr.strip()[-300:]}"
    return None if _search_path() is not None else "the packages hold no dockerd"


class Dockerd:
    """One engine; `folder` is its own, and short, since sockets have short names."""

    def __init__(self, folder: Path, network: Literal["own", "host"]) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.network = network
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again on the same data; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        search_path = _search_path()
        assert search_path is not None, "ask missing() first"
        command = [
            "dockerd", "-H", f"unix://{self.socket}", "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "docker.pid"),
            "--iptables=false", "--ip6tables=false", "--live-restore",
        ]  # fmt: skip
        if self.network == "own":
            command = ["unshare", "-n", "sh", "-c", NAMESPACE, "_", *command]
        else:
            command.append("--bridge=none")
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={"PATH": search_path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            said = (self.folder / "dockerd.log").read_text("utf-8")[-4000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def kill(self) -> None:
        """End the daemon hard; its containers go on (live-restore)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        # Its containerd dies with it. Where nobody reaps orphans the pid lives on as a zombie, and the next dockerd
        # would wait for that containerd for ever.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End the daemon, its containerd, its containers' shims and its mounts."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self._process.poll() is None:
                self.kill()
        for pid in self._left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        mounts = Path("/proc/mounts").read_text("utf-8").splitlines()
        for point in reversed([line.split()[1] for line in mounts]):
            if point.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in the engine's network."""
        pid = (self.folder / "docker.pid").read_text("ascii").strip()
        return ["nsenter", "-n", "-t", pid, *command]

    def in_network(self, *command: str) -> str:
        """What a command prints that runs in the engine's network; an empty text if it fails."""
        ran = subprocess.run(self.inside(*command), capture_output=True, text=True, check=False)
        return ran.stdout if ran.returncode == 0 else ""

    def _answers(self) -> bool:
        """Whether the socket answers a ping."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200 OK" in probe.recv(4096)
            except OSError:
                return False

    def _left_over(self) -> list[int]:
        """Processes whose command line names this engine's folder: containerd and its shims."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if f"{self.folder}/".encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found


def _search_path() -> str | None:
    """A PATH on which dockerd stands; None if there is none."""
    system = os.environ.get("PATH", os.defpath)
    unpacked = f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin:{system}"
    if all(shutil.which(program) for program in ("dockerd", "containerd", "runc")):
        return system
    if all(shutil.which(program, path=unpacked) for program in ("dockerd", "containerd", "runc")):
        return unpacked
    return None


def _unpack() -> None:
    """Fetch the packages by apt-get and unpack them; nothing is installed."""
    draft = UNPACKED.with_name(f"docker.{os.getpid()}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _run(["apt-get", "-q", "download", *PACKAGES], draft)
    for package in draft.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(draft)], draft)
        package.unlink()
    with contextlib.suppress(OSError):
        # Another worker may have been first; its packages are as good.
        draft.rename(UNPACKED)
    shutil.rmtree(draft, ignore_errors=True)


def _run(command: list[str], folder: Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
