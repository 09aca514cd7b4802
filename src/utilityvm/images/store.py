"""The store of images of a host's user: what was pulled and imported, by name, ready for VMs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self, final

from utilityvm.images import sweep
from utilityvm.images.blobs import telling_what_is_wrong
from utilityvm.images.catalog import Origin, Record
from utilityvm.images.depot import Depot, Tell, tell_nobody
from utilityvm.images.formats import Index, Platform, decode
from utilityvm.images.image import Image
from utilityvm.images.names import Reference, candidates, parse
from utilityvm.images.skopeo import Access
from utilityvm.images.sweep import Removed, Usage
from utilityvm.kit.errors import InvalidOptions, NotFound, StateError
from utilityvm.store.layout import Layout

if TYPE_CHECKING:
    from utilityvm.images.archive import Kind

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_SHORTEST_ID: Final = 12


@final
class ImageStore:
    """Images in `folder`, which is made when something is added. `shipped` are archives by image name, imported when first asked for.

    Several processes may use one store at the same time.
    """

    def __init__(self, folder: Path, shipped: Mapping[str, Path] | None = None) -> None:
        self._depot = Depot(folder)
        self._shipped = {parse(name): path for name, path in (shipped or {}).items()}

    @classmethod
    def of_user(cls) -> Self:
        """Return the store of the user who runs this process, with the images that come with the boot files.

        Raises:
            HostError: the user has no home folder.
        """
        layout = Layout.of_user()
        return cls(layout.images, layout.shipped_images)

    def get(self, name: str) -> Image:
        """Return the image that is called `name`; its id, or 12 digits and more of it, will also do. It counts as used now.

        Raises:
            NotFound: there is none.
            InvalidOptions: `name` cannot name an image.
            Corrupt: a part of it is missing, or is not as it was written.
        """
        with telling_what_is_wrong(f"image {name}"):
            self._bring_shipped(name)
            with self._depot.reading():
                return self._used(name)

    @contextmanager
    def hold_too(self, image: Image) -> Iterator[None]:
        """Let the layers of an image that somebody holds stay as long as this lasts as well."""
        with ExitStack() as stack:
            with self._depot.reading():
                self._depot.lock_layers(image.layers, stack)
            yield

    @contextmanager
    def hold(self, name: str) -> Iterator[Image]:
        """Give an image whose layers stay as long as this lasts, whatever is removed meanwhile.

        Raises:
            NotFound, InvalidOptions, Corrupt: as `get`.
        """
        with ExitStack() as stack:
            with telling_what_is_wrong(f"image {name}"):
                self._bring_shipped(name)
                with self._depot.reading():
                    image = self._used(name)
                    self._depot.lock_layers(image.layers, stack)
            yield image

    def list(self) -> list[Image]:
        """Return all images, a name each, in the order of their names.

        Raises:
            Corrupt: a part of one is missing, or is not as it was written.
        """
        with telling_what_is_wrong("the store of images"), self._depot.reading():
            return sorted(map(self._depot.image, self._depot.records.all()), key=lambda image: str(image.name))

    def remove(self, name: str, *, force: bool = False) -> Removed:
        """Remove a name, and what hangs on no other; by an image's id all its names. What a VM uses stays until the VM has ended.

        Raises:
            NotFound: there is none.
            StateError: a VM uses it, or an id has several names, and `force` is not given; nothing was changed.
        """
        with telling_what_is_wrong(f"image {name}"):
            with self._depot.reading():
                records = self._meant(name)
            if len(records) > 1 and not force:
                names = ", ".join(record.reference.short for record in records)
                raise StateError(f"image {name}", f"it is called {names}", "be removed", hint="name one of them; or all: --force")
            return sweep.remove(self._depot, records, force=force)

    def import_(self, source: Path | BinaryIO, name: str | None = None, kind: "Kind | None" = None, *, tell: Tell = tell_nobody) -> Image:
        """Import an image from an archive, in a file or a stream, or from a folder; without `kind` what it is is found by looking.

        `name` is what it will be called, also when that name has another image; an image's archive may say so itself.

        Raises:
            Corrupt: it cannot be read, or a part is not what its digest says.
            InvalidOptions: the name is none; or the archive has several images, or does not name the one that it has.
            NotFound: there is no such file, or it has no image for this host's platform.
            Unsupported: it is of a kind, or packed in a way, that is not read here.
            Exhausted: the disk is full.
            HostError: it cannot be read, or the store cannot be written.
        """
        return self._import(source, parse(name) if name is not None else None, kind, tell, "imported")

    def export(self, name: str, stream: BinaryIO) -> None:
        """Write an image to `stream` as an OCI archive, to the byte as it came; ``docker load`` and ``podman load`` read it, too.

        Raises:
            NotFound: there is no such image.
            Corrupt: a part of it is missing, or is not as it was written.
            Exhausted: the disk is full.
        """
        from utilityvm.images.export import export_image  # noqa: PLC0415  (those who only look do without)

        with telling_what_is_wrong(f"export {name}"):
            self._bring_shipped(name)
            with self._depot.adding():  # nothing is removed meanwhile
                export_image(self._depot, self._meant(name)[0], stream)

    async def pull(
        self,
        name: str,
        *,
        access: Access | None = None,
        platform: Platform | None = None,
        tell: Tell = tell_nobody,
        terminal: int | None = None,
        timeout: float | None = None,
    ) -> Image:
        """Bring an image from a registry. What is here already is not fetched again; a pull that was interrupted goes on where it was.

        `platform` is by default this host's with Linux. `timeout` is in seconds. skopeo draws its progress on the descriptor `terminal`.

        Raises:
            InvalidOptions: `name` cannot name an image.
            NotFound: the registry has no such image, or none for the platform; or skopeo is not installed.
            Corrupt: what the registry gave is not what was promised.
            Unsupported: it is no image that can be run.
            Exhausted: the disk is full.
            DeadlineExceeded: it took longer than `timeout`.
            HostError: the registry cannot be reached, or does not let us in; a file cannot be written.
        """
        from utilityvm.images.pull import Pull, pull_image  # noqa: PLC0415  (asyncio is slow to load, and others do without)

        pull = Pull(self._depot, parse(name), access or Access(), platform or host_platform(), tell, terminal)
        with telling_what_is_wrong(f"pull {name}"):
            return await pull_image(pull, timeout)

    def prune(self, keep: int | None = None) -> Removed:
        """Remove what killed processes left; with `keep` also the images used longest ago, until all takes no more than so many bytes.

        Raises:
            StateError: somebody adds to the store.
            Corrupt: an image is broken, so that nothing can be said to be nobody's.
        """
        with telling_what_is_wrong("the store of images"):
            self._depot.make()
            return sweep.prune(self._depot, keep)

    def usage(self) -> Usage:
        """Return what the store takes of the disk.

        Raises:
            Corrupt: an image is broken.
        """
        with telling_what_is_wrong("the store of images"), self._depot.reading():
            return sweep.usage(self._depot)

    def _import(self, source: Path | BinaryIO, name: Reference | None, kind: "Kind | None", tell: Tell, origin: Origin) -> Image:
        from utilityvm.images.importing import Job, import_image  # noqa: PLC0415  (those who only look do without)

        what = str(source) if isinstance(source, Path) else "import"
        with telling_what_is_wrong(what), self._depot.adding() as work:
            return import_image(Job(self._depot, work, tell, host_platform(), name, origin), source, kind)

    def _used(self, name: str) -> Image:
        record = self._meant(name)[0]
        self._depot.records.touch(record)
        return self._depot.image(record)

    def _meant(self, name: str) -> Sequence[Record]:
        """Return the record of a name, or those of an id."""
        problem: InvalidOptions | None = None
        try:
            for reference in candidates(name):
                if record := self._named(reference):
                    return [record]
        except InvalidOptions as error:
            problem = error
        if records := [record for record in self._depot.records.all() if _is_id(name, record)]:
            if len({record.id for record in records}) > 1:
                raise InvalidOptions(f"{name}: several images have an id that begins so", hint="give more of its digits")
            return records
        if problem:
            raise problem
        if archive := self._shipped.get(parse(name)):
            hint = "build the boot files anew: uvm boot-files build"
            raise NotFound(f"image {name}: comes with the boot files, and those that are here have none: {archive}", hint=hint)
        raise NotFound(f"image {name}: is not here", hint=f"uvm pull {name}, or uvm import FILE {name}")

    def _named(self, name: Reference) -> Record | None:
        record = self._depot.records.get(name)
        if record is None and name.digest:
            same = (other for other in self._depot.records.all() if other.manifest == name.digest)
            record = next((other for other in same if other.reference.repository == name.repository), None)
        return record

    def _bring_shipped(self, name: str) -> None:
        """Import the image that is called `name` when it comes with the boot files, unless it is here as they have it."""
        try:
            reference = parse(name)
        except InvalidOptions:
            return  # it may be an id
        archive = self._shipped.get(reference)
        if archive is None or not archive.exists():
            return
        record = self._depot.records.get(reference)
        if record is None or (record.origin == "shipped" and record.manifest != _shipped_digest(archive)):
            self._import(archive, reference, None, tell_nobody, "shipped")


def _shipped_digest(archive: Path) -> str:
    """Return the digest of the image in an archive that ships; its index is the first entry, so little is read.

    Raises:
        Corrupt: it is not such an archive.
    """
    from utilityvm.images.outer import first  # noqa: PLC0415  (others do without)

    name, data = first(archive)
    return next((entry.digest for entry in decode(data, Index, f"{archive}: {name}").manifests), "")


def _is_id(text: str, record: Record) -> bool:
    digits = text.removeprefix("sha256:")
    if len(digits) < _SHORTEST_ID or digits.strip("0123456789abcdef"):
        return False
    return any(digest.removeprefix("sha256:").startswith(digits) for digest in (record.id, record.manifest))


def host_platform() -> Platform:
    """Return the platform of guests on this host."""
    machine = os.uname().machine
    return Platform(os="linux", architecture=_ARCHITECTURES.get(machine, machine))
