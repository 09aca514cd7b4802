"""The configuration of a kernel of our own: what we ask for, and whether the kernel's own rules granted it. Pure.

The kernel's configuration program drops what another option excludes, or what a later kernel calls by another name, without a word.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

LATER: Final[Mapping[str, str | None]] = {
    "CONFIG_CPU_IBPB_ENTRY": "CONFIG_MITIGATION_IBPB_ENTRY",
    "CONFIG_CPU_IBRS_ENTRY": "CONFIG_MITIGATION_IBRS_ENTRY",
    "CONFIG_PAGE_TABLE_ISOLATION": "CONFIG_MITIGATION_PAGE_TABLE_ISOLATION",
    "CONFIG_RETPOLINE": "CONFIG_MITIGATION_RETPOLINE",
    "CONFIG_SLS": "CONFIG_MITIGATION_SLS",
    "CONFIG_BASE_FULL": None,
    "CONFIG_RANDOM_TRUST_BOOTLOADER": None,
    "CONFIG_RANDOM_TRUST_CPU": None,
}
"""What kernels after 6.1 call an option; None for one that they always have."""

_SET = re.compile(r"(CONFIG_\w+)=(.+)")
_UNSET = re.compile(r"# (CONFIG_\w+) is not set")
_NO = "n"


def options(text: str) -> dict[str, str]:
    """Read a configuration, or a part of one: the value of each option as it is written, ``n`` for one that is not set.

    Raises:
        ValueError: a line is neither an option, nor a comment, nor empty; or an option stands there twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SET.fullmatch(line):
            name, value = match.groups()
        elif match := _UNSET.fullmatch(line):
            name, value = match[1], _NO
        elif not line or line.startswith("#"):
            continue
        else:
            raise ValueError(f"line {number}: not an option: {line}")
        if name in found:
            raise ValueError(f"line {number}: {name} stands there twice")
        found[name] = value
    return found


def with_later_names(asked: str) -> str:
    """Return the configuration `asked` with its options by their later names too: a kernel passes over names that it does not know."""
    later = [f"{name}={value}" for old, value in options(asked).items() if (name := LATER.get(old))]
    return "\n".join([asked, *later, ""])


def value_of(name: str, granted: Mapping[str, str]) -> str:
    """Return the value that the configuration `granted` has for an option, by whichever name; ``n`` when it does not know the option."""
    later = LATER.get(name, name)
    return granted.get(name, "y" if later is None else granted.get(later, _NO))


def unmet(asked: str, granted: str) -> Iterator[str]:
    """Yield a sentence for each option of the configuration `asked` that the configuration `granted` does not have as asked."""
    have = options(granted)
    for name, value in options(asked).items():
        if (found := value_of(name, have)) != value:
            yield f"{name}: asked for {value}, is {found}"
