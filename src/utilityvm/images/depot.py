"""A store's folders and the law of who may change what in them.

===================  ==============================================================================================
``blobs/sha256``     manifests, configurations and layers as they came, by digest
``layers``           EROFS images by the digest of the layer's archive (its diff id); made once, shared by all images
``names``            a record for each name, see `catalog`; what hangs on no record is nobody's
``work``             a folder for each piece of work that is going on
``locks``            a file for each manifest that is being pulled
``lock``             held shared by those who add or export, exclusively by those who remove what is nobody's; they try once
``reading``          held shared for the moment in which an image is looked up, exclusively by those who remove, who wait for it
===================  ==============================================================================================

All comes into being in ``work`` and gets its name when it is whole; the record comes last. So whoever is killed leaves nothing but what
hangs on no record. Whoever uses a layer holds a shared lock on its file, and nobody removes a file that he cannot lock.
"""

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol, cast, final

import msgspec

from utilityvm.images.blobs import CHUNK, FULL_HINT, Blobs, Checked
from utilityvm.images.catalog import Record, Records
from utilityvm.images.formats import ConfigFile, Descriptor, Index, Manifest, decode_config, decode_manifest
from utilityvm.images.image import Image
from utilityvm.images.names import Reference
from utilityvm.kit.errors import Corrupt, Exhausted, UtilityVMError
from utilityvm.kit.files import FileLock, make_folder, settle

_SUFFIX: Final = ".erofs"


class Progress(msgspec.Struct, frozen=True):
    """How far some work has come: what is done to what, e.g. ``layer 1/3``, and how many bytes of how many."""

    what: str
    done: int
    total: int


class Tell(Protocol):
    """Hears of progress, in the thread that makes it; what it raises ends the work."""

    def __call__(self, progress: Progress, /) -> None:
        """Hear of it."""


def tell_nobody(_progress: Progress) -> None:
    """Do nothing."""


@final
class Depot:
    """The folders below `folder`, and what is done in them piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs, self.records = Blobs(folder / "blobs"), Records(folder / "names")
        self.layers, self.work, self.locks = folder / "layers", folder / "work", folder / "locks"

    def make(self) -> None:
        """Make the folders. What is in images is their owner's business."""
        make_folder(self.folder, private=True)
        self.blobs.make()
        self.records.make()
        for folder in (self.layers, self.work, self.locks):
            folder.mkdir(exist_ok=True)

    def lock(self, *, shared: bool) -> FileLock:
        """Return the lock of the whole store, not held yet."""
        return FileLock(self.folder / "lock", shared=shared)

    @contextmanager
    def adding(self) -> Iterator[Path]:
        """Give a folder to work in, while nobody removes what is nobody's. Waits for those who do."""
        self.make()
        with self.lock(shared=True), self.work_folder() as work:
            yield work

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let nothing be removed while this lasts, which must be short; nothing may be added in it."""
        if not self.folder.exists():
            yield
            return
        with FileLock(self.folder / "reading", shared=True):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let nobody add or read, so that what is nobody's can be removed; False when somebody adds."""
        lock = self.lock(shared=False)
        if not lock.acquire(wait=False):
            yield False
            return
        with lock, FileLock(self.folder / "reading"):
            yield True

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Give a folder to work in; the lock is the caller's business."""
        work = Path(tempfile.mkdtemp(dir=self.work))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)  # what stays hangs on no record

    def layer(self, diff_id: str) -> Path:
        """Return where the image of a layer is, or would be."""
        return self.layers / f"{diff_id.removeprefix('sha256:')}{_SUFFIX}"

    def parts(self, digest: str, what: str) -> tuple[Manifest, ConfigFile]:
        """Return an image's manifest and configuration, their digests checked.

        Raises:
            Corrupt: one is missing, or is not what its name says.
        """
        manifest = decode_manifest(self.blobs.read(digest, what), what)
        if isinstance(manifest, Index):
            raise Corrupt(f"{what}: {digest} is not the manifest of one image")
        return manifest, decode_config(self.blobs.read(manifest.config.digest, what), manifest, what)

    def image(self, record: Record) -> Image:
        """Return the image of a record.

        Raises:
            Corrupt: a part of it is missing, or is not what its name says.
        """
        name = record.reference
        try:
            manifest, config = self.parts(record.manifest, f"image {name.short}")
            # A layer that an image has twice would be refused by overlayfs. The lower one adds nothing: the upper one has all of it.
            layers = tuple(dict.fromkeys(map(self.layer, reversed(config.rootfs.diff_ids))))
            size = sum(layer.stat().st_size for layer in layers)
        except FileNotFoundError as error:
            raise Corrupt(f"image {name.short}: the layer {error.filename} is missing", hint=mend(name)) from error
        except Corrupt as error:
            error.hint = mend(name)
            raise
        return Image(name, record.manifest, manifest.config.digest, config.image_config(), layers, size)

    def is_whole(self, digest: str) -> bool:
        """Whether an image's manifest, configuration, blobs and layers are all here. Contents of blobs are not read."""
        try:
            manifest, config = self.parts(digest, digest)
        except Corrupt:
            return False
        return all(self.blobs.has(layer.digest, layer.size) for layer in manifest.layers) and all(
            self.layer(diff_id).exists() for diff_id in config.rootfs.diff_ids
        )

    def make_layers(self, manifest: Manifest, config: ConfigFile, work: Path, tell: Tell) -> None:
        """Make the layers of an image that are not there yet, of its blobs, which are checked as they are read.

        Raises:
            Corrupt: a blob is not what was promised; it is removed. An archive cannot be read.
        """
        count = len(manifest.layers)
        for number, (blob, diff_id) in enumerate(zip(manifest.layers, config.rootfs.diff_ids, strict=True), start=1):
            if not self.layer(diff_id).exists():
                self.make_layer(blob, work, f"layer {number}/{count}", tell, diff_id)

    def make_layer(self, blob: Descriptor, work: Path, what: str, tell: Tell, diff_id: str | None = None) -> str:
        """Make the layer of a blob, and return its diff id; with `diff_id` that is what it must be.

        Raises:
            Corrupt: the blob is not what was promised; it is removed. The archive cannot be read.
        """

        def heed(done: int) -> None:
            tell(Progress(what, done, blob.size))

        path = self.blobs.path(blob.digest)
        with path.open("rb") as file, tempfile.NamedTemporaryFile(dir=work, delete=False) as image:
            checked = Checked(file, f"{what}, {blob.digest}", size=blob.size, heed=heed)
            try:
                made_id = _converted(checked, image.file, blob.digest, diff_id)
            except Corrupt:
                path.unlink(missing_ok=True)  # to be fetched anew
                raise
            settle(image.file, Path(image.name), self.layer(made_id))
        return made_id

    def lock_layers(self, layers: Iterable[Path], stack: ExitStack) -> None:
        """Hold shared locks on layers, until `stack` is closed; in `reading`, so that none is removed meanwhile."""
        for layer in layers:
            stack.enter_context(FileLock(layer, shared=True, make=False))  # waits for those who look for a moment whether it is used

    @contextmanager
    def unused(self, layer: Path) -> Iterator[bool]:
        """Say whether nobody uses a layer; nobody will while this lasts."""
        lock = FileLock(layer, make=False)
        try:
            free = lock.acquire(wait=False)
        except FileNotFoundError:
            free = True
        try:
            yield free
        finally:
            lock.release()


def _converted(checked: Checked, out: IO[bytes], digest: str, diff_id: str | None) -> str:
    """Write the image of a layer to `out`, and return its diff id."""
    from utilityvm.images.layer import convert  # noqa: PLC0415  (those who only look do without)

    try:
        made = convert(io.BufferedReader(checked, CHUNK), cast("BinaryIO", out)).diff_id
    except UtilityVMError as error:
        checked.finish(digest)  # what is not what was promised is to blame for all else
        error.during(checked.what)
        if isinstance(error, Exhausted):
            error.hint = FULL_HINT
        raise
    checked.finish(digest)
    if diff_id not in {None, made}:
        raise Corrupt(f"{checked.what}: unpacked it has the digest {made}, the image says {diff_id}")
    return made


def mend(name: Reference) -> str:
    """Return what to do about an image that is broken."""
    return f"remove it (uvm rmi {name.short}), and pull or import it again"
