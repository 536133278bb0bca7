"""A real Docker Engine for tests: dockerd of this machine, or Debian's packages unpacked under `.build/docker`.

It runs on a socket and folders of its own, in namespaces of processes and mounts that a holder keeps open. The holder
reads its standard input and ends with it, however the test ends; the kernel then kills whatever runs in the namespace,
containers that outlived their engine included, and the mounts go with it.

`own` has a namespace of the network too, with its bridges, published ports and firewall there and nothing of it in the machine's
network; a port is then reached from inside (`in_network`). `host` stays in the machine's network without a bridge, for
containers on the host's network. Where the machine's dockerd gives no devices by CDI, a newer one is unpacked beside it
from the next release of Debian, by the machine's own sources with another suite's name. Nothing is installed and nothing of the machine is changed; where it cannot run,
`missing` says why.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parent.parent
UNPACKED: Final = ROOT / ".build" / "docker"
NEWER: Final = ROOT / ".build" / "docker-newer"
NEWER_SUITE: Final = "trixie"
CDI_SINCE: Final = 25
"""The first release of dockerd that gives devices by CDI."""
PACKAGES: Final = ("docker.io", "containerd", "runc")
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
# The first process of the namespace: it buries those that lose their parent, as a shell that waits does.
HOLDER: Final = "echo held; cat > /dev/null; :"
NETWORK: Final = "ip link set lo up 2>/dev/null || ifconfig lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; "


def missing() -> str | None:
    """Why no engine can be started here; None if one can. Unpacks the packages if the machine has no dockerd."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a container engine of the test's own needs root on Linux"
    if shutil.which("unshare") is None:
        return "unshare is not there"
    if _search_path() is not None:
        _have_newer()
        return None
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "there is no dockerd, and no apt-get to fetch one"
    try:
        _unpack()
    except subprocess.CalledProcessError as error:
        return f"there is no dockerd, and apt-get cannot fetch one: {error.stderr.strip()[-300:]}"
    _have_newer()
    return None if _search_path() is not None else "the packages hold no dockerd"


def missing_cdi() -> str | None:
    """Why no engine can be started that gives devices by CDI; None if one can."""
    reason = missing()
    if reason is None and _release() < CDI_SINCE:
        reason = f"dockerd {_release()} gives no devices by CDI, and no newer one could be fetched"
    return reason


class Dockerd:
    """One engine; `folder` is its own, and short, since sockets have short names."""

    def __init__(self, folder: Path, network: Literal["own", "host"], *runtimes: str) -> None:
        self.folder = folder
        self.runtimes = runtimes
        self.socket = folder / "docker.sock"
        self.cdi_folder = folder / "cdi"
        self.network = network
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again on the same data; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        search_path = _search_path()
        assert search_path is not None, "ask missing() first"
        if self._holder is None:
            self._holder = self._hold()
        command = [
            "dockerd", "-H", f"unix://{self.socket}", "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "docker.pid"),
            "--ip6tables=false", "--live-restore",
        ]  # fmt: skip
        if self.network == "host":
            command += ["--iptables=false", "--bridge=none"]
        elif shutil.which("iptables") is None:
            command.append("--iptables=false")
        for runtime in self.runtimes:
            command += ["--add-runtime", runtime]
        if _release() >= CDI_SINCE:
            self.cdi_folder.mkdir(exist_ok=True)
            settings = {"features": {"cdi": True}, "cdi-spec-dirs": [str(self.cdi_folder)]}
            (self.folder / "daemon.json").write_text(json.dumps(settings), "utf-8")
            command += ["--config-file", str(self.folder / "daemon.json")]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self._entering("mnt", "pid_for_children", *self._networks(), command=command),
                env={"PATH": search_path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            said = (self.folder / "dockerd.log").read_text("utf-8")[-4000:]
            assert self._daemon.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def kill(self) -> None:
        """End the daemon hard; its containers go on (live-restore)."""
        assert self._daemon is not None
        # nsenter waits for the daemon, which is its only child.
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text("ascii").split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        self._daemon.wait(STOP_SECONDS)
        self._daemon = None

    def stop(self) -> None:
        """End all that runs: the daemon, its containerd, its containers."""
        if self._holder is not None:
            assert self._holder.stdin is not None, "the holder reads a pipe"
            self._holder.stdin.close()
            self._holder.wait(STOP_SECONDS)
            self._holder = None
        if self._daemon is not None:
            self._daemon.wait(STOP_SECONDS)
            self._daemon = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in the engine's network."""
        return self._entering(*self._networks(), command=command)

    def _hold(self) -> "subprocess.Popen[bytes]":
        """Open the namespaces; they last as long as the holder's standard input."""
        own_network = self.network == "own"
        flags = ["--net"] if own_network else []
        text = (NETWORK if own_network else "") + HOLDER
        holder = subprocess.Popen(
            ["unshare", *flags, "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", text],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert holder.stdout is not None, "the holder writes into a pipe"
        assert holder.stdout.readline() == b"held\n", "the namespaces are not there"
        holder.stdout.close()
        return holder

    def _networks(self) -> list[str]:
        """The namespace of the network, where the engine has one of its own."""
        return ["net"] if self.network == "own" else []

    def _entering(self, *namespaces: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in some of the holder's namespaces."""
        assert self._holder is not None, "the engine is not running"
        options = {"mnt": "--mount", "net": "--net", "pid_for_children": "--pid"}
        entered = [f"{options[name]}=/proc/{self._holder.pid}/ns/{name}" for name in namespaces]
        return ["nsenter", *entered, "--", *command] if entered else list(command)

    @property
    def processes(self) -> str:
        """The namespace of all that it runs, as `/proc/PID/ns/pid` names it."""
        assert self._holder is not None, "the engine is not running"
        return str(Path(f"/proc/{self._holder.pid}/ns/pid_for_children").readlink())

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


def _search_path() -> str | None:
    """A PATH on which dockerd stands; None if there is none."""
    system = os.environ.get("PATH", os.defpath)
    unpacked = f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin:{system}"
    for path in (system, unpacked):
        if all(shutil.which(program, path=path) for program in ("dockerd", "containerd", "runc")):
            newer = f"{NEWER}/usr/sbin:{path}"
            return newer if _runs(newer) else path
    return None


@functools.cache
def _runs(search_path: str) -> int:
    """The release of the dockerd on a PATH, 0 where it does not run here: a newer one may need newer libraries."""
    program = shutil.which("dockerd", path=search_path)
    ran = subprocess.run([program or "false", "--version"], capture_output=True, text=True, check=False)
    words = ran.stdout.partition("version ")[2]
    return int(words.partition(".")[0]) if ran.returncode == 0 and words[:1].isdigit() else 0


def _release() -> int:
    """The release of the dockerd that tests start."""
    return _runs(_search_path() or os.defpath)


def _have_newer() -> None:
    """Unpack a newer dockerd where the machine's is too old and Debian's next release can be asked; else go without."""
    if _release() >= CDI_SINCE or NEWER.exists() or shutil.which("dpkg-deb") is None:
        return
    with contextlib.suppress(subprocess.CalledProcessError, OSError):
        _unpack(NEWER, ("docker.io",), newer=True)
    _runs.cache_clear()


def _unpack(target: Path = UNPACKED, packages: Sequence[str] = PACKAGES, *, newer: bool = False) -> None:
    """Fetch packages by apt-get and unpack them; nothing is installed."""
    draft = target.with_name(f"{target.name}.{os.getpid()}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    options = _sources_of_newer(draft / "apt") if newer else []
    if options:
        _run(["apt-get", *options, "-q", "update"], draft)
    _run(["apt-get", *options, "-q", "download", *packages], draft)
    for package in draft.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(draft)], draft)
        package.unlink()
    shutil.rmtree(draft / "apt", ignore_errors=True)
    with contextlib.suppress(OSError):
        # Another worker may have been first; its packages are as good.
        draft.rename(target)
    shutil.rmtree(draft, ignore_errors=True)


def _sources_of_newer(folder: Path) -> list[str]:
    """Options with which apt-get asks Debian's next release, at the addresses that this machine asks already."""
    codename = next(
        line.partition("=")[2].strip()
        for line in Path("/etc/os-release").read_text("utf-8").splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    for name in ("sources", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if file.suffix in {".list", ".sources"} and file.is_file() and "debian" in (text := file.read_text("utf-8")):
            (folder / "sources" / file.name).write_text(text.replace(codename, NEWER_SUITE), "utf-8")
    return [
        "-o", f"Dir::Etc::sourceparts={folder}/sources", "-o", "Dir::Etc::sourcelist=-",
        "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip


def _run(command: list[str], folder: Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)


def compose() -> Path | None:
    """Docker's compose of Debian's next release, fetched and unpacked if it is not there; None where it does not run."""
    target = UNPACKED.with_name("docker-compose")
    program = target / "usr/libexec/docker/cli-plugins/docker-compose"
    if not program.exists() and shutil.which("apt-get") is not None and os.geteuid() == 0:
        with contextlib.suppress(subprocess.CalledProcessError):
            _unpack(target, ("docker-compose",), newer=True)
    if not program.exists() or subprocess.run([program, "version"], capture_output=True, check=False).returncode != 0:
        return None
    return program
