"""Files that must be refused, each with its path, line and reason; and files that only look odd."""

import pytest

import fallow_sdl
from fallow_sdl import SdlError, SdlSettings

GOOD = """\
version: "2.0"
services:
  web:
    image: nginx:1.27
    env:
      - PASSWORD=hunter2
    expose:
      - port: 80
        as: 80
        to:
          - global: true
    params:
      storage:
        data:
          mount: /data
profiles:
  compute:
    web:
      resources:
        cpu:
          units: 1
        memory:
          size: 512Mi
        storage:
          - size: 1Gi
          - name: data
            size: 2Gi
            attributes:
              persistent: true
              class: beta2
        gpu:
          units: 1
          attributes:
            vendor:
              nvidia:
                - model: h100
                  ram: 80Gi
                  interface: sxm
  placement:
    dcloud:
      attributes:
        region: eu-west
      pricing:
        web:
          denom: uact
          amount: 1000
deployment:
  web:
    dcloud:
      profile: web
      count: 2
"""


def _problems(text: str) -> list[tuple[int, str, str]]:
    try:
        fallow_sdl.parse(text)
    except SdlError as error:
        return [(problem.line, problem.path, problem.reason) for problem in error.problems]
    return []


def _changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


def test_the_good_file_is_good() -> None:
    """Goal: what follows fails for its change alone. Method: convert the file as it is."""
    order = fallow_sdl.parse(GOOD)
    assert list(order.groups[0].constraints.regions) == ["eu-west"]
    assert order.groups[0].workload.containers[0].resources.gpu.interface == "sxm"


COMPUTE = "profiles.compute.web.resources"
PLACEMENT = "profiles.placement.dcloud"


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "reason"),
    [
        # Fields that Akash's own parser refuses as unknown.
        ("services:", "colour: red\nservices:", 2, "colour", "unknown field"),
        ("          units: 1\n        memory", "          units: 1\n          attributes: {clock: fast}\n        memory", 22, f"{COMPUTE}.cpu.attributes.clock", "unknown field"),
        ("              class: beta2", "              class: beta2\n              speed: 1", 31, f"{COMPUTE}.storage[1].attributes.speed", "unknown field"),
        ("        gpu:\n", "        gpu:\n          memory: 1\n", 32, f"{COMPUTE}.gpu.memory", "unknown field"),
        ("            vendor:", "            model: h100\n            vendor:", 34, f"{COMPUTE}.gpu.attributes.model", "unknown field"),
        # Slips of the pen that Akash's own parser reads past.
        ("    image:", "    imagee: x\n    image:", 4, "services.web.imagee", "unknown field"),
        ("        as: 80", "        ass: 80", 9, "services.web.expose[0].ass", "unknown field"),
        ("          size: 512Mi", "          size: 512Mi\n          speed: 1", 24, f"{COMPUTE}.memory.speed", "unknown field"),
        ("      pricing:", "      prices: {}\n      pricing:", 43, f"{PLACEMENT}.prices", "unknown field"),
        # Words that only describe elsewhere, where Akash's own parser is strict.
        ("services:", "description: mine\nservices:", 2, "description", "unknown field"),
        ("        gpu:\n", "        gpu:\n          name: mine\n", 32, f"{COMPUTE}.gpu.name", "unknown field"),
        # Missing and malformed.
        ('version: "2.0"\n', "", 1, "version", "missing"),
        ('version: "2.0"', 'version: "3.0"', 1, "version", "2.0 or 2.1"),
        ('version: "2.0"', 'version: 2.10', 1, "version", "2.0 or 2.1"),
        ("services:\n", "service:\n", 1, "services", "missing"),
        ("profiles:\n", "profile:\n", 1, "profiles", "missing"),
        ("deployment:\n", "deployments:\n", 1, "deployment", "missing"),
        ("    image: nginx:1.27\n", "", 3, "services.web.image", "missing"),
        ("image: nginx:1.27", "image: ''", 4, "services.web.image", "empty"),
        ("image: nginx:1.27", "image: ' nginx'", 4, "services.web.image", "spaces"),
        ("image: nginx:1.27", "image: [nginx]", 4, "services.web.image", "single value"),
        ("port: 80\n", "port: 0\n", 8, "services.web.expose[0].port", "1 to 65535"),
        ("port: 80\n", "port: 65536\n", 8, "services.web.expose[0].port", "1 to 65535"),
        ("port: 80\n", "port:\n", 8, "services.web.expose[0].port", "missing"),
        ("as: 80\n", "as: eighty\n", 9, "services.web.expose[0].as", "number"),
        ("as: 80\n", "as: 65536\n", 9, "services.web.expose[0].as", "1 to 65535"),
        ("as: 80\n", "as: 80\n        proto: icmp\n", 10, "services.web.expose[0].proto", "tcp or udp"),
        ("as: 80\n", "as: 80\n        accept: [My_Host]\n", 10, "services.web.expose[0].accept[0]", "host name"),
        ("as: 80\n", "as: 80\n        http_options: {next_cases: [off, error]}\n", 10, "services.web.expose[0].http_options.next_cases", "off alone"),
        ("as: 80\n", "as: 80\n        http_options: {next_cases: ['418']}\n", 10, "services.web.expose[0].http_options.next_cases", "off alone"),
        ("as: 80\n", "as: 80\n        http_options: {read_timeout: 5s}\n", 10, "services.web.expose[0].http_options.read_timeout", "number"),
        ("        to:\n          - global: true", "        to: {global: true}", 10, "services.web.expose[0].to", "must be a list"),
        ("- global: true", "- global: maybe", 11, "services.web.expose[0].to[0].global", "true or false"),
        ("mount: /data", "mount: data", 15, "services.web.params.storage.data.mount", "absolute"),
        ("mount: /data", "readOnly: true", 14, "services.web.params.storage.data.mount", "missing"),
        ("    expose:", "    credentials: {host: r.example.com, username: me}\n    expose:", 7, "services.web.credentials.password", "missing"),
        ("    expose:", "    credentials: {host: ' ', username: a, password: b}\n    expose:", 7, "services.web.credentials.host", "empty"),
        ("size: 512Mi", "size: 512XB", 23, f"{COMPUTE}.memory.size", "512Mi"),
        ("size: 512Mi", "size: -512Mi", 23, f"{COMPUTE}.memory.size", "512Mi"),
        ("size: 512Mi", "size: 512Ki", 23, f"{COMPUTE}.memory.size", "1Mi to 16Ti"),
        ("size: 512Mi", "size: 17Ti", 23, f"{COMPUTE}.memory.size", "1Mi to 16Ti"),
        ("units: 1\n        memory", "units: 1x\n        memory", 21, f"{COMPUTE}.cpu.units", "cores"),
        ("units: 1\n        memory", "units: 0\n        memory", 21, f"{COMPUTE}.cpu.units", "more than 0"),
        ("units: 1\n        memory", "units: 513\n        memory", 21, f"{COMPUTE}.cpu.units", "512"),
        ("units: 1\n        memory", "units: [1]\n        memory", 21, f"{COMPUTE}.cpu.units", "single value"),
        ("          units: 1\n        memory", "          unit: 1\n        memory", 20, f"{COMPUTE}.cpu.units", "missing"),
        ("size: 2Gi", "size: 0", 27, f"{COMPUTE}.storage[1].size", "more than 0"),
        ("size: 2Gi", "size: 8Ei", 27, f"{COMPUTE}.storage[1].size", "less than 8Ei"),
        ("ram: 80Gi", "ram: 99Ei", 37, f"{COMPUTE}.gpu.attributes.vendor.nvidia[0].ram", "less than 8Ei"),
        ("interface: sxm", "interface: sxm4", 38, f"{COMPUTE}.gpu.attributes.vendor.nvidia[0].interface", "pcie or sxm"),
        ("gpu:\n          units: 1", "gpu:\n          units: 65", 32, f"{COMPUTE}.gpu.units", "at most 64"),
        ("amount: 1000", "amount: -1", 46, f"{PLACEMENT}.pricing.web.amount", "not negative"),
        ("amount: 1000", "amount: 1e3", 46, f"{PLACEMENT}.pricing.web.amount", "written out"),
        ("amount: 1000", f"amount: {'9' * 20}", 46, f"{PLACEMENT}.pricing.web.amount", "at most 18 digits before the point"),
        ("amount: 1000", "amount: 0", 46, f"{PLACEMENT}.pricing.web.amount", "more than 0"),
        ("          amount: 1000\n", "", 44, f"{PLACEMENT}.pricing.web.amount", "missing"),
        ("count: 2", "count: 1.5", 51, "deployment.web.dcloud.count", "whole number"),
        ("amount: 1000", "amount: 1e+30", 46, f"{PLACEMENT}.pricing.web.amount", "written out"),
        ("count: 2", "count: -3", 51, "deployment.web.dcloud.count", "must be from 1 to 1000"),
        ("count: 2", f"count: {10**30}", 51, "deployment.web.dcloud.count", "must be from 1 to 1000"),
        ("count: 2", "count: 0", 51, "deployment.web.dcloud.count", "from 1 to 1000"),
        ("count: 2", "count: 1001", 51, "deployment.web.dcloud.count", "from 1 to 1000"),
        ("      count: 2\n", "", 49, "deployment.web.dcloud.count", "missing"),
        ("    env:\n      - PASSWORD=hunter2", "    env: hunter2", 5, "services.web.env", "must be a list"),
        ("    env:\n      - PASSWORD=hunter2", "    env: {PASSWORD: hunter2}", 5, "services.web.env", "must be a list"),
        ("    expose:", "    command: {a: b}\n    expose:", 7, "services.web.command", "must be a list"),
        ("- PASSWORD=hunter2", "- =hunter2", 6, "services.web.env[0]", "no name"),
        ("- PASSWORD=hunter2", "- PASS WORD=hunter2", 6, "services.web.env[0]", "letters"),
        ("- PASSWORD=hunter2", "- 1PASSWORD=hunter2", 6, "services.web.env[0]", "no digit first"),
        # What does not fit together.
        ("profile: web", "profile: wob", 50, "deployment.web.dcloud.profile", "no compute profile wob"),
        ("deployment:\n  web:", "deployment:\n  wob:", 49, "deployment.wob.dcloud", "no service wob"),
        ("  web:\n    dcloud:", "  web:\n    dclaud:", 49, "deployment.web.dclaud", "no placement dclaud"),
        ("pricing:\n        web:", "pricing:\n        wob:", 43, f"{PLACEMENT}.pricing", "no price"),
        ("denom: uact", "denom: uatom", 45, f"{PLACEMENT}.pricing.web.denom", "no rate"),
        ("amount: 1000", "amount: 99999999999999999", 40, PLACEMENT, "micros per hour"),
        ("    params:\n      storage:\n        data:\n          mount: /data\n", "", 22, f"{COMPUTE}.storage[1]", "does not mount it"),
        ("        data:\n", "        dada:\n", 14, "services.web.params.storage.dada", "no volume dada"),
        ("          mount: /data\n", "          mount: /data\n        default:\n          mount: /data\n", 16, "services.web.params.storage.default", "same path"),
        ("class: beta2", "class: ram", 29, f"{COMPUTE}.storage[1].attributes.persistent", "ram cannot be persistent"),
        ("class: beta2", "class: nvme", 30, f"{COMPUTE}.storage[1].attributes.class", "beta3 or ram"),
        ("persistent: true", "persistent: false", 30, f"{COMPUTE}.storage[1].attributes.class", "needs persistent: true"),
        ("persistent: true", "persistent: perhaps", 29, f"{COMPUTE}.storage[1].attributes.persistent", "true or false"),
        ("name: data\n            size: 2Gi", "name: default\n            size: 2Gi", 26, f"{COMPUTE}.storage[1]", "twice"),
        ("gpu:\n          units: 1", "gpu:\n          units: 0", 33, f"{COMPUTE}.gpu.attributes", "at least 1"),
        ("            vendor:\n              nvidia:\n                - model: h100\n                  ram: 80Gi\n                  interface: sxm\n", "            vendor: {}\n", 33, f"{COMPUTE}.gpu.attributes", "name a vendor"),
        ("          attributes:\n            vendor:\n              nvidia:\n                - model: h100\n                  ram: 80Gi\n                  interface: sxm\n", "", 32, f"{COMPUTE}.gpu.units", "need attributes"),
        ("- global: true", "- global: true\n            ip: front", 11, "services.web.expose[0].to[0]", "no endpoint front"),
        ("- global: true", "- ip: front", 11, "services.web.expose[0].to[0]", "global: true"),
        ("- global: true", "- global: true\n          - global: true", 8, "services.web.expose[0]", "twice"),
        ("deployment:", "endpoints:\n  front:\n    kind: ip\ndeployment:", 48, "endpoints.front", "no service uses"),
        ("deployment:", "endpoints:\n  Front:\n    kind: ip\ndeployment:", 48, "endpoints.Front", "lower-case"),
        ("deployment:", "endpoints:\n  front:\n    kind: dns\ndeployment:", 49, "endpoints.front.kind", "must be ip"),
        ("    params:\n", "    params:\n      tee: gpu\n", 13, "services.web.params.tee", "cpu or cpu-gpu"),
        ("services:", "include: [a.yaml]\nservices:", 2, "include", "not supported"),
        ("services:", "reclamation:\n  min_window: soon\nservices:", 3, "reclamation.min_window", "24h"),
        ("services:", "reclamation:\n  min_window: 0h\nservices:", 3, "reclamation.min_window", "more than 0"),
        ("services:", "reclamation:\n  window: 1h\nservices:", 2, "reclamation.min_window", "missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_and_path(old: str, new: str, line: int, path: str, reason: str) -> None:
    """Goal: errors lead to the mistake. Method: one change to a good file; line, path and words of the reason."""
    found = _problems(_changed(old, new))
    assert any((at, where) == (line, path) and reason in why for at, where, why in found), found


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("- a\n", 1, "mapping"),
        ("version: '2.0'\n\tservices: {}\n", 2, "tab"),
        ("version: '2.0'\nservices:\n\tweb: {}\n", 3, "a tab stands"),
        ("version: '2.0'\nservices:\n  web:\n  \timage: x\n", 4, "a tab stands"),
        ("version: '2.0'\n \tservices: x\n", 2, "a tab stands"),
        ("a: b\n\tc: 2\n", 2, "a tab stands"),
        ("version: '2.0'\r\nservices:\r\n\tweb: {}\r\n", 3, "tab"),
        ('a: "x\\0y"\n', 1, "no field may hold"),
        ('"\\uD800": x\n', 1, ""),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "malformed YAML"),
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a: !!python/object:os.system {}\n", 1, "tag"),
        ("a: !!binary aGk=\n", 1, "tag"),
        ("a: *nobody\n", 1, "alias"),
        ("? [1, 2]\n: x\n", 1, "plain text"),
        ("a: x\nb: \x07\n", 2, "character"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", 1, "deeper"),
        ("a: " + "[" * 500_000 + "\n", 1, "deep"),
        ("a: &a [*a]\n", 1, "alias"),
        ("x" * 1_048_577, 1, "longer"),
    ],
)
def test_what_is_no_yaml_of_ours_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    """Goal: malformed files are told apart. Method: the usual accidents and attacks."""
    (found,) = _problems(text)
    assert found[0] == line
    assert reason in found[2]


def test_nested_aliases_do_not_blow_up() -> None:
    """Goal: a short file stays cheap. Method: aliases of aliases that would make 10^9 nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = _problems("\n".join(lines))
    assert "nodes" in found[2]


def test_all_problems_of_a_stage_come_at_once() -> None:
    """Goal: one run shows them all. Method: two mistakes far apart, in the order of their lines."""
    found = _problems(_changed("count: 2", "count: x").replace("port: 80", "port: x"))
    assert [line for line, _, _ in found] == [8, 51]


def test_no_reason_repeats_a_secret() -> None:
    """Goal: an error may be logged. Method: mistakes in and around the environment."""
    for old, new in (("- PASSWORD=hunter2", "- {PASSWORD: hunter2}"), ("- PASSWORD=hunter2", "- =hunter2"),
                     ("    env:\n      -", "    env:")):  # fmt: skip
        found = _problems(_changed(old, new))
        assert found
        assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        # Akash's own parser reads past these, and they come from elsewhere.
        ("    image:", "    depends_on: [db]\n    image:", 4, "services.web.depends_on"),
        ("    image:", "    depends-on: [db]\n    image:", 4, "services.web.depends-on"),
        ("    image:", "    readiness_probe: {}\n    image:", 4, "services.web.readiness_probe"),
        ("    image:", "    x-note: mine\n    image:", 4, "services.web.x-note"),
        ("          - global: true", "          - global: true\n            servicex: web", 12, "services.web.expose[0].to[0].servicex"),
        ("      count: 2", "      count: 2\n      replicas: 2", 52, "deployment.web.dcloud.replicas"),
        ("profiles:", "profiles:\n  storage: {}", 17, "profiles.storage"),
        # What is not deployed is not looked at, whatever it says.
        ("services:", "services:\n  Idle!: {image: [x]}", 3, "services.'Idle!'"),
        ("  compute:", "  compute:\n    idle: {resources: 5}", 18, "profiles.compute.idle"),
        ("  placement:", "  placement:\n    idle: 7", 40, "profiles.placement.idle"),
        # What has no effect here, or another one.
        ("        as: 80", "        as: 80\n        http_options: {max_body_size: 1048576, next_cases: [off]}", 10, "services.web.expose[0].http_options"),
        ("          - global: true", "          - global: true\n            http_options: {read_timeout: 5}", 12, "services.web.expose[0].to[0].http_options"),
        ("          - global: true", "          - global: true\n          - service: db", 12, "services.web.expose[0].to[1]"),
        ("    params:", "    params:\n      permissions: {read: [logs]}", 13, "services.web.params.permissions"),
        ("    params:", "    params:\n      tee: cpu", 13, "services.web.params.tee"),
        ("services:", "reclamation:\n  min_window: 1h30m\nservices:", 2, "reclamation"),
        ("          units: 1\n        memory", "          units: 1\n          attributes: {arch: arm64}\n        memory", 22, f"{COMPUTE}.cpu.attributes.arch"),
        ("          - size: 1Gi", "          - size: 1Gi\n            attributes: {persistent: true}", 25, f"{COMPUTE}.storage[0]"),
        ("    expose:\n", "    expose:\n      - port: 80\n        to: [{global: true}]\n", 10, "services.web.expose[1]"),
        ("      count: 2\n", "      count: 2\n---\n{}\n", 52, ""),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told_and_not_refused(old: str, new: str, line: int, path: str) -> None:
    """Goal: nothing is dropped in silence. Method: one change to a good file; its line and path among the warnings."""
    warnings = fallow_sdl.convert(_changed(old, new)).warnings
    assert (line, path) in [(warning.line, warning.path) for warning in warnings], warnings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version: "2.0"', "version: 2.0"),
        ('version: "2.0"', "--- # a comment\nversion: '2.1'"),
        ('version: "2.0"', "version: 2"),
        ('version: "2.0"', "version: '2'"),
        ('version: "2.0"', "version: v2.0.0"),
        ('version: "2.0"', "%YAML 1.1\n---\nversion: '2.0'"),
        ("      count: 2\n", "      count: 2\n---\n"),
        ("      count: 2\n", "      count: 2\n...\n"),
        ("      count: 2\n", "      count: 2\n---\nversion: '1.0'\n"),
        ("      count: 2\n", "      count: 2\n---\n[broken\n"),
        ("count: 2", "count: 2.0"),
        ("persistent: true", "persistent: yes"),
        ("persistent: true", "persistent: 'on'"),
        ("        as: 80\n", "        as: 80\n        proto: TCP\n"),
        ("        as: 80\n", "        as: 80\n        accept:\n"),
        ("model: h100", "model: H100"),
        ("units: 1\n          attributes", "units: '1'\n          attributes"),
        ("    expose:", "    dependencies:\n      - service: db\n    expose:"),
        ("    expose:", "    expose: &ports"),
        ("deployment:", "endpoints:\ndeployment:"),
        ("deployment:", "endpoints: {}\ndeployment:"),
        ("port: 80", 'port: "80"'),
        ("count: 2", "count: '2'"),
        ("global: true", "global: 'True'"),
        ("global: true", "global: on"),
        ("persistent: true", 'persistent: "true"'),
        ("image: nginx:1.27", 'image: "nginx:1.27"'),
        ("amount: 1000", "amount: 1000.000"),
        ("units: 1\n        memory", "units: 1000m\n        memory"),
        ("size: 512Mi", "size: 0.5Gi"),
        ("    expose:", "    args:\n    expose:"),
        ("  web:\n    image", "  web: &web\n    image"),
        ("deployment:", "# the end\ndeployment:"),
    ],
)
def test_what_akash_tolerates_means_the_same(old: str, new: str) -> None:
    """Goal: files in the wild work. Method: other spellings of one file give one order."""
    assert fallow_sdl.parse(_changed(old, new)) == fallow_sdl.parse(GOOD)


def test_merge_keys_fill_in_and_never_replace() -> None:
    """Goal: anchors and merges work. Method: a second profile that takes the first and changes the memory."""
    text = GOOD.replace("    web:\n      resources:\n        cpu", "    web:\n      resources: &base\n        cpu")
    text = text.replace(
        "  placement:",
        "    big:\n      resources:\n        <<: *base\n        memory:\n          size: 4Gi\n  placement:",
    )
    text = text.replace("      pricing:\n", "      pricing:\n        big: {denom: uact, amount: 5}\n").replace(
        "profile: web", "profile: big"
    )
    container = fallow_sdl.parse(text).groups[0].workload.containers[0]
    assert (container.resources.memory_bytes, container.resources.cpu_milli) == (4 << 30, 1000)


TWO = """\
version: "2.1"
services:
  web: {image: nginx, expose: [{port: 80, to: [{global: true}]}]}
  api: {image: nginx, expose: [{port: 80, to: [{global: true}]}]}
profiles:
  compute:
    small: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}
  placement:
    here: {pricing: {small: {denom: uact, amount: 10}}}
    there: {pricing: {small: {denom: uact, amount: 10}}}
deployment:
  web: {here: {profile: small, count: 1}}
  api: {here: {profile: small, count: 1}}
endpoints: {front: {kind: ip}}
"""


@pytest.mark.parametrize(
    ("change", "line", "path", "reason"),
    [
        (("accept: [a.com], port: 80, to: [{global: true}]",) * 2, 4, "services.api.expose[0].accept[0]", "same host"),
        (("port: 80, to: [{global: true, ip: front}]",) * 2, 4, "services.api.expose[0].to[0]", "same port"),
    ],
)
def test_two_services_cannot_share_what_is_seen_outside(
    change: tuple[str, str], line: int, path: str, reason: str
) -> None:
    """Goal: a host name, or a port of a leased address, leads to one service. Method: both services claim it."""
    text = TWO
    for entry in change:
        text = text.replace("expose: [{port: 80, to: [{global: true}]}]", f"expose: [{{{entry}}}]", 1)
    if "ip: front" not in text:
        text = text.replace("endpoints: {front: {kind: ip}}\n", "")
    assert [(at, where) for at, where, why in _problems(text) if reason in why] == [(line, path)]
    other = text.replace("a.com", "b.com", 1).replace("port: 80", "port: 81", 1)
    assert _problems(other) == []


def test_one_kind_of_trusted_environment_a_placement() -> None:
    """Goal: what becomes one attribute of the provider has one value. Method: two kinds on one placement, then on two."""
    text = TWO.replace("endpoints: {front: {kind: ip}}\n", "")
    text = text.replace("web: {image: nginx", "web: {params: {tee: cpu}, image: nginx")
    same = fallow_sdl.parse(text)
    assert dict(same.groups[0].constraints.attributes) == {"tee/type": "cpu"}
    gpu = "gpu: {units: 1, attributes: {vendor: {nvidia: }}}, cpu:"
    text = text.replace("api: {image: nginx", "api: {params: {tee: cpu-gpu}, image: nginx")
    assert [(at, where) for at, where, _ in _problems(text)] == [(4, "services.api.params.tee")] * 2
    text = text.replace("cpu:", gpu, 1)
    assert [(at, where) for at, where, _ in _problems(text)] == [(4, "services.api.params.tee")]
    apart = fallow_sdl.parse(text.replace("api: {here", "api: {there"))
    assert [group.constraints.attributes["tee/type"] for group in apart.groups] == ["cpu", "cpu-gpu"]
    taken = text.replace("here: {pricing", "here: {attributes: {tee/type: snp}, pricing", 1)
    assert len(_problems(taken)) == 2


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("image: nginx:1.27", "image: " + "x" * 1_025, "services.web.image"),
        ("    expose:", f"    args: [{', '.join(['a'] * 257)}]\n    expose:", "services.web.args"),
        ("    expose:", f"    command: [{'a' * 65_537}]\n    expose:", "services.web.command"),
        ("      - PASSWORD=hunter2\n", "      - A=1\n" * 513, "services.web.env"),
        ("PASSWORD=", "P" * 257 + "=", "services.web.env"),
        ("hunter2", "h" * 65_537, "services.web.env"),
        ("        as: 80\n", f"        accept: [{', '.join(f'a{n}.com' for n in range(17))}]\n", "services.web.expose[0]"),
        ("        as: 80\n", f"        accept: [{'a' * 254}]\n", "services.web.expose[0].accept[0]"),
        ("          - global: true\n", "          - service: web\n" * 65, "services.web.expose[0]"),
        ("    expose:\n", "    expose:\n" + "".join(f"      - port: {n}\n" for n in range(1, 65)), "services.web.expose"),
        ("mount: /data", "mount: /" + "d" * 1_024, "services.web.params.storage.data"),
        ("          - name: data\n", "".join(f"          - {{name: v{n}, size: 1}}\n" for n in range(16)) + "          - name: data\n", COMPUTE[: -len(".resources")]),
        ("          - name: data\n", f"          - {{name: {'v' * 64}, size: 1}}\n          - name: data\n", f"{COMPUTE}.storage[1]"),
        ("                - model: h100\n", "".join(f"                - model: m{n}\n" for n in range(65)) + "                - model: h100\n", f"{COMPUTE}.gpu"),
        ("model: h100", "model: " + "m" * 65, f"{COMPUTE}.gpu.attributes.vendor.nvidia[0]"),
        ("region: eu-west", "region: " + "r" * 64, f"{PLACEMENT}.attributes.region"),
        ("        region: eu-west\n", "".join(f"        a{n}: b\n" for n in range(65)), PLACEMENT),
        ("      pricing:", f"      signedBy: {{anyOf: [{'a' * 129}]}}\n      pricing:", PLACEMENT),
        ("      pricing:", f"      signedBy: {{allOf: [{', '.join(['a'] * 65)}]}}\n      pricing:", PLACEMENT),
        ("    expose:", f"    credentials: {{host: {'h' * 254}, username: a, password: b}}\n    expose:", "services.web.credentials.host"),
    ],
)  # fmt: skip
def test_what_no_order_can_hold_is_refused_where_it_stands(old: str, new: str, path: str) -> None:
    """Goal: what converts, the service takes. Method: one field beyond each bound of the contract; its path."""
    assert [where for _, where, why in _problems(_changed(old, new)) if "must have at most" in why] == [path]


def test_there_is_an_end_to_what_is_told() -> None:
    """Goal: a hopeless file gives a short answer. Method: a thousand mistakes."""
    found = _problems(_changed("      - PASSWORD=hunter2\n", "      - 1=2\n" * 1_000))
    assert len(found) == 101
    assert any("only the first 100" in why for _, _, why in found)


def test_prices_follow_the_settings_and_round_up_once() -> None:
    """Goal: documented arithmetic. Method: a block of 7 s and 2 AKT a dollar, by hand: 2 × 1000 × 0.5 × 3600 / 7."""
    settings = SdlSettings(block_milliseconds=7_000, micros_per_million={"uakt": 500_000})
    order = fallow_sdl.parse(_changed("denom: uact", "denom: uakt"), settings)
    assert order.groups[0].price_limit.micros_per_hour == -(-1000 * 3600 // 7)


def test_each_placement_is_a_group() -> None:
    """Goal: one provider takes a placement whole. Method: a second placement whose name is none of ours."""
    text = GOOD.replace(
        "deployment:\n", "    US_West 1:\n      pricing:\n        web: {denom: uact, amount: 7}\ndeployment:\n"
    )
    text += "    US_West 1:\n      profile: web\n      count: 1\n"
    groups = fallow_sdl.parse(text).groups
    assert [group.group_id for group in groups] == ["dcloud", "us-west-1"]
    assert [group.workload.containers[0].replicas for group in groups] == [2, 1]


@pytest.mark.parametrize(
    "word", ["author", "description", "metadata", "name", "protocol", "tags", "title", "workdir", "x-mine"]
)
def test_words_that_only_describe_are_warned_of(word: str) -> None:
    """Goal: files with notes convert, and say that these do nothing. Method: one word in a service and in a port."""
    for old, line, path in (
        ("    image:", 4, f"services.web.{word}"),
        ("        as: 80", 9, f"services.web.expose[0].{word}"),
    ):
        text = _changed(old, f"{old[: len(old) - len(old.lstrip())]}{word}: x\n{old}")
        warnings = fallow_sdl.convert(text, fallow_sdl.SdlSettings()).warnings
        assert [(warning.line, warning.path) for warning in warnings] == [(line, path)]


def test_a_profile_that_is_not_there_is_told_alone() -> None:
    """Goal: the first line that people read is the cause. Method: a misspelt profile, which has no price either."""
    assert _problems(_changed("profile: web", "profile: wob")) == [
        (50, "deployment.web.dcloud.profile", "there is no compute profile wob")
    ]
