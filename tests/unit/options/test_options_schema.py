"""The JSON Schema of an options file says what the reader takes."""

import msgspec

from utilityvm.options.declare import declared
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.rules import RANGES
from utilityvm.options.schema import json_schema

SCHEMA = json_schema(OptionsLCOW(memory_size_in_mb=512))


def test_it_has_every_option_with_meaning_and_default_and_no_other() -> None:
    members = SCHEMA["properties"]
    assert list(members) == list(OptionsLCOW.__struct_fields__)
    assert SCHEMA["additionalProperties"] is False
    for name, option in declared(OptionsLCOW).items():
        assert members[name]["description"] == option.meaning
        assert members[name]["default"] == (512 if name == "memory_size_in_mb" else option.default)


def test_it_has_the_ranges_and_the_words() -> None:
    members = SCHEMA["properties"]
    assert (members["processor_limit"]["minimum"], members["processor_limit"]["maximum"]) == RANGES["processor_limit"]
    assert members["preferred_root_fs_type"]["enum"] == ["initrd", "vhd", 0, 1]
    assert "type" not in members["preferred_root_fs_type"]


def test_a_template_s_options_have_the_declared_defaults() -> None:
    nested = SCHEMA["$defs"]["OptionsLCOW"]["properties"]
    assert (nested["memory_size_in_mb"]["default"], nested["processor_limit"]["maximum"]) == (1024, 100_000)


def test_it_is_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SCHEMA))["$schema"] == "https://json-schema.org/draft/2020-12/schema"
