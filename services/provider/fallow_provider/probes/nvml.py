"""NVIDIA's cards through NVML, the library of the driver; nothing is written to a card.

The list of cards is read by index. A card whose handle says that it is lost has no name any more: it is left out, and the
list still counts as complete, so that whoever knew the card knows that it has failed. Any other error of a handle makes
the list incomplete. Xids are collected by the driver from ``open`` on and handed out by ``wait``.
"""

import ctypes
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import pynvml

from fallow_provider.domain.device_reading import CardEvent, CardReading, Slice, Snapshot
from fallow_provider.domain.inventory import DeviceSource
from fallow_provider.ports import ProbeError, ProbeMissingError

VENDOR: Final = "nvidia"
EVENTS_MAX: Final = 1_000
"""Events taken at one time; more wait for the next."""
_ABSENT: Final = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NOT_FOUND)
_LOST: Final = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_Value = TypeVar("_Value")


class NvmlProbe:
    """See the module. All calls come from one thread."""

    name = "NVML"
    source = DeviceSource.NVML

    def __init__(self) -> None:
        """Nothing is loaded before ``open``."""
        self._events: Any = None
        self._ids: dict[int, str] = {}

    def open(self) -> None:
        """Load the library and ask for Xids; ProbeMissingError where this machine has no driver of NVIDIA's."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value in {pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}:
                raise ProbeMissingError(
                    "libnvidia-ml.so.1 is not there or its driver is not loaded: install NVIDIA's driver"
                    " (on Debian: apt install nvidia-driver), until nvidia-smi lists the cards"
                ) from error
            raise ProbeError(f"NVML does not start: {error}") from error
        self._ask_for_events()

    def read(self) -> Snapshot:
        """All cards; ProbeError where the library does not answer."""
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise ProbeError(f"NVML does not answer: {error}") from error
        cards = []
        is_complete = True
        for index in range(count):
            try:
                cards.append(self._card(pynvml.nvmlDeviceGetHandleByIndex(index)))
            except pynvml.NVMLError as error:
                is_complete = is_complete and error.value in _LOST
        return Snapshot(tuple(cards), is_complete)

    def wait(self, seconds: float) -> list[CardEvent]:
        """The Xids since the last call; waits up to ``seconds`` for the first."""
        found: list[CardEvent] = []
        timeout_ms = int(seconds * 1_000)
        if self._events is None:
            time.sleep(seconds)
        while self._events is not None and len(found) < EVENTS_MAX:
            try:
                data = pynvml.nvmlEventSetWait_v2(self._events, timeout_ms)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_TIMEOUT or error.value in _LOST:
                    break
                raise ProbeError(f"NVML gives no events: {error}") from error
            card_id = self._ids.get(_address(data.device))
            if card_id is not None and data.eventType == pynvml.nvmlEventTypeXidCriticalError:
                found.append(CardEvent(card_id, int(data.eventData)))
            timeout_ms = 0
        return found

    def close(self) -> None:
        """Let the library go; harmless when it is not loaded."""
        self._ids.clear()
        try:
            if self._events is not None:
                pynvml.nvmlEventSetFree(self._events)
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            pass  # it was not loaded, or its driver has gone: there is nothing to let go
        self._events = None

    def _ask_for_events(self) -> None:
        """Have the driver collect Xids of every card that can report them; the others tell by their readings alone."""
        try:
            events = pynvml.nvmlEventSetCreate()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise ProbeError(f"NVML does not answer: {error}") from error
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
                self._ids[_address(handle)] = pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError:
                continue
        if self._ids:
            self._events = events
        else:
            pynvml.nvmlEventSetFree(events)

    def _card(self, handle: Any) -> CardReading:
        """One card; NVMLError where not even its id and memory can be read."""
        card_id = pynvml.nvmlDeviceGetUUID(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            remapped = _optional(lambda: pynvml.nvmlDeviceGetRemappedRows(handle))
            rates = _optional(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
            limit = pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
            return CardReading(
                card_id=card_id,
                name=name,
                vendor=VENDOR,
                vram_bytes=int(memory.total),
                memory_used_bytes=int(memory.used),
                pci_bus_id=_bus_id(handle),
                temperature_celsius=_optional(
                    lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
                ),
                temperature_limit_celsius=_optional(lambda: pynvml.nvmlDeviceGetTemperatureThreshold(handle, limit)),
                power_milliwatts=_optional(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)),
                gpu_percent=None if rates is None else int(rates.gpu),
                uncorrected_errors=_optional(
                    lambda: pynvml.nvmlDeviceGetTotalEccErrors(
                        handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
                    )
                ),
                is_remap_pending=remapped is not None and bool(remapped[2]),
                is_remap_failed=remapped is not None and bool(remapped[3]),
                slices=_slices(handle),
            )
        except pynvml.NVMLError as error:
            if error.value not in _LOST:
                raise
            return CardReading(card_id, name, VENDOR, 0, is_lost=True)


def _slices(handle: Any) -> tuple[Slice, ...] | None:
    """The slices of a card that is cut by MIG; None where it is not."""
    mode = _optional(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        part = _optional(partial(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index))
        if part is not None:
            memory = pynvml.nvmlDeviceGetMemoryInfo(part)
            found.append(Slice(pynvml.nvmlDeviceGetUUID(part), pynvml.nvmlDeviceGetName(part), int(memory.total)))
    return tuple(found)


def _bus_id(handle: Any) -> str:
    """Where a card sits on the bus; empty where it does not tell."""
    info = _optional(partial(pynvml.nvmlDeviceGetPciInfo, handle))
    return "" if info is None else str(info.busId).lower()


def _optional(ask: Callable[[], _Value]) -> _Value | None:
    """What a card tells; None where it does not tell that. NVMLError for every other error."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return None
        raise


def _address(handle: Any) -> int:
    """What tells handles apart."""
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)
