"""Whether the parts of a file fit together: names that point at nothing, contradictions, the contract's bounds.

The shape of each field is already known to be right. Each check notes every place where it fails, so one run shows them
all. Names are looked up in dictionaries and sets: a file may have tens of thousands of them.
"""

from collections.abc import Iterable
from typing import Final

from fallow.order.v1 import order_pb2
from fallow.type.v1 import resources_pb2, workload_pb2
from fallow_sdl.bounds import check_count, check_text
from fallow_sdl.model import Compute, Expose, Gpu, Place, Placement, Service, Stack
from fallow_sdl.problems import Notes, child, printable
from fallow_sdl.settings import SdlSettings

TRUSTED_ENVIRONMENT: Final = "tee/type"
"""The provider's attribute that says what kind of trusted execution environment it runs containers in."""


def check_stack(stack: Stack, settings: SdlSettings, notes: Notes) -> None:
    """Run all checks over a stack whose shape is right."""
    _check_deployment(stack, settings, notes)
    declared = {endpoint.name for endpoint in stack.endpoints}
    names = {entry.service for entry in stack.deployed}
    for service in stack.services:
        _check_service(service, names, notes)
        _check_bounds(service, notes)
        _check_targets(service, declared, notes)
    _check_shared(stack.services, notes)
    for compute in stack.computes:
        _check_compute(compute, notes)
    for placement in stack.placements:
        _check_placement(placement, notes)
    used = {target.ip for service in stack.services for expose in service.exposes for target in expose.targets}
    for endpoint in stack.endpoints:
        if endpoint.name not in used:
            notes.refuse(endpoint.place, "no service uses this endpoint")


def _check_deployment(stack: Stack, settings: SdlSettings, notes: Notes) -> None:
    """Every name points at something, every placed profile has a price and volumes for its service's mounts."""
    services = {service.name: service for service in stack.services}
    computes = {compute.name: compute for compute in stack.computes}
    placements = {placement.name: placement for placement in stack.placements}
    priced = {placement.name: {price.profile: price for price in placement.prices} for placement in stack.placements}
    containers: dict[str, int] = {}
    fitted: set[tuple[str, str]] = set()
    if not stack.deployed:
        notes.refuse(stack.place, "deploys nothing")
    for deployed in stack.deployed:
        containers[deployed.placement] = containers.get(deployed.placement, 0) + 1
        service = services.get(deployed.service)
        compute = computes.get(deployed.profile)
        placement = placements.get(deployed.placement)
        if service is None:
            notes.refuse(deployed.place, f"there is no service {printable(deployed.service)}")
        if compute is None:
            notes.refuse(deployed.profile_place, f"there is no compute profile {printable(deployed.profile)}")
        if placement is None:
            notes.refuse(deployed.place, f"there is no placement {printable(deployed.placement)}")
        elif compute is None:
            # What is missing is told once: a profile that is not there has no price either.
            continue
        elif deployed.profile not in priced[placement.name]:
            notes.refuse(placement.prices_place, f"there is no price for the profile {printable(deployed.profile)}")
        else:
            price = priced[placement.name][deployed.profile]
            if price.denomination not in settings.micros_per_million:
                known = ", ".join(sorted(name for name in settings.micros_per_million if "/" not in name))
                reason = f"the denomination has no rate: use {known} or USDC's, or set a rate for it"
                notes.refuse(price.denomination_place, reason)
        if service is not None and compute is not None and (service.name, compute.name) not in fitted:
            fitted.add((service.name, compute.name))
            _check_mounts(service, compute, stack.version, notes)
            _check_trusted_environment(service, compute, notes)
    check_count(notes, stack.place, len(containers), order_pb2.Order, "groups")
    for name, count in containers.items():
        place = placements[name].place if name in placements else stack.place
        check_count(notes, place, count, workload_pb2.Workload, "containers")
    _check_trusted_environments(stack, services, placements, notes)


def _check_mounts(service: Service, compute: Compute, version: str, notes: Notes) -> None:
    """Mounts name volumes of the profile, no two share a path, and what is persistent is mounted.

    Akash takes an unmounted persistent volume where its service mounts any other; nothing is kept in it then.
    """
    volumes = {volume.name: volume for volume in compute.volumes}
    mounted = {mount.volume for mount in service.mounts}
    paths: set[str] = set()
    for mount in service.mounts:
        volume = volumes.get(mount.volume)
        if volume is None:
            notes.refuse(mount.place, f"the profile {printable(compute.name)} has no volume {printable(mount.volume)}")
        elif volume.storage_class == "ram" and mount.read_only and version == "2.1":
            notes.refuse(mount.place, "a volume in ram cannot be readOnly")
        if mount.path in paths:
            notes.refuse(mount.place, "another volume is mounted at the same path")
        paths.add(mount.path)
    for volume in compute.volumes:
        if volume.persistent and volume.name not in mounted:
            tell = notes.warn if mounted else notes.refuse
            tell(volume.place, f"is persistent, but the service {printable(service.name)} does not mount it")


def _check_trusted_environment(service: Service, compute: Compute, notes: Notes) -> None:
    """A trusted environment with GPUs needs GPUs."""
    if service.trusted_environment == "cpu-gpu" and (compute.gpu is None or compute.gpu.count == 0):
        notes.refuse(service.trusted_place, "cpu-gpu needs a profile with GPUs")


def _check_trusted_environments(
    stack: Stack, services: dict[str, Service], placements: dict[str, Placement], notes: Notes
) -> None:
    """One kind of trusted environment a placement: it becomes an attribute that the provider must have."""
    kinds = {name: dict(placement.attributes).get(TRUSTED_ENVIRONMENT, "") for name, placement in placements.items()}
    for deployed in stack.deployed:
        service = services.get(deployed.service)
        if service is None or not service.trusted_environment:
            continue
        if kinds.setdefault(deployed.placement, "") not in {"", service.trusted_environment}:
            notes.refuse(service.trusted_place, "another kind is asked for on the same placement")
        kinds[deployed.placement] = service.trusted_environment
        notes.warn(
            service.trusted_place,
            f"is asked of the provider as attribute {TRUSTED_ENVIRONMENT}; nothing here attests it",
        )


def _check_service(service: Service, names: set[str], notes: Notes) -> None:
    """No port twice. A copy of a port is dropped later on; two ports behind one are both kept."""
    seen: set[tuple[int, str]] = set()
    for expose in service.exposes:
        key = (expose.seen_at, expose.protocol)
        if expose.is_global and key in seen:
            notes.warn(expose.place, f"the port {expose.seen_at} is public twice in this service")
        if expose.is_global:
            seen.add(key)
        if sum(target.is_global for target in expose.targets) > 1:
            notes.refuse(expose.place, "global: true stands twice for one port")
        for target in expose.targets:
            if target.service and target.service not in names:
                notes.warn(target.place, f"there is no service {printable(target.service)}")


def _check_targets(service: Service, declared: set[str], notes: Notes) -> None:
    """Leased addresses are declared and global."""
    for expose in service.exposes:
        for target in expose.targets:
            if not target.ip:
                continue
            if not target.is_global:
                notes.refuse(target.place, "an ip needs global: true")
            if target.ip not in declared:
                notes.refuse(target.place, f"there is no endpoint {printable(target.ip)}")
            notes.warn(target.place, "leased addresses are not there yet: the port is public on the provider's own")


def _check_shared(services: Iterable[Service], notes: Notes) -> None:
    """No two public ports share a host name, or a port of a leased address."""
    hosts: set[str] = set()
    ports: set[tuple[str, int, str]] = set()
    for service in services:
        for expose in service.exposes:
            for host, place in expose.hosts:
                if host in hosts:
                    notes.refuse(place, "another port accepts the same host name")
                hosts.add(host)
            for target in expose.targets:
                port = (target.ip, expose.seen_at, expose.protocol)
                if target.ip and port in ports:
                    notes.refuse(target.place, "another port is at the same port of this endpoint")
                ports.add(port)


def _check_compute(compute: Compute, notes: Notes) -> None:
    """Volumes of a profile and its cards."""
    check_count(notes, compute.place, len(compute.volumes), resources_pb2.ResourceRequirement, "storage")
    seen: set[str] = set()
    for volume in compute.volumes:
        check_text(notes, volume.place, volume.name, resources_pb2.StorageRequirement, "volume")
        if volume.name in seen:
            notes.refuse(volume.place, f"the volume {printable(volume.name)} stands twice")
        seen.add(volume.name)
    if compute.gpu is not None:
        _check_gpu(compute.gpu, notes)


def _check_gpu(gpu: Gpu, notes: Notes) -> None:
    """Bounds of what is asked of GPUs."""
    need = resources_pb2.GpuRequirement
    for vendor in gpu.vendors:
        check_text(notes, gpu.place, vendor, need, "vendor")
    for model in gpu.models:
        check_text(notes, model.place, model.model, need, "models")
    check_count(notes, gpu.place, len(gpu.models), need, "models")


def _check_placement(placement: Placement, notes: Notes) -> None:
    """Bounds of what is asked of a provider."""
    asked = order_pb2.Constraints
    check_count(notes, placement.place, len(placement.attributes), asked, "attributes")
    for key, value in placement.attributes:
        place = _below(_below(placement.place, "attributes"), key)
        check_text(notes, place, key, asked, "attributes")
        check_text(notes, place, value, asked, "regions" if key == "region" else "attributes")
    for field, auditors in (("auditors_any_of", placement.any_of), ("auditors_all_of", placement.all_of)):
        check_count(notes, placement.place, len(auditors), asked, field)
        for auditor in auditors:
            check_text(notes, placement.place, auditor, asked, field)


def _check_bounds(service: Service, notes: Notes) -> None:
    """Bounds of what a container may hold."""
    holds = workload_pb2.Container
    check_text(notes, _below(service.place, "image"), service.image, holds, "image")
    for key, field, texts in (("command", "command", service.command), ("args", "arguments", service.arguments)):
        place = _below(service.place, key)
        check_count(notes, place, len(texts), holds, field)
        for text in texts:
            check_text(notes, place, text, holds, field)
    place = _below(service.place, "env")
    check_count(notes, place, len(service.environment), holds, "environment")
    for key, value in service.environment:
        check_text(notes, place, key, workload_pb2.EnvironmentVariable, "key")
        check_text(notes, place, value, workload_pb2.EnvironmentVariable, "value")
    check_count(notes, _below(service.place, "expose"), len(service.exposes), holds, "ports")
    for expose in service.exposes:
        _check_port_bounds(expose, notes)
    check_count(notes, _below(service.place, "params"), len(service.mounts), holds, "mounts")
    for mount in service.mounts:
        check_text(notes, mount.place, mount.path, workload_pb2.Mount, "path")
    if service.credentials is not None:
        for field in ("host", "username", "password"):
            text = getattr(service.credentials, field)
            check_text(notes, _below(service.credentials.place, field), text, workload_pb2.RegistryCredentials, field)


def _below(place: Place, key: str) -> Place:
    """A field of a part, told at the part's line."""
    return Place(place.line, child(place.path, key))


def _check_port_bounds(expose: Expose, notes: Notes) -> None:
    """Bounds of one port."""
    check_count(notes, expose.place, len(expose.hosts), workload_pb2.Port, "hosts")
    for host, place in expose.hosts:
        check_text(notes, place, host, workload_pb2.Port, "hosts")
    check_count(notes, expose.place, len(expose.targets), workload_pb2.Port, "services")
    for target in expose.targets:
        check_text(notes, target.place, target.service, workload_pb2.Port, "services")
