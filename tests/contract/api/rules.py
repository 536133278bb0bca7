"""Our rules for the API, after Google's API improvement proposals (AIP): each takes an Api and returns findings.

Exceptions stand here beside the rule, each with its reason.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from fallow.type.v1 import annotations_pb2
from tests.contract.api.descriptors import Api, Field, Message, Method

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"
EMPTY = ".google.protobuf.Empty"
PAGE_SIZE_MAX = 1000

INTEGERS = {FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_INT64}
BANNED_TYPES = {
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
    FieldDescriptorProto.TYPE_FIXED32: "fixed32",
    FieldDescriptorProto.TYPE_FIXED64: "fixed64",
    FieldDescriptorProto.TYPE_GROUP: "group",
}
SERVICES = {"order", "bidding", "settlement", "provider"}
READS = ("Get", "List", "Watch", "Stream", "Estimate", "Explain")
# Methods that change something and yet take no request_id.
WITHOUT_REQUEST_ID = {
    "BatchCreateTransfers": "each of its transfers has a name of the caller's",
    "BatchOpenEscrows": "each of its requests has a request_id of its own",
    "SignIn": "its nonce works once",
    "CreateSignInChallenge": "an unused challenge runs out by itself",
    "ExchangeApiKey": "an unused token runs out by itself",
    "ExchangeOidcToken": "an unused token runs out by itself",
    "IssueGrant": "nothing is stored",
    "IssueProviderCredentials": "an unused credential gives no more rights than one in use",
    "DeleteApiKey": "deleting again changes nothing",
    "UpdateProvider": "setting the same values again changes nothing",
    "DrainProvider": "draining again changes nothing",
    "SetOrderSuspended": "its number works once",
    "SetBalancePayee": "naming the same again changes nothing",
    "ResumeProvider": "resuming again changes nothing",
    "WithdrawOffer": "withdrawing again changes nothing",
    "EndProgramme": "ending again changes nothing",
    "EndPromotion": "ending again changes nothing",
    "ApproveCommunityGrant": "one operator counts once",
    "Exec": "a stream to one process; the caller starts another on purpose",
    "ForwardPort": "a stream to one port; nothing outlives it",
}


def snake(name: str) -> str:
    """`LedgerAccount` as `ledger_account`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def layout(api: Api) -> Iterator[str]:
    """AIP-191, 215: a file of package fallow.x.v1 stands in fallow/x/v1/."""
    for file in api.files:
        if str(PurePosixPath(file.name).parent) != file.package.replace(".", "/"):
            yield f"{file.name}: package {file.package}"
        if not re.fullmatch(r"fallow\.[a-z]+\.v[0-9]+", file.package):
            yield f"{file.name}: package {file.package} is not fallow.<name>.v<number>"
        if file.syntax != "proto3":
            yield f"{file.name}: syntax {file.syntax or 'proto2'}"


def comments(api: Api) -> Iterator[str]:
    """AIP-192: everything is commented."""
    yield from api.uncommented
    for message in api.messages.values():
        if message.proto.options.map_entry:
            continue
        if not message.comment:
            yield message.name
        yield from (item.place for item in message.fields if not item.comment)
    for enum in api.enums.values():
        if not enum.comment:
            yield enum.name
        yield from (f"{enum.name}.{value}" for value, comment in enum.value_comments.items() if not comment)
    yield from (method.place for method in api.methods if not method.comment)


def scalar_types(api: Api) -> Iterator[str]:
    """AIP-141: no unsigned integers; ours: no floats either."""
    for item in api.all_fields():
        if item.proto.type in BANNED_TYPES:
            yield f"{item.place}: {BANNED_TYPES[item.proto.type]}"


def money(api: Api) -> Iterator[str]:
    """Ours: a number of micros is an int64."""
    for item in api.all_fields():
        entry = api.messages.get(item.type_name)
        value = entry.find("value") if entry is not None and entry.proto.options.map_entry else item
        if "micros" in item.name and (value is None or value.proto.type != FieldDescriptorProto.TYPE_INT64):
            yield f"{item.place}: micros are int64"


def times(api: Api) -> Iterator[str]:
    """AIP-142: a Timestamp's name ends in _time, and only a Timestamp's does; a Duration has no unit in its name."""
    for item in api.all_fields():
        timestamp = item.type_name == TIMESTAMP
        if timestamp != item.name.endswith("_time"):
            yield f"{item.place}: a Timestamp ends in _time, and nothing else does"
        if item.type_name == DURATION and item.name.endswith(("_ms", "_seconds", "_minutes", "_hours")):
            yield f"{item.place}: a Duration knows its unit"
        if item.proto.type in INTEGERS and item.name.endswith(("_seconds", "_minutes", "_hours", "_days")):
            yield f"{item.place}: use a Duration"


def enums(api: Api) -> Iterator[str]:
    """AIP-126: zero is ..._UNSPECIFIED and every value carries the enum's name."""
    for enum in api.enums.values():
        prefix = snake(enum.name.rpartition(".")[2]).upper()
        zero = next((value.name for value in enum.proto.value if value.number == 0), "")
        if zero != f"{prefix}_UNSPECIFIED":
            yield f"{enum.name}: zero is {zero}"
        yield from (
            f"{enum.name}.{value.name}: no prefix {prefix}_"
            for value in enum.proto.value
            if not value.name.startswith(f"{prefix}_")
        )


def resources(api: Api) -> Iterator[str]:
    """AIP-122, 123: a resource's field 1 is `string name`, and its option says type, pattern, singular, plural."""
    for message in api.messages.values():
        resource = message.resource
        first = message.fields[0] if message.fields else None
        named = first is not None and first.name == "name" and first.proto.number == 1 and first.is_string
        if resource is None:
            returned = any(method.proto.output_type == f".{message.name}" for method in api.methods)
            if named and returned:
                yield f"{message.name}: has a name and is answered, but is no resource"
            continue
        if not named:
            yield f"{message.name}: field 1 is not `string name`"
        if resource.type != f"fallow.dev/{message.short}":
            yield f"{message.name}: type {resource.type}"
        singular = message.short[0].lower() + message.short[1:]
        if resource.singular != singular or not resource.plural or not resource.pattern:
            yield f"{message.name}: singular, plural or pattern"
        elif resource.plural not in resource.pattern[0] and not resource.pattern[0].endswith(f"/{singular}"):
            yield f"{message.name}: pattern {resource.pattern[0]} does not hold {resource.plural}"


def states(api: Api) -> Iterator[str]:
    """AIP-216: a resource's state is an enum of its own, <Resource>State, and changes by custom methods only."""
    for message in api.messages.values():
        item = message.find("state")
        if message.resource is None or item is None:
            continue
        if not item.output_only:
            yield f"{item.place}: not OUTPUT_ONLY"
        if not item.type_name.endswith(f"{message.short}State"):
            yield f"{item.place}: is a {item.type_name}, not a {message.short}State"


def request_names(api: Api) -> Iterator[str]:
    """AIP-131 to 136: a request is named for its method; an answer is a resource, a named thing, or <Method>Response."""
    seen: dict[str, str] = {}
    for method in api.methods:
        request = api.request(method)
        if request.short != f"{method.name}Request":
            yield f"{method.place}: takes {request.short}"
        if request.name in seen:
            yield f"{method.place}: shares {request.short} with {seen[request.name]}"
        seen[request.name] = method.place
        answer = method.proto.output_type.rpartition(".")[2]
        if answer.endswith("Response") and answer != f"{method.name}Response":
            yield f"{method.place}: answers {answer}"
        if method.proto.server_streaming and answer != f"{method.name}Response":
            yield f"{method.place}: streams {answer}"


def gets(api: Api) -> Iterator[str]:
    """AIP-131: Get<Resource>(name) answers the resource; what is computed is answered as the thing it is."""
    for method in methods_of(api, "Get"):
        response, request = api.response(method), api.request(method)
        noun = method.name.removeprefix("Get")
        if response is None or response.short not in {noun, f"{method.name}Response"}:
            yield f"{method.place}: does not answer {noun}"
        elif response.resource is not None:
            name = request.find("name")
            if name is None or not name.is_string or name.proto.number != 1 or not name.rules.required:
                yield f"{method.place}: field 1 is not a required `string name`"


def lists(api: Api) -> Iterator[str]:
    """AIP-132, 158: List<Resources> is paged with an opaque token; the page's bound is written."""
    for method in methods_of(api, "List"):
        request, response = api.request(method), api.response(method)
        size, token = request.find("page_size"), request.find("page_token")
        if size is None or size.proto.type != FieldDescriptorProto.TYPE_INT32 or size.rules.max != PAGE_SIZE_MAX:
            yield f"{method.place}: no int32 page_size of at most {PAGE_SIZE_MAX}"
        if token is None or not token.is_string:
            yield f"{method.place}: no string page_token"
        if response is None or response.short != f"{method.name}Response":
            yield f"{method.place}: answers no {method.name}Response"
            continue
        items, following = response.fields[0], response.find("next_page_token")
        if not items.is_list or items.proto.number != 1 or items.name != snake(method.name.removeprefix("List")):
            yield f"{method.place}: field 1 of the answer is not the list"
        if following is None or not following.is_string:
            yield f"{method.place}: no string next_page_token"
        item = api.messages.get(items.type_name)
        patterned = item is not None and item.resource is not None and item.resource.pattern[0].count("{") > 1
        if patterned and request.find("parent") is None:
            yield f"{method.place}: lists children and takes no parent"


def creates(api: Api) -> Iterator[str]:
    """AIP-133: Create<Resource>([parent,] resource, request_id) answers the resource."""
    for method in methods_of(api, "Create"):
        request, response = api.request(method), api.response(method)
        noun = method.name.removeprefix("Create")
        if response is None or response.short != noun:
            yield f"{method.place}: does not answer {noun}"
            continue
        if response.resource is None:
            continue
        body = request.find(snake(noun))
        if body is None or body.type_name != response.name:
            yield f"{method.place}: takes no {noun} in field {snake(noun)}"
        if response.resource.pattern[0].count("{") > 1 and request.find("parent") is None:
            yield f"{method.place}: makes a child and takes no parent"


def updates(api: Api) -> Iterator[str]:
    """AIP-134: Update<Resource>(resource, update_mask) answers the resource."""
    for method in methods_of(api, "Update"):
        request, response = api.request(method), api.response(method)
        noun = method.name.removeprefix("Update")
        body, mask = request.find(snake(noun)), request.find("update_mask")
        if response is None or response.short != noun or body is None or body.type_name != response.name:
            yield f"{method.place}: does not take and answer {noun}"
        if mask is None or mask.type_name != "google.protobuf.FieldMask":
            yield f"{method.place}: no update_mask"


def deletes(api: Api) -> Iterator[str]:
    """AIP-135: Delete<Resource>(name) answers Empty, or the resource where it lives on marked as deleted."""
    for method in methods_of(api, "Delete"):
        name = api.request(method).find("name")
        if name is None or not name.is_string or name.proto.number != 1:
            yield f"{method.place}: field 1 is not `string name`"
        if method.proto.output_type != EMPTY:
            yield f"{method.place}: does not answer Empty"


def request_ids(api: Api) -> Iterator[str]:
    """AIP-155: whatever moves money or allocates takes a required request_id; exceptions have a reason."""
    for method in api.methods:
        item = api.request(method).find("request_id")
        if method.name.startswith(READS):
            if item is not None:
                yield f"{method.place}: reads, and takes a request_id"
            continue
        if method.name in WITHOUT_REQUEST_ID:
            continue
        if item is None or not item.is_string or not item.rules.required or not 0 < item.rules.max_length <= 128:
            yield f"{method.place}: no required request_id of at most 128 characters"


def access(api: Api) -> Iterator[str]:
    """Ours: every method says who may call it, and says nothing that contradicts itself."""
    caller = annotations_pb2.Caller
    for method in api.methods:
        rule = method.access
        if not rule.callers or annotations_pb2.CALLER_UNSPECIFIED in rule.callers:
            yield f"{method.place}: does not say who may call it"
        if len(set(rule.callers)) != len(rule.callers):
            yield f"{method.place}: names a caller twice"
        if rule.scope and annotations_pb2.CALLER_ACCOUNT not in rule.callers:
            yield f"{method.place}: a scope, but no {caller.Name(annotations_pb2.CALLER_ACCOUNT)}"
        if rule.grant_right and annotations_pb2.CALLER_GRANT not in rule.callers:
            yield f"{method.place}: a right, but no {caller.Name(annotations_pb2.CALLER_GRANT)}"
        if rule.services and annotations_pb2.CALLER_SERVICE not in rule.callers:
            yield f"{method.place}: services, but no {caller.Name(annotations_pb2.CALLER_SERVICE)}"
        yield from (f"{method.place}: no service {name}" for name in rule.services if name not in SERVICES)


def references(api: Api) -> Iterator[str]:
    """AIP-122: a string named for a resource holds its name, and its comment shows the shape."""
    plurals = {snake(m.short): m.resource.plural for m in api.messages.values() if m.resource is not None}
    for message in api.messages.values():
        for item in message.fields:
            plural = plurals.get(item.name)
            if plural and item.is_string and f"`{plural}/" not in item.comment and f"/{plural}/" not in item.comment:
                yield f"{item.place}: its comment does not show `{plural}/...`"


def bounds(api: Api) -> Iterator[str]:
    """Ours: bounds make sense for the type they stand at."""
    for item in api.all_fields():
        rule = item.rules
        if rule.pattern:
            yield from broken_pattern(item)
        numeric = item.proto.type in INTEGERS
        if (rule.HasField("min") or rule.HasField("max")) and not numeric:
            yield f"{item.place}: min or max on something that is no integer"
        if rule.HasField("min") and rule.HasField("max") and rule.min > rule.max:
            yield f"{item.place}: min is more than max"
        if rule.max_items and not item.is_list:
            yield f"{item.place}: max_items on something that does not repeat"
        if rule.max_length and numeric:
            yield f"{item.place}: max_length on an integer"


def broken_pattern(item: Field) -> Iterator[str]:
    """A pattern that does not compile, or stands at something that is no string."""
    if item.proto.type != FieldDescriptorProto.TYPE_STRING:
        yield f"{item.place}: a pattern on something that is no string"
    try:
        re.compile(item.rules.pattern)
    except re.error as error:
        yield f"{item.place}: {error}"


def reasons(method: Method) -> list[str]:
    """Reasons that a method's comment names after `Errors:`."""
    text = " ".join(method.comment.split())
    match = re.search(r"Errors: ([A-Z0-9_, ]+)\.", text)
    return match[1].replace(" ", "").split(",") if match else []


def events(api: Api) -> Iterator[str]:
    """Ours: events.proto holds facts in the past tense and neither services nor requests."""
    for file in api.files:
        if not file.name.endswith("/events.proto"):
            continue
        if file.service:
            yield f"{file.name}: a service among events"
        for message in file.message_type:
            past = re.search(r"(ed|edUp|Lost|Low|Paid|Running|Withdrawn)$", message.name)
            carrier = any(
                message.name in nested.proto.name for nested in nested_of(api, f"{file.package}.{message.name}")
            )
            if not past and not carrier:
                yield f"{file.name}: {message.name} is no fact in the past tense"


def nested_of(api: Api, name: str) -> Iterator[Message]:
    """Messages that have a field of the named message."""
    for message in api.messages.values():
        if any(item.type_name == name for item in message.fields):
            yield message


def methods_of(api: Api, verb: str) -> Iterator[Method]:
    """Methods whose name starts with the verb, followed by a noun."""
    for method in api.methods:
        if re.match(rf"{verb}[A-Z]", method.name):
            yield method
