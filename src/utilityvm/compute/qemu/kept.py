"""Answers worth keeping: in a cache file, under a key that names all that the answer depends on."""

from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from utilityvm.kit.files import make_folder, replace

_KEPT: Final = 16  # answers in a file

T = TypeVar("T")


class Kept(Generic[T]):
    """Answers by key in one file. A file that cannot be read or written only costs the time to ask again."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path, self._kind = path, kind

    def get(self, key: str) -> T | None:
        """Return the answer kept for `key`."""
        return self._load().get(key)

    def put(self, key: str, value: T) -> None:
        """Keep an answer; the oldest go."""
        newest = [*self._load().items(), (key, value)][-_KEPT:]
        with suppress(OSError):
            make_folder(self._path.parent)
            replace(self._path, msgspec.json.encode(dict(newest)))

    def _load(self) -> dict[str, T]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, self._kind])  # type: ignore[name-defined]
        except (OSError, msgspec.DecodeError):
            return {}


def boot_id() -> str:
    """Name this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
