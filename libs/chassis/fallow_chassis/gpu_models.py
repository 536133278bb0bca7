"""The market's names of GPUs, and how the vendors' libraries and price lists name the same cards.

``gpu_models.csv`` is the one table, a row for each build of a model (interface, VRAM). Its ``names`` are those that drivers
report and that public price lists use. Words that say nothing of the model (the vendor, the series) and everything but
letters and digits are left out before names are compared, so ``NVIDIA GeForce RTX 4090``, ``RTX-4090`` and ``rtx4090`` are one. A card that the table
lacks still gets a name, made of its own words: it can be leased, only nobody knows the name yet.
"""

import csv
import importlib.resources
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

GIB: Final = 2**30
_EMPTY_WORDS: Final = frozenset(
    {"nvidia", "amd", "tesla", "geforce", "quadro", "radeon", "instinct", "graphics", "generation", "edition"}
)
_MIG: Final = re.compile(r"(.+)[ -]MIG[ -](\S+)", re.IGNORECASE)
MODEL_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One build of a model. ``vram_bytes`` is what its label says: cards report a little less, as firmware keeps some."""

    model: str
    vendor: str
    interface: str
    vram_bytes: int
    names: tuple[str, ...]
    is_listed: bool = True


@cache
def gpu_models() -> tuple[GpuModel, ...]:
    """The table."""
    text = (importlib.resources.files("fallow_chassis") / "gpu_models.csv").read_text("utf-8")
    return tuple(
        GpuModel(
            row["model"], row["vendor"], row["interface"], int(row["vram_gib"]) * GIB, tuple(row["names"].split("|"))
        )
        for row in csv.DictReader(text.splitlines())
    )


def builds_of(name: str) -> tuple[GpuModel, ...]:
    """All builds that go by a name: one for a driver's name, as a rule, and several for the market's own. None: the table lacks it."""
    return _by_name().get(_folded(name), ())


def find_gpu_model(name: str, vram_bytes: int = 0) -> GpuModel | None:
    """The build that goes by a name; of several, the one whose VRAM is closest, or the first. None if the table lacks it."""
    return min(builds_of(name), key=lambda build: abs(build.vram_bytes - vram_bytes) if vram_bytes else 0, default=None)


def gpu_model_of(name: str, vendor: str, vram_bytes: int) -> GpuModel:
    """The build that a driver's name stands for, with the VRAM that it reported; one of no table is made of its words.

    A slice of a card (``NVIDIA A100-SXM4-40GB MIG 1g.5gb``) is a model of its own: ``a100-mig-1g-5gb``.
    """
    slice_ = _MIG.fullmatch(name.strip())
    if slice_ is not None:
        whole = gpu_model_of(slice_[1], vendor, 0)
        model = f"{whole.model}-mig-{_slug(slice_[2])}"
        return GpuModel(model[:MODEL_CHARACTERS], vendor, whole.interface, vram_bytes, (name,), whole.is_listed)
    found = find_gpu_model(name, vram_bytes)
    if found is not None:
        return GpuModel(found.model, vendor, found.interface, vram_bytes or found.vram_bytes, (name,))
    words = [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in _EMPTY_WORDS]
    interface = next(
        (known for known in ("sxm", "oam", "nvl") if any(word.startswith(known) for word in words)), "pcie"
    )
    model = "-".join(words)[:MODEL_CHARACTERS].strip("-") or "unknown"
    return GpuModel(model, vendor, interface, vram_bytes, (name,), is_listed=False)


def _slug(text: str) -> str:
    """Lower-case letters and digits, with single hyphens between."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def _folded(name: str) -> str:
    """What of a name tells models apart."""
    return "".join(word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in _EMPTY_WORDS)


@cache
def _by_name() -> dict[str, tuple[GpuModel, ...]]:
    """Builds by folded name; the market's own name stands for all builds of its model, unless it is the name of one."""
    named: dict[str, list[GpuModel]] = {}
    models: dict[str, list[GpuModel]] = {}
    for build in gpu_models():
        for name in {_folded(name) for name in build.names}:
            named.setdefault(name, []).append(build)
        models.setdefault(_folded(build.model), []).append(build)
    return {name: tuple(builds) for name, builds in (models | named).items()}
