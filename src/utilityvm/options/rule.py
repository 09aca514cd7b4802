"""What a rule about options is, how rules are asked, and those that hold for every VM whatever its guest."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.shared import Options

UINT64_MAX = 2**64 - 1
UINT32_MAX = 2**32 - 1
INT32_MAX = 2**31 - 1

OptionsT = TypeVar("OptionsT", bound=Options)
OptionsT_contra = TypeVar("OptionsT_contra", bound=Options, contravariant=True)


def _nothing(_: object) -> Iterable[Problem]:
    return ()


class Rule(msgspec.Struct, Generic[OptionsT_contra], frozen=True):
    """One rule: the option it speaks of, its text, and when it is broken (by these options on a host of this build).

    `reads` are other options that it looks at. `between` is the range of a rule that is nothing but one. `details` are what
    there is to say beyond its text when it is broken.
    """

    option: str
    text: str
    broken: Callable[[OptionsT_contra, int], bool]
    reads: tuple[str, ...] = ()
    between: tuple[int, int] | None = None
    details: Callable[[OptionsT_contra], Iterable[Problem]] = _nothing


def between(option: str, low: int, high: int) -> Rule[Options]:
    """Return the rule that an option is a number from `low` to `high`."""
    return Rule(
        option,
        f"{option} must be between {low} and {high}",
        lambda options, _: not low <= getattr(options, option) <= high,
        between=(low, high),
    )


DEFERRED_COMMIT: Rule[Options] = Rule(
    "enable_deferred_commit",
    "EnableDeferredCommit is not supported on physically backed VMs",
    lambda options, _: options.enable_deferred_commit and not options.allow_overcommit,
    reads=("allow_overcommit",),
)

SHARED_BOUNDS: tuple[Rule[Options], ...] = (
    between("memory_size_in_mb", 1, UINT64_MAX - 1),  # the largest would wrap to 0 when made even
    between("low_mmio_gap_in_mb", 0, UINT64_MAX),
    between("high_mmio_base_in_mb", 0, UINT64_MAX),
    between("high_mmio_gap_in_mb", 0, UINT64_MAX),
    between("processor_count", 1, INT32_MAX),
    between("processor_limit", 0, 100_000),
    between("processor_weight", 0, 10_000),
    between("storage_qos_iops_maximum", 0, INT32_MAX),
    between("storage_qos_bandwidth_maximum", 0, INT32_MAX),
)


def broken_rules(
    options: OptionsT, build: int, rules: Sequence[Rule[OptionsT]], *, unknown: AbstractSet[str] = frozenset()
) -> tuple[Problem, ...]:
    """Return every rule that the options break on a host of this build, in the order of the rules, each with its details.

    `unknown` are options whose value is no good: a rule that looks at one of them is not asked.
    """
    return tuple(_broken(options, build, [rule for rule in rules if unknown.isdisjoint({rule.option, *rule.reads})]))


def _broken(options: OptionsT, build: int, rules: Sequence[Rule[OptionsT]]) -> Iterator[Problem]:
    for rule in rules:
        if rule.broken(options, build):
            yield Problem(f"$.{rule.option}", rule.option, rule.text)
            yield from rule.details(options)


def refuse(broken: Sequence[Problem]) -> None:
    """Refuse options that break rules.

    Raises:
        InvalidOptions: ``UVM options incorrect: `` and the first rule that is broken; `problems` has all of them.
    """
    if broken:
        raise InvalidOptions(f"UVM options incorrect: {broken[0].message}", problems=broken)
