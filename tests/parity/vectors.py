"""Vector files: lists of what the original was given and what it did, one JSON object a vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.parity.gcs import GcsVector
from tests.parity.operations import OperationsVector
from tests.parity.structs import StructVector


class UnusableFolderError(Exception):
    """The folder holds no vectors that can be read."""


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came out; `document` keeps the original's very bytes, none when there is no document."""

    document: msgspec.Raw = msgspec.Raw(b"")
    error: str | None = None
    panic: bool = False
    message: str = ""
    error_prefix: str | None = None
    options: dict[str, Any] | None = None
    has_output_handler: bool | None = None
    memory_mb: int | None = None
    processor_count: int | None = None


class Verified(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the original's check of the options said, without its prefix, or that it crashed."""

    error: str | None = None
    panic: bool = False


class Vector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vector of the families that are built."""

    name: str
    input: dict[str, Any]
    expect: Expect
    expect_verify: Verified | None = None
    expect_vm: dict[str, Any] | None = None
    expect_effects: list[dict[str, Any]] = []
    expect_warnings: list[dict[str, Any]] = []

    @property
    def kind(self) -> str:
        """What was called."""
        return str(self.input["kind"])


@dataclass(frozen=True)
class Malformed:
    """A vector that we cannot read, which is a failure."""

    name: str
    reason: str


BUILT = frozenset({"lcow", "wcow", "lcow_defaults", "wcow_defaults", "normalize_memory", "normalize_processors", "default_processors"})
POSIX_SPELLING = ((rb"UtilityVM\\Files", b"UtilityVM/Files"), (rb"UtilityVM\\SystemTemplate.vhdx", b"UtilityVM/SystemTemplate.vhdx"))
"""Two paths that the original joins by a backslash on every host; we join them as the host does."""

V = TypeVar("V", Vector, GcsVector, StructVector, OperationsVector)
Item = Vector | GcsVector | StructVector | OperationsVector | Malformed


def read_folder(folder: Path) -> dict[str, list[Item]]:
    """Read every file of a folder of vectors, by the file's name without its suffix."""
    if not folder.is_dir():
        raise UnusableFolderError(f"{folder} is not a folder")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UnusableFolderError(f"{folder} has no *.json file")
    return {file.stem: _read(file) for file in files}


def _read(file: Path) -> list[Item]:
    try:
        raw = msgspec.json.decode(file.read_bytes(), type=list[msgspec.Raw])
    except (OSError, UnicodeError, msgspec.DecodeError) as error:
        raise UnusableFolderError(f"{file} cannot be read as a list of vectors: {error}") from error
    if not raw:
        raise UnusableFolderError(f"{file} holds no vector")
    return [_vector(item, number) for number, item in enumerate(raw, 1)]


def _vector(raw: msgspec.Raw, number: int) -> Item:
    shape = msgspec.json.decode(raw)
    name = str(shape.get("name", f"number {number}")) if isinstance(shape, Mapping) else f"number {number}"
    if not isinstance(shape, Mapping):
        return Malformed(name, "not an object")
    if "guest" in shape:
        return _decoded(raw, name, GcsVector)
    if "go_literal_as_dict" in shape:
        return _decoded(raw, name, StructVector)
    if "steps" in shape:
        return _decoded(_posix(raw, shape["input"]), name, OperationsVector)
    return _called(raw, name, shape.get("input", {}))


def _posix(raw: msgspec.Raw, asked: Mapping[str, Any]) -> msgspec.Raw:
    if asked.get("kind") == "wcow" and asked["host"]["path_flavour"] == "posix":
        for theirs, ours in POSIX_SPELLING:
            raw = msgspec.Raw(bytes(raw).replace(theirs, ours))
    return raw


def _called(raw: msgspec.Raw, name: str, asked: Mapping[str, Any]) -> Item:
    kind = asked.get("kind")
    return _decoded(_posix(raw, asked), name, Vector) if kind in BUILT else Malformed(name, f"unknown kind {kind!r}")


def _decoded(raw: msgspec.Raw, name: str, kind: type[V]) -> V | Malformed:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        return Malformed(name, str(error))
