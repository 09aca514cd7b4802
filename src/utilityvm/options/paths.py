"""Paths of a host that may not be this one: join and take apart by the host's flavour, never touching a file system.

The rules are those of Go's `filepath`, because the paths end up in documents that are compared byte for byte:
joining cleans the result, and an empty element counts as absent.
"""

import re
from enum import StrEnum
from typing import Final

_VOLUME: Final = re.compile(r"[A-Za-z]:|\\\\(?:[.?]|[^\\.][^\\]*)\\[^\\.][^\\]*")

_UNTIDY: Final = re.compile(r"[\\/]{2}|(?:^(?:.:)?|[\\/])\.{1,2}(?:[\\/]|$)|[\\/]$|^(?:.:)?$", re.DOTALL)
"""Where a path may have something to clean; most have nothing."""


class PathFlavour(StrEnum):
    """How the host that runs the VM spells its paths."""

    WINDOWS = "windows"
    POSIX = "posix"


def join(flavour: PathFlavour, *elements: str) -> str:
    r"""Join the elements that are not empty and clean the result; ``""`` when all are empty.

    A rooted later element does not replace the earlier ones: ``join(POSIX, "/a", "/b")`` is ``/a/b``. After a drive without a
    root the path stays relative to that drive: ``join(WINDOWS, "C:", "a")`` is ``C:a``. Two roots do not make the path of a server.
    """
    present = [_slashed(flavour, element) for element in elements if element]
    if not present:
        return ""
    first, *later = present
    separator = _separator(flavour)
    of_drive = flavour is PathFlavour.WINDOWS and first[1:] == ":"
    root = first if of_drive or not later else first.rstrip(separator) + separator
    return _clean(flavour, root + separator.join(later).lstrip("" if of_drive else separator))


def base_name(flavour: PathFlavour, path: str) -> str:
    """Return the last element of a path, trailing separators ignored; ``"."`` for an empty path, a separator when there is none."""
    if not path:
        return "."
    separator = _separator(flavour)
    _, rest = _split(flavour, _slashed(flavour, path).rstrip(separator))
    return rest.rpartition(separator)[2] or separator


def directory(flavour: PathFlavour, path: str) -> str:
    """Return the cleaned path without its last element; ``"."`` when there is no other."""
    volume, rest = _split(flavour, _slashed(flavour, path))
    head, found, _ = rest.rpartition(_separator(flavour))
    return _clean(flavour, volume + head + found)


def split(flavour: PathFlavour, path: str) -> tuple[str, str]:
    """Return a path's part up to its last separator, that one included, and what follows."""
    head, found, tail = _slashed(flavour, path).rpartition(_separator(flavour))
    return head + found, tail


def extension(flavour: PathFlavour, path: str) -> str:
    """Return the last element's suffix from its last dot on, dot included; ``""`` without a dot."""
    _, dot, suffix = _slashed(flavour, path).rpartition(_separator(flavour))[2].rpartition(".")
    return dot + suffix if dot else ""


def _clean(flavour: PathFlavour, path: str) -> str:
    """Return the shortest path that means the same by its text alone; `path` has the flavour's separators only."""
    if not _UNTIDY.search(path):
        return path
    separator = _separator(flavour)
    volume, rest = _split(flavour, path)
    rooted, kept = rest.startswith(separator), list[str]()
    for place, element in enumerate(rest.split(separator)):
        if element == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(element)
        elif element not in {"", "."}:
            # What stands in front is gone: "a/../c:" must not become a drive.
            if flavour is PathFlavour.WINDOWS and place and not (kept or rooted or volume) and ":" in element:
                kept.append(".")
            kept.append(element)
    cleaned = (separator if rooted else "") + separator.join(kept)
    return volume + (cleaned or ("" if volume.startswith(separator) else "."))


def _split(flavour: PathFlavour, path: str) -> tuple[str, str]:
    r"""Return a path's drive or server and share (``C:``, ``\\server\share``; ``""``: none), and what follows."""
    found = _VOLUME.match(path) if flavour is PathFlavour.WINDOWS else None
    return (found[0], path[found.end() :]) if found else ("", path)


def _separator(flavour: PathFlavour) -> str:
    return "\\" if flavour is PathFlavour.WINDOWS else "/"


def _slashed(flavour: PathFlavour, path: str) -> str:
    return path.replace("/", "\\") if flavour is PathFlavour.WINDOWS else path
