"""JSON Schema of an options file: names, types, ranges, meanings and defaults, for editors and programs."""

from typing import Any

import msgspec

from utilityvm.options.declare import declared
from utilityvm.options.rules import RANGES
from utilityvm.options.shared import Options


def json_schema(defaults: Options) -> dict[str, Any]:
    """Return the schema of the struct of `defaults`, in JSON Schema 2020-12, with these defaults."""
    kind = type(defaults)
    whole = msgspec.json.schema(kind)
    for definition in whole["$defs"].values():
        definition["description"] = definition["description"].partition("\n")[0]  # what follows is for programmers
        for name, member in definition.get("properties", {}).items():
            if name in RANGES:
                member["minimum"], member["maximum"] = RANGES[name]
            if option := declared(kind).get(name):
                _say_words(member, dict(option.words))
    top = whole["$defs"][kind.__name__]
    members = {name: member | {"default": getattr(defaults, name)} for name, member in top["properties"].items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "properties": members, "$defs": whole["$defs"]}


def _say_words(member: dict[str, Any], words: dict[str, int]) -> None:
    if words:
        for of_a_number in ("type", "minimum", "maximum"):
            member.pop(of_a_number, None)
        member["enum"] = [*words, *words.values()]
