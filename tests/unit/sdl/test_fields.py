"""Every field of the language, and where it arrives in the order."""

import pytest
from google.protobuf import text_format

import fallow_sdl
from fallow.order.v1 import order_pb2

FULL = """\
version: "2.1"
services:
  api:
    image: ghcr.io/example/api:1.2
    command: [sh, -c]
    args: [serve, --port=9000]
    env:
      - MODE=fast
      - LINE=a=b
      - BARE
    dependencies:
      - service: db
    credentials: {host: ghcr.io, email: me@example.com, username: me, password: token}
    expose:
      - port: 9000
        as: 80
        proto: tcp
        accept: [api.example.com, www.example.com]
        http_options: {max_body_size: 104857600, read_timeout: 60000, send_timeout: 60000, next_tries: 3,
                       next_timeout: 0, proxy_buffer_size: 16384, next_cases: [error, timeout, "500"]}
        to:
          - global: true
      - port: 9000
        as: 80
        accept: []
        to: [{global: on}]
      - port: 9000
        as: 80
        to: [{global: true}]
      - {port: 53, proto: UDP, to: [{global: true, ip: front}, {service: db}]}
    params:
      storage:
        data: {mount: /var/lib/api, readOnly: off}
        shm: {mount: /dev/shm}
      tee: cpu-gpu
  db:
    image: postgres:17
    expose: [{port: 5432, to: [{service: api}]}]
profiles:
  compute:
    large:
      resources:
        cpu: {units: 1500m, attributes: {arch: amd64}}
        memory: {size: 1.5Gi}
        storage:
          - size: 10G
          - {name: data, size: 1Ti, attributes: {persistent: true, class: beta3}}
          - {name: shm, size: 512Mi, attributes: {class: ram, persistent: false}}
        gpu:
          units: 2
          attributes:
            vendor:
              nvidia:
                - {model: h100, ram: 80Gi, interface: sxm}
                - {model: h200, ram: 80Gi, interface: sxm}
    small:
      resources:
        cpu: {units: "0.25"}
        memory: {size: 256M}
        storage: {size: 1Gi}
        gpu: {units: 0}
  placement:
    West_1:
      attributes: {region: us-west, host: akash}
      signedBy:
        anyOf: [akash1aaa, akash1bbb]
        allOf: [akash1ccc]
      pricing:
        large: {denom: ibc/170C677610AC31DF0904FFE09CD3B5C657492170E7E52372E48756B71E56F2F1, amount: 10000}
        small: {denom: uakt, amount: "0.5"}
deployment:
  api: {West_1: {profile: large, count: 2}}
  db: {West_1: {profile: small, count: 1}}
endpoints:
  front: {kind: ip}
reclamation: {min_window: 24h}
"""
# (2 × 10,000 × 1 + 0.5 × 0.5) micros a block, 3,600,000 / 6,098 blocks an hour.
MICROS_PER_HOUR = -(-20_000_250 * 3_600_000 // 6_098_000)
ORDER = f"""
groups {{
  group_id: "west-1"
  price_limit {{ asset: "usdc" micros_per_hour: {MICROS_PER_HOUR} }}
  constraints {{
    regions: "us-west"
    attributes {{ key: "host" value: "akash" }}
    attributes {{ key: "tee/type" value: "cpu-gpu" }}
    auditors_any_of: "akash1aaa" auditors_any_of: "akash1bbb" auditors_all_of: "akash1ccc"
  }}
  workload {{
    containers {{
      service: "api" image: "ghcr.io/example/api:1.2" replicas: 2
      command: "sh" command: "-c" arguments: "serve" arguments: "--port=9000"
      environment {{ key: "MODE" value: "fast" }}
      environment {{ key: "LINE" value: "a=b" }}
      environment {{ key: "BARE" }}
      credentials {{ host: "ghcr.io" username: "me" password: "token" }}
      ports {{
        container_port: 9000 external_port: 80 protocol: PORT_PROTOCOL_HTTP public: true
        hosts: "api.example.com" hosts: "www.example.com"
      }}
      ports {{ container_port: 9000 external_port: 80 protocol: PORT_PROTOCOL_HTTP public: true }}
      ports {{ container_port: 53 protocol: PORT_PROTOCOL_UDP public: true services: "db" }}
      mounts {{ volume: "data" path: "/var/lib/api" }}
      mounts {{ volume: "shm" path: "/dev/shm" }}
      resources {{
        cpu_milli: 1500 memory_bytes: 1610612736
        gpu {{ count: 2 vendor: "nvidia" models: "h100" models: "h200" vram_bytes_min: 80000000000 interface: "sxm" }}
        storage {{ volume: "default" size_bytes: 10000000000 }}
        storage {{ volume: "data" size_bytes: 1099511627776 storage_class: "beta3" persistent: true }}
        storage {{ volume: "shm" size_bytes: 536870912 storage_class: "ram" }}
      }}
    }}
    containers {{
      service: "db" image: "postgres:17" replicas: 1
      ports {{ container_port: 5432 protocol: PORT_PROTOCOL_TCP services: "api" }}
      resources {{
        cpu_milli: 250 memory_bytes: 256000000
        storage {{ volume: "default" size_bytes: 1073741824 }}
      }}
    }}
  }}
}}
"""


def test_every_field_arrives_or_is_told() -> None:
    """Goal: nothing gets lost. Method: a file with every field; the whole order, and the places of all warnings."""
    conversion = fallow_sdl.convert(FULL)
    assert conversion.order == text_format.Parse(ORDER, order_pb2.Order())
    assert [warning.path for warning in conversion.warnings] == [
        "services.api.expose[0].accept",
        "services.api.expose[0].http_options",
        "services.api.expose[1]",
        "services.api.expose[2]",
        "services.api.expose[3].to[0]",
        "services.api.params.tee",
        "profiles.compute.large.resources.cpu.attributes.arch",
        "reclamation",
    ]


def test_a_read_only_volume_in_ram_is_refused_in_2_1_alone() -> None:
    """Goal: each version as Akash reads it. Method: the same file as both."""
    text = FULL.replace("{mount: /dev/shm}", "{mount: /dev/shm, readOnly: true}")
    with pytest.raises(fallow_sdl.SdlError) as caught:
        fallow_sdl.parse(text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (34, "services.api.params.storage.shm")
    older = fallow_sdl.parse(text.replace('version: "2.1"', 'version: "2.0"'))
    assert older.groups[0].workload.containers[0].mounts[1].read_only


def test_a_card_that_takes_any_model_takes_any_of_its_vendors() -> None:
    """Goal: fewer words ask for less. Method: no models, one without a name, two vendors without any."""
    old = FULL[FULL.index("              nvidia:\n") : FULL.index("    small:\n      resources")]
    for vendors, vendor in (
        ("              nvidia:\n", "nvidia"),
        ("              nvidia: []\n", "nvidia"),
        ("              nvidia: [{model: '*'}]\n", "nvidia"),
        ("              AMD: [{}]\n", "amd"),
        ("              nvidia:\n              amd:\n", ""),
    ):
        gpu = fallow_sdl.parse(FULL.replace(old, vendors)).groups[0].workload.containers[0].resources.gpu
        assert (gpu.count, gpu.vendor, list(gpu.models), gpu.vram_bytes_min) == (2, vendor, [], 0)


def test_cards_that_differ_in_more_than_the_model_keep_their_own_bounds() -> None:
    """Goal: no card that a file names is shut out, and none that it does not name gets in. Method: models with memory and
    interface of their own, one model twice, several vendors of which only some list models; the bounds hold all of them.
    """
    old = FULL[FULL.index("              nvidia:\n") : FULL.index("    small:\n      resources")]
    a100, h100 = ("", "a100", 40 * 10**9, ""), ("", "h100", 80 * 10**9, "sxm")
    for vendors, bounds, kinds in (
        (
            "{nvidia: [{model: h100, ram: 80Gi, interface: sxm}, {model: a100, ram: 40Gi}, {model: a100, ram: 40Gi}]}",
            ("nvidia", ["h100", "a100"], 40 * 10**9, ""),
            [h100, a100],
        ),
        (
            "{nvidia: [{model: a100, ram: 40Gi, interface: pcie}, {model: a100, ram: 80Gi, interface: sxm}]}",
            ("nvidia", ["a100"], 40 * 10**9, ""),
            [("", "a100", 40 * 10**9, "pcie"), ("", "a100", 80 * 10**9, "sxm")],
        ),
        (
            "{nvidia: [{model: a100, ram: 40Gi}, {ram: 80Gi}]}",
            ("nvidia", [], 40 * 10**9, ""),
            [a100, ("", "", 80 * 10**9, "")],
        ),
        (
            "{nvidia: [{model: h100}], amd: }",
            ("", [], 0, ""),
            [("nvidia", "h100", 0, ""), ("amd", "", 0, "")],
        ),
        ("{nvidia: , amd: }", ("", [], 0, ""), [("nvidia", "", 0, ""), ("amd", "", 0, "")]),
        (
            "{nvidia: [{model: h100, ram: 80Gi}, {model: a100, ram: 80Gi}]}",
            ("nvidia", ["h100", "a100"], 80 * 10**9, ""),
            [],
        ),
    ):
        conversion = fallow_sdl.convert(FULL.replace("            vendor:\n" + old, f"            vendor: {vendors}\n"))
        gpu = conversion.order.groups[0].workload.containers[0].resources.gpu
        assert (gpu.vendor, list(gpu.models), gpu.vram_bytes_min, gpu.interface) == bounds
        assert [(k.vendor, k.model, k.vram_bytes_min, k.interface) for k in gpu.alternatives] == kinds
        assert not [warning for warning in conversion.warnings if ".gpu" in warning.path]
