"""Paths of a host that may not be this one: join and take apart by the host's flavour, never touching a file system.

The rules are those of Go's `filepath`, because the paths end up in documents that are compared byte for byte:
joining cleans the result, and an empty element counts as absent.
"""

import ntpath
import posixpath
from enum import StrEnum


class PathFlavour(StrEnum):
    """How the host that runs the VM spells its paths."""

    WINDOWS = "windows"
    POSIX = "posix"


def join(flavour: PathFlavour, *elements: str) -> str:
    r"""Join the elements that are not empty and clean the result; ``""`` when all are empty.

    A rooted later element does not replace the earlier ones: ``join(POSIX, "/a", "/b")`` is ``/a/b``.
    """
    present = [element for element in elements if element]
    if not present:
        return ""
    if flavour is PathFlavour.WINDOWS:
        return ntpath.normpath("\\".join(present))
    # POSIX lets exactly two leading slashes stand for something of their own and Python keeps them; Go does not.
    return posixpath.normpath("/".join(present)).replace("//", "/")


def base_name(flavour: PathFlavour, path: str) -> str:
    """Return the last element of a path, trailing separators ignored; ``"."`` for an empty path."""
    if not path:
        return "."
    separator = _separator(flavour)
    return _slashed(flavour, path).rstrip(separator).rpartition(separator)[2] or separator


def directory(flavour: PathFlavour, path: str) -> str:
    """Return the cleaned path without its last element; ``"."`` when there is no other."""
    separator = _separator(flavour)
    head, found, _ = _slashed(flavour, path).rpartition(separator)
    return join(flavour, head + found) or "."


def extension(flavour: PathFlavour, path: str) -> str:
    """Return the last element's suffix from its last dot on, dot included; ``""`` without a dot."""
    _, dot, suffix = _slashed(flavour, path).rpartition(_separator(flavour))[2].rpartition(".")
    return dot + suffix if dot else ""


def _separator(flavour: PathFlavour) -> str:
    return "\\" if flavour is PathFlavour.WINDOWS else "/"


def _slashed(flavour: PathFlavour, path: str) -> str:
    return path.replace("/", "\\") if flavour is PathFlavour.WINDOWS else path
