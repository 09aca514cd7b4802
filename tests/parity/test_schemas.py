"""The JSON Schema that we generate takes what the original writes, and nothing else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tests.parity.runner import VECTORS
from tests.parity.structs import StructVector, kind_of
from tests.parity.vectors import Vector, read_folder
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.json import json_schema

Json = Mapping[str, Any]
FILES = read_folder(VECTORS)
DOCUMENT = json_schema(ComputeSystem)
TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}
KEYWORDS = {"$ref", "anyOf", "type", "properties", "additionalProperties", "required", "items", "prefixItems", "minItems", "maxItems"} | {
    *("minimum", "maximum"),
    *("$schema", "$defs", "title", "description", "default"),  # which refuse nothing
}


@dataclass(frozen=True)
class Checker:
    """What JSON Schema 2020-12 has against a value, as far as our schemas go; another keyword in a schema is an error."""

    definitions: Mapping[str, Json]

    def refusals(self, value: Any, schema: Json, path: str = "$") -> Iterator[str]:  # noqa: ANN401 (JSON)
        if "$ref" in schema:
            yield from self.refusals(value, self.definitions[schema["$ref"].removeprefix("#/$defs/")], path)
        if "anyOf" in schema and all(any(True for _ in self.refusals(value, choice, path)) for choice in schema["anyOf"]):
            yield f"{path}: none of the choices"
        if "type" in schema and type(value) is not TYPES[schema["type"]]:
            yield f"{path}: not of type {schema['type']}"
        elif isinstance(value, dict):
            yield from self._of_object(value, schema, path)
        elif isinstance(value, list):
            yield from self._of_list(value, schema, path)
        elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: out of range"
        assert schema.keys() <= KEYWORDS

    def _of_object(self, value: Json, schema: Json, path: str) -> Iterator[str]:
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, member in value.items():
            of_member = known.get(name, others)
            yield from [f"{path}.{name}: unknown"] if of_member is False else self.refusals(member, of_member, f"{path}.{name}")
        yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)

    def _of_list(self, value: list[Any], schema: Json, path: str) -> Iterator[str]:
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        first = schema.get("prefixItems", [])
        for place, item in enumerate(value):
            of_item = first[place] if place < len(first) else schema.get("items", {})
            yield from [f"{path}[{place}]: unknown"] if of_item is False else self.refusals(item, of_item, f"{path}[{place}]")


def refusals(value: Any, schema: Json) -> list[str]:  # noqa: ANN401 (JSON)
    return list(Checker(schema["$defs"]).refusals(value, schema))


def documents() -> list[tuple[str, bytes]]:
    vectors = [vector for vectors in FILES.values() for vector in vectors if isinstance(vector, Vector)]
    return [(vector.name, bytes(vector.expect.document)) for vector in vectors if vector.expect.document]


def test_it_takes_every_document_of_the_original() -> None:
    refused = {name: refusals(json.loads(text), DOCUMENT) for name, text in documents()}
    assert len(refused) > 500
    assert not [told for told in refused.values() if told]


@pytest.mark.parametrize("name", sorted({item.type for item in FILES["schema_json"] if isinstance(item, StructVector)}))
def test_the_schema_of_each_struct_takes_what_the_original_writes_of_it(name: str) -> None:
    schema = json_schema(kind_of(name))
    written = [item.json for item in FILES["schema_json"] if isinstance(item, StructVector) and item.type == name]
    assert written
    assert [told for text in written for told in refusals(json.loads(bytes(text)), schema)] == []


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"Ownr": "x"}, "$.Ownr: unknown"),
        ({"Owner": 1}, "$.Owner: not of type string"),
        ({"ShouldTerminateOnLastHandleClosed": 1}, "$.ShouldTerminateOnLastHandleClosed: not of type boolean"),
        ({"SchemaVersion": {"Major": True}}, "$.SchemaVersion: none of the choices"),
        ({"VirtualMachine": {"Devices": {"Scsi": {"0": {"Attachments": {"0": {"Lun": 1}}}}}}}, "$.VirtualMachine: none of the choices"),
        ({"VirtualMachine": []}, "$.VirtualMachine: none of the choices"),
    ],
)
def test_it_refuses_what_the_decoder_refuses(change: dict[str, object], refusal: str) -> None:
    document = {**json.loads(documents()[0][1]), **change}
    assert refusals(document, DOCUMENT) == [refusal]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, ComputeSystem)
