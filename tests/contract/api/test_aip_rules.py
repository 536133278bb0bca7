"""Holds our rules for the API over the descriptor set of all protos, and shows that each rule can fail."""

import importlib.metadata
from collections.abc import Callable, Iterator

import pytest
from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from fallow.type.v1 import annotations_pb2
from tests.contract.api import rules
from tests.contract.api.descriptors import Api

Rule = Callable[[Api], Iterator[str]]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        rules.layout,
        rules.comments,
        rules.scalar_types,
        rules.money,
        rules.times,
        rules.enums,
        rules.resources,
        rules.states,
        rules.request_names,
        rules.gets,
        rules.lists,
        rules.creates,
        rules.updates,
        rules.deletes,
        rules.request_ids,
        rules.access,
        rules.references,
        rules.bounds,
        rules.events,
    )
}


@pytest.mark.parametrize("name", RULES)
def test_the_api_keeps_the_rule(api: Api, name: str) -> None:
    """Goal: one style over all services. Method: each rule reads the whole descriptor set and lists what breaks it."""
    findings = list(RULES[name](api))
    assert not findings, "\n" + "\n".join(findings)


def test_named_reasons_are_registered(api: Api) -> None:
    """Goal: an error in a comment exists. Method: compare with the reasons that the installed packages register.

    A method that says NOT_YET_AVAILABLE is not built; its other reasons are registered when it is.
    """
    points = importlib.metadata.entry_points(group="fallow.error_reasons")
    known = {reason.reason for point in points for reason in point.load()}
    findings = [
        f"{method.place}: {reason}"
        for method in api.methods
        for reason in rules.reasons(method)
        if reason not in known and "NOT_YET_AVAILABLE" not in rules.reasons(method)
    ]
    assert not findings, "\n" + "\n".join(findings)


def test_exceptions_are_in_use(api: Api) -> None:
    """Goal: the list of exceptions holds nothing stale. Method: each names a method that takes no request_id."""
    bare = {method.name for method in api.methods if api.request(method).find("request_id") is None}
    assert set(rules.WITHOUT_REQUEST_ID) <= bare


def test_all_four_services_stand() -> None:
    """Goal: the rules read something. Method: the stubs of each service can be imported and name services."""
    from fallow.bidding.v1 import lease_service_pb2
    from fallow.order.v1 import order_service_pb2
    from fallow.provider.v1 import provider_service_pb2
    from fallow.settlement.v1 import settlement_service_pb2

    for module in (lease_service_pb2, order_service_pb2, provider_service_pb2, settlement_service_pb2):
        assert module.DESCRIPTOR.services_by_name


def broken_file() -> FileDescriptorProto:
    """A file that breaks every rule once."""
    field = FieldDescriptorProto
    file = FileDescriptorProto(name="fallow/wrong/v1/events.proto", package="fallow.thing.v1", syntax="proto2")
    enum = file.enum_type.add(name="Colour")
    enum.value.add(name="RED", number=0)
    thing = file.message_type.add(name="Thing")
    thing.options.Extensions[resource_pb2.resource].type = "fallow.dev/Other"
    thing.field.add(name="label", number=1, type=field.TYPE_DOUBLE)
    thing.field.add(name="fee_micros", number=2, type=field.TYPE_INT32)
    thing.field.add(name="created", number=3, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp")
    thing.field.add(name="state", number=4, type=field.TYPE_ENUM, type_name=".fallow.thing.v1.Colour")
    whole = file.message_type.add(name="Whole")
    whole.options.Extensions[resource_pb2.resource].CopyFrom(
        resource_pb2.ResourceDescriptor(type="fallow.dev/Whole", pattern=["wholes/{whole}"], plural="wholes")
    )
    part = file.message_type.add(name="Part")
    bounded = part.field.add(name="whole", number=1, type=field.TYPE_STRING)
    bounded.options.Extensions[annotations_pb2.rules].max_items = 3
    service = file.service.add(name="ThingService")
    for name in ("GetThing", "ListThings", "CreateThing", "UpdateThing", "DeleteThing"):
        service.method.add(name=name, input_type=".fallow.thing.v1.Part", output_type=".fallow.thing.v1.Part")
    return file


@pytest.mark.parametrize("name", RULES)
def test_the_rule_can_fail(name: str) -> None:
    """Goal: no rule is a wish. Method: a file that breaks every rule at least once."""
    api = Api.read(FileDescriptorSet(file=[broken_file()]))
    assert list(RULES[name](api)), name


def test_options_are_read(api: Api) -> None:
    """Goal: the parser knows our options. Method: a method and fields whose options are known."""
    create = next(method for method in api.methods if method.place == "fallow.order.v1.OrderService.CreateOrder")
    assert create.access.scope == "orders.write"
    state = api.messages["fallow.order.v1.Order"].find("state")
    assert state is not None
    assert state.output_only
    assert field_behavior_pb2.OUTPUT_ONLY in state.proto.options.Extensions[field_behavior_pb2.field_behavior]
