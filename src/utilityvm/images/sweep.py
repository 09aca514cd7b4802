"""What goes from a store: names, the images used longest ago, and what hangs on no record."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from utilityvm.images.catalog import Record
from utilityvm.images.depot import Depot, mend
from utilityvm.images.names import Reference
from utilityvm.kit.errors import Corrupt, StateError


class Removed(msgspec.Struct, frozen=True):
    """What was removed: names of images, and how many bytes became free. `in_use` says that something stays, which somebody uses."""

    names: tuple[Reference, ...]
    freed: int
    in_use: bool


class Usage(msgspec.Struct, frozen=True):
    """What a store takes of the disk, in bytes: all, and of it what `prune` would free. `images` counts images, whatever their names."""

    images: int
    blobs: int
    layers: int
    leftovers: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.blobs + self.layers


def sweep(depot: Depot) -> tuple[int, bool]:
    """Remove what hangs on no record, and return the bytes that became free and whether something stays because it is used.

    The caller is alone.
    """
    freed, in_use = 0, False
    for path in _nobodys(depot):
        if path.parent == depot.layers:
            with depot.unused(path) as unused:
                if not unused:
                    in_use = True
                    continue
                freed += _remove(path)
        else:
            freed += _remove(path)
    return freed, in_use


def _nobodys(depot: Depot) -> Iterator[Path]:
    blobs, layers = _needed(depot, depot.records.all())
    yield from depot.work.iterdir()
    yield from depot.locks.iterdir()
    yield from depot.records.leftovers()
    yield from (path for path in depot.blobs.files() if path not in blobs)
    yield from (path for path in depot.layers.iterdir() if path not in layers)


def _needed(depot: Depot, records: Iterable[Record]) -> tuple[set[Path], set[Path]]:
    """Return the blobs and the layers that records hang on.

    Raises:
        Corrupt: of an image not even its parts can be told, so nothing can be said to be nobody's.
    """
    blobs: set[Path] = set()
    layers: set[Path] = set()
    for record in records:
        try:
            manifest, config = depot.parts(record.manifest, f"image {record.reference.short}")
        except Corrupt as error:
            error.hint = mend(record.reference)
            raise
        blobs |= {depot.blobs.path(digest) for digest in (record.manifest, *(part.digest for part in (manifest.config, *manifest.layers)))}
        layers |= set(map(depot.layer, config.rootfs.diff_ids))
    return blobs, layers


def _remove(path: Path) -> int:
    size = allocated(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return size


def allocated(path: Path) -> int:
    """Return how many bytes a file, or all in a folder, takes of the disk; 0 when it is not there."""
    try:
        own = path.lstat().st_blocks * 512
        return own + sum(map(allocated, path.iterdir())) if path.is_dir() and not path.is_symlink() else own
    except FileNotFoundError:
        return 0


def remove(depot: Depot, records: Sequence[Record], *, force: bool) -> Removed:
    """Remove names, and what then hangs on none.

    Raises:
        StateError: an image is in use, and `force` is not given; nothing was changed.
    """
    if not force:
        _refuse_used(depot, records)
    for record in records:
        depot.records.remove(record.name)
    names = tuple(record.reference for record in records)
    with depot.alone() as alone, suppress(Corrupt):  # of another image: the names have gone all the same
        if alone:
            return Removed(names, *sweep(depot))
    return Removed(names, 0, in_use=True)  # the next to remove, or `prune`, finds what stays


def _refuse_used(depot: Depot, records: Sequence[Record]) -> None:
    going = {record.name for record in records}
    kept: set[Path] = set()
    for record in depot.records.all():
        if record.name not in going:
            with suppress(Corrupt):  # or one that is broken could not be removed because of another
                kept |= _needed(depot, [record])[1]
    for record in records:
        try:
            layers = depot.image(record).layers
        except Corrupt:
            continue  # nobody runs it
        if any(used(depot, layer) for layer in set(layers) - kept):
            raise StateError(
                f"image {record.reference.short}",
                "a VM uses it",
                "be removed",
                hint="end the VM; or --force: its layers go when it has ended",
            )


def used(depot: Depot, layer: Path) -> bool:
    """Whether somebody uses a layer just now."""
    with depot.unused(layer) as unused:
        return not unused


def prune(depot: Depot, keep: int | None) -> Removed:
    """Remove what hangs on no record; with `keep` also the images used longest ago, until all takes no more bytes than that.

    Raises:
        StateError: somebody adds to the store.
    """
    with depot.alone() as alone:
        if not alone:
            raise StateError("the store of images", "another uvm adds to it", "be pruned", hint="try again when it has ended")
        freed, in_use = sweep(depot)
        if keep is None:
            return Removed((), freed, in_use)
        gone: list[Reference] = []
        taken = usage(depot).total
        for record in sorted(depot.records.all(), key=depot.records.used):
            if taken <= keep:
                break
            try:
                _refuse_used(depot, [record])
            except StateError:
                in_use = True
                continue
            depot.records.remove(record.name)
            gone.append(record.reference)
            more, _ = sweep(depot)
            taken, freed = taken - more, freed + more
        return Removed(tuple(gone), freed, in_use)


def usage(depot: Depot) -> Usage:
    """Return what the store takes of the disk."""
    records = list(depot.records.all())
    blobs, layers = _needed(depot, records)
    there = [*depot.blobs.files(), *_in(depot.layers)]
    others = [*_in(depot.work), *(path for path in there if path not in blobs and path not in layers)]
    return Usage(
        images=len({record.manifest for record in records}),
        blobs=allocated(depot.blobs.folder),
        layers=allocated(depot.layers),
        leftovers=sum(map(allocated, others)),
    )


def _in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
