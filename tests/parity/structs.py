"""Structs of the schema by the original's names, made of its literals: every exported member in order, as Go holds it."""

import json
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from utilityvm.schema import (
    container,
    credential_guard,
    devices,
    document,
    guest_requests,
    hns,
    process,
    properties,
    registry,
    requests,
    schema1,
    service,
    statistics,
    version,
)
from utilityvm.schema import json as law

SCHEMA2 = (
    container,
    credential_guard,
    devices,
    document,
    process,
    properties,
    registry,
    requests,
    service,
    statistics,
    version,
    guest_requests,
)
OTHER_NAMES: dict[str, type[msgspec.Struct]] = {
    "HvSocket": container.ContainerHvSocket,
    "HvSocket2": devices.HvSocket,
    "Memory": container.ContainerMemory,
    "Memory2": document.Memory,
    "Processor": container.ContainerProcessor,
    "Processor2": document.Processor,
    "MemoryInformationForVm": properties.MemoryInformation,
}
"""The original's names that are another struct's with us."""

PACKAGES: dict[str, tuple[ModuleType, ...]] = {
    "hcsschema": SCHEMA2,
    "guestrequest": (guest_requests,),
    "schema1": (schema1,),
    "hns": (hns,),
}


class StructVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A struct, and the JSON that the original writes of it."""

    name: str
    type: str
    go_literal_as_dict: dict[str, Any]
    json: msgspec.Raw


def kind_of(name: str) -> type[msgspec.Struct]:
    """Return our struct for the original's type (``hcsschema.Memory2``)."""
    package, _, short = name.partition(".")
    if package == "hcsschema" and short in OTHER_NAMES:
        return OTHER_NAMES[short]
    kind: type[msgspec.Struct] = next(vars(module)[short] for module in PACKAGES[package] if short in vars(module))
    return kind


def encoded(vector: StructVector) -> tuple[str, str]:
    """Return the JSON that we write of the struct, and what we write again when we have read the original's JSON."""
    kind = kind_of(vector.type)
    read = law.decode(bytes(vector.json), kind)
    return law.encode(_build(kind, vector.go_literal_as_dict)), law.encode(read)


def _build(kind: type[msgspec.Struct], literal: dict[str, Any]) -> msgspec.Struct:
    """Members go by their places: the names that Go gives them differ from those in JSON here and there."""
    values = [value for name, value in literal.items() if name != "$type" and not name.startswith("XXX_")]
    hints = get_type_hints(kind)
    members = dict(zip(kind.__struct_fields__, values, strict=True))
    return kind(**{name: _value(hints[name], value) for name, value in members.items() if value is not None})


def _value(hint: Any, value: Any) -> Any:  # noqa: ANN401 (a literal of any struct)
    if hint is object:
        return _build(kind_of(value["$type"]), value) if isinstance(value, dict) and "$type" in value else value
    parts = [part for part in get_args(hint) if isinstance(part, type)]
    if get_origin(hint) is list:
        return [_value(get_args(hint)[0], item) for item in value]
    if get_origin(hint) is dict:
        return {key: _value(get_args(hint)[1], item) for key, item in value.items()}
    if hint is msgspec.Raw or msgspec.Raw in parts:
        return msgspec.Raw(json.dumps(value).encode())
    structs = [part for part in (hint, *parts) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return _build(structs[0], value) if structs else value
