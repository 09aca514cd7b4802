"""Which names the images of a store have: a file for each name, replaced as a whole. They are the truth; all else hangs on them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, final

import msgspec

from utilityvm.images.formats import Digest
from utilityvm.images.names import Reference, parse
from utilityvm.kit.errors import Corrupt, InvalidOptions, Unsupported
from utilityvm.kit.files import replace, sync_folder

_VERSION: Final = 1
_SUFFIX: Final = ".json"

Origin = Literal["pulled", "imported", "shipped"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name and the manifest that it means. `id` is the digest of the image's configuration."""

    version: int = _VERSION
    name: str
    manifest: Digest
    id: Digest
    origin: Origin

    @property
    def reference(self) -> Reference:
        """The name, read."""
        return parse(self.name)


class _Version(msgspec.Struct):
    version: int


@final
class Records:
    """The files in `folder`. A file's time of change is when its image was last used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, record: Record) -> None:
        """Let a name mean an image from now on, whatever it meant."""
        replace(self._path(record.name), msgspec.json.encode(record) + b"\n")

    def get(self, name: Reference) -> Record | None:
        """Return what a name means, None when it is not there.

        Raises:
            Corrupt, Unsupported: its file cannot be read.
        """
        return self._read(self._path(str(name)))

    def all(self) -> Iterator[Record]:
        """Yield every record, in no order.

        Raises:
            Corrupt, Unsupported: a file cannot be read.
        """
        try:
            entries = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return
        for path in entries:
            if path.suffix == _SUFFIX and (record := self._read(path)):
                yield record

    def used(self, record: Record) -> float:
        """Return when its image was last used, in seconds of the epoch; 0 when the name is gone."""
        try:
            return self._path(record.name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def touch(self, record: Record) -> None:
        """Note that its image is used now."""
        try:
            os.utime(self._path(record.name))
        except FileNotFoundError:
            return  # removed meanwhile: there is nothing to note

    def remove(self, name: str) -> None:
        """Let a name mean nothing any more. Nothing happens when it means nothing."""
        self._path(name).unlink(missing_ok=True)
        sync_folder(self._folder)

    def leftovers(self) -> list[Path]:
        """Return files that writers left which were killed; only when nobody writes are they nobody's."""
        return [path for path in self._folder.iterdir() if path.suffix != _SUFFIX]

    def _path(self, name: str) -> Path:
        # A name may be longer than the name of a file, and has slashes.
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()}{_SUFFIX}"

    @staticmethod
    def _read(path: Path) -> Record | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            version = msgspec.json.decode(data, type=_Version).version
            if version != _VERSION:
                raise Unsupported(f"{path}: has version {version} of the format, this program reads version {_VERSION}")
            record = msgspec.json.decode(data, type=Record)
            parse(record.name)
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidOptions) as error:
            raise Corrupt(
                f"{path}: is not the record of an image: {error}", hint="remove the file, and pull or import the image"
            ) from error
        return record
