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


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "reason"),
    [
        # Unknown fields, at every level.
        ("services:", "colour: red\nservices:", 2, "colour", "unknown field"),
        ("    image:", "    imagee: x\n    image:", 4, "services.web.imagee", "unknown field"),
        ("        as: 80", "        ass: 80", 9, "services.web.expose[0].ass", "unknown field"),
        ("          - global: true", "          - globel: true", 11, "services.web.expose[0].to[0].globel", "unknown"),
        ("          units: 1", "          unit: 1", 21, "profiles.compute.web.resources.cpu.unit", "unknown field"),
        ("      pricing:", "      prices: {}\n      pricing:", 43, "profiles.placement.dcloud.prices", "unknown field"),
        ("      count: 2", "      count: 2\n      replicas: 2", 52, "deployment.web.dcloud.replicas", "unknown field"),
        # Missing and malformed.
        ('version: "2.0"\n', "", 1, "version", "missing"),
        ('version: "2.0"', 'version: "3.0"', 1, "version", "2.0 or 2.1"),
        ("    image: nginx:1.27\n", "", 3, "services.web.image", "missing"),
        ("image: nginx:1.27", "image: ''", 3, "services.web", "image is empty"),
        ("  web:\n    image", "  Web_1:\n    image", 3, "services.Web_1", "lower-case"),
        ("port: 80\n", "port: 0\n", 8, "services.web.expose[0].port", "1 to 65535"),
        ("port: 80\n", "port: 65536\n", 8, "services.web.expose[0].port", "1 to 65535"),
        ("as: 80\n", "as: eighty\n", 9, "services.web.expose[0].as", "number"),
        ("as: 80\n", "as: 80\n        proto: icmp\n", 10, "services.web.expose[0].proto", "tcp or udp"),
        ("mount: /data", "mount: data", 15, "services.web.params.storage.data.mount", "absolute"),
        ("size: 512Mi", "size: 512XB", 23, "profiles.compute.web.resources.memory.size", "512Mi"),
        ("size: 512Mi", "size: -512Mi", 23, "profiles.compute.web.resources.memory.size", "512Mi"),
        ("units: 1\n        memory", "units: 1x\n        memory", 21, "profiles.compute.web.resources.cpu.units", "cores"),
        ("amount: 1000", "amount: -1", 46, "profiles.placement.dcloud.pricing.web.amount", "number of zero or more"),
        ("amount: 1000", "amount: 1e3", 46, "profiles.placement.dcloud.pricing.web.amount", "number of zero or more"),
        ("count: 2", "count: 1.5", 51, "deployment.web.dcloud.count", "whole number"),
        ("    env:\n      - PASSWORD=hunter2", "    env: hunter2", 5, "services.web.env", "must be a list"),
        ("    expose:", "    command: {a: b}\n    expose:", 7, "services.web.command", "must be a list"),
        ("- PASSWORD=hunter2", "- =hunter2", 5, "services.web.env", "no name"),
        # What does not fit together.
        ("count: 2", "count: 0", 49, "deployment.web.dcloud", "from 1 to 1000"),
        ("profile: web", "profile: wob", 49, "deployment.web.dcloud", "no compute profile wob"),
        ("deployment:\n  web:", "deployment:\n  wob:", 49, "deployment.wob.dcloud", "no service wob"),
        ("  web:\n    dcloud:", "  web:\n    dclaud:", 49, "deployment.web.dclaud", "no placement dclaud"),
        ("pricing:\n        web:", "pricing:\n        wob:", 40, "profiles.placement.dcloud", "no pricing"),
        ("amount: 1000", "amount: 0", 44, "profiles.placement.dcloud.pricing.web", "more than 0"),
        ("denom: uact", "denom: uatom", 44, "profiles.placement.dcloud.pricing.web", "no rate"),
        ("          mount: /data", "          readOnly: true", 26, "profiles.compute.web.resources.storage[1]", "persistent"),
        ("        data:\n", "        dada:\n", 14, "services.web.params.storage.dada", "no volume dada"),
        ("class: beta2", "class: ram", 26, "profiles.compute.web.resources.storage[1]", "ram cannot be persistent"),
        ("name: data\n            size: 2Gi", "name: default\n            size: 2Gi", 26, "profiles.compute.web.resources.storage[1]", "twice"),
        ("gpu:\n          units: 1", "gpu:\n          units: 0", 31, "profiles.compute.web.resources.gpu", "at least 1"),
        ("model: h100", "model: h_100", 36, "profiles.compute.web.resources.gpu.attributes.vendor.nvidia[0]", "letters"),
        ("- global: true", "- global: true\n            ip: front", 11, "services.web.expose[0].to[0]", "no endpoint front"),
        ("deployment:", "endpoints:\n  front:\n    kind: ip\ndeployment:", 48, "endpoints.front", "no service uses"),
        # Not supported.
        ("services:", "include: [a.yaml]\nservices:", 2, "include", "not supported yet"),
        ("services:", "reclamation:\n  min_window: 1h\nservices:", 2, "reclamation", "not supported yet"),
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
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "malformed YAML"),
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a: 1\n---\nb: 2\n", 2, "more than one document"),
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
    ("old", "new"),
    [
        ('version: "2.0"', "version: 2.0"),
        ('version: "2.0"', "--- # a comment\nversion: '2.1'"),
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
