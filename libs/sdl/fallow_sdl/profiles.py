"""The two kinds of profile: what a replica needs (compute), and where it may run for how much (placement)."""

import re
from fractions import Fraction
from typing import Final

from fallow.type.v1 import resources_pb2
from fallow_sdl.bounds import MAX_INTEGER, rules_of
from fallow_sdl.document import Mapping, Node, Sequence
from fallow_sdl.fields import Fields, is_null
from fallow_sdl.model import Compute, Gpu, GpuModel, Place, Placement, Pricing, Volume
from fallow_sdl.problems import Notes, item
from fallow_sdl.units import parse_bytes, parse_card_bytes, parse_cpu_milli, parse_number, parse_whole

_CLASSES: Final = frozenset({"default", "beta1", "beta2", "beta3", "ram"})
_INTERFACES: Final = frozenset({"", "pcie", "sxm"})
_NOT_IN_MODELS: Final = re.compile(r"[^a-z0-9]+")
_CPU: Final = rules_of(resources_pb2.ResourceRequirement, "cpu_milli")
_MEMORY: Final = rules_of(resources_pb2.ResourceRequirement, "memory_bytes")
_GPUS: Final = rules_of(resources_pb2.GpuRequirement, "count")


def read_compute(name: str, place: Place, node: Node, notes: Notes) -> Compute:
    """One compute profile."""
    fields = Fields(node, place, notes)
    resources = fields.section("resources", required=True)
    cpu = resources.section("cpu", required=True)
    memory = resources.section("memory", required=True)
    attributes = cpu.section("attributes")
    if attributes.text("arch"):
        notes.warn(attributes.place_at("arch"), "is not matched: the image decides where it can run")
    attributes.done(strict=True)
    memory.node("attributes")
    compute = Compute(
        place,
        name,
        cpu.parsed("units", _cpu_milli, 0, required=True),
        memory.parsed("size", _memory_bytes, 0, required=True),
        tuple(_volumes(resources)),
        _gpu(resources),
    )
    for part in (cpu, memory, resources, fields):
        part.done()
    return compute


def _cpu_milli(text: str) -> int:
    """Processor time within the contract's bounds."""
    milli = parse_cpu_milli(text)
    if not _CPU.min <= milli <= _CPU.max:
        raise ValueError(f"must be more than 0 and at most {_CPU.max // 1000} cores")
    return milli


def _memory_bytes(text: str) -> int:
    """Memory within the contract's bounds."""
    size = parse_bytes(text)
    if not _MEMORY.min <= size <= _MEMORY.max:
        raise ValueError("must be from 1Mi to 16Ti")
    return size


def _volume_bytes(text: str) -> int:
    """The size of a volume."""
    size = parse_bytes(text)
    if not 1 <= size <= MAX_INTEGER:
        raise ValueError("must be more than 0 and less than 8Ei")
    return size


def _card_bytes(text: str) -> int:
    """The least VRAM of a card."""
    size = parse_card_bytes(text)
    if size > MAX_INTEGER:
        raise ValueError("must be less than 8Ei")
    return size


def _gpu_count(text: str) -> int:
    """A number of cards."""
    count = parse_whole(text)
    if count > _GPUS.max:
        raise ValueError(f"must be at most {_GPUS.max}")
    return count


def _volumes(resources: Fields) -> list[Volume]:
    """The volumes of a profile: one, or a list."""
    node = resources.node("storage")
    if isinstance(node, Mapping):
        return [_volume(resources.place_at("storage"), node, resources.notes)]
    return [_volume(place, entry, resources.notes) for place, entry in resources.items("storage")]


def _volume(place: Place, node: Node, notes: Notes) -> Volume:
    """One volume; without a name it is the root file system."""
    fields = Fields(node, place, notes)
    attributes = fields.section("attributes")
    volume = Volume(
        place,
        fields.text("name") or "default",
        fields.parsed("size", _volume_bytes, 0, required=True),
        attributes.text("class"),
        attributes.boolean("persistent"),
    )
    if volume.storage_class == "ram":
        if volume.persistent:
            notes.refuse(attributes.place_at("persistent"), "a volume in ram cannot be persistent")
    elif volume.storage_class and volume.storage_class not in _CLASSES:
        notes.refuse(attributes.place_at("class"), "must be default, beta1, beta2, beta3 or ram")
    elif volume.storage_class and not volume.persistent:
        notes.refuse(attributes.place_at("class"), "a class other than ram needs persistent: true")
    attributes.done(strict=True)
    fields.done()
    return volume


def _gpu(resources: Fields) -> Gpu | None:
    """The GPUs of a profile: units and attributes come together."""
    if resources.node("gpu") is None:
        return None
    notes = resources.notes
    fields = resources.section("gpu")
    attributes = fields.section("attributes")
    vendors: list[str] = []
    models: list[GpuModel] = []
    for name, place, node in attributes.section("vendor").entries():
        vendors.append(name.lower())
        models += _models(name.lower(), place, node, notes)
    count = fields.parsed("units", _gpu_count, 0)
    if fields.node("attributes") is not None and not vendors:
        notes.refuse(fields.place_at("attributes"), "must name a vendor, such as vendor: {nvidia: }")
    elif count > 0 and not vendors:
        notes.refuse(fields.place_at("units"), "units need attributes with a vendor")
    elif count == 0 and vendors:
        notes.refuse(fields.place_at("attributes"), "attributes need units of at least 1")
    attributes.done(strict=True)
    fields.done(strict=True)
    return Gpu(fields.place, count, tuple(vendors), tuple(models))


def _models(vendor: str, place: Place, node: Node, notes: Notes) -> list[GpuModel]:
    """The acceptable cards of a vendor; none means any."""
    if is_null(node):
        return []
    if not isinstance(node, Sequence):
        notes.refuse(place, "must be a list of models")
        return []
    return [
        _model(vendor, Place(entry.line, item(place.path, index)), entry, notes)
        for index, entry in enumerate(node.items)
    ]


def _model(vendor: str, place: Place, node: Node, notes: Notes) -> GpuModel:
    """One acceptable card, under the market's name: ``A100_80GB`` reads as ``a100-80gb``."""
    fields = Fields(node, place, notes)
    found = GpuModel(
        place,
        vendor,
        _NOT_IN_MODELS.sub("-", fields.text("model").lower()).strip("-"),
        fields.parsed("ram", _card_bytes, 0),
        fields.text("interface").lower(),
    )
    if found.interface not in _INTERFACES:
        notes.refuse(fields.place_at("interface"), "must be pcie or sxm")
    fields.done()
    return found


def read_placement(name: str, place: Place, node: Node, notes: Notes) -> Placement:
    """One placement profile."""
    fields = Fields(node, place, notes)
    signed_by = fields.section("signedBy")
    placement = Placement(
        place,
        name,
        fields.section("attributes").pairs(),
        signed_by.texts("anyOf"),
        signed_by.texts("allOf"),
        tuple(
            _pricing(key, spot, entry, notes) for key, spot, entry in fields.section("pricing", required=True).entries()
        ),
        fields.place_at("pricing"),
    )
    signed_by.done()
    fields.done()
    return placement


def _pricing(profile: str, place: Place, node: Node, notes: Notes) -> Pricing:
    """The price limit of one profile."""
    fields = Fields(node, place, notes)
    pricing = Pricing(
        place,
        profile,
        fields.text("denom", required=True),
        fields.place_at("denom"),
        fields.parsed("amount", _amount, Fraction(1), required=True),
    )
    fields.done()
    return pricing


def _amount(text: str) -> Fraction:
    """A price per block."""
    amount = parse_number(text)
    if amount <= 0:
        raise ValueError("must be more than 0")
    return amount
