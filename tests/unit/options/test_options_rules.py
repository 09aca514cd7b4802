"""The rules, each by its text."""

from typing import Any, cast

import msgspec
import pytest

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.options import builds
from utilityvm.options.lcow import OptionsLCOW, RootFSType, TemplateConfig
from utilityvm.options.rule import Rule
from utilityvm.options.rules import BOUNDS, NOT_BUILT, RANGES, VERIFY, problems, refuse_not_built, verify, verify_bounds

TEMPLATE = TemplateConfig(uvm_id="t", create_options=OptionsLCOW())
INTERNAL = TemplateConfig(uvm_id="t", create_options=OptionsLCOW(external_guest_connection=False))

VERIFY_CASES: list[tuple[dict[str, Any], int, str]] = [
    (
        {"enable_deferred_commit": True, "allow_overcommit": False},
        builds.EVERYTHING,
        "EnableDeferredCommit is not supported on physically backed VMs",
    ),
    ({"scsi_controller_count": 2}, builds.EVERYTHING, "SCSI controller count must be 0 or 1"),
    ({"vpmem_device_count": 129}, builds.EVERYTHING, "VPMem device count cannot be greater than 128"),
    ({"vpmem_size_bytes": 4097}, builds.EVERYTHING, "VPMemSizeBytes must be a multiple of 4096"),
    (
        {"vpmem_device_count": 0, "preferred_root_fs_type": RootFSType.VHD},
        builds.EVERYTHING,
        "PreferredRootFSTypeVHD requires at least one VPMem device",
    ),
    ({}, builds.KERNEL_DIRECT - 1, "KernelDirectBoot is not supported on builds older than 18286"),
    (
        {"enable_cold_discard_hint": True},
        builds.COLD_DISCARD - 1,
        "EnableColdDiscardHint is not supported on builds older than 18967",
    ),
    ({"is_clone": True}, builds.EVERYTHING, "template config can not be nil when creating clone"),
    (
        {"is_clone": True, "template_config": TEMPLATE, "owner": "another"},
        builds.EVERYTHING,
        "clone configuration doesn't match with template configuration.",
    ),
    (
        {"is_clone": True, "template_config": INTERNAL, "external_guest_connection": False},
        builds.EVERYTHING,
        "External gcs connection can not be disabled for clones",
    ),
    (
        {"is_template": True, "fully_physically_backed": True},
        builds.EVERYTHING,
        "Template can not be created from a full physically backed UVM",
    ),
]


@pytest.mark.parametrize(("asked", "build", "text"), VERIFY_CASES)
def test_each_original_rule_refuses_with_its_text(asked: dict[str, Any], build: int, text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        verify(OptionsLCOW(**asked), build)
    assert str(caught.value) == f"UVM options incorrect: {text}"
    assert [problem.message for problem in caught.value.problems if not problem.message.startswith("owner is")] == [text]


def test_every_original_rule_is_among_these_cases() -> None:
    assert [rule.text for rule in VERIFY] == [text for *_, text in VERIFY_CASES]


@pytest.mark.parametrize(
    ("asked", "build"),
    [
        ({"enable_deferred_commit": True}, builds.EVERYTHING),
        ({"allow_overcommit": False}, builds.EVERYTHING),
        ({"scsi_controller_count": 0, "vpmem_device_count": 128}, builds.EVERYTHING),
        ({"vpmem_device_count": 0, "vpmem_size_bytes": 1}, builds.EVERYTHING),
        ({"preferred_root_fs_type": RootFSType.VHD, "vpmem_device_count": 1}, builds.EVERYTHING),
        ({}, builds.KERNEL_DIRECT),
        ({"kernel_direct": False}, 0),
        ({"enable_cold_discard_hint": True}, builds.COLD_DISCARD),
    ],
)
def test_options_on_the_right_side_of_each_rule_pass(asked: dict[str, Any], build: int) -> None:
    verify(OptionsLCOW(**asked), build)


def test_independent_problems_are_all_reported_in_the_order_of_the_rules() -> None:
    options = OptionsLCOW(enable_cold_discard_hint=True, scsi_controller_count=7, vpmem_size_bytes=1)
    with pytest.raises(InvalidOptions, match="^UVM options incorrect: SCSI controller count must be 0 or 1$") as caught:
        verify(options, 0)
    assert [problem.rule for problem in caught.value.problems] == [
        "scsi_controller_count",
        "vpmem_size_bytes",
        "kernel_direct",
        "enable_cold_discard_hint",
    ]
    assert caught.value.problems[0].path == "$.scsi_controller_count"


ORIGINALS: list[tuple[dict[str, Any], str]] = [
    ({"allow_overcommit": False}, "allow_overcommit: must be true in {}: its {others} share memory"),
    (
        {"enable_cold_discard_hint": True},
        "enable_cold_discard_hint: must be false in {}: memory that one {one} gives back would be another's too",
    ),
    ({"use_guest_connection": False}, "use_guest_connection: must be true in {}: its guest's agent is asked to stand still"),
    ({"external_guest_connection": False}, "external_guest_connection: must be true in {}: its guest's agent is asked to stand still"),
    (
        {"preferred_root_fs_type": RootFSType.VHD},
        "preferred_root_fs_type: must be initrd in {}: disks that are there from the start are not in it",
    ),
    ({"console_pipe": "/run/c"}, "console_pipe: not in {}: its {others} would all want that socket"),
    ({"graphics_pipe": "/run/s", "enable_graphics_console": True}, "graphics_pipe: not in {}: its {others} would all want that socket"),
]
"""What others that go on from a VM rule out."""

BOUNDS_CASES: list[tuple[dict[str, Any], str]] = [
    ({"graphics_pipe": "/run/screen"}, "graphics_pipe offers a screen, which needs enable_graphics_console"),
    (
        {"assigned_devices": ("0000:01:00.0",)},
        "assigned_devices needs allow_overcommit false: a device writes into the guest's memory, all of which must be there",
    ),
    ({"assigned_devices": ("x", "x"), "allow_overcommit": False}, "assigned_devices names a device twice"),
    ({"memory_size_in_mb": 0}, "memory_size_in_mb must be between 1 and 18446744073709551614"),
    ({"memory_size_in_mb": 2**64 - 1}, "memory_size_in_mb must be between 1 and 18446744073709551614"),
    ({"low_mmio_gap_in_mb": -1}, "low_mmio_gap_in_mb must be between 0 and 18446744073709551615"),
    ({"high_mmio_base_in_mb": 2**64}, "high_mmio_base_in_mb must be between 0 and 18446744073709551615"),
    ({"high_mmio_gap_in_mb": -1}, "high_mmio_gap_in_mb must be between 0 and 18446744073709551615"),
    ({"processor_count": 0}, "processor_count must be between 1 and 2147483647"),
    ({"processor_count": -1}, "processor_count must be between 1 and 2147483647"),
    ({"processor_limit": 100_001}, "processor_limit must be between 0 and 100000"),
    ({"processor_weight": 10_001}, "processor_weight must be between 0 and 10000"),
    ({"storage_qos_iops_maximum": -1}, "storage_qos_iops_maximum must be between 0 and 2147483647"),
    ({"storage_qos_bandwidth_maximum": 2**31}, "storage_qos_bandwidth_maximum must be between 0 and 2147483647"),
    ({"scsi_controller_count": -1}, "scsi_controller_count must be between 0 and 4294967295"),
    ({"vpmem_device_count": -1}, "vpmem_device_count must be between 0 and 4294967295"),
    ({"vpmem_size_bytes": -4096}, "vpmem_size_bytes must be between 0 and 18446744073709551615"),
    ({"vpmem_size_bytes": 0}, "vpmem_size_bytes must not be 0 when there are VPMem devices"),
    ({"preferred_root_fs_type": 2}, "preferred_root_fs_type must be between 0 and 1"),
    ({"root_fs_file": "ROOTFS.VHDX"}, "preferred_root_fs_type is initrd, but root_fs_file names a disk"),
    ({"kernel_file": ""}, "kernel_file must name a file"),
    ({"root_fs_file": ""}, "root_fs_file must name a file"),
    ({"disable_compartment_namespace": True}, "disable_compartment_namespace is for Windows guests"),
    ({"template_config": TEMPLATE}, "template_config is for clones: is_clone is false"),
    (
        {"network_config_proxy": "/run/proxy", "use_guest_connection": False},
        "network_config_proxy needs use_guest_connection: the guest is told of its adapters over it",
    ),
    ({"is_template": True, "is_clone": True, "template_config": TEMPLATE}, "is_clone: a clone cannot become a template"),
    *(
        ({option: True, **asked}, text.format(original, one=one, others=others))
        for option, original, one, others in (
            ("is_template", "a template", "clone", "clones"),
            ("forkable", "a forkable VM", "child", "children"),
        )
        for asked, text in ORIGINALS
    ),
]


@pytest.mark.parametrize(("asked", "text"), BOUNDS_CASES)
def test_each_rule_of_ours_refuses_with_its_text(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        verify_bounds(OptionsLCOW(**asked))
    assert str(caught.value) == f"UVM options incorrect: {text}"


def test_every_rule_of_ours_is_among_these_cases() -> None:
    assert {rule.text for rule in BOUNDS} == {text for _, text in BOUNDS_CASES}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"memory_size_in_mb": 2**64 - 2, "processor_count": 2**31 - 1, "processor_limit": 100_000, "processor_weight": 10_000},
        {"vpmem_device_count": 0, "vpmem_size_bytes": 0},
        {"assigned_devices": ("0000:01:00.0", "0000:01:00.1"), "allow_overcommit": False},
        {"root_fs_file": "rootfs.vhd", "preferred_root_fs_type": RootFSType.VHD},
    ],
)
def test_options_within_our_bounds_pass(asked: dict[str, Any]) -> None:
    verify_bounds(OptionsLCOW(**asked))


def test_our_bounds_do_not_say_again_what_the_original_says() -> None:
    for asked, build, _ in VERIFY_CASES:
        assert problems(OptionsLCOW(**asked), build, BOUNDS) == ()


def test_options_that_nothing_carries_out_are_refused_by_name() -> None:
    refuse_not_built(OptionsLCOW())
    options = OptionsLCOW(fully_physically_backed=True)
    with pytest.raises(Unsupported, match="^" + ", ".join(NOT_BUILT) + ": this version"):
        refuse_not_built(options)


@pytest.mark.parametrize("rule", [*BOUNDS, *VERIFY], ids=lambda rule: rule.text)
def test_a_rule_looks_at_the_options_that_it_says(rule: Rule[OptionsLCOW]) -> None:
    """So that a rule is not asked about options whose value is wrong anyway."""
    seen: set[str] = set()

    class Watched:
        def __init__(self, options: OptionsLCOW) -> None:
            self._options = options

        def __getattr__(self, name: str) -> object:
            seen.add(name)
            return getattr(self._options, name)

    for asked in ({}, *(asked for asked, *_ in VERIFY_CASES), *(asked for asked, _ in BOUNDS_CASES)):
        rule.broken(cast("OptionsLCOW", Watched(OptionsLCOW(**asked))), builds.EVERYTHING)
    assert seen == {rule.option, *rule.reads}


def test_the_ranges_are_those_of_the_rules() -> None:
    assert RANGES["processor_limit"] == (0, 100_000)
    for option, (low, high) in RANGES.items():
        text = f"{option} must be between {low} and {high}"
        for value, refused in ((low - 1, True), (low, False), (high, False), (high + 1, True)):
            options = msgspec.structs.replace(OptionsLCOW(), **{option: value})
            assert (text in {problem.message for problem in problems(options, 0, BOUNDS)}) is refused


def test_a_value_of_the_wrong_type_is_told_before_a_rule_stumbles_over_it() -> None:
    """A struct does not look at what Python puts into it."""
    options = OptionsLCOW(memory_size_in_mb="256", vpmem_device_count=None, console_pipe="a\0", processor_count=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match=r"^UVM options incorrect: \$\.memory_size_in_mb: must be an integer, not text$") as caught:
        verify_bounds(options)
    assert [problem.path for problem in caught.value.problems] == [
        "$.memory_size_in_mb",
        "$.console_pipe",
        "$.vpmem_device_count",
        "$.processor_count",
    ]
