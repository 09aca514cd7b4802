"""Which options contradict each other, their host or good sense: every rule once, in order, with its text.

`VERIFY` are the original's rules; planning applies them, and their texts are part of the contract. `BOUNDS` are ours and apply
where options come in: on creation and at the doors, not in planning, which takes whatever the original takes.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.options import builds
from utilityvm.options.lcow import MAX_VPMEM_COUNT, OptionsLCOW, RootFSType
from utilityvm.options.values import taken

VPMEM_SIZE_UNIT = 4096
UINT64_MAX = 2**64 - 1
UINT32_MAX = 2**32 - 1
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the option it speaks of, its text, and when it is broken (by these options on a host of this build).

    `reads` are other options that it looks at. `between` is the range of a rule that is nothing but one.
    """

    option: str
    text: str
    broken: Callable[[OptionsLCOW, int], bool]
    reads: tuple[str, ...] = ()
    between: tuple[int, int] | None = None


VERIFY: tuple[Rule, ...] = (
    Rule(
        "enable_deferred_commit",
        "EnableDeferredCommit is not supported on physically backed VMs",
        lambda options, _: options.enable_deferred_commit and not options.allow_overcommit,
        reads=("allow_overcommit",),
    ),
    Rule(
        "scsi_controller_count",
        "SCSI controller count must be 0 or 1",
        lambda options, _: options.scsi_controller_count > 1,
    ),
    Rule(
        "vpmem_device_count",
        "VPMem device count cannot be greater than 128",
        lambda options, _: options.vpmem_device_count > MAX_VPMEM_COUNT,
    ),
    Rule(
        "vpmem_size_bytes",
        "VPMemSizeBytes must be a multiple of 4096",
        lambda options, _: options.vpmem_device_count > 0 and options.vpmem_size_bytes % VPMEM_SIZE_UNIT != 0,
        reads=("vpmem_device_count",),
    ),
    Rule(
        "preferred_root_fs_type",
        "PreferredRootFSTypeVHD requires at least one VPMem device",
        lambda options, _: options.vpmem_device_count <= 0 and options.preferred_root_fs_type == RootFSType.VHD,
        reads=("vpmem_device_count",),
    ),
    Rule(
        "kernel_direct",
        "KernelDirectBoot is not supported on builds older than 18286",
        lambda options, build: options.kernel_direct and build < builds.KERNEL_DIRECT,
    ),
    Rule(
        "enable_cold_discard_hint",
        "EnableColdDiscardHint is not supported on builds older than 18967",
        lambda options, build: options.enable_cold_discard_hint and build < builds.COLD_DISCARD,
    ),
)


def _between(option: str, low: int, high: int) -> Rule:
    return Rule(
        option,
        f"{option} must be between {low} and {high}",
        lambda options, _: not low <= getattr(options, option) <= high,
        between=(low, high),
    )


BOUNDS: tuple[Rule, ...] = (
    _between("memory_size_in_mb", 1, UINT64_MAX - 1),  # the largest would wrap to 0 when made even
    _between("low_mmio_gap_in_mb", 0, UINT64_MAX),
    _between("high_mmio_base_in_mb", 0, UINT64_MAX),
    _between("high_mmio_gap_in_mb", 0, UINT64_MAX),
    _between("processor_count", 1, INT32_MAX),
    _between("processor_limit", 0, 100_000),
    _between("processor_weight", 0, 10_000),
    _between("storage_qos_iops_maximum", 0, INT32_MAX),
    _between("storage_qos_bandwidth_maximum", 0, INT32_MAX),
    _between("scsi_controller_count", 0, UINT32_MAX),
    _between("vpmem_device_count", 0, UINT32_MAX),
    _between("vpmem_size_bytes", 0, UINT64_MAX),
    Rule(
        "vpmem_size_bytes",
        "vpmem_size_bytes must not be 0 when there are VPMem devices",
        lambda options, _: options.vpmem_device_count > 0 and options.vpmem_size_bytes == 0,
        reads=("vpmem_device_count",),
    ),
    _between("preferred_root_fs_type", RootFSType.INITRD.value, RootFSType.VHD.value),
    Rule(
        "preferred_root_fs_type",
        "preferred_root_fs_type is initrd, but root_fs_file names a disk",
        lambda options, _: options.preferred_root_fs_type == RootFSType.INITRD and options.root_fs_file.lower().endswith((".vhd", ".vhdx")),
        reads=("root_fs_file",),
    ),
    Rule("kernel_file", "kernel_file must name a file", lambda options, _: not options.kernel_file),
    Rule("root_fs_file", "root_fs_file must name a file", lambda options, _: not options.root_fs_file),
    Rule(
        "disable_compartment_namespace",
        "disable_compartment_namespace is for Windows guests",
        lambda options, _: options.disable_compartment_namespace,
    ),
)

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType({rule.option: rule.between for rule in BOUNDS if rule.between})
"""The least and the most of each number."""

NOT_BUILT = ("fully_physically_backed", "network_config_proxy", "is_template", "is_clone", "template_config")
"""Options that planning takes and that have no place in a Linux guest's document."""


def problems(
    options: OptionsLCOW, build: int, rules: Sequence[Rule] = VERIFY, *, unknown: AbstractSet[str] = frozenset()
) -> tuple[Problem, ...]:
    """Return every rule that the options break on a host of this build, in the order of the rules.

    `unknown` are options whose value is no good: a rule that looks at one of them is not asked.
    """
    asked = [rule for rule in rules if unknown.isdisjoint({rule.option, *rule.reads})]
    return tuple(Problem(f"$.{rule.option}", rule.option, rule.text) for rule in asked if rule.broken(options, build))


def verify(options: OptionsLCOW, build: int) -> None:
    """Hold the options to the original's rules.

    Raises:
        InvalidOptions: ``UVM options incorrect: `` and the first rule that is broken; `problems` has all of them.
    """
    _refuse(problems(options, build))


def verify_bounds(options: OptionsLCOW) -> None:
    """Hold the options to the rules that the original lacks, and each to its type; for creation and the doors, before planning.

    Raises:
        InvalidOptions: as `verify`.
    """
    good, wrong = taken(msgspec.structs.asdict(options), OptionsLCOW, "$")
    told = [Problem(problem.path, problem.rule, f"{problem.path}: {problem.message}") for problem in wrong]
    unknown = {name for name in OptionsLCOW.__struct_fields__ if name not in good}
    _refuse((*told, *problems(options, builds.EVERYTHING, BOUNDS, unknown=unknown)))


def refuse_not_built(options: OptionsLCOW) -> None:
    """Refuse by name the options that nothing carries out yet; for creation, so that none is ignored.

    Raises:
        Unsupported: one of `NOT_BUILT` is set.
    """
    wanted = [name for name in NOT_BUILT if getattr(options, name)]
    if wanted:
        raise Unsupported(f"{', '.join(wanted)}: this version cannot do that for a Linux guest")


def _refuse(broken: tuple[Problem, ...]) -> None:
    if broken:
        raise InvalidOptions(f"UVM options incorrect: {broken[0].message}", problems=broken)
