"""How an archive becomes an image of a store: its parts are checked against their digests and kept, and layers are made of them."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import msgspec

from utilityvm.images import archive, formats
from utilityvm.images.archive import Archive, FolderArchive, Kind
from utilityvm.images.blobs import CHUNK, Checked, digest_of
from utilityvm.images.catalog import Origin, Record
from utilityvm.images.compression import find_compression, unpacked
from utilityvm.images.depot import Depot, Progress, Tell
from utilityvm.images.formats import ConfigFile, Descriptor, Index, Manifest, Platform
from utilityvm.images.header import BLOCK
from utilityvm.images.image import Image
from utilityvm.images.limits import LIMITS
from utilityvm.images.names import Reference
from utilityvm.images.pack import pack
from utilityvm.kit.errors import BadArchive, Corrupt, InvalidOptions, Problem, Unsupported, UtilityVMError

_OCI_PACKED: Final = frozenset({"gzip", "zstd"})


class Job(msgspec.Struct, frozen=True):
    """One import: where to, in which folder to work, who hears of it, and for which platform."""

    depot: Depot
    work: Path
    tell: Tell
    platform: Platform
    name: Reference | None
    origin: Origin = "imported"


def import_image(job: Job, source: Path | IO[bytes], kind: Kind | None) -> Image:
    """Import what `source` has: a folder, or an archive in a file or a stream. Without `kind` it is found by looking.

    Raises:
        Corrupt: it cannot be read, or a part is not what its digest says.
        InvalidOptions: it has several images, or does not name the one that it has, and the job does not say which.
        NotFound: it has no image for the platform.
        Unsupported: it is of a kind, or packed in a way, that is not read here.
    """
    if isinstance(source, Path) and source.is_dir():
        folder = FolderArchive(source)
        found = kind or archive.kind_of(folder) or Kind.ROOTFS
        return _import_tree(job, source) if found is Kind.ROOTFS else _import_archive(job, folder, found)
    with ExitStack() as stack:
        file, what = _seekable(job, source, stack)
        packing = _packing(file)
        plain = _unpacked(job, file, what, stack) if packing else file
        if kind is not Kind.ROOTFS:
            looked, tar = archive.look(plain, what)
            found = kind or looked
            if found is not Kind.ROOTFS:
                return _import_archive(job, tar, found)
        # A packing that OCI has no name for is taken off.
        blob, packing = (file, packing) if packing in {"", *_OCI_PACKED} else (plain, "")
        return _import_rootfs(job, blob, packing, what)


def _seekable(job: Job, source: Path | IO[bytes], stack: ExitStack) -> tuple[IO[bytes], str]:
    if isinstance(source, Path):
        what = str(source)
        file: IO[bytes] = stack.enter_context(source.open("rb"))
    else:
        what, file = "the archive", source
    if file.seekable() and file.tell() == 0:
        return file, what
    return _spooled(job, iter(lambda: file.read(CHUNK), b""), "reading", stack), what


def _spooled(job: Job, blocks: Iterator[bytes], doing: str, stack: ExitStack) -> IO[bytes]:
    """Return a file of `blocks` that can seek."""
    copy = stack.enter_context(tempfile.TemporaryFile(dir=job.work))  # noqa: SIM115 (it is one)
    for block in blocks:
        copy.write(block)
        if copy.tell() > LIMITS.archive_bytes:
            raise BadArchive(f"the archive has more than {LIMITS.archive_bytes} bytes")
        job.tell(Progress(doing, copy.tell(), copy.tell()))
    copy.seek(0)
    return copy


def _packing(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(BLOCK)
    file.seek(0)
    return find_compression(head)


def _unpacked(job: Job, file: IO[bytes], what: str, stack: ExitStack) -> IO[bytes]:
    with closing(unpacked(cast("BinaryIO", file), LIMITS)) as blocks:
        try:
            return _spooled(job, blocks, "unpacking", stack)
        except UtilityVMError as error:
            error.during(what)
            raise
        finally:
            file.seek(0)


def _import_archive(job: Job, source: Archive, kind: Kind) -> Image:
    return (_import_oci if kind is Kind.OCI else _import_docker)(job, source)


def _import_oci(job: Job, source: Archive) -> Image:
    entries = archive.oci_images(source).manifests
    platforms = [entry for entry in entries if entry.platform]
    if len(platforms) == len(entries) > 1 and len({archive.names_of(entry) for entry in entries}) == 1:
        chosen = formats.choose(Index(schema_version=2, manifests=entries), job.platform, source.what)
    else:
        chosen = entries[archive.pick([archive.names_of(entry) for entry in entries], job.name, source.what)]
    name = job.name or archive.own_name(archive.names_of(chosen), source.what)
    data = _blob(source, chosen)
    document = formats.decode_manifest(data, f"{source.what}: {chosen.digest}")
    if isinstance(document, Index):
        chosen = formats.choose(document, job.platform, source.what)
        data = _blob(source, chosen)
        document = formats.decode_manifest(data, f"{source.what}: {chosen.digest}")
        if isinstance(document, Index):
            raise Corrupt(f"{source.what}: its indexes do not end")
    config = _blob(source, document.config)
    for number, layer in enumerate(document.layers, start=1):
        _keep(job, source, archive.blob_name(layer.digest), layer, f"layer {number}/{len(document.layers)}")
    return finish(job, name, data, config)


def _blob(source: Archive, wanted: Descriptor) -> bytes:
    data = archive.read(source, archive.blob_name(wanted.digest))
    if digest_of(data) != wanted.digest:
        raise Corrupt(f"{source.what}: {archive.blob_name(wanted.digest)} has the digest {digest_of(data)}")
    return data


def _keep(job: Job, source: Archive, entry: str, blob: Descriptor, what: str) -> None:
    if job.depot.blobs.has(blob.digest, blob.size):
        return
    file, size = source.open(entry)
    with file:
        if size != blob.size:
            raise Corrupt(f"{source.what}: {entry} has {size} bytes, the image says {blob.size}")
        job.depot.blobs.add_stream(_checked(job, file, f"{source.what}: {entry}", size, what), job.work, blob.digest)


def _checked(job: Job, file: IO[bytes], what: str, size: int, doing: str) -> Checked:
    def heed(done: int) -> None:
        job.tell(Progress(f"reading {doing}", done, size))

    return Checked(file, what, size=size, heed=heed)


def _import_docker(job: Job, source: Archive) -> Image:
    images = archive.docker_images(source)
    chosen = images[archive.pick([image.names for image in images], job.name, source.what)]
    name = job.name or archive.own_name(chosen.names, source.what)
    config = archive.read(source, chosen.config)
    described = formats.decode(config, ConfigFile, f"{source.what}: {chosen.config}")
    if len(described.rootfs.diff_ids) != len(chosen.layers):
        raise Corrupt(f"{source.what}: lists {len(chosen.layers)} layers, its configuration {len(described.rootfs.diff_ids)}")
    layers = [
        _docker_layer(job, source, entry, diff_id, f"layer {number}/{len(chosen.layers)}")
        for number, (entry, diff_id) in enumerate(zip(chosen.layers, described.rootfs.diff_ids, strict=True), start=1)
    ]
    return finish(job, name, _manifest(config, layers), config)


def _docker_layer(job: Job, source: Archive, entry: str, diff_id: str, what: str) -> Descriptor:
    file, size = source.open(entry)
    with file:
        packing = _packing(file)
        if packing not in {"", *_OCI_PACKED}:
            raise Unsupported(f"{source.what}: the layer {entry} is packed by {packing}")
        digest = diff_id
        if packing or not job.depot.blobs.has(diff_id, size):
            checked = _checked(job, file, f"{source.what}: {entry}", size, what)
            digest, _ = job.depot.blobs.add_stream(checked, job.work, None if packing else diff_id)
    return Descriptor(media_type=_layer_type(packing), digest=digest, size=size)


def _layer_type(packing: str) -> str:
    return f"{formats.OCI_LAYER}+{packing}" if packing else formats.OCI_LAYER


def _manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    return formats.manifest_for(Descriptor(media_type=formats.OCI_CONFIG, digest=digest_of(config), size=len(config)), layers)


def _import_tree(job: Job, folder: Path) -> Image:
    with tempfile.TemporaryFile(dir=job.work) as file:
        pack(folder, file, lambda done: job.tell(Progress("reading", done, done)))
        return _import_rootfs(job, file, "", str(folder))


def _import_rootfs(job: Job, file: IO[bytes], packing: str, what: str) -> Image:
    if job.name is None:
        message = f"{what}: is a root file system, which has no name"
        raise InvalidOptions(message, problems=[Problem("$.name", "name", message)], hint="give it a name: uvm import FILE NAME")
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest, size = job.depot.blobs.add_stream(_checked(job, file, what, total, "layer 1/1"), job.work)
    layer = Descriptor(media_type=_layer_type(packing), digest=digest, size=size)
    known = not packing and job.depot.layer(digest).exists()
    diff_id = digest if known else job.depot.make_layer(layer, job.work, "layer 1/1", job.tell)
    # No time is told: the same files give the same image.
    described = ConfigFile(
        architecture=job.platform.architecture, os=job.platform.os, rootfs=formats.RootFs(type="layers", diff_ids=(diff_id,))
    )
    config = msgspec.json.encode(described)
    return finish(job, job.name, _manifest(config, [layer]), config)


def finish(job: Job, name: Reference, manifest: bytes, config: bytes) -> Image:
    """Make an image of parts whose blobs are kept: what is missing of its layers, then its record.

    Raises:
        Corrupt: the parts do not fit each other, or a layer cannot be read.
    """
    depot = job.depot
    digest = digest_of(manifest)
    document = formats.decode_manifest(manifest, f"image {name.short}")
    assert isinstance(document, Manifest)  # noqa: S101  # the caller has chosen
    described = formats.decode_config(config, document, f"image {name.short}")
    depot.make_layers(document, described, job.work, job.tell)
    depot.blobs.add(config, job.work)
    depot.blobs.add(manifest, job.work)
    record = Record(name=str(name), manifest=digest, id=document.config.digest, origin=job.origin)
    depot.records.put(record)
    return depot.image(record)
