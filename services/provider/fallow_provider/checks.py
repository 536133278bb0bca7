"""`check`: tries everything that serving needs, changes nothing, and prints a line for each."""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fallow_chassis.clock import SystemClock
from fallow_chassis.identity import TokenVerifier
from fallow_chassis.logging import mask_text
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.settings import SettingsError
from fallow_provider.clients import OwnerSession, Registry
from fallow_provider.devices import DeclaredSite
from fallow_provider.drivers.selection import choose_driver
from fallow_provider.settings import ProviderSettings

CHECK_SECONDS: Final = 10.0
NATS_SECONDS: Final = 5.0


async def check() -> int:
    """Run the checks; 0 if all hold, 1 if one does not, 2 if a setting makes no sense."""
    try:
        settings = ProviderSettings()
        settings.check_needed()
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(mask_text(str(error)) + "\n")
        return 2
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("site", lambda: _site(settings)),
        ("driver", lambda: _driver(settings)),
        ("keys", lambda: _keys(settings)),
        ("owner", lambda: _owner(settings)),
        ("market", lambda: _market(settings)),
    ]
    is_failed = False
    for what, function in checks:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                outcome = await function()
        except Exception as error:  # noqa: BLE001 - whatever is wrong is what the command is there to tell
            is_failed = True
            outcome = f"FAILED: {mask_text(str(error)) or type(error).__name__}"
        sys.stdout.write(f"{what}: {outcome}\n")
    return 1 if is_failed else 0


async def _site(settings: ProviderSettings) -> str:
    """Whether the site file reads."""
    site = DeclaredSite.load(settings.required("site_file")).site()
    devices = sum(len(node.devices) for node in site.nodes)
    return f"{site.display_name} in {site.region}: {len(site.nodes)} nodes, {devices} declared devices"


async def _driver(settings: ProviderSettings) -> str:
    """Which driver would run, and what it does not hold."""
    folder = Path(settings.required("state_directory")) / "exec"
    driver, fingerprint = await choose_driver(settings, folder, "check", SystemClock())
    await driver.close()
    return f"{fingerprint.driver} {fingerprint.version}: {fingerprint.isolation}"


async def _keys(settings: ProviderSettings) -> str:
    """Whether the services' public keys can be read."""
    TokenVerifier.load(settings.required("jwks"))
    return "the services' public keys are there"


async def _owner(settings: ProviderSettings) -> str:
    """Whether the order service takes the API key."""
    session = OwnerSession(settings.required("order_address"), settings.required("api_key_file"), SystemClock())
    try:
        return f"{await session.renew()}"
    finally:
        await session.close()


async def _market(settings: ProviderSettings) -> str:
    """Whether the bidding service answers, and NATS too where the site is registered and so may have credentials."""
    session = OwnerSession(settings.required("order_address"), settings.required("api_key_file"), SystemClock())
    registry = Registry(settings.required("bidding_address"), session)
    try:
        wanted = DeclaredSite.load(settings.required("site_file")).site().display_name
        provider = await registry.find(wanted)
        if provider is None:
            return "answers; the site is not registered yet, so NATS was not tried"
        text, url = await registry.credentials(provider)
    finally:
        await registry.close()
        await session.close()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        link = await NatsLink.connect(
            settings.nats_url or url, file.name if text else "", name="check", timeout=NATS_SECONDS
        )
        await link.close()
    return f"answers, and so does NATS; the site is {provider}"
