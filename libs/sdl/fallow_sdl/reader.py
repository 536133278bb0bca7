"""From a document to a ``Stack``: which fields there are, what type each has, which are unknown.

Only the shape is looked at here; whether names point at something is the business of ``checks``. Compose leftovers that
public files carry and that Akash's own parser skips are accepted with a warning.
"""

import re
from typing import Final

from fallow_sdl.document import Mapping, Node, Sequence
from fallow_sdl.fields import Fields, Notes, is_null
from fallow_sdl.model import (
    Compute,
    Credentials,
    Deployed,
    EndpointName,
    Expose,
    ExposeTarget,
    Gpu,
    GpuModel,
    Place,
    Placement,
    Pricing,
    Service,
    Stack,
    StorageMount,
    Volume,
)
from fallow_sdl.units import parse_bytes, parse_card_bytes, parse_cpu_milli, parse_number, parse_whole

VERSIONS: Final = frozenset({"2.0", "2.1"})
LEFTOVERS: Final = (
    "build", "cmd", "container_name", "depends-on", "depends_on", "entrypoint", "environment", "healthcheck", "hostname",
    "labels", "links", "networks", "ports", "privileged", "restart", "user", "volumes", "working_dir",
)  # fmt: skip
"""Fields of Compose files and Dockerfiles that public SDL files carry, and that Akash's own parser skips."""
_SERVICE_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROTOCOLS: Final = frozenset({"", "tcp", "udp"})
_HTTP_OPTIONS: Final = (
    "max_body_size", "next_cases", "next_timeout", "next_tries", "proxy_buffer_size", "read_timeout", "send_timeout",
)  # fmt: skip


def read_stack(document: Mapping, notes: Notes) -> Stack:
    """The stack of a document; what is wrong goes to ``notes``, and then the stack must not be used."""
    top = Fields(document, Place(document.line, ""), notes)
    version = top.text("version", required=True)
    if version and version not in VERSIONS:
        notes.refuse(top.place_at("version"), "must be 2.0 or 2.1")
    for key in ("include", "reclamation"):
        if top.node(key) is not None:
            notes.refuse(top.place_at(key), "is not supported yet")
    profiles = top.section("profiles", required=True)
    stack = Stack(
        version,
        tuple(
            _service(name, place, node, notes) for name, place, node in top.section("services", required=True).entries()
        ),
        tuple(
            _compute(name, place, node, notes)
            for name, place, node in profiles.section("compute", required=True).entries()
        ),
        tuple(
            _placement(name, place, node, notes)
            for name, place, node in profiles.section("placement", required=True).entries()
        ),
        tuple(_deployment(top.section("deployment", required=True), notes)),
        tuple(_endpoints(top.section("endpoints"))),
    )
    profiles.done()
    top.done()
    return stack


def _service(name: str, place: Place, node: Node, notes: Notes) -> Service:
    """One service."""
    if not _SERVICE_NAME.fullmatch(name):
        notes.refuse(place, "a service's name is lower-case letters, digits and dashes, at most 63, a letter first")
    fields = Fields(node, place, notes)
    params = fields.section("params")
    for key in ("permissions", "tee"):
        if params.node(key) is not None:
            notes.refuse(params.place_at(key), "is not supported yet")
    service = Service(
        place,
        name,
        fields.text("image", required=True),
        fields.texts("command"),
        fields.texts("args"),
        tuple(_variable(text, fields.place_at("env"), notes) for text in fields.texts("env")),
        tuple(_expose(spot, entry, notes) for spot, entry in fields.items("expose")),
        tuple(_mount(key, spot, entry, notes) for key, spot, entry in params.section("storage").entries()),
        _credentials(fields),
        tuple(_dependency(spot, entry, notes) for spot, entry in fields.items("dependencies")),
    )
    params.done()
    for key in LEFTOVERS:
        fields.ignore(key, "is no field of SDL, though of Compose files, and has no effect")
    fields.done()
    return service


def _variable(text: str, place: Place, notes: Notes) -> tuple[str, str]:
    """``KEY=VALUE``; a key alone has an empty value. The value is never repeated in a reason."""
    key, _, value = text.partition("=")
    if not key.strip():
        notes.refuse(place, "an entry has no name before '='")
    return key, value


def _expose(place: Place, node: Node, notes: Notes) -> Expose:
    """One exposed port."""
    fields = Fields(node, place, notes)
    port = fields.parsed("port", _port, 0, required=True)
    options = fields.section("http_options")
    for key in _HTTP_OPTIONS:
        options.node(key)
    protocol = fields.text("proto").lower()
    if protocol not in _PROTOCOLS:
        notes.refuse(fields.place_at("proto"), "must be tcp or udp")
    expose = Expose(
        place,
        port,
        fields.parsed("as", _port, 0),
        protocol,
        fields.texts("accept"),
        tuple(_target(spot, entry, notes) for spot, entry in fields.items("to")),
        fields.node("http_options") is not None,
    )
    options.done()
    fields.done()
    return expose


def _port(text: str) -> int:
    """A port number."""
    number = parse_whole(text)
    if not 1 <= number <= 65_535:
        raise ValueError("must be a port from 1 to 65535")
    return number


def _target(place: Place, node: Node, notes: Notes) -> ExposeTarget:
    """Who may reach a port."""
    fields = Fields(node, place, notes)
    target = ExposeTarget(place, fields.text("service"), fields.boolean("global"), fields.text("ip"))
    # Older public files repeat the options of the port here; they say nothing new.
    fields.ignore("http_options", "has no effect here")
    fields.done()
    return target


def _mount(volume: str, place: Place, node: Node, notes: Notes) -> StorageMount:
    """A mount of a volume in a service."""
    fields = Fields(node, place, notes)
    mount = StorageMount(place, volume, fields.text("mount"), fields.boolean("readOnly"))
    if mount.path and not mount.path.startswith("/"):
        notes.refuse(fields.place_at("mount"), "must be an absolute path")
    fields.done()
    return mount


def _credentials(service: Fields) -> Credentials | None:
    """Credentials of a private registry."""
    if service.node("credentials") is None:
        return None
    fields = service.section("credentials")
    fields.node("email")
    credentials = Credentials(
        fields.text("host", required=True),
        fields.text("username", required=True),
        fields.text("password", required=True),
    )
    fields.done()
    return credentials


def _dependency(place: Place, node: Node, notes: Notes) -> tuple[str, Place]:
    """A service that another one waits for."""
    fields = Fields(node, place, notes)
    name = fields.text("service", required=True)
    fields.done()
    return name, place


def _compute(name: str, place: Place, node: Node, notes: Notes) -> Compute:
    """One compute profile."""
    fields = Fields(node, place, notes)
    resources = fields.section("resources", required=True)
    cpu = resources.section("cpu", required=True)
    memory = resources.section("memory", required=True)
    attributes = cpu.section("attributes").pairs()
    if attributes:
        notes.warn(cpu.place_at("attributes"), "the processor's attributes are not matched yet")
    memory.node("attributes")
    compute = Compute(
        place,
        name,
        cpu.parsed("units", parse_cpu_milli, 0, required=True),
        attributes,
        memory.parsed("size", parse_bytes, 0, required=True),
        tuple(_volumes(resources, notes)),
        _gpu(resources, notes),
    )
    for part in (cpu, memory, resources, fields):
        part.done()
    return compute


def _volumes(resources: Fields, notes: Notes) -> list[Volume]:
    """The volumes of a profile: one, or a list."""
    node = resources.node("storage")
    if node is None:
        return []
    if isinstance(node, Mapping):
        return [_volume(resources.place_at("storage"), node, notes)]
    return [_volume(place, entry, notes) for place, entry in resources.items("storage")]


def _volume(place: Place, node: Node, notes: Notes) -> Volume:
    """One volume; without a name it is the root file system."""
    fields = Fields(node, place, notes)
    attributes = fields.section("attributes")
    volume = Volume(
        place,
        fields.text("name") or "default",
        fields.parsed("size", parse_bytes, 0, required=True),
        attributes.text("class"),
        attributes.boolean("persistent"),
    )
    attributes.done()
    fields.done()
    return volume


def _gpu(resources: Fields, notes: Notes) -> Gpu | None:
    """The GPUs of a profile."""
    if resources.node("gpu") is None:
        return None
    fields = resources.section("gpu")
    attributes = fields.section("attributes")
    vendors: list[str] = []
    models: list[GpuModel] = []
    for vendor, place, node in attributes.section("vendor").entries():
        vendors.append(vendor.lower())
        if is_null(node):
            continue
        holder = Fields(Mapping((), place.line), place, notes)
        for spot, entry in _listed(holder, place, node):
            models.append(_gpu_model(vendor.lower(), spot, entry, notes))
    gpu = Gpu(fields.place, fields.parsed("units", parse_whole, 0), tuple(vendors), tuple(models))
    attributes.done()
    fields.done()
    return gpu


def _listed(holder: Fields, place: Place, node: Node) -> list[tuple[Place, Node]]:
    """The items of a list that hangs on a name of the tenant's own."""
    if not isinstance(node, Sequence):
        holder.notes.refuse(place, "must be a list of models")
        return []
    return [(Place(entry.line, f"{place.path}[{index}]"), entry) for index, entry in enumerate(node.items)]


def _gpu_model(vendor: str, place: Place, node: Node, notes: Notes) -> GpuModel:
    """One acceptable card."""
    fields = Fields(node, place, notes)
    model = fields.text("model").lower()
    found = GpuModel(
        place,
        vendor,
        "" if model == "*" else model,
        fields.parsed("ram", parse_card_bytes, 0),
        fields.text("interface").lower(),
    )
    fields.done()
    return found


def _placement(name: str, place: Place, node: Node, notes: Notes) -> Placement:
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
        fields.parsed("amount", parse_number, parse_number("0"), required=True),
    )
    fields.done()
    return pricing


def _deployment(section: Fields, notes: Notes) -> list[Deployed]:
    """Which service runs where, how often."""
    found: list[Deployed] = []
    for service, place, node in section.entries():
        for placement, spot, entry in Fields(node, place, notes).entries():
            fields = Fields(entry, spot, notes)
            found.append(
                Deployed(
                    spot,
                    service,
                    placement,
                    fields.text("profile", required=True),
                    fields.parsed("count", parse_whole, 0, required=True),
                )
            )
            fields.done()
    return found


def _endpoints(section: Fields) -> list[EndpointName]:
    """Leased addresses."""
    found: list[EndpointName] = []
    for name, place, node in section.entries():
        fields = Fields(node, place, section.notes)
        if fields.text("kind", required=True) not in {"", "ip"}:
            section.notes.refuse(fields.place_at("kind"), "must be ip")
        fields.done()
        found.append(EndpointName(place, name))
    return found
