"""What a user gave becomes options, or the list of all that is wrong with it."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.defaults import DefaultsFacts, default_options_lcow
from utilityvm.options.lcow import OptionsLCOW, RootFSType, TemplateConfig
from utilityvm.options.paths import PathFlavour
from utilityvm.options.read import options_lcow
from utilityvm.options.text import OptionsFile
from utilityvm.options.values import MAX_PROBLEMS

FACTS = DefaultsFacts(
    path_flavour=PathFlavour.POSIX,
    num_cpu=4,
    argv0="/opt/bin/uvm",
    shared_boot_files="/var/boot",
    files_present=frozenset({"/var/boot/vmlinux", "/other/rootfs.vhd"}),
)
DEFAULTS = default_options_lcow("", "", FACTS)


def read(given: Mapping[str, object], **file: object) -> OptionsLCOW:
    return options_lcow(FACTS, given, OptionsFile("vm.toml", file) if file else None)


def refused(given: Mapping[str, object], **file: object) -> InvalidOptions:
    with pytest.raises(InvalidOptions) as caught:
        read(given, **file)
    return caught.value


def problems(given: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in refused(given).problems]


def test_nothing_given_are_the_defaults() -> None:
    assert read({}) == DEFAULTS
    assert DEFAULTS.kernel_file == "vmlinux"


def test_a_good_id_is_taken_as_it_is() -> None:
    assert read({"id": "web-1"}) == msgspec.structs.replace(DEFAULTS, id="web-1")


def test_the_file_wins_over_the_defaults_and_what_is_given_over_the_file() -> None:
    options = read({"owner": "me"}, owner="file", memory_size_in_mb=256)
    assert (options.owner, options.memory_size_in_mb, options.processor_count) == ("me", 256, 2)


@pytest.mark.parametrize("given", [{}, {"boot_files_path": "/other"}])
def test_the_files_of_another_folder_are_chosen_by_what_lies_there(given: dict[str, object]) -> None:
    file = {"owner": "me"} if given else {"boot_files_path": "/other"}
    options = read(given, **file)
    assert (options.boot_files_path, options.kernel_file, options.root_fs_file) == ("/other", "kernel", "rootfs.vhd")
    assert options.preferred_root_fs_type == RootFSType.VHD


@pytest.mark.parametrize("value", [1, "vhd", RootFSType.VHD])
def test_a_number_with_words_takes_both(value: object) -> None:
    options = read({"preferred_root_fs_type": value})
    assert options.preferred_root_fs_type == 1
    assert type(options.preferred_root_fs_type) is int


def test_a_template_is_taken_as_a_table_and_as_itself() -> None:
    wish = {"owner": "o", "vpmem_device_count": 1}
    template = TemplateConfig(uvm_id="t", create_options=read(wish))
    table = {"uvm_id": "t", "create_options": msgspec.structs.asdict(read(wish)) | {"preferred_root_fs_type": "initrd"}}
    for given in (template, table):
        assert read({**wish, "is_clone": True, "template_config": given}).template_config == template
    assert read({"template_config": None}).template_config is None


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"memory_size_in_mb": "256"}, "$.memory_size_in_mb", "must be an integer, not text"),
        ({"memory_size_in_mb": True}, "$.memory_size_in_mb", "must be an integer, not true or false"),
        ({"memory_size_in_mb": 256.0}, "$.memory_size_in_mb", "must be an integer, not a number with a point"),
        ({"kernel_direct": 1}, "$.kernel_direct", "must be true or false, not an integer"),
        ({"owner": None}, "$.owner", "must be text, not null"),
        ({"owner": ["a"]}, "$.owner", "must be text, not a list"),
        ({"owner": b"a"}, "$.owner", "must be text, not a bytes"),
        ({"console_pipe": "a\0b"}, "$.console_pipe", "must not have a NUL character"),
        ({"kernel_file": "\ud800"}, "$.kernel_file", "must not have half of a surrogate pair"),
        ({"preferred_root_fs_type": "ext4"}, "$.preferred_root_fs_type", "must be initrd (0) or vhd (1)"),
        ({"template_config": 3}, "$.template_config", "must be a table, not an integer"),
        ({"memory_size_in_mb": -1}, "$.memory_size_in_mb", "memory_size_in_mb must be between 1 and 18446744073709551614"),
        ({"processor_count": 10**5000}, "$.processor_count", "processor_count must be between 1 and 2147483647"),
        ({"preferred_root_fs_type": 2}, "$.preferred_root_fs_type", "preferred_root_fs_type must be between 0 and 1"),
        ({"scsi_controller_count": 2}, "$.scsi_controller_count", "SCSI controller count must be 0 or 1"),
        ({"a b": 1}, "$['a b']", "is not an option"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else None,
)
def test_a_mistake_is_told_with_its_path(given: dict[str, object], path: str, message: str) -> None:
    assert problems(given) == [(path, message)]
    assert refused(given).message == f"options: {path}: {message}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("memory", "memory_size_in_mb"),
        ("cpus", "processor_count"),
        ("MemorySizeInMB", "memory_size_in_mb"),
        ("memory-size-in-mb", "memory_size_in_mb"),
        ("procesor_count", "processor_count"),
        ("VPMemDeviceCount", "vpmem_device_count"),
    ],
)
def test_a_name_that_no_option_has_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert problems({name: 1}) == [(f"$.{name}", f"is not an option; did you mean {meant}?")]


def test_all_independent_mistakes_are_told_at_once() -> None:
    given = {"nonsense": 1, "kernel_direct": "yes", "id": "/", "memory_size_in_mb": 0, "scsi_controller_count": 7}
    error = refused(given | {"template_config": {"create_options": {"owner": 1}}})
    assert [problem.path for problem in error.problems] == [
        "$.nonsense",
        "$.kernel_direct",
        "$.template_config.create_options.owner",
        "$.template_config.uvm_id",
        "$.id",
        "$.memory_size_in_mb",
        "$.scsi_controller_count",
    ]
    assert error.message == "options: $.nonsense: is not an option (and 6 more)"


def test_no_rule_is_asked_about_an_option_whose_value_is_wrong() -> None:
    given = {"vpmem_device_count": "none", "vpmem_size_bytes": 0, "preferred_root_fs_type": "tape", "root_fs_file": "rootfs.vhd"}
    assert [path for path, _ in problems(given)] == ["$.vpmem_device_count", "$.preferred_root_fs_type"]


def test_each_rule_of_single_options_and_between_them_is_told_for_a_file() -> None:
    error = refused({}, vpmem_size_bytes=1, enable_deferred_commit=True, allow_overcommit=False)
    assert [problem.rule for problem in error.problems] == ["enable_deferred_commit", "vpmem_size_bytes"]


def test_the_message_names_the_file_unless_the_mistake_was_given_beside_it() -> None:
    assert refused({"owner": "me"}, memory=1).message.startswith("vm.toml: $.memory: ")
    assert refused({"owner": 1}, memory_size_in_mb=256).message.startswith("options: $.owner: ")
    assert refused({"template_config": {}}, owner="me").message.startswith("options: $.template_config.uvm_id: ")


def test_no_problem_has_more_than_one_line_or_is_long() -> None:
    for problem in refused({"a\nb" * 1000: 1, "x" * 5000: 1, "owner": ["a\n" * 5000]}).problems:
        assert "\n" not in problem.path + problem.message
        assert len(problem.path + problem.message) < 200


def test_the_list_of_problems_is_bounded() -> None:
    strangers = {f"stranger_{number}": 1 for number in range(100_000)}
    nested = {"template_config": {"uvm_id": "t", "create_options": strangers}}
    for given in (strangers, {"kernel_direct": 1} | nested | {"id": "/"}):
        error = refused(given)
        assert len(error.problems) == MAX_PROBLEMS
        assert error.message.endswith(f" (and {MAX_PROBLEMS - 1} more)")


def test_templates_of_templates_end_somewhere() -> None:
    given: dict[str, Any] = {}
    for _ in range(200):
        given = {"template_config": {"uvm_id": "t", "create_options": given}}
    assert [message for _, message in problems(given)] == ["is nested too deeply"]


def test_a_problem_is_data() -> None:
    assert refused({"owner": 1}).problems == (Problem("$.owner", "type", "must be text, not an integer"),)


def test_options_that_come_back_from_builtins_are_the_same() -> None:
    template = TemplateConfig(uvm_id="t", create_options=read({"memory_size_in_mb": 256}))
    options = read({"memory_size_in_mb": 256, "is_clone": True, "template_config": template})
    assert read(msgspec.to_builtins(options)) == options
