"""What stands in an image for each file of a tree: its inode, and of folders and links what goes with it. Pure."""

import stat
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from struct import pack
from typing import Final, final

import msgspec

from utilityvm.images import erofs
from utilityvm.images.erofs import BLOCK, BLOCK_BITS, INODE, NOWHERE, SLOT
from utilityvm.images.tree import Chunked, Node, Plain, is_hidden

_OPAQUE: Final = (b"trusted.overlay.opaque", b"y")


@final
class Record(msgspec.Struct):
    """A file and what is written of it: blocks `outside` the metadata, from `start` on, and the rest at its number.

    `names` are a folder's, in their order; `parent` is the folder that it is in.
    """

    node: Node
    parent: Node
    attributes: bytes
    names: list[tuple[bytes, Node]] = msgspec.field(default_factory=list)
    blocks: list[tuple[int, int]] = msgspec.field(default_factory=list)
    start: int = NOWHERE

    @property
    def tail(self) -> int:
        """Bytes that would stand beside the inode: of a folder's last block, or of a link's target."""
        return self.blocks[-1][1] if self.blocks else len(self.node.target)

    @property
    def inline(self) -> bool:
        """Whether they do: with the inode they must fit into one block."""
        return 0 < self.tail <= BLOCK - INODE - len(self.attributes)

    @property
    def outside(self) -> int:
        """Blocks outside the metadata; a regular file's are there already."""
        return max(len(self.blocks), int(self.tail > 0)) - self.inline

    def room(self) -> tuple[int, int]:
        """Return the bytes in the metadata, and how many of them, from the first on, one block must have."""
        whole = INODE + len(self.attributes)
        if self.inline:
            return whole + self.tail, whole + self.tail
        content = self.node.content
        return whole + (4 * len(content.starts) if isinstance(content, Chunked) else 0), INODE

    def outer(self) -> Iterator[bytes]:
        """Yield the blocks that are outside the metadata; the last may be short."""
        yield from islice(self._blocks(), self.outside)

    def inner(self) -> bytes:
        """Return what stands in the metadata. All numbers must be known."""
        node, content = self.node, self.node.content
        size, layout, place, rest = node.size, erofs.PLAIN, self.start, b""
        if self.tail:
            size = sum(BLOCK for _ in self.blocks[1:]) + self.tail
        if self.inline:
            layout, rest = erofs.INLINE, deque(self._blocks(), maxlen=1)[0]
        elif isinstance(content, Plain) and size:
            place = content.start
        elif isinstance(content, Chunked):
            layout, place, rest = erofs.CHUNKED, content.bits - BLOCK_BITS, pack(f"<{len(content.starts)}I", *content.starts)
        elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            place = erofs.device(*node.device)
        head = erofs.inode(
            node.mode,
            layout,
            place,
            size=size,
            owner=(node.uid, node.gid),
            mtime=node.mtime,
            links=node.links,
            number=node.number,
            attributes=len(self.attributes),
        )
        return head + self.attributes + rest

    def _blocks(self) -> Iterator[bytes]:
        if not self.blocks:
            yield self.node.target
        entries = iter(self.names)
        for count, _ in self.blocks:
            yield erofs.folder_block([(name, child.number, child.mode) for name, child in islice(entries, count)])


def records(root: Node) -> list[Record]:
    """Return the records of all files that an image shows, numbered, the root first; what is in one folder stands together."""
    found = [_record(root, root)]
    root.links = 2
    folders = deque(found)
    while folders:
        parent = folders.popleft()
        parent.names = _names(parent)
        parent.blocks = erofs.cut_folder(name for name, _ in parent.names)
        for name, node in parent.names:
            if name in {b".", b".."}:
                continue
            if not node.is_folder:
                node.links += 1
                if node.links > 1:
                    continue
            else:
                node.links = 2
                parent.node.links += 1
            record = _record(node, parent.node)
            found.append(record)
            if node.is_folder:
                folders.append(record)
    _number(found)
    return found


def _record(node: Node, parent: Node) -> Record:
    return Record(node, parent, erofs.attributes((*node.xattrs, _OPAQUE) if node.opaque else node.xattrs))


def _names(record: Record) -> list[tuple[bytes, Node]]:
    shown = [item for item in record.node.children.items() if not is_hidden(item[0])]
    return sorted([(b".", record.node), (b"..", record.parent), *shown], key=itemgetter(0))


def _number(found: list[Record]) -> None:
    at = SLOT  # the first number is 1: C libraries take a file numbered 0 for one that was removed
    for record in found:
        size, together = record.room()
        if at % BLOCK + together > BLOCK:
            at += -at % BLOCK
        record.node.number = at // SLOT
        at += size + -size % SLOT
