"""Which options contradict each other, their host or good sense: every rule once, in order, with its text.

`VERIFY` are the original's rules; planning applies them, and their texts are part of the contract. `BOUNDS` are ours and apply
where options come in: on creation and at the doors, not in planning, which takes whatever the original takes.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final

import msgspec

from utilityvm.kit.errors import Problem, Unsupported
from utilityvm.options import builds
from utilityvm.options.lcow import MAX_VPMEM_COUNT, OptionsLCOW, RootFSType
from utilityvm.options.rule import DEFERRED_COMMIT, SHARED_BOUNDS, UINT32_MAX, UINT64_MAX, OptionsT, Rule, between, broken_rules, refuse
from utilityvm.options.rules_clone import CLONE, IDLE_TEMPLATE, NEEDS_TEMPLATE, TEMPLATE_LCOW, same_as_template
from utilityvm.options.rules_wcow import BOUNDS_WCOW, VERIFY_WCOW
from utilityvm.options.shared import Options
from utilityvm.options.values import taken
from utilityvm.options.wcow import OptionsWCOW

VPMEM_SIZE_UNIT = 4096

VERIFY: tuple[Rule[OptionsLCOW], ...] = (
    DEFERRED_COMMIT,
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
    # The original has these for Windows guests only, which alone can be cloned there.
    NEEDS_TEMPLATE,
    same_as_template(OptionsLCOW),
    *CLONE,
)


BOUNDS: tuple[Rule[OptionsLCOW], ...] = (
    *SHARED_BOUNDS,
    between("scsi_controller_count", 0, UINT32_MAX),
    between("vpmem_device_count", 0, UINT32_MAX),
    between("vpmem_size_bytes", 0, UINT64_MAX),
    Rule(
        "vpmem_size_bytes",
        "vpmem_size_bytes must not be 0 when there are VPMem devices",
        lambda options, _: options.vpmem_device_count > 0 and options.vpmem_size_bytes == 0,
        reads=("vpmem_device_count",),
    ),
    between("preferred_root_fs_type", RootFSType.INITRD.value, RootFSType.VHD.value),
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
    Rule(
        "graphics_pipe",
        "graphics_pipe offers a screen, which needs enable_graphics_console",
        lambda options, _: bool(options.graphics_pipe) and not options.enable_graphics_console,
        reads=("enable_graphics_console",),
    ),
    Rule(
        "assigned_devices",
        "assigned_devices needs allow_overcommit false: a device writes into the guest's memory, all of which must be there",
        lambda options, _: bool(options.assigned_devices) and options.allow_overcommit,
        reads=("allow_overcommit",),
    ),
    Rule(
        "assigned_devices",
        "assigned_devices names a device twice",
        lambda options, _: len(set(options.assigned_devices)) < len(options.assigned_devices),
    ),
    Rule(
        "network_config_proxy",
        "network_config_proxy needs use_guest_connection: the guest is told of its adapters over it",
        lambda options, _: bool(options.network_config_proxy) and not options.use_guest_connection,
        reads=("use_guest_connection",),
    ),
    IDLE_TEMPLATE,
    *TEMPLATE_LCOW,
)

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType({rule.option: rule.between for rule in BOUNDS if rule.between})
"""The least and the most of each number."""

NOT_BUILT = ("fully_physically_backed",)
"""Options that planning takes and that have no place in a Linux guest's document."""


class _Book(msgspec.Struct, frozen=True):
    """The rules for one sort of guest, and what is not built for it."""

    guest: str
    verify: tuple[Rule[Any], ...]
    bounds: tuple[Rule[Any], ...]
    not_built: tuple[str, ...]


_BOOKS: Final[Mapping[type[Options], _Book]] = MappingProxyType(
    {
        OptionsLCOW: _Book("a Linux guest", VERIFY, BOUNDS, NOT_BUILT),
        OptionsWCOW: _Book("a Windows guest", VERIFY_WCOW, BOUNDS_WCOW, ()),
    }
)


def problems(
    options: OptionsT, build: int, rules: Sequence[Rule[OptionsT]] | None = None, *, unknown: AbstractSet[str] = frozenset()
) -> tuple[Problem, ...]:
    """Return every rule that the options break on a host of this build, in the order of the rules, each with its details.

    `rules` None are the original's for this sort of guest. `unknown` are options whose value is no good: a rule that looks at one of
    them is not asked.
    """
    return broken_rules(options, build, _BOOKS[type(options)].verify if rules is None else rules, unknown=unknown)


def all_rules(kind: type[Options]) -> tuple[Rule[Any], ...]:
    """Return the rules for one sort of guest, ours and then the original's."""
    return (*_BOOKS[kind].bounds, *_BOOKS[kind].verify)


def verify(options: Options, build: int) -> None:
    """Hold the options to the original's rules.

    Raises:
        InvalidOptions: ``UVM options incorrect: `` and the first rule that is broken; `problems` has all of them.
    """
    refuse(problems(options, build))


def verify_bounds(options: Options) -> None:
    """Hold the options to the rules that the original lacks, and each to its type; for creation and the doors, before planning.

    Raises:
        InvalidOptions: as `verify`.
    """
    kind = type(options)
    good, wrong = taken(msgspec.structs.asdict(options), kind, "$")
    told = [Problem(problem.path, problem.rule, f"{problem.path}: {problem.message}") for problem in wrong]
    unknown = {name for name in kind.__struct_fields__ if name not in good}
    refuse((*told, *problems(options, builds.EVERYTHING, _BOOKS[kind].bounds, unknown=unknown)))


def refuse_not_built(options: Options) -> None:
    """Refuse by name the options that nothing carries out yet; for creation, so that none is ignored.

    Raises:
        Unsupported: one of those that are not built for this sort of guest is set.
    """
    book = _BOOKS[type(options)]
    wanted = [name for name in book.not_built if getattr(options, name)]
    if wanted:
        raise Unsupported(f"{', '.join(wanted)}: this version cannot do that for {book.guest}")
