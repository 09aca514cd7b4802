"""The manifest of a folder of boot files: what is inside, from which packages, and the digests. One JSON file, `manifest.json`."""

from typing import Literal

import msgspec

from utilityvm.kit.errors import Corrupt, Unsupported

VERSION = 1
"""Raised when a reader of an older version would misread the folder."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class CompiledRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kernel of our own was compiled with; `key` is the digest of all that went into it, the source package too."""

    key: str
    config_sha256: str
    compiler: str
    linker: str


class KernelRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which kernel it is; `release` is what ``uname -r`` says in the guest. A kernel of kind `source` says how it was compiled."""

    kind: Literal["distribution", "source"] = "distribution"
    release: str
    compiled: CompiledRecord | msgspec.UnsetType = msgspec.UNSET


class PackageRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package that something was taken from, and the digest of its file."""

    name: str
    version: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a folder of boot files holds. `agent` is the program inside the initial RAM disk; `files` are those beside the manifest."""

    version: int = VERSION
    architecture: str
    kernel: KernelRecord
    agent: FileRecord
    files: dict[str, FileRecord]
    packages: tuple[PackageRecord, ...]


class _Version(msgspec.Struct):
    version: int


def encode(manifest: Manifest) -> bytes:
    """Return the content of the manifest's file; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(data: bytes, what: str) -> Manifest:
    """Read a manifest; `what` names it in errors.

    Raises:
        Unsupported: it was written by a newer version of ours.
        Corrupt: it is not a manifest.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise Unsupported(f"{what}: has version {version} of the format, this program reads version {VERSION}")
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{what}: is not a manifest of boot files: {error}") from error
