"""A layer as a tree of files: where an archive's entries go, what they replace, and what they remove from the layers below. Pure.

Paths mean what containerd has them mean. They begin at the layer's root, whatever their first character. A symbolic link on the way is
followed, and never out of the root. Folders that the archive does not mention are made. A later entry replaces an earlier one, but for
a folder that meets a folder, which keeps what is in it.
"""

import stat
from typing import TYPE_CHECKING, Final, final

import msgspec

from utilityvm.images.limits import Limits
from utilityvm.kit.errors import BadArchive
from utilityvm.kit.text import printable

if TYPE_CHECKING:
    from array import array

LONGEST_NAME: Final = 255
"""Bytes of one name, as Linux has it."""

LONGEST_PATH: Final = 4095
"""Bytes of a path or of a symbolic link's target, as Linux has it."""

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."  # what aufs kept for itself; entries may be hard links to what is in there
_MOST_LINKS: Final = 40  # followed on one path, as Linux has it
_MOST_STEPS: Final = 4096  # on one path, those of links included
_SHOWN: Final = 200


class Plain(msgspec.Struct, frozen=True):
    """A file's bytes lie one after the other from block `start` on."""

    start: int


class Chunked(msgspec.Struct, frozen=True):
    """A file with holes: chunks of ``1 << bits`` bytes, of each of which `starts` has the first block, `erofs.NOWHERE` for a hole."""

    bits: int
    starts: "array[int]"


@final
class Node(msgspec.Struct, eq=False):
    """One file of a layer, whatever its names. `mode` has the type, `mtime` is in nanoseconds since 1970.

    `size` and `content` are a regular file's, `target` a symbolic link's, `device` (major, minor) a device's, and the rest a folder's:
    `children` by name, and whether it is `opaque`: nothing of the layers below shows in it. `links` and `number` are the image's.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    size: int = 0
    content: Plain | Chunked | None = None
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    children: dict[bytes, "Node"] = msgspec.field(default_factory=dict)
    opaque: bool = False
    links: int = 0
    number: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it may have children."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether it removes a name of the layers below: overlayfs has a character device 0:0 for that."""
        return stat.S_ISCHR(self.mode) and self.device == (0, 0)


class Spot(msgspec.Struct, frozen=True):
    """Where an entry goes: `name` in `folder`; the root itself has no name."""

    folder: Node
    name: bytes


def folder(mode: int = 0o755) -> Node:
    """Return an empty folder of root's."""
    return Node(stat.S_IFDIR | mode)


def refusal(name: bytes, why: str, *, hint: str = "") -> BadArchive:
    """Return the error that refuses an archive because of its entry `name`."""
    return BadArchive(f"entry {_shown(name)}: {why}", entry=name, hint=hint)


@final
class Tree:
    """The files of one layer, from its `root` on."""

    def __init__(self, limits: Limits) -> None:
        self.root = folder()
        self._limits = limits
        self._nodes = self._kept = 0
        self._last: tuple[tuple[bytes, ...], Node] | None = None

    def find_spot(self, path: bytes) -> Spot:
        """Return where an entry of this name goes; the folders on the way are made.

        Raises:
            BadArchive: the path leaves the layer, is no path of Linux, or leads through something that is no folder.
        """
        parts = _clean(path)
        if not parts:
            return Spot(self.root, b"")
        *way, name = parts
        self.spend(len(path), path)
        return Spot(self._folder(tuple(way), path), name)

    def put(self, spot: Spot, node: Node, path: bytes) -> None:
        """Let `node` be what is at `spot`: a file, or what its name says: a whiteout, or that its folder is opaque.

        Raises:
            BadArchive: there are too many, the root would be no folder, or it is a whiteout of nothing.
        """
        if spot.name == _OPAQUE:
            spot.folder.opaque = True
        elif spot.name.startswith(_WHITEOUT) and not spot.name.startswith(_AUFS):
            self._remove(spot.folder, spot.name.removeprefix(_WHITEOUT), path)
        elif not spot.name:
            self._become(self.root, node, path)
        else:
            self._replace(spot, node, path)

    def link(self, spot: Spot, target: bytes, path: bytes) -> None:
        """Give the file at `target` one more name, at `spot`.

        Raises:
            BadArchive: the target is a folder or is not in this layer; or as `put`.
        """
        parts = _clean(target, path)
        if not parts:
            raise refusal(path, "a hard link to the root")
        there = self._existing(parts, path)
        if there is None or there.is_whiteout:
            raise refusal(
                path,
                f"a hard link to {_shown(target)}, which is not in this layer",
                hint="a layer must have the file itself: build it with a tool that copies what it links to",
            )
        if there.is_folder:
            raise refusal(path, f"a hard link to {_shown(target)}, which is a folder")
        if not spot.name or spot.folder.children.get(spot.name) is not there:
            self.put(spot, there, path)

    def spend(self, amount: int, path: bytes) -> None:
        """Count `amount` bytes that are kept in memory for the entry `path`.

        Raises:
            BadArchive: it is more than is allowed.
        """
        self._kept += amount
        if self._kept > self._limits.kept_bytes:
            raise refusal(path, f"names, links, attributes and maps take more than {self._limits.kept_bytes} bytes")

    def _remove(self, parent: Node, name: bytes, path: bytes) -> None:
        if name in {b"", b".", b".."}:
            raise refusal(path, "a whiteout that names nothing")
        children = parent.children
        there = children.get(name)
        if there is None:
            self._count(path)
            children[name] = Node(stat.S_IFCHR)
        elif there.is_folder:
            there.opaque = True  # a whiteout hides the layers below, never what its own layer has

    def _replace(self, spot: Spot, node: Node, path: bytes) -> None:
        children = spot.folder.children
        there = children.get(spot.name)
        if there is None:
            self._count(path)
        elif node.is_folder and there.is_folder:
            self._become(there, node, path)
            return
        else:
            self._last = None
            if there.is_whiteout and node.is_folder:
                node.opaque = True
        children[spot.name] = node

    def _become(self, there: Node, node: Node, path: bytes) -> None:
        if not node.is_folder:
            raise refusal(path, "the layer's root is no folder")
        there.mode, there.uid, there.gid, there.mtime, there.xattrs = node.mode, node.uid, node.gid, node.mtime, node.xattrs

    def _count(self, path: bytes) -> None:
        self._nodes += 1
        if self._nodes > self._limits.entries:
            raise refusal(path, f"the layer has more than {self._limits.entries} files")

    def _folder(self, way: tuple[bytes, ...], path: bytes) -> Node:
        if self._last is None or self._last[0] != way:
            self._last = (way, self._walk(way, path, make=True)[-1])
        return self._last[1]

    def _existing(self, parts: list[bytes], path: bytes) -> Node | None:
        """Return what is at a path, whose last part is not followed when it is a symbolic link; None when there is nothing."""
        *way, name = parts
        walked = self._walk(tuple(way), path, make=False)
        return walked[-1].children.get(name) if walked else None

    def _walk(self, way: tuple[bytes, ...], path: bytes, *, make: bool) -> list[Node]:
        """Return the folders on a way, the root first; with `make` those that are missing are made, else nothing is returned."""
        walked, todo = [self.root], list(reversed(way))
        links = steps = 0
        while todo:
            part, steps = todo.pop(), steps + 1
            if steps > _MOST_STEPS or links > _MOST_LINKS:
                raise refusal(path, "too many symbolic links on its way")
            if part in {b"", b"."}:
                continue
            if part == b"..":
                del walked[max(1, len(walked) - 1) :]
                continue
            child = walked[-1].children.get(part)
            if child is None or child.is_whiteout:
                if not make:
                    return []
                child = self._imply(walked[-1], part, path)
            if child.is_folder:
                walked.append(child)
                if len(walked) > self._limits.depth:
                    raise refusal(path, f"more than {self._limits.depth} folders one below the other")
            elif stat.S_ISLNK(child.mode):
                links += 1
                if child.target.startswith(b"/"):
                    del walked[1:]
                todo += reversed(child.target.split(b"/"))
            elif make:
                raise refusal(path, f"it lies below {_shown(part)}, which is no folder")
            else:
                return []
        return walked

    def _imply(self, parent: Node, name: bytes, path: bytes) -> Node:
        if len(name) > LONGEST_NAME:
            raise refusal(path, f"a name of more than {LONGEST_NAME} bytes")
        if name.startswith(_WHITEOUT) and not name.startswith(_AUFS):
            raise refusal(path, "it lies below a whiteout")
        self.spend(len(name), path)
        made = folder()
        self._replace(Spot(parent, name), made, path)
        return made


def is_hidden(name: bytes) -> bool:
    """Tell whether a name is aufs's own, which no image shows."""
    return name.startswith(_AUFS)


def _clean(path: bytes, entry: bytes | None = None) -> list[bytes]:
    """Return the parts of a path from the layer's root on.

    Raises:
        BadArchive: it is empty, leaves the root, or is longer than Linux has it.
    """
    name = path if entry is None else entry
    if not path or b"\0" in path:
        raise refusal(name, "an empty path" if not path else "a path with a zero byte")
    if len(path) > LONGEST_PATH:
        raise refusal(name, f"a path of {len(path)} bytes, of which Linux has at most {LONGEST_PATH}")
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise refusal(name, f"{_shown(path)} leaves the layer's root")
            parts.pop()
        elif part not in {b"", b"."}:
            if len(part) > LONGEST_NAME:
                raise refusal(name, f"a name of {len(part)} bytes, of which Linux has at most {LONGEST_NAME}")
            parts.append(part)
    return parts


def _shown(name: bytes) -> str:
    return printable(name.decode(errors="backslashreplace"), _SHOWN)
