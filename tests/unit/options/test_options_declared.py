"""Every option is declared once: with a meaning, and with the original's name where it has one."""

from typing import Annotated

import msgspec
import pytest

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.declare import declared, go_names, option
from utilityvm.options.go import from_go, to_go
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.shared import Options
from utilityvm.options.wcow import OptionsWCOW

OURS = {"forkable", "graphics_pipe", "is_template", "is_clone", "template_config", "assigned_devices"}


def test_every_option_has_a_meaning_of_its_own() -> None:
    said = {name: option.meaning for name, option in declared(OptionsLCOW).items()}
    assert list(said) == list(OptionsLCOW.__struct_fields__)
    assert all(text.endswith(".") for text in said.values())
    assert len(set(said.values())) == len(said)


def test_only_our_own_options_have_no_go_name() -> None:
    assert set(OptionsLCOW.__struct_fields__) - set(go_names(OptionsLCOW)) == OURS
    assert set(go_names(Options)) == set(Options.__struct_fields__)


def test_go_names_differ_from_ours_by_capitals_and_underscores_only() -> None:
    assert {name.replace("_", "") for name in go_names(OptionsLCOW)} == {go.lower() for go in go_names(OptionsLCOW).values()}


def test_options_survive_go_s_spelling() -> None:
    options = OptionsLCOW(id="a", memory_size_in_mb=2**64 - 1, kernel_direct=False, preferred_root_fs_type=7)
    assert to_go(options)["MemorySizeInMB"] == 2**64 - 1
    assert from_go(to_go(options), OptionsLCOW) == options


def test_an_option_absent_in_go_s_spelling_has_its_default() -> None:
    assert from_go({}, OptionsLCOW) == OptionsLCOW()


def test_every_unknown_go_name_is_reported() -> None:
    with pytest.raises(InvalidOptions, match="^IsClone is not an option$") as caught:
        from_go({"IsClone": True, "ID": "a", "Memory": 1}, OptionsLCOW)
    assert [problem.path for problem in caught.value.problems] == ["$.IsClone", "$.Memory"]


def test_a_go_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(InvalidOptions, match=r"Expected `int`, got `str` - at `\$.processor_count`"):
        from_go({"ProcessorCount": "two"}, OptionsLCOW)


def test_options_refuse_unknown_names_and_cannot_be_changed() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `memory`"):
        msgspec.convert({"memory": 1}, OptionsLCOW)
    with pytest.raises(AttributeError):
        OptionsLCOW().id = "b"  # type: ignore[misc]


def test_a_template_is_part_of_the_options() -> None:
    given = {"is_clone": True, "template_config": {"uvm_id": "t", "create_options": {"owner": "o"}}}
    template = TemplateConfig(uvm_id="t", create_options=OptionsLCOW(owner="o"))
    assert msgspec.convert(given, OptionsLCOW) == OptionsLCOW(is_clone=True, template_config=template)


def test_an_option_tells_its_kind_its_value_and_its_flag() -> None:
    memory, folder, root, template = (
        declared(OptionsLCOW)[name] for name in ("memory_size_in_mb", "boot_files_path", "preferred_root_fs_type", "template_config")
    )
    assert (memory.kind, memory.default, memory.short, memory.flag, memory.value) == (int, 1024, "memory", "--memory-size-in-mb", "N")
    assert (folder.kind, folder.value, folder.words, folder.optional) == (str, "DIR", {}, False)
    assert (root.kind, root.words) == (int, {"initrd": 0, "vhd": 1})
    assert (template.kind, template.value, template.optional) == (TemplateConfig, "", True)
    layers = declared(OptionsWCOW)["layer_folders"]
    assert [option.spoken for option in (memory, folder, layers, template)] == [True, True, True, False]


def test_each_short_name_is_one_option_s_and_no_option_s_name() -> None:
    short = [option.short for option in declared(OptionsLCOW).values() if option.short]
    assert len(short) == len(set(short))
    assert not set(short) & set(OptionsLCOW.__struct_fields__)


@pytest.mark.parametrize("hint", [int, Annotated[int, "a number"], Annotated[int, option("One."), option("Two.")]])
def test_a_field_that_is_not_declared_exactly_once_is_our_bug(hint: object) -> None:
    struct = msgspec.defstruct("Wrong", [("field", hint)])
    with pytest.raises(TypeError, match="field: an option is declared by exactly one"):
        go_names(struct)
