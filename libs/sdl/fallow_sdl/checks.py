"""Whether the parts of a file fit together: names that point at nothing, limits, contradictions.

Shape is already known to be right. Each check notes every place where it fails, so one run shows them all.
"""

import re
from typing import Final

from fallow_sdl.fields import Notes
from fallow_sdl.model import Compute, Gpu, Place, Service, Stack
from fallow_sdl.settings import SdlSettings

MAX_CPU_MILLI: Final = 512_000
MIN_MEMORY_BYTES: Final = 1 << 20
MAX_MEMORY_BYTES: Final = 1 << 44
MAX_GPUS: Final = 64
MAX_REPLICAS: Final = 1_000
MAX_GROUPS: Final = 64
_MODEL: Final = re.compile(r"[a-z0-9-]{1,64}")
_INTERFACE: Final = re.compile(r"[a-z0-9-]{0,16}")


def check_stack(stack: Stack, settings: SdlSettings, notes: Notes) -> None:
    """Run all checks over a stack whose shape is right."""
    for service in stack.services:
        _check_service(service, stack, notes)
    for compute in stack.computes:
        _check_compute(compute, notes)
    for placement in stack.placements:
        for price in placement.prices:
            if price.denomination not in settings.micros_per_million:
                notes.refuse(price.place, "the denomination has no rate here: use uact, uakt or USDC")
            if price.amount <= 0:
                notes.refuse(price.place, "the amount must be more than 0")
    _check_deployment(stack, notes)
    _check_endpoints(stack, notes)


def _check_service(service: Service, stack: Stack, notes: Notes) -> None:
    """Image, ports and whom they name."""
    names = {other.name for other in stack.services}
    if not service.image.strip() or service.image != service.image.strip():
        notes.refuse(service.place, "the image is empty or has spaces around it")
    for name, place in service.dependencies:
        if name not in names:
            notes.refuse(place, f"there is no service {name}")
    for expose in service.exposes:
        for target in expose.targets:
            if target.service and target.service not in names:
                notes.warn(target.place, f"there is no service {target.service}")
            if target.ip and not target.is_global:
                notes.refuse(target.place, "an ip needs global: true")
        if expose.has_http_options:
            notes.warn(expose.place, "http_options are left to the provider's ingress")


def _check_compute(compute: Compute, notes: Notes) -> None:
    """Bounds of a profile and contradictions in it."""
    if not 1 <= compute.cpu_milli <= MAX_CPU_MILLI:
        notes.refuse(compute.place, "cpu.units must be more than 0 and at most 512")
    if not MIN_MEMORY_BYTES <= compute.memory_bytes <= MAX_MEMORY_BYTES:
        notes.refuse(compute.place, "memory.size must be from 1Mi to 16Ti")
    if len(compute.volumes) > 16:
        notes.refuse(compute.place, "at most 16 volumes")
    seen: set[str] = set()
    for volume in compute.volumes:
        if volume.name in seen:
            notes.refuse(volume.place, f"the volume {volume.name} stands twice")
        seen.add(volume.name)
        if volume.size_bytes < 1 or volume.size_bytes >= 1 << 63:
            notes.refuse(volume.place, "size must be more than 0")
        if volume.storage_class == "ram" and volume.persistent:
            notes.refuse(volume.place, "a volume in ram cannot be persistent")
        if volume.persistent and volume.name == "default":
            notes.refuse(volume.place, "a persistent volume needs a name and a mount")
    if compute.gpu is not None:
        _check_gpu(compute.gpu, notes)


def _check_gpu(gpu: Gpu, notes: Notes) -> None:
    """Units and attributes come together; models have names that the market knows."""
    if gpu.count > MAX_GPUS:
        notes.refuse(gpu.place, f"at most {MAX_GPUS} GPUs a replica")
    if gpu.count > 0 and not gpu.vendors:
        notes.refuse(gpu.place, "units need attributes.vendor")
    if gpu.count == 0 and gpu.vendors:
        notes.refuse(gpu.place, "attributes need units of at least 1")
    with_models = {model.vendor for model in gpu.models}
    if len(gpu.vendors) > 1 and with_models != set(gpu.vendors):
        notes.refuse(gpu.place, "with several vendors each must list its models")
    for model in gpu.models:
        if model.model and not _MODEL.fullmatch(model.model):
            notes.refuse(model.place, "model must be letters, digits and dashes")
        if not _INTERFACE.fullmatch(model.interface):
            notes.refuse(model.place, "interface must be letters, digits and dashes")
    if len({(model.vram_bytes, model.interface) for model in gpu.models}) > 1:
        notes.warn(gpu.place, "the least ram and no interface are asked of all models, as they differ")


def _check_deployment(stack: Stack, notes: Notes) -> None:
    """Every name points at something, every placed profile has a price and volumes for its service's mounts."""
    services = {service.name: service for service in stack.services}
    computes = {compute.name: compute for compute in stack.computes}
    placements = {placement.name: placement for placement in stack.placements}
    if not stack.deployed:
        notes.refuse(Place(1, "deployment"), "deploys nothing")
    if len({deployed.placement for deployed in stack.deployed}) > MAX_GROUPS:
        notes.refuse(Place(1, "deployment"), f"at most {MAX_GROUPS} placements")
    for deployed in stack.deployed:
        if not 1 <= deployed.count <= MAX_REPLICAS:
            notes.refuse(deployed.place, "count must be from 1 to 1000")
        service = services.get(deployed.service)
        compute = computes.get(deployed.profile)
        placement = placements.get(deployed.placement)
        if service is None:
            notes.refuse(deployed.place, f"there is no service {deployed.service}")
        if placement is None:
            notes.refuse(deployed.place, f"there is no placement {deployed.placement}")
        elif all(price.profile != deployed.profile for price in placement.prices):
            notes.refuse(placement.place, f"there is no pricing for the profile {deployed.profile}")
        if compute is None:
            notes.refuse(deployed.place, f"there is no compute profile {deployed.profile}")
        elif service is not None:
            _check_mounts(service, compute, notes)
    for service in stack.services:
        if all(deployed.service != service.name for deployed in stack.deployed):
            notes.warn(service.place, "is not deployed")


def _check_mounts(service: Service, compute: Compute, notes: Notes) -> None:
    """Mounts name volumes of the profile; a persistent volume is mounted; no two mounts share a path."""
    volumes = {volume.name for volume in compute.volumes}
    mounted = {mount.volume for mount in service.mounts if mount.path}
    paths: set[str] = set()
    for mount in service.mounts:
        if mount.volume not in volumes:
            notes.refuse(mount.place, f"the profile {compute.name} has no volume {mount.volume}")
        if mount.path and mount.path in paths:
            notes.refuse(mount.place, "another volume is mounted at the same path")
        paths.add(mount.path)
    for volume in compute.volumes:
        if volume.persistent and volume.name not in mounted:
            notes.refuse(volume.place, f"is persistent, but the service {service.name} does not mount it")


def _check_endpoints(stack: Stack, notes: Notes) -> None:
    """Leased addresses are declared and used."""
    declared = {endpoint.name for endpoint in stack.endpoints}
    used: set[str] = set()
    for service in stack.services:
        for expose in service.exposes:
            for target in expose.targets:
                if not target.ip:
                    continue
                used.add(target.ip)
                if target.ip not in declared:
                    notes.refuse(target.place, f"there is no endpoint {target.ip}")
                notes.warn(target.place, "leased addresses are not there yet: the port is public on the provider's own")
    for endpoint in stack.endpoints:
        if endpoint.name not in used:
            notes.refuse(endpoint.place, "no service uses this endpoint")
