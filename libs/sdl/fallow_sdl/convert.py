"""From a checked ``Stack`` to an order: one group for each placement, all leased together or none."""

import re
from fractions import Fraction
from typing import Final

from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2, resources_pb2, workload_pb2
from fallow_sdl.bounds import rules_of
from fallow_sdl.checks import TRUSTED_ENVIRONMENT
from fallow_sdl.model import Compute, Deployed, Expose, Gpu, GpuModel, Placement, Service, Stack
from fallow_sdl.problems import Notes
from fallow_sdl.settings import SdlSettings
from fallow_sdl.units import ceiling

HTTP_PORT: Final = 80
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")


def convert_stack(stack: Stack, settings: SdlSettings, notes: Notes) -> order_pb2.Order:
    """The order that a checked stack asks for; a price that no order can hold goes to ``notes``."""
    services = {service.name: service for service in stack.services}
    computes = {compute.name: compute for compute in stack.computes}
    order = order_pb2.Order()
    taken: set[str] = set()
    placed: dict[str, list[Deployed]] = {}
    for entry in stack.deployed:
        placed.setdefault(entry.placement, []).append(entry)
    for placement in stack.placements:
        deployed = placed[placement.name]
        limit = _price_limit(placement, deployed, settings)
        most = rules_of(money_pb2.Price, "micros_per_hour").max
        if limit > most:
            notes.refuse(placement.place, f"the price of all replicas is more than {most} micros per hour")
            continue
        group = order.groups.add(
            group_id=_group_id(placement.name, taken),
            price_limit=money_pb2.Price(asset=settings.asset, micros_per_hour=limit),
            constraints=_constraints(placement, [services[entry.service] for entry in deployed]),
        )
        for entry in deployed:
            group.workload.containers.append(
                _container(services[entry.service], computes[entry.profile], entry.count, settings)
            )
    assert order.groups or notes.problems, "a checked stack deploys something"
    return order


def _group_id(name: str, taken: set[str]) -> str:
    """A placement's name in the shape that groups' names have, unlike those taken so far."""
    base = _NOT_IN_NAMES.sub("-", name.lower()).strip("-")[:50].rstrip("-")
    if not base or not base[0].isalpha():
        base = f"group-{base}".rstrip("-")
    candidate, number = base, 2
    while candidate in taken:
        candidate, number = f"{base}-{number}", number + 1
    taken.add(candidate)
    return candidate


def _price_limit(placement: Placement, deployed: list[Deployed], settings: SdlSettings) -> int:
    """Sum over all replicas of the group, rounded up once: the tenant offers at least what the file says."""
    prices = {price.profile: price for price in placement.prices}
    total = Fraction(0)
    for entry in deployed:
        price = prices[entry.profile]
        total += settings.micros_per_hour(price.denomination, price.amount) * entry.count
    return ceiling(total)


def _constraints(placement: Placement, services: list[Service]) -> order_pb2.Constraints:
    """Attributes and auditors; the attribute ``region`` is a region of ours, a trusted environment is an attribute."""
    attributes = dict(placement.attributes)
    region = attributes.pop("region", "")
    for service in services:
        if service.trusted_environment:
            attributes[TRUSTED_ENVIRONMENT] = service.trusted_environment
    return order_pb2.Constraints(
        regions=[region] if region else [],
        attributes=attributes,
        auditors_any_of=placement.any_of,
        auditors_all_of=placement.all_of,
    )


def _container(service: Service, compute: Compute, count: int, settings: SdlSettings) -> workload_pb2.Container:
    """One service with what its profile gives it."""
    container = workload_pb2.Container(
        service=service.name,
        image=service.image,
        command=service.command,
        arguments=service.arguments,
        environment=[workload_pb2.EnvironmentVariable(key=key, value=value) for key, value in service.environment],
        ports=_ports(service),
        mounts=[
            workload_pb2.Mount(volume=mount.volume, path=mount.path, read_only=mount.read_only)
            for mount in service.mounts
        ],
        resources=_resources(compute, settings),
        replicas=count,
    )
    if service.credentials is not None:
        container.credentials.host = service.credentials.host
        container.credentials.username = service.credentials.username
        container.credentials.password = service.credentials.password
    return container


def _ports(service: Service) -> list[workload_pb2.Port]:
    """The ports of a service; what stands there twice word by word is one port."""
    ports: list[workload_pb2.Port] = []
    for expose in service.exposes:
        port = _port(expose)
        if port not in ports:
            ports.append(port)
    return ports


def _port(expose: Expose) -> workload_pb2.Port:
    """One port. As on Akash, TCP that others see at 80 goes through the HTTP ingress."""
    if expose.protocol == "udp":
        protocol = workload_pb2.PORT_PROTOCOL_UDP
    elif expose.seen_at == HTTP_PORT:
        protocol = workload_pb2.PORT_PROTOCOL_HTTP
    else:
        protocol = workload_pb2.PORT_PROTOCOL_TCP
    return workload_pb2.Port(
        container_port=expose.port,
        external_port=expose.external,
        protocol=protocol,
        public=expose.is_global,
        hosts=[host for host, _ in expose.hosts],
        services=[target.service for target in expose.targets if target.service],
    )


def _resources(compute: Compute, settings: SdlSettings) -> resources_pb2.ResourceRequirement:
    """What one replica needs."""
    required = resources_pb2.ResourceRequirement(cpu_milli=compute.cpu_milli, memory_bytes=compute.memory_bytes)
    for volume in compute.volumes:
        storage_class = volume.storage_class
        if storage_class in {"", "default"}:
            storage_class = settings.persistent_class if volume.persistent else ""
        required.storage.add(
            volume=volume.name,
            size_bytes=volume.size_bytes,
            storage_class=storage_class,
            persistent=volume.persistent,
        )
    if compute.gpu is not None and compute.gpu.count:
        required.gpu.CopyFrom(_gpu(compute.gpu))
    return required


def _gpu(gpu: Gpu) -> resources_pb2.GpuRequirement:
    """GPUs of one replica: bounds that hold all cards of the file, and, where its cards differ in more than the model,
    each of them with bounds of its own.
    """
    vendor = gpu.vendors[0] if len(gpu.vendors) == 1 else ""
    with_models = {model.vendor for model in gpu.models}
    cards = [*gpu.models, *(GpuModel(gpu.place, name, "", 0, "") for name in gpu.vendors if name not in with_models)]
    names = [card.model for card in cards]
    interfaces = {card.interface for card in cards}
    required = resources_pb2.GpuRequirement(
        count=gpu.count,
        vendor=vendor,
        models=list(dict.fromkeys(names)) if all(names) else [],
        vram_bytes_min=min(card.vram_bytes for card in cards),
        interface=interfaces.pop() if len(interfaces) == 1 else "",
    )
    kinds = dict.fromkeys(
        ("" if vendor else card.vendor, card.model, card.vram_bytes, card.interface) for card in cards
    )
    if len(gpu.vendors) > 1 or len({kind[2:] for kind in kinds}) > 1:
        for name, model, vram_bytes, interface in kinds:
            required.alternatives.add(vendor=name, model=model, vram_bytes_min=vram_bytes, interface=interface)
    return required
