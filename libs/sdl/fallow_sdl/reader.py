"""From a document to a ``Stack``: which fields there are, what type each has, which are unknown.

Only the shape of each field is looked at here; whether the parts fit together is the business of ``checks``. As Akash
does, only what is deployed is read: a service, profile or placement that nothing uses gets a warning. An unknown field
is refused, except where Akash's own parser skips it (everywhere but at the top, in ``gpu`` and in the attributes of
resources) and ``leftovers`` knows it: then it gets a warning.
"""

import re
from collections.abc import Collection, Iterator
from fractions import Fraction
from typing import Final

from fallow_sdl.document import Mapping, Node
from fallow_sdl.fields import Fields
from fallow_sdl.model import (
    Credentials,
    Deployed,
    EndpointName,
    Expose,
    ExposeTarget,
    Place,
    Service,
    Stack,
    StorageMount,
)
from fallow_sdl.problems import Notes
from fallow_sdl.profiles import read_compute, read_placement
from fallow_sdl.units import parse_duration_seconds, parse_whole

MAX_REPLICAS: Final = 1_000
_VERSION: Final = re.compile(r"v?2(?:\.(?P<minor>[01]))?(?:\.0)?")
_SERVICE_NAME: Final = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VARIABLE: Final = re.compile(r"(?!\.\.|\.$)[-._a-zA-Z][-._a-zA-Z0-9]*")
_ENDPOINT_NAME: Final = re.compile(r"[a-z]+[a-z0-9_-]+")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_PROTOCOLS: Final = frozenset({"", "tcp", "udp"})
_TRUSTED_ENVIRONMENTS: Final = frozenset({"", "cpu", "cpu-gpu"})
_HTTP_NUMBERS: Final = (
    "max_body_size", "next_timeout", "next_tries", "proxy_buffer_size", "read_timeout", "send_timeout",
)  # fmt: skip
_NEXT_CASES: Final = frozenset({"error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off"})


def read_stack(document: Mapping, notes: Notes) -> Stack:
    """The stack of a document; what is wrong goes to ``notes``, and then the stack must not be used."""
    top = Fields(document, Place(document.line, ""), notes)
    version = _version(top)
    if top.node("include") is not None:
        notes.refuse(top.place_at("include"), "is not supported: put what is included into this file")
    _reclamation(top)
    deployed = tuple(_deployment(top.section("deployment", required=True)))
    services = top.section("services", required=True)
    profiles = top.section("profiles", required=True)
    computes = profiles.section("compute", required=True)
    placements = profiles.section("placement", required=True)
    stack = Stack(
        top.place_at("deployment"),
        version,
        tuple(_service(*entry, notes) for entry in _used(services, {entry.service for entry in deployed})),
        tuple(read_compute(*entry, notes) for entry in _used(computes, {entry.profile for entry in deployed})),
        tuple(read_placement(*entry, notes) for entry in _used(placements, {entry.placement for entry in deployed})),
        deployed,
        tuple(_endpoints(top.section("endpoints"))),
    )
    profiles.done()
    top.done(strict=True)
    return stack


def _used(section: Fields, names: Collection[str]) -> Iterator[tuple[str, Place, Node]]:
    """The entries that are deployed; a warning for each other one."""
    for name, place, node in section.entries():
        if name in names:
            yield name, place, node
        else:
            section.notes.warn(place, "is not deployed, so it is not looked at")


def _version(top: Fields) -> str:
    """``2.0`` or ``2.1``, however it is written; empty where it is neither."""
    text = top.text("version", required=True).strip()
    match = _VERSION.fullmatch(text)
    if match is None:
        if top.node("version") is not None:
            top.notes.refuse(top.place_at("version"), "must be 2.0 or 2.1")
        return ""
    return f"2.{match.group('minor') or '0'}"


def _reclamation(top: Fields) -> None:
    """The least notice before a provider takes a lease back. Nobody may take one back here, so any notice is kept."""
    if top.node("reclamation") is None:
        return
    fields = top.section("reclamation")
    if fields.parsed("min_window", parse_duration_seconds, Fraction(1), required=True) <= 0:
        top.notes.refuse(fields.place_at("min_window"), "must be more than 0")
    fields.done()
    top.notes.warn(top.place_at("reclamation"), "no provider can reclaim a lease here, so any window is kept")


def _service(name: str, place: Place, node: Node, notes: Notes) -> Service:
    """One service."""
    if not _SERVICE_NAME.fullmatch(name) or len(name) > 63:
        notes.refuse(place, "a service's name is lower-case letters, digits and dashes, at most 63, a letter first")
    fields = Fields(node, place, notes)
    params = fields.section("params")
    if params.node("permissions") is not None:
        notes.warn(params.place_at("permissions"), "gives no rights here: a container cannot read logs or events")
    trusted_environment = params.text("tee")
    if trusted_environment not in _TRUSTED_ENVIRONMENTS:
        notes.refuse(params.place_at("tee"), "must be cpu or cpu-gpu")
    service = Service(
        place,
        name,
        fields.parsed("image", _image, "", required=True),
        fields.texts("command"),
        fields.texts("args"),
        tuple(_variable(spot, text, notes) for spot, text in fields.placed_texts("env")),
        tuple(_expose(spot, entry, notes) for spot, entry in fields.items("expose")),
        tuple(_mount(key, spot, entry, notes) for key, spot, entry in params.section("storage").entries()),
        _credentials(fields),
        trusted_environment,
        params.place_at("tee"),
    )
    for spot, entry in fields.items("dependencies"):
        _dependency(spot, entry, notes)
    params.done()
    fields.done()
    return service


def _image(text: str) -> str:
    """An image reference, whose own syntax is the container engine's business."""
    if not text.strip() or text != text.strip():
        raise ValueError("is empty or has spaces around it")
    return text


def _variable(place: Place, text: str, notes: Notes) -> tuple[str, str]:
    """``KEY=VALUE``; a key alone has an empty value. The text is never repeated in a reason."""
    key, _, value = text.partition("=")
    if not key:
        notes.refuse(place, "has no name before '='")
    elif not _VARIABLE.fullmatch(key):
        notes.refuse(place, "the name before '=' must be letters, digits, '-', '_' and '.', no digit first")
    return key, value


def _expose(place: Place, node: Node, notes: Notes) -> Expose:
    """One exposed port."""
    fields = Fields(node, place, notes)
    protocol = fields.text("proto").lower()
    if protocol not in _PROTOCOLS:
        notes.refuse(fields.place_at("proto"), "must be tcp or udp")
    hosts = tuple((host, spot) for spot, host in fields.placed_texts("accept"))
    for host, spot in hosts:
        if not _HOST.fullmatch(host):
            notes.refuse(spot, "must be a host name in lower case, such as app.example.com")
    if hosts:
        notes.warn(fields.place_at("accept"), "reaches the provider, but nothing routes by host names there yet")
    _http_options(fields)
    expose = Expose(
        place,
        fields.parsed("port", _port, 0, required=True),
        fields.parsed("as", _external_port, 0),
        protocol or "tcp",
        hosts,
        tuple(_target(spot, entry, notes) for spot, entry in fields.items("to")),
    )
    fields.done()
    return expose


def _http_options(parent: Fields) -> None:
    """Limits of an ingress. Ports are not behind one here, so they limit nothing; what they say must still make sense."""
    if parent.node("http_options") is None:
        return
    fields = parent.section("http_options")
    for key in _HTTP_NUMBERS:
        fields.parsed(key, parse_whole, 0)
    cases = fields.texts("next_cases")
    if not _NEXT_CASES.issuperset(cases) or ("off" in cases and len(cases) > 1):
        parent.notes.refuse(
            fields.place_at("next_cases"),
            "must be off alone, or some of error, timeout, 500, 502, 503, 504, 403, 404, 429",
        )
    fields.done()
    parent.notes.warn(fields.place, "has no effect: there is no proxy before a port that would need it")


def _port(text: str) -> int:
    """A port number."""
    number = parse_whole(text)
    if not 1 <= number <= 65_535:
        raise ValueError("must be a port from 1 to 65535")
    return number


def _external_port(text: str) -> int:
    """A port number, or 0 for the port of the container."""
    number = parse_whole(text)
    return number and _port(text)


def _target(place: Place, node: Node, notes: Notes) -> ExposeTarget:
    """Who may reach a port."""
    fields = Fields(node, place, notes)
    target = ExposeTarget(place, fields.text("service"), fields.boolean("global"), fields.text("ip"))
    # Older public files repeat the options of the port here.
    _http_options(fields)
    # Whatever else an entry says, it opens nothing more than what it names.
    fields.done(lax=True)
    return target


def _mount(volume: str, place: Place, node: Node, notes: Notes) -> StorageMount:
    """A mount of a volume in a service."""
    fields = Fields(node, place, notes)
    mount = StorageMount(
        place, volume, fields.parsed("mount", _absolute_path, "", required=True), fields.boolean("readOnly")
    )
    fields.done()
    return mount


def _absolute_path(text: str) -> str:
    """A path in the container."""
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return text


def _credentials(service: Fields) -> Credentials | None:
    """Credentials of a private registry."""
    if service.node("credentials") is None:
        return None
    fields = service.section("credentials")
    # A registry's e-mail address is of use to no engine any more.
    fields.node("email")
    credentials = Credentials(
        fields.place,
        fields.parsed("host", _not_blank, "", required=True),
        fields.parsed("username", _not_blank, "", required=True),
        fields.parsed("password", _not_blank, "", required=True),
    )
    fields.done()
    return credentials


def _not_blank(text: str) -> str:
    """A text without spaces around it."""
    if not text.strip():
        raise ValueError("is empty")
    return text.strip()


def _dependency(place: Place, node: Node, notes: Notes) -> None:
    """A service that another one waits for. As on Akash, all services of a group start at once."""
    fields = Fields(node, place, notes)
    fields.text("service")
    fields.done()


def _deployment(section: Fields) -> list[Deployed]:
    """Which service runs where, how often."""
    found: list[Deployed] = []
    for service, place, node in section.entries():
        for placement, spot, entry in Fields(node, place, section.notes).entries():
            fields = Fields(entry, spot, section.notes)
            found.append(
                Deployed(
                    spot,
                    service,
                    placement,
                    fields.text("profile", required=True),
                    fields.place_at("profile"),
                    fields.parsed("count", _count, 0, required=True),
                )
            )
            fields.done()
    return found


def _count(text: str) -> int:
    """A number of replicas."""
    number = 0 if re.fullmatch(r"-?[0-9]{19,}|-[0-9]+", text) else parse_whole(text)
    if not 1 <= number <= MAX_REPLICAS:
        raise ValueError(f"must be from 1 to {MAX_REPLICAS}")
    return number


def _endpoints(section: Fields) -> list[EndpointName]:
    """Leased addresses."""
    found: list[EndpointName] = []
    for name, place, node in section.entries():
        if not _ENDPOINT_NAME.fullmatch(name):
            section.notes.refuse(place, "an endpoint's name is at least two lower-case letters, digits, '-' or '_'")
        fields = Fields(node, place, section.notes)
        if fields.text("kind", required=True) not in {"", "ip"}:
            section.notes.refuse(fields.place_at("kind"), "must be ip")
        fields.done()
        found.append(EndpointName(place, name))
    return found
