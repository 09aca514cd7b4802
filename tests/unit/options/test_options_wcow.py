"""What may be asked of a VM with a Windows guest, and of clones: options, rules, files, Go's spelling."""

from typing import Any

import msgspec
import pytest

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options import builds
from utilityvm.options.declare import declared, go_names
from utilityvm.options.defaults import DefaultsFacts
from utilityvm.options.go import from_go, to_go
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.paths import PathFlavour
from utilityvm.options.read import options_wcow
from utilityvm.options.resources import ScsiMount, VsmbOption, VsmbShare
from utilityvm.options.rules import problems, verify, verify_bounds
from utilityvm.options.rules_clone import compared
from utilityvm.options.rules_wcow import BOUNDS_WCOW, VERIFY_WCOW
from utilityvm.options.schema import json_schema
from utilityvm.options.text import parse
from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
from utilityvm.schema.devices import VirtualSmbShareOptions

LAYERS = ("top", "base", "scratch")
FACTS = DefaultsFacts(path_flavour=PathFlavour.WINDOWS, num_cpu=4, argv0="uvm.exe", shared_boot_files="C:\\b")
DIFFERENT = "clone configuration doesn't match with template configuration."


def template(*resources: ScsiMount | VsmbShare, **options: object) -> TemplateConfigWCOW:
    create_options = OptionsWCOW(**{"layer_folders": ("top", "base", "theirs"), "is_template": True, **options})  # type: ignore[arg-type]
    return TemplateConfigWCOW(uvm_id="t", resources=resources, create_options=create_options)


def clone(config: TemplateConfigWCOW | None, **options: object) -> OptionsWCOW:
    return OptionsWCOW(layer_folders=LAYERS, is_clone=True, template_config=config, **options)  # type: ignore[arg-type]


VERIFY_CASES: list[tuple[OptionsWCOW, str]] = [
    (
        OptionsWCOW(layer_folders=LAYERS, enable_deferred_commit=True, allow_overcommit=False),
        "EnableDeferredCommit is not supported on physically backed VMs",
    ),
    (OptionsWCOW(layer_folders=("base",)), "at least 2 LayerFolders must be supplied"),
    (clone(None), "template config can not be nil when creating clone"),
    (clone(template(), owner="another"), DIFFERENT),
    (
        clone(template(external_guest_connection=False), external_guest_connection=False),
        "External gcs connection can not be disabled for clones",
    ),
    (
        OptionsWCOW(layer_folders=LAYERS, is_template=True, fully_physically_backed=True),
        "Template can not be created from a full physically backed UVM",
    ),
]


@pytest.mark.parametrize(("options", "text"), VERIFY_CASES)
def test_each_original_rule_refuses_with_its_text(options: OptionsWCOW, text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        verify(options, builds.EVERYTHING)
    assert str(caught.value) == f"UVM options incorrect: {text}"


def test_the_originals_rules_stand_in_its_order_and_a_template_is_looked_for_before_it_is_read() -> None:
    assert [rule.text for rule in VERIFY_WCOW] == [text for _, text in VERIFY_CASES]


def test_all_broken_rules_are_told() -> None:
    options = OptionsWCOW(
        enable_deferred_commit=True, allow_overcommit=False, is_clone=True, is_template=True, fully_physically_backed=True
    )
    told = [problem.message for problem in problems(options, builds.EVERYTHING)]
    assert told == [VERIFY_CASES[place][1] for place in (0, 1, 2, 5)]


def other(value: object) -> object:
    return {bool: not value, int: 4, str: "other"}.get(type(value), value)


@pytest.mark.parametrize("name", [name for name in compared(OptionsWCOW) if name != "layer_folders"])
def test_a_clone_differs_from_its_template_in_any_option(name: str) -> None:
    changed = msgspec.structs.replace(clone(template()), **{name: other(getattr(OptionsWCOW(), name))})
    first, *details = (problem for problem in problems(changed, builds.EVERYTHING) if problem.rule == "template_config")
    assert (first.path, first.message) == ("$.template_config", DIFFERENT)
    assert [detail.path for detail in details] == [f"$.{name}"]
    assert details[0].message.startswith(f"{name} is {getattr(changed, name)!a}, the template's is ")


def test_every_option_of_every_vm_is_compared_but_the_id() -> None:
    assert set(compared(OptionsWCOW)) == set(OptionsWCOW.__struct_fields__) - {"id", "is_template", "is_clone", "template_config"}
    of_one = {"id", "is_template", "is_clone", "template_config", "forkable"}
    assert set(compared(OptionsLCOW)) == set(OptionsLCOW.__struct_fields__) - of_one


@pytest.mark.parametrize(
    "layers", [("top", "other", "scratch"), ("top", "scratch"), ("base", "top", "scratch"), ("Top", "base", "scratch")]
)
def test_all_layers_but_the_scratch_are_compared(layers: tuple[str, ...]) -> None:
    verify(clone(template()), builds.EVERYTHING)
    options = OptionsWCOW(layer_folders=layers, is_clone=True, template_config=template())
    assert [problem.path for problem in problems(options, builds.EVERYTHING)] == ["$.template_config", "$.layer_folders"]


def test_all_differences_are_told_and_long_values_are_cut() -> None:
    options = clone(template(cpu_group_id="g" * 100), processor_count=7, memory_size_in_mb=2)
    paths, messages = zip(*((problem.path, problem.message) for problem in problems(options, builds.EVERYTHING)), strict=True)
    assert paths == ("$.template_config", "$.memory_size_in_mb", "$.processor_count", "$.cpu_group_id")
    assert messages[1] == "memory_size_in_mb is 2, the template's is 1024"
    assert messages[3].endswith("g...")
    assert len(messages[3]) < 120


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"is_clone": True}, "template config can not be nil when creating clone"),
        ({"is_clone": True, "template_config": TemplateConfig(uvm_id="t", create_options=OptionsLCOW(kernel_file="k"))}, DIFFERENT),
        ({"is_template": True, "fully_physically_backed": True}, VERIFY_CASES[5][1]),
    ],
)
def test_the_same_rules_hold_for_linux_guests(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        verify(OptionsLCOW(**asked), builds.EVERYTHING)
    assert str(caught.value) == f"UVM options incorrect: {text}"


DISK, SHARE = ScsiMount(host_path="d.vhdx"), VsmbShare(host_path="f", name="s1")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (OptionsWCOW(layer_folders=LAYERS, memory_size_in_mb=0), "memory_size_in_mb must be between 1 and 18446744073709551614"),
        (OptionsWCOW(layer_folders=LAYERS, processor_weight=10_001), "processor_weight must be between 0 and 10000"),
        (OptionsWCOW(layer_folders=("a", "")), "layer_folders must not have an empty path"),
        (OptionsWCOW(layer_folders=LAYERS, template_config=template()), "template_config is for clones: is_clone is false"),
        (
            clone(template(ScsiMount(host_path="d", lun=64))),
            "template_config.resources: SCSI controllers are 0 to 3, LUNs 0 to 63",
        ),
        (clone(template(DISK, DISK)), "template_config.resources: two disks at one place of a SCSI controller"),
        (
            clone(template(ScsiMount(host_path="d", attachment_type="Disk"))),
            "template_config.resources: attachment_type must be VirtualDisk or PassThru",
        ),
        (
            clone(template(VsmbShare(host_path="f", name="os"))),
            "template_config.resources: two shares of one name; os is the guest's own",
        ),
    ],
)
def test_each_rule_of_ours_refuses_with_its_text(options: OptionsWCOW, text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        verify_bounds(options)
    assert str(caught.value) == f"UVM options incorrect: {text}"
    assert text in {rule.text for rule in BOUNDS_WCOW}


def test_options_within_our_bounds_pass() -> None:
    verify_bounds(clone(template(DISK, SHARE, ScsiMount(host_path="e", controller=3, lun=63, attachment_type="PassThru"))))


def test_a_value_of_the_wrong_type_is_told_with_its_place() -> None:
    options = OptionsWCOW(layer_folders=("a", 3), template_config=template())  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match=r"\$\.layer_folders\[1\]: must be text, not an integer$"):
        verify_bounds(options)


def test_every_option_has_a_meaning_and_a_go_name() -> None:
    for kind in (OptionsWCOW, TemplateConfigWCOW, ScsiMount, VsmbShare):
        assert list(go_names(kind)) == list(kind.__struct_fields__)
        assert all(option.meaning.endswith(".") for option in declared(kind).values())


def test_the_words_of_a_share_are_the_documents_members() -> None:
    assert [word.value for word in VsmbOption] == [member.encode_name for member in msgspec.structs.fields(VirtualSmbShareOptions)]


WHOLE = clone(
    template(DISK, VsmbShare(host_path="f", name="s1", allowed_files=("f/a",), options=(VsmbOption.READ_ONLY, VsmbOption.NO_LOCKS)))
)


def test_options_survive_go_s_spelling() -> None:
    fields = to_go(WHOLE)
    assert from_go(fields, OptionsWCOW) == WHOLE
    config = fields["TemplateConfig"]
    assert isinstance(config, dict)
    assert config["Resources"][1]["Options"]["NoLocks"] is True
    assert to_go(OptionsWCOW())["LayerFolders"] is None


def test_a_template_without_options_is_none_in_go_s_spelling() -> None:
    assert (
        from_go({"TemplateConfig": {"UVMID": "t", "Resources": None, "CreateOpts": {"Options": None}}}, OptionsWCOW).template_config is None
    )


TEXT = b"""
layer_folders = ['top', 'base', 'scratch']
is_clone = true
[template_config]
uvm_id = "t"
[[template_config.resources]]
type = "SCSIMount"
host_path = "d.vhdx"
[[template_config.resources]]
type = "VSMBShare"
host_path = "f"
name = "s1"
allowed_files = ["f/a"]
options = ["ReadOnly", "NoLocks"]
[template_config.create_options]
layer_folders = ['top', 'base', 'theirs']
is_template = true
processor_count = 2
owner = "uvm.exe"
"""


def test_a_file_gives_a_clone_with_its_templates_resources() -> None:
    options = options_wcow(FACTS, {}, parse(TEXT, "vm.toml"))
    assert options.template_config is not None
    assert WHOLE.template_config is not None
    assert options.template_config.resources == WHOLE.template_config.resources
    given = {"template_config": WHOLE.template_config, "owner": "", "is_clone": True, "layer_folders": LAYERS}
    assert options_wcow(FACTS, given).template_config == WHOLE.template_config
    table = msgspec.structs.asdict(WHOLE.template_config)  # whose resources are what they are
    assert options_wcow(FACTS, {**given, "template_config": table}).template_config == WHOLE.template_config


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"layer_folders": "top"}, "$.layer_folders", "must be a list, not text"),
        ({"layer_folders": ["a\0"]}, "$.layer_folders[0]", "must not have a NUL character"),
        ({"layer_folders": ["a"]}, "$.layer_folders", "at least 2 LayerFolders must be supplied"),
        ({"layers": ["a"]}, "$.layers", "is not an option; did you mean layer_folders?"),
        ({"template_config": {"uvm_id": "t", "resources": [3]}}, "$.template_config.resources[0]", "must be a table, not an integer"),
        (
            {"template_config": {"uvm_id": "t", "resources": [{"type": "Plan9"}]}},
            "$.template_config.resources[0].type",
            "must be SCSIMount or VSMBShare",
        ),
        (
            {"template_config": {"uvm_id": "t", "resources": [{"type": "SCSIMount", "lun": "0"}]}},
            "$.template_config.resources[0].lun",
            "must be an integer, not text",
        ),
        (
            {"template_config": {"uvm_id": "t", "resources": [{"type": "VSMBShare", "options": ["Fast"]}]}},
            "$.template_config.resources[0].options[0]",
            "must be one of ReadOnly, ShareRead",
        ),
    ],
)
def test_each_mistake_is_told_with_its_path(given: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        options_wcow(FACTS, given)
    assert (caught.value.problems[0].path, caught.value.problems[0].message[: len(message)]) == (path, message)


def test_layers_that_are_not_given_are_not_missed_before_a_vm_is_planned() -> None:
    assert options_wcow(FACTS, {"memory_size_in_mb": 2}).layer_folders == ()


def test_the_schema_of_a_file_says_lists_and_what_may_be_in_them() -> None:
    members = json_schema(OptionsWCOW())["properties"]
    assert members["layer_folders"] | {"description": ""} == {
        "type": "array",
        "items": {"type": "string"},
        "description": "",
        "default": (),
    }
    assert json_schema(OptionsWCOW())["$defs"]["VsmbShare"]["properties"]["type"] == {"enum": ["VSMBShare"]}
