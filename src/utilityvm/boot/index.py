"""The list of a suite's packages (`Packages`), and which of two versions is the newer. Pure.

Policy Manual, section 5.6.12: https://www.debian.org/doc/debian-policy/ch-controlfields.html#version
"""

import re
from collections.abc import Mapping
from typing import final

import msgspec

from utilityvm.boot.packages import Package
from utilityvm.kit.errors import Corrupt

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~:-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Offer(msgspec.Struct, frozen=True):
    """A package that a suite has: what it is, the address of its file, and what it depends on (of alternatives the first)."""

    package: Package
    url: str
    depends: tuple[str, ...]


@final
class Index:
    """The packages of one suite, whose files lie below the address `base`. Each is read when it is asked for."""

    def __init__(self, text: str, base: str) -> None:
        self._base = base
        self._stanzas: dict[str, list[str]] = {}
        for stanza in text.split("\n\n"):
            if stanza.startswith("Package: "):
                self._stanzas.setdefault(stanza[len("Package: ") :].split("\n", 1)[0], []).append(stanza)

    def offers(self, name: str) -> list[Offer]:
        """Return each version of the package `name` that the suite has.

        Raises:
            Corrupt: what the list says about it cannot be understood.
        """
        return [_offer(name, _fields(stanza), self._base) for stanza in self._stanzas.get(name, [])]


def _fields(stanza: str) -> dict[str, str]:
    rows = (line.partition(":") for line in stanza.split("\n") if not line.startswith((" ", "\t")))
    return {key: value.strip() for key, _, value in rows}


def _offer(name: str, fields: Mapping[str, str], base: str) -> Offer:
    try:
        version, architecture, size, digest = (fields[key] for key in ("Version", "Architecture", "Size", "SHA256"))
        path = fields["Filename"]
    except KeyError as error:
        raise Corrupt(f"package {name}: the mirror's list does not say its {error.args[0]}") from error
    forms = ((_NAME, name), (_VERSION, version), (_ARCHITECTURE, architecture), (_DIGEST, digest))
    if not all(form.fullmatch(value) for form, value in forms) or not size.isdecimal():
        raise Corrupt(f"package {name}: the mirror's list says something about it that cannot be understood")
    file_name = f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"  # as apt calls it, so that both share a cache
    depends = tuple(re.split(r"[ |(:]", entry.strip(), maxsplit=1)[0] for entry in fields.get("Depends", "").split(",") if entry.strip())
    return Offer(Package(name, version, file_name, int(size), digest), f"{base}/{path}", depends)


def version_key(version: str) -> tuple[object, ...]:
    """Return a key by which versions are ordered as Debian orders them."""
    epoch, colon, rest = version.partition(":")
    upstream, _, revision = (rest if colon else version).rpartition("-")
    return (int(epoch) if colon else 0, _part_key(upstream or revision), _part_key(revision if upstream else "0"))


def _part_key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    # Runs without digits are compared by character: ~ before the end, the end before letters, letters before all else.
    return tuple(((*map(_rank, text), 0), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", part))


def _rank(character: str) -> int:
    return -1 if character == "~" else ord(character) if character.isalpha() else ord(character) + 256
