"""`fallow call`: JSON as our documents show it, as the request of a method."""

import pytest
import typer

from fallow.order.v1 import order_service_pb2
from fallow_sdk.commands.call import find_method, parse_request

UPDATE = "fallow.order.v1.OrderService/UpdateOrder"


@pytest.mark.parametrize("key", ["update_mask", "updateMask"])
@pytest.mark.parametrize(
    "mask", ["labels,groups.price_limit,terms.auto_top_up", "labels,groups.priceLimit,terms.autoTopUp"]
)
def test_masks_are_read_in_both_spellings(key: str, mask: str) -> None:
    """Goal: paths may be written as the contract and our errors write them. Method: both spellings of key and paths."""
    request = parse_request(find_method(UPDATE), f'{{"{key}": "{mask}", "order": {{"etag": "update_mask"}}}}')
    assert isinstance(request, order_service_pb2.UpdateOrderRequest)
    assert list(request.update_mask.paths) == ["labels", "groups.price_limit", "terms.auto_top_up"]
    assert request.order.etag == "update_mask"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '"x"', '{"nope": 1}', '{"order": 1}', '{"update_mask": 7}', '{"request_id": "a", "request_id": "b"}', "[" * 2_000],
)  # fmt: skip
def test_what_is_no_request_is_a_usage_error(text: str) -> None:
    """Goal: no traceback. Method: broken JSON, other kinds, unknown and doubled fields, nesting without end."""
    with pytest.raises(typer.BadParameter):
        parse_request(find_method(UPDATE), text)
