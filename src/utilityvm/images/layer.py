"""A layer's archive becomes a read-only image, in one pass: nothing is unpacked on the host.

No path of an archive touches the host's files, and owners, devices and attributes are bytes like others: neither root nor user
namespaces are needed. The same archive gives the same image, byte for byte.
"""

import hashlib
import stat
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

import msgspec

from utilityvm.images.blocks import Image, chunk_count
from utilityvm.images.compression import unpacked
from utilityvm.images.feed import Feed
from utilityvm.images.limits import LIMITS, Limits
from utilityvm.images.tar import Entry, TarReader
from utilityvm.images.tree import Chunked, Node, Plain, Tree


class Converted(msgspec.Struct, frozen=True):
    """A layer's image: `diff_id` of its archive, ``sha256:`` and the digest of its bytes when unpacked, `size` of the image in bytes.

    `entries` is the number of files in the image, its root included.
    """

    diff_id: str
    size: int
    entries: int


def convert(stream: BinaryIO, out: BinaryIO, limits: Limits = LIMITS) -> Converted:
    """Read a tar archive from `stream`, packed or not, and write its EROFS image to `out`, an empty file that can be sought in.

    The image is what overlayfs wants of a layer: whiteouts are devices 0:0, and opaque folders have the attribute
    ``trusted.overlay.opaque``. Its length is whole 2 MiB. It blocks while it reads; what it keeps in memory is within the limits. When
    it raises, `out` holds nothing of use.

    Raises:
        BadArchive: the archive is not in its form, has an entry that no layer may have, or costs more than is allowed.
        Unsupported: it was packed with something that this host does not unpack.
        Exhausted: the disk is full.
        HostError: `stream` cannot be read or `out` cannot be written.
    """
    digest = hashlib.sha256()

    def hashed(blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            digest.update(block)
            yield block

    image, tree = Image(out, limits.image_bytes), Tree(limits)
    with closing(unpacked(stream, limits)) as blocks:
        reader = TarReader(Feed(hashed(blocks)))
        for entry in reader:
            _place(entry, reader, image, tree)
    size, entries = image.finish(tree.root, digest.digest()[:16])
    return Converted(f"sha256:{digest.hexdigest()}", size, entries)


def _place(entry: Entry, reader: TarReader, image: Image, tree: Tree) -> None:
    spot = tree.find_spot(entry.name)
    form = stat.S_IFMT(entry.mode)
    if not form:
        tree.link(spot, entry.target, entry.name)
        return
    tree.spend(len(entry.target) + sum(len(name) + len(value) for name, value in entry.xattrs), entry.name)
    node = Node(
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        xattrs=entry.xattrs,
        size=entry.size,
        content=_stored(entry, reader, image, tree) if form == stat.S_IFREG else None,
        target=entry.target,
        device=entry.device,
    )
    tree.put(spot, node, entry.name)


def _stored(entry: Entry, reader: TarReader, image: Image, tree: Tree) -> Plain | Chunked:
    if entry.extents is None:
        return image.store(reader.data())
    tree.spend(4 * chunk_count(entry.size), entry.name)
    return image.store_sparse(entry.size, entry.extents, reader.data())
