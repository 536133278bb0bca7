"""A descriptor set as the rules need it: elements with their full names, their places and their comments.

Options are extensions; importing the modules that declare them, as this one does, makes the parser know them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from fallow.type.v1 import annotations_pb2

# Numbers of the lists inside a FileDescriptorProto and its parts, as SourceCodeInfo paths use them.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, FILE_SYNTAX = 4, 5, 6, 12
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE, SERVICE_METHOD = 2, 2

Path = tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """An rpc, with where it stands."""

    name: str
    service: str
    file: str
    comment: str
    proto: MethodDescriptorProto

    @property
    def access(self) -> annotations_pb2.MethodAccess:
        """The option that says who may call it; empty when it has none."""
        return self.proto.options.Extensions[annotations_pb2.access]

    @property
    def place(self) -> str:
        """How findings name it."""
        return f"{self.service}.{self.name}"


@dataclass(frozen=True)
class Field:
    """A field of a message, with its comment."""

    name: str
    message: str
    comment: str
    proto: FieldDescriptorProto

    @property
    def type_name(self) -> str:
        """Full name of its message or enum; empty for a scalar."""
        return self.proto.type_name.lstrip(".")

    @property
    def is_list(self) -> bool:
        """Whether it repeats."""
        return self.proto.label == FieldDescriptorProto.LABEL_REPEATED

    @property
    def is_string(self) -> bool:
        """Whether it is one string."""
        return self.proto.type == FieldDescriptorProto.TYPE_STRING and not self.is_list

    @property
    def output_only(self) -> bool:
        """Whether callers cannot set it."""
        behaviours = self.proto.options.Extensions[field_behavior_pb2.field_behavior]
        return field_behavior_pb2.OUTPUT_ONLY in behaviours

    @property
    def rules(self) -> annotations_pb2.FieldRules:
        """Its bounds; empty when it has none."""
        return self.proto.options.Extensions[annotations_pb2.rules]

    @property
    def place(self) -> str:
        """How findings name it."""
        return f"{self.message}.{self.name}"


@dataclass(frozen=True)
class Message:
    """A message, with its fields in order of number."""

    name: str
    file: str
    comment: str
    proto: DescriptorProto
    fields: tuple[Field, ...]

    @property
    def short(self) -> str:
        """Its name without the package."""
        return self.name.rpartition(".")[2]

    @property
    def resource(self) -> resource_pb2.ResourceDescriptor | None:
        """What makes it a resource; None when it is none."""
        options = self.proto.options
        return options.Extensions[resource_pb2.resource] if options.HasExtension(resource_pb2.resource) else None

    def find(self, name: str) -> Field | None:
        """The field of that name."""
        return next((item for item in self.fields if item.name == name), None)


@dataclass(frozen=True)
class Enumeration:
    """An enum, with the comments of its values by name."""

    name: str
    comment: str
    proto: EnumDescriptorProto
    value_comments: dict[str, str]


@dataclass(repr=False)
class Api:
    """All that our proto files declare. `uncommented` holds elements that have no comment of another kind."""

    files: list[FileDescriptorProto] = field(default_factory=list)
    messages: dict[str, Message] = field(default_factory=dict)
    enums: dict[str, Enumeration] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)
    uncommented: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a serialized FileDescriptorSet; files of others are left out."""
        return cls.read(FileDescriptorSet.FromString(content))

    @classmethod
    def read(cls, descriptors: FileDescriptorSet) -> Self:
        """Take in a descriptor set."""
        api = cls()
        for file in descriptors.file:
            if file.package.startswith("fallow."):
                api._add_file(file)
        return api

    def all_fields(self) -> Iterator[Field]:
        """Every field of every message, those of map entries too."""
        for message in self.messages.values():
            yield from message.fields

    def request(self, method: Method) -> Message:
        """The request of a method; all of them are ours."""
        return self.messages[method.proto.input_type.lstrip(".")]

    def response(self, method: Method) -> Message | None:
        """The answer of a method; None when it is not ours, such as Empty."""
        return self.messages.get(method.proto.output_type.lstrip("."))

    def _add_file(self, file: FileDescriptorProto) -> None:
        self.files.append(file)
        comments = {
            tuple(location.path): (location.leading_comments + location.trailing_comments).strip()
            for location in file.source_code_info.location
        }
        if not comments.get((FILE_SYNTAX,)):
            self.uncommented.append(f"{file.name}: the file")
        for index, message in enumerate(file.message_type):
            self._add_message(file, f"{file.package}.{message.name}", message, (FILE_MESSAGE, index), comments)
        for index, enum in enumerate(file.enum_type):
            self._add_enum(f"{file.package}.{enum.name}", enum, (FILE_ENUM, index), comments)
        for index, service in enumerate(file.service):
            path = (FILE_SERVICE, index)
            if not comments.get(path):
                self.uncommented.append(f"{file.package}.{service.name}")
            for number, method in enumerate(service.method):
                comment = comments.get((*path, SERVICE_METHOD, number), "")
                self.methods.append(Method(method.name, f"{file.package}.{service.name}", file.name, comment, method))

    def _add_message(
        self, file: FileDescriptorProto, name: str, proto: DescriptorProto, path: Path, comments: dict[Path, str]
    ) -> None:
        fields = tuple(
            Field(item.name, name, comments.get((*path, MESSAGE_FIELD, index), ""), item)
            for index, item in enumerate(proto.field)
        )
        ordered = tuple(sorted(fields, key=lambda item: item.proto.number))
        self.messages[name] = Message(name, file.name, comments.get(path, ""), proto, ordered)
        synthetic = {item.oneof_index for item in proto.field if item.proto3_optional}
        for index, oneof in enumerate(proto.oneof_decl):
            if index not in synthetic and not comments.get((*path, MESSAGE_ONEOF, index)):
                self.uncommented.append(f"{name}.{oneof.name}")
        for index, nested in enumerate(proto.nested_type):
            self._add_message(file, f"{name}.{nested.name}", nested, (*path, MESSAGE_NESTED, index), comments)
        for index, enum in enumerate(proto.enum_type):
            self._add_enum(f"{name}.{enum.name}", enum, (*path, MESSAGE_ENUM, index), comments)

    def _add_enum(self, name: str, proto: EnumDescriptorProto, path: Path, comments: dict[Path, str]) -> None:
        values = {value.name: comments.get((*path, ENUM_VALUE, index), "") for index, value in enumerate(proto.value)}
        self.enums[name] = Enumeration(name, comments.get(path, ""), proto, values)
