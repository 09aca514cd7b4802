"""Of the templates on disk those of boots, which are made and removed by themselves."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from utilityvm.kit.errors import NotFound
from utilityvm.store import templates

BUDGET: Final = 1 << 30
"""Most bytes of the disk that all of them take; those that were used longest ago go."""

_NAME: Final = re.compile("boot-[0-9a-f]{32}")


def id_of(key: str) -> str:
    """Return the id of the template of a boot; `key`, 32 hexadecimal digits, names all that the boot depends on."""
    return f"boot-{key}"


def ids(folder: Path) -> tuple[str, ...]:
    """Return the ids of the templates of boots in `folder`, the one used longest ago first."""
    return tuple(sorted(filter(_NAME.fullmatch, templates.ids(folder)), key=lambda name: _used(folder / name)))


def use(folder: Path, template_id: str) -> None:
    """Say that a template is used now."""
    os.utime(folder / template_id)


def evict(folder: Path, budget: int = BUDGET) -> int:
    """Remove those used longest ago until all that are left take no more than `budget` bytes; return how many bytes became free.

    Raises:
        HostError: one cannot be removed.
    """
    sizes = {name: templates.size(folder / name) for name in ids(folder)}
    before = sum(sizes.values())
    for name in tuple(sizes):
        if sum(sizes.values()) <= budget:
            break
        with suppress(NotFound):  # somebody else has removed it
            templates.remove(folder, name)
        del sizes[name]
    return before - sum(sizes.values())


def _used(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
