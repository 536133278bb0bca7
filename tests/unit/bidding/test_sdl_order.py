"""From a file in Akash's language to a match: an order takes the devices that its file names, and no others."""

import pytest

import fallow_sdl
from fallow_bidding.convert.market import gpu_models, order_demand
from fallow_bidding.domain.matching import Market, decide
from tests.unit.bidding.market import GIB, device, node, prices, supplier

SDL = """\
version: "2.0"
services:
  web:
    image: nginx
profiles:
  compute:
    web:
      resources:
        cpu: {units: 1}
        memory: {size: 1Gi}
        storage: {size: 1Gi}
        gpu:
          units: 1
          attributes:
            vendor:
              nvidia:
                - {model: a100, ram: 40Gi, interface: sxm}
                - {model: h100, ram: 80Gi}
              amd:
  placement: {here: {pricing: {web: {denom: uact, amount: 10000}}}}
deployment: {web: {here: {profile: web, count: 1}}}
"""


@pytest.mark.parametrize(
    ("device_fields", "fits"),
    [
        ({"model": "a100", "vram_bytes": 40 * GIB}, True),
        ({"model": "a100", "vram_bytes": 40 * GIB, "interface": "pcie"}, False),
        ({"model": "h100", "vram_bytes": 80 * GIB, "interface": "pcie"}, True),
        ({"model": "h100", "vram_bytes": 40 * GIB}, False),
        ({"model": "l4"}, False),
        ({"vendor": "amd", "model": "mi300x", "interface": "oam"}, True),
        ({"vendor": "intel", "model": "a100"}, False),
    ],
)
def test_each_card_is_held_to_its_own_bounds(*, device_fields: dict[str, object], fits: bool) -> None:
    """Goal: a device matches if the file names it. Method: one device on the market, of each kind and just beside it."""
    order = fallow_sdl.parse(SDL)
    for group in order.groups:
        for container in group.workload.containers:
            group.replica_sets.add(service=container.service, replicas=1, resources=container.resources)
    order.name = "orders/o1"
    schedule = prices(gpu_micros_by_model=dict.fromkeys(("a100", "h100", "l4", "mi300x"), 1))
    market = Market([supplier("p1", node(devices=(device("g", **device_fields),)), schedule=schedule)])
    assert bool(decide(order_demand(order), market).matches) is fits
    assert gpu_models(order) == (), "one of its kinds takes any model"
