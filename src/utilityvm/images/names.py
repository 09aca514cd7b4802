"""Names of images as docker and podman read them: ``busybox`` is ``docker.io/library/busybox:latest``. Pure."""

import re
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.kit.errors import InvalidOptions, Problem

DEFAULT_DOMAIN: Final = "docker.io"
LOCAL_DOMAIN: Final = "localhost"
"""The domain that podman gives to what it has built."""

_OFFICIAL: Final = "library/"
_DEFAULT_TAG: Final = "latest"
_LONGEST: Final = 255  # characters of domain and path, as in the distribution specification

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """A whole name: a registry's `domain`, the repository's `path` there, and a `tag` or a `digest` of a manifest (the other is ``""``)."""

    domain: str
    path: str
    tag: str
    digest: str = ""

    @property
    def repository(self) -> str:
        """The name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def short(self) -> str:
        """The name as people write it: without what is filled in, but with the tag, e.g. ``busybox:latest``."""
        if self.domain != DEFAULT_DOMAIN:
            return str(self)
        official = self.path.removeprefix(_OFFICIAL)
        path = self.path if "/" in official else official
        first, slash, _ = path.partition("/")
        if slash and _is_domain(first):
            return str(self)
        return str(self).replace(self.repository, path, 1)

    def at(self, digest: str) -> "Reference":
        """Return the name of the manifest `digest` in the same repository."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse(text: str) -> Reference:
    """Read a name, and fill in what it leaves out. Of a name with tag and digest the digest counts, as with docker.

    Raises:
        InvalidOptions: it is not the name of an image; the message says what is wrong with it.
    """
    rest, at, digest = text.removeprefix("docker://").partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _wrong(text, f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits")
    first, slash, remainder = rest.partition("/")
    if slash and _is_domain(first):
        domain, rest = first, remainder
    else:
        domain = DEFAULT_DOMAIN
    path, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, f"{tag!r} is not a tag: at most 128 of A-Z a-z 0-9 _ . -, not beginning with . or -")
    if not _DOMAIN.fullmatch(domain):
        raise _wrong(text, f"{domain!r} is not the address of a registry")
    if domain in {DEFAULT_DOMAIN, "index.docker.io"}:
        domain = DEFAULT_DOMAIN
        path = path if "/" in path else _OFFICIAL + path
    if not _PATH.fullmatch(path):
        small = ", in small letters" if _PATH.fullmatch(path.lower()) else ""
        raise _wrong(
            text, f"{path.removeprefix(_OFFICIAL)!r} is not a repository: a-z 0-9, single marks . _ - between, / between parts{small}"
        )
    if len(domain) + 1 + len(path) > _LONGEST:
        raise _wrong(text, f"it has more than {_LONGEST} characters")
    return Reference(domain, path, "" if digest else tag or _DEFAULT_TAG, digest)


def candidates(text: str) -> tuple[Reference, ...]:
    """Return the names by which an image that is here may be meant, the likeliest first: podman calls what it has built ``localhost/…``.

    Raises:
        InvalidOptions: as `parse`.
    """
    whole = parse(text)
    if whole.domain == DEFAULT_DOMAIN and not text.removeprefix("docker://").startswith((f"{DEFAULT_DOMAIN}/", "index.")):
        local = whole.path.removeprefix(_OFFICIAL) if "/" not in text.partition("@")[0] else whole.path
        return whole, replace(whole, domain=LOCAL_DOMAIN, path=local)
    return (whole,)


def _is_domain(first: str) -> bool:
    """Whether what stands before the first slash is a registry: docker's rule."""
    return any(mark in first for mark in ".:") or first == LOCAL_DOMAIN or first != first.lower()


def _wrong(text: str, why: str) -> InvalidOptions:
    message = f"{text!r} cannot name an image: {why}"
    return InvalidOptions(message, problems=[Problem("$.image", "name", message)])
