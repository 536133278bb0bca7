"""AMD's cards through AMD SMI, where ROCm's library and its Python module ``amdsmi`` are installed; read alone.

The module fails in many ways where the library is not there, at its very import; each of them means that it is missing.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any, Final

from fallow_provider.domain.device_reading import CardEvent, CardReading, Snapshot
from fallow_provider.domain.inventory import DeviceSource
from fallow_provider.ports import ProbeError, ProbeMissingError

VENDOR: Final = "amd"
MILLI: Final = 1_000


class AmdSmiProbe:
    """See the module. All calls come from one thread."""

    name = "AMD SMI"
    source = DeviceSource.AMD_SMI

    def __init__(self) -> None:
        """Nothing is loaded before ``open``."""
        self._library: Any = None

    def open(self) -> None:
        """Load the library; ProbeMissingError where this machine has none."""
        try:
            library = importlib.import_module("amdsmi")
            library.amdsmi_init()
        except Exception as error:
            raise ProbeMissingError(
                "amdsmi does not load: install ROCm's amd-smi-lib with its Python module (pip install /opt/rocm/share/amd_smi)"
            ) from error
        self._library = library

    def read(self) -> Snapshot:
        """All cards; ProbeError where the library does not answer."""
        try:
            handles = self._library.amdsmi_get_processor_handles()
        except Exception as error:
            raise ProbeError(f"AMD SMI does not answer: {error}") from error
        cards = []
        is_complete = True
        for handle in handles:
            try:
                cards.append(self._card(handle))
            except self._library.AmdSmiException:
                is_complete = False
        return Snapshot(tuple(cards), is_complete)

    def wait(self, seconds: float) -> list[CardEvent]:
        """Sleeps: AMD SMI's events are not used."""
        time.sleep(seconds)
        return []

    def close(self) -> None:
        """Let the library go."""
        if self._library is not None:
            self._optional(self._library.amdsmi_shut_down)

    def _card(self, handle: Any) -> CardReading:
        """One card; the library's error where not even its id and memory can be read."""
        library = self._library
        memory, heat = library.AmdSmiMemoryType.VRAM, library.AmdSmiTemperatureType.HOTSPOT
        metric = library.AmdSmiTemperatureMetric
        power = self._optional(lambda: library.amdsmi_get_power_info(handle)) or {}
        activity = self._optional(lambda: library.amdsmi_get_gpu_activity(handle)) or {}
        errors = self._optional(lambda: library.amdsmi_get_gpu_total_ecc_count(handle)) or {}
        watts = _number(power.get("current_socket_power")) or _number(power.get("average_socket_power"))
        return CardReading(
            card_id=library.amdsmi_get_gpu_device_uuid(handle),
            name=library.amdsmi_get_gpu_asic_info(handle)["market_name"],
            vendor=VENDOR,
            vram_bytes=int(library.amdsmi_get_gpu_memory_total(handle, memory)),
            memory_used_bytes=self._optional(lambda: library.amdsmi_get_gpu_memory_usage(handle, memory)),
            pci_bus_id=self._optional(lambda: library.amdsmi_get_gpu_device_bdf(handle)) or "",
            temperature_celsius=self._optional(lambda: library.amdsmi_get_temp_metric(handle, heat, metric.CURRENT)),
            temperature_limit_celsius=self._optional(
                lambda: library.amdsmi_get_temp_metric(handle, heat, metric.CRITICAL)
            ),
            power_milliwatts=None if watts is None else watts * MILLI,
            gpu_percent=_number(activity.get("gfx_activity")),
            uncorrected_errors=_number(errors.get("uncorrectable_count")),
        )

    def _optional(self, ask: Callable[[], Any]) -> Any:
        """What a card tells; None where it does not tell that."""
        try:
            return ask()
        except self._library.AmdSmiException:
            return None


def _number(value: object) -> int | None:
    """A number of the library's, which says ``N/A`` for what it does not know."""
    return value if isinstance(value, int) else None
