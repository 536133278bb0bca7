"""What a tenant sent, and how its mistakes are named."""

from typing import Any

import pytest
from google.protobuf import text_format

from fallow.order.v1 import order_service_pb2
from fallow.type.v1 import workload_pb2
from fallow_chassis.errors import INVALID_FIELD, DomainError
from fallow_order.intake import draft_of_create
from fallow_order.intake_update import check_request
from fallow_sdl import SdlSettings

SDL = """
version: "2.0"
services:
  web:
    image: nginx:1.27
    expose: [{port: 80, to: [{global: true}]}]
profiles:
  compute:
    web: {resources: {cpu: {units: 1}, memory: {size: 512Mi}, storage: {size: 1Gi}}}
  placement:
    anywhere: {pricing: {web: {denom: uakt, amount: 100}}}
deployment:
  web: {anywhere: {profile: web, count: 1}}
"""
ORDER = """order { groups { group_id: "main" price_limit { asset: "usdc" micros_per_hour: 5 }
  workload { containers { service: "web" image: "nginx" replicas: 1 } } } %s }"""


def create(text: str, **fields: Any) -> order_service_pb2.CreateOrderRequest:
    """A request from protobuf's text form."""
    return text_format.Parse(text, order_service_pb2.CreateOrderRequest(request_id="r", **fields))


@pytest.mark.parametrize(
    ("mistake", "field"),
    [
        ('labels { key: "" value: "x" }', "labels"),
        ("terms { match_timeout { nanos: 1 } }", "terms.match_timeout"),
        ("terms { duration { nanos: 1 } }", "terms.duration"),
        ('terms { budget { asset: "usdc" micros: 0 } }', "terms.budget.micros"),
        ('terms { budget { asset: "eurc" micros: 1 } }', "terms.budget.asset"),
        ("match_mode: MATCH_MODE_AUCTION", "auction_window"),
        ("auction_rule: AUCTION_RULE_FIRST_PRICE", "auction_rule"),
    ],
)
def test_a_mistake_is_named_where_it_stands(mistake: str, field: str) -> None:
    """Goal: a path leads to what the caller wrote. Method: one mistake beside an SDL text, and within an order."""
    for request, expected in (
        (create(mistake, sdl=SDL), field),
        (create(ORDER % mistake), f"order.{field}"),
    ):
        with pytest.raises(DomainError) as caught:
            draft_of_create(request, SdlSettings())
        assert caught.value.has_reason(INVALID_FIELD)
        assert [violation.field for violation in caught.value.violations] == [expected]
        assert caught.value.message.startswith(f"{expected}: ")


def test_what_stands_beside_an_order_is_named_there() -> None:
    """Goal: as above where both could hold it. Method: bad terms beside a good order, bad labels within it."""
    for text, expected in (
        ((ORDER % "") + "terms { duration { nanos: 1 } }", "terms.duration"),
        ((ORDER % 'labels { key: "" value: "x" }') + "terms { duration { seconds: 9 } }", "order.labels"),
    ):
        with pytest.raises(DomainError) as caught:
            draft_of_create(create(text), SdlSettings())
        assert [violation.field for violation in caught.value.violations] == [expected]


def test_a_long_path_of_a_mask_is_cut() -> None:
    """Goal: an error does not repeat all that was sent. Method: a path of a thousand characters."""
    request = order_service_pb2.UpdateOrderRequest()
    request.update_mask.paths.append("x" * 1_000)
    with pytest.raises(DomainError) as caught:
        check_request(request)
    assert "x" * 64 + "… cannot be changed" in caught.value.message
    assert "x" * 65 not in caught.value.message


def test_the_order_of_this_module_is_good() -> None:
    """Goal: what fails above fails for its mistake alone. Method: both sources without one."""
    for request in (create("", sdl=SDL), create(ORDER % "")):
        draft = draft_of_create(request, SdlSettings())
        assert workload_pb2.Workload.FromString(draft.workloads[0]).containers[0].service == "web"
