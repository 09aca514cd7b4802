"""An image as an archive that others read: OCI's, and with docker's list of images in it also docker's."""

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Final

import msgspec

from utilityvm.images import formats
from utilityvm.images.archive import CONTAINERD_NAME, DOCKER_MANIFEST_FILE, OCI_INDEX_FILE, OCI_LAYOUT_FILE, REF_NAME, blob_name
from utilityvm.images.blobs import Checked
from utilityvm.images.catalog import Record
from utilityvm.images.depot import Depot
from utilityvm.images.formats import Descriptor, Index, Manifest

_LAYOUT: Final = b'{"imageLayoutVersion": "1.0.0"}'


def export_image(depot: Depot, record: Record, stream: IO[bytes]) -> None:
    """Write an image to `stream`; the same image gives the same bytes.

    Raises:
        Corrupt: a part of it is missing, or is not as it was written.
    """
    what = f"image {record.reference.short}"
    manifest, _ = depot.parts(record.manifest, what)
    data = depot.blobs.read(record.manifest, what)
    whole = Descriptor(media_type=manifest.media_type or formats.OCI_MANIFEST, digest=record.manifest, size=len(data))
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, content in _documents(record, whole, manifest):
            _add(archive, name, io.BytesIO(content), len(content))
        for blob in dict.fromkeys((whole, manifest.config, *manifest.layers)):
            with depot.blobs.path(blob.digest).open("rb") as file:
                checked = Checked(file, f"{what}, {blob.digest}", size=blob.size)
                try:
                    _add(archive, blob_name(blob.digest), io.BufferedReader(checked), blob.size)
                except OSError:
                    checked.finish(blob.digest)  # one that is too short is what tarfile stumbles over
                    raise
                checked.finish(blob.digest)


def _documents(record: Record, whole: Descriptor, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    name = record.reference
    said = {CONTAINERD_NAME: str(name), REF_NAME: name.tag} if name.tag else {CONTAINERD_NAME: str(name)}
    entry = msgspec.structs.replace(whole, annotations=said)
    yield OCI_INDEX_FILE, msgspec.json.encode(Index(schema_version=2, media_type=formats.OCI_INDEX, manifests=(entry,)))
    yield OCI_LAYOUT_FILE, _LAYOUT
    docker = {
        "Config": blob_name(manifest.config.digest),
        "RepoTags": [name.short] if name.tag else [],
        "Layers": [blob_name(layer.digest) for layer in manifest.layers],
    }
    yield DOCKER_MANIFEST_FILE, msgspec.json.encode([docker])


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, content)
