"""Files of a sandbox: read, written, listed, removed, and copied from and to this host as tar streams.

All is done by processes in the container, so that a path means what it means there: with its mounts, its links, its users.
"""

import asyncio
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from os import PathLike, fsencode
from pathlib import Path
from typing import Final, Protocol, TypeVar, final

import msgspec

from utilityvm.guest.collect import KILL_TIMEOUT, OUTPUT_LIMIT, Completed
from utilityvm.guest.process import Process
from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import GuestError, InvalidOptions, NotFound, OutputLimitExceeded, ProtocolError, UtilityVMError
from utilityvm.sandbox.helper import script
from utilityvm.sandbox.pack import pack
from utilityvm.sandbox.unpack import COPY_LIMIT, Copied, unpack

T = TypeVar("T")

LISTING_LIMIT: Final = 64 << 20
"""Bytes of a folder's listing."""

_FULL: Final = (
    "the disk of the sandbox is full, or the volume or tmpfs that this is on: scratch_size=, size= of the volume or tmpfs make more"
)
_PIECE: Final = 256 * 1024
_KEPT: Final = 4096  # bytes of a program's complaint
_ABSENT, _FOLDER, _OTHER = 44, 45, 46  # exit codes of our scripts
_COPIES: Final = ThreadPoolExecutor(4, "utilityvm.copy")

_EXISTS: Final = '[ -e "$1" ] || [ -L "$1" ]'
_THERE: Final = f"{_EXISTS} || exit {_ABSENT}"
_FILE: Final = f'[ -d "$1" ] && exit {_FOLDER}; [ -f "$1" ] || exit {_OTHER}'  # a pipe may never end, nor begin
_READ: Final = f'{_THERE}; {_FILE}; exec $b cat -- "$1"'
_WRITE: Final = f'if [ -e "$1" ]; then {_FILE}; fi; $b mkdir -p -- "$2" && $b cat > "$1" && {{ [ -z "$3" ] || $b chmod "$3" -- "$1"; }}'
_REMOVE: Final = f'{_THERE}; exec $b rm -rf -- "$1"'
_LIST: Final = (
    f'{_THERE}; [ -d "$1" ] || exit {_FOLDER}; '
    'exec $b find "$1/." -mindepth 1 -maxdepth 1 -exec $b sh -c \''
    'b=$0; for f; do printf "%s\\0" "${f##*/}"; done; printf "\\0"; $b stat -c "%f %s %u %g %Y" -- "$@"; printf "\\0"\' $b {} +'
)
_OUT: Final = f'{_THERE}; cd -- "$2" && exec $b tar -c -f - "./$3"'
_IN: Final = '$b mkdir -p -- "$1" && cd -- "$1" && exec $b tar -x -o -p -f -'


class FileKind(StrEnum):
    """What a name in a folder stands for."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


class FileEntry(msgspec.Struct, frozen=True):
    """A name in a folder. `size` is in bytes, `mode` the rights, `mtime` in seconds since 1970."""

    name: str
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int


class Programs(Protocol):
    """Runs programs in a container."""

    async def run(self, words: Sequence[str], *, data: bytes | None, user: str | None, limit: int) -> Completed:
        """Run one to its end and return what it said."""
        ...

    async def exec(self, words: Sequence[str], *, stdin: bool, user: str | None) -> Process:
        """Start one."""
        ...


@final
class Files:
    """The files of a sandbox. Paths are absolute, and the container's.

    Each call acts as the sandbox's user unless `user` says another, as ``name``, ``uid``, or either with ``:group``.
    """

    def __init__(self, programs: Programs, name: str) -> None:
        self._programs, self._name = programs, name

    async def read(self, path: str, *, user: str | None = None, limit: int = OUTPUT_LIMIT) -> bytes:
        """Return the content of a file, of at most `limit` bytes.

        Raises:
            NotFound: there is none.
            InvalidOptions: it is a folder, a pipe, a socket or a device.
            OutputLimitExceeded: it has more than `limit` bytes.
            GuestError: it cannot be read, e.g. by this user.
        """
        place = _checked(path)
        try:
            return (await self._do(_READ, place, user=user, limit=limit, not_this="is a folder")).stdout
        except OutputLimitExceeded as error:
            said = f"{self._name}: {place}: it has more than {limit} bytes"
            raise OutputLimitExceeded(said, stdout=error.stdout, stderr=error.stderr, hint="raise limit, or copy it out") from error

    async def write(self, path: str, data: bytes | str, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a file, anew or over the old one; folders on its way are made. `data` that are text are written as UTF-8.

        `mode` are its rights, e.g. ``0o755``; None leaves them to the sandbox.

        Raises:
            InvalidOptions: there is a folder, a pipe, a socket or a device; or `data` is text that is not UTF-8.
            GuestError: it cannot be written, e.g. by this user, or because the disk is full.
        """
        place = _checked(path)
        rights = "" if mode is None else f"{mode & 0o7777:o}"
        content = encoded(data, "data")
        await self._do(_WRITE, place, posixpath.dirname(place), rights, data=content, user=user, not_this="is a folder")

    async def exists(self, path: str, *, user: str | None = None) -> bool:
        """Say whether there is something: a file, a folder, or a link even if it leads nowhere."""
        return await self._holds(_EXISTS, _checked(path), user)

    async def remove(self, path: str, *, user: str | None = None) -> None:
        """Remove a file, a link, or a folder with all that is in it.

        Raises:
            NotFound: there is none.
            GuestError: it cannot be removed; some of it may be gone.
        """
        place = _checked(path)
        try:
            await self._do(_REMOVE, place, user=user)
        except OutputLimitExceeded as error:  # of complaints
            self._judge(1, error.stderr, place)

    async def list(self, path: str, *, user: str | None = None) -> tuple[FileEntry, ...]:
        """Return what is in a folder, by name.

        Raises:
            NotFound: there is none.
            InvalidOptions: it is no folder.
            GuestError: it cannot be read, or was changed meanwhile.
        """
        place = _checked(path)
        said = await self._do(_LIST, place, user=user, limit=LISTING_LIMIT, not_this="is no folder")
        return tuple(sorted(self._entries(said.stdout, place), key=lambda entry: entry.name))

    async def copy_in(self, source: str | PathLike[str], path: str, *, user: str | None = None) -> None:
        """Copy what is at `source` of this host, a file or a folder with all below it, to `path`, as `docker cp` does.

        If `path` is a folder that exists, or ends with a slash, it goes into it under its own name. Links stay links. All of it is the
        user's there.

        Raises:
            NotFound: nothing is at `source`.
            InvalidOptions: a socket, a pipe or a device is; or the path in the sandbox is not absolute, or ends with ``..``.
            HostError: something of it cannot be read.
            GuestError: something cannot be written.
        """
        origin, place = Path(source), _named(path)
        into = path.endswith("/") or await self._holds('[ -d "$1" ]', place, user)
        folder, name = (place, _own_name(origin)) if into else posixpath.split(place)
        await self._stream(
            script(_IN, folder), user, lambda there: pack(origin, name, there.write), f"copying {origin} to {place}", stdin=True
        )

    async def copy_out(self, path: str, target: str | PathLike[str], *, user: str | None = None, limit: int = COPY_LIMIT) -> Copied:
        """Copy what is at `path`, a file or a folder with all below it, to `target` of this host, as `docker cp` does.

        If `target` is a folder that exists, it goes into it under its own name; ``PATH/.`` stands for what is in a folder. Links stay
        links, and none is followed. Owners stay behind, and so do set-user bits, devices and pipes.

        Raises:
            NotFound: nothing is at `path`, or the folder of `target` is not there.
            InvalidOptions: `path` is not absolute, or ends with ``..``.
            OutputLimitExceeded: it has more than `limit` bytes; what was copied so far is there.
            BadArchive: the guest sends what it must not.
            HostError: something cannot be written.
            GuestError: something cannot be read.
        """
        place, goal = _named(path), Path(target)
        contents = _is_contents(path, place)
        folder, rename = _places(place, goal, contents=contents)
        parent, what = _parts(place, contents=contents)
        if not folder.is_dir():
            raise NotFound(f"{folder}: no such folder on this host")
        return await self._stream(
            script(_OUT, place, parent, what),
            user,
            lambda there: unpack(there.pieces(), folder, rename, limit),
            f"copying {place} to {goal}",
            stdin=False,
        )

    async def tar_out(self, path: str, *, user: str | None = None) -> Process:
        """Start a program whose `stdout` is a tar stream of what is at `path`: a file, or a folder with all below it.

        Names in it begin with that of `path`, or with ``.`` for what is in a folder, ``PATH/.``. Read it to its end, and `stderr`; then
        `wait` says 0 if all of it was sent.

        Raises:
            NotFound: nothing is at `path`.
            InvalidOptions: `path` is not absolute, or ends with ``..``.
        """
        place = _named(path)
        if not await self.exists(place, user=user):
            raise NotFound(f"{self._name}: {place}: no such file or folder")
        parent, what = _parts(place, contents=_is_contents(path, place))
        return await self._programs.exec(script(_OUT, place, parent, what), stdin=False, user=user)

    async def tar_in(self, path: str, *, user: str | None = None) -> Process:
        """Start a program that unpacks the tar stream which is written to its `stdin` into the folder `path`, made if it is not there.

        The guest alone reads it. Write it, and its end; read `stderr`; then `wait` says 0 if all of it was unpacked.

        Raises:
            InvalidOptions: `path` is not absolute, or ends with ``..``.
        """
        return await self._programs.exec(script(_IN, _named(path)), stdin=True, user=user)

    async def _holds(self, text: str, place: str, user: str | None) -> bool:
        said = await self._programs.run(script(text, place), data=None, user=user, limit=_KEPT)
        return said.exit_code == 0

    async def _do(
        self, text: str, place: str, *more: str, data: bytes | None = None, user: str | None, limit: int = _KEPT, not_this: str = ""
    ) -> Completed:
        said = await self._programs.run(script(text, place, *more), data=data, user=user, limit=limit)
        self._judge(said.exit_code, said.stderr, place, not_this)
        return said

    def _judge(self, code: int, complaint: bytes, what: str, not_this: str = "") -> None:
        if code == _ABSENT:
            raise NotFound(f"{self._name}: {what}: no such file or folder")
        if code == _FOLDER and not_this:
            raise InvalidOptions(f"{self._name}: {what} {not_this}")
        if code == _OTHER and not_this:
            raise InvalidOptions(f"{self._name}: {what} is a pipe, a socket or a device, and no file")
        if code:
            why = complaint.decode(errors="backslashreplace").strip() or f"exit code {code}"
            hint = _FULL if "No space left on device" in why else ""
            raise GuestError(f"{self._name}: {what}: {why}", call="ExecuteProcess", result=code, hint=hint)

    def _entries(self, listing: bytes, place: str) -> Iterator[FileEntry]:
        """Read what the listing says: of each batch the names, an empty one, then a line for each."""
        batches = iter(listing.split(b"\0")[:-1])
        for first in batches:
            names = [first, *iter(lambda: next(batches, b""), b"")]
            lines = next(batches, b"").splitlines()
            if len(lines) != len(names):
                raise GuestError(f"{self._name}: {place} was changed while it was read", call="ExecuteProcess", result=0)
            yield from map(self._entry, names, lines)

    def _entry(self, name: bytes, line: bytes) -> FileEntry:
        try:
            mode = int(line.split()[0], 16)
            size, uid, gid, mtime = map(int, line.split()[1:])
        except ValueError as error:
            raise ProtocolError(f"{self._name}: the guest's listing has the line {line!r:.100}") from error
        kind = _KINDS.get(stat.S_IFMT(mode), FileKind.OTHER)
        return FileEntry(name.decode(errors="surrogateescape"), kind, size, stat.S_IMODE(mode), uid, gid, mtime)

    async def _stream(self, words: Sequence[str], user: str | None, work: "Callable[[_Back], T]", doing: str, *, stdin: bool) -> T:
        """Run a program of which `work`, in a thread, writes the input or reads the output."""
        process = await self._programs.exec(words, stdin=stdin, user=user)
        complaint, scope, loop = bytearray(), Scope(doing), asyncio.get_running_loop()
        reading = scope.start("errors", _keep(process.stderr, complaint))
        there = _Back(process.stdin if stdin else process.stdout, loop)
        worker = loop.run_in_executor(_COPIES, work, there)
        try:
            await asyncio.wait([worker])
            failure = worker.exception()
            if failure is not None and not there.ended:  # it is not for what the program did
                raise failure
            if stdin and failure is None:
                await process.stdin.write_eof()
            code = await process.wait()
            await asyncio.wait([reading])
            self._judge(code, bytes(complaint), doing)
            return worker.result()
        finally:
            await finish(_put_away(process, worker), within=KILL_TIMEOUT + 1)
            await scope.aclose()


@final
class _Back:
    """A stream of a process for a thread: each call is carried out in the loop. `ended` says that the process's end of it was closed."""

    def __init__(self, stream: GuestStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop
        self.ended = False

    def write(self, data: bytes) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._stream.write(data), self._loop).result()
        except BrokenPipeError:
            self.ended = True
            raise

    def pieces(self) -> Iterator[bytes]:
        while data := asyncio.run_coroutine_threadsafe(self._stream.read(_PIECE), self._loop).result():
            yield data
        self.ended = True


async def _keep(stream: GuestStream, into: bytearray) -> None:
    """Read all that a program complains of; keep the beginning."""
    while data := await stream.read(_PIECE):
        into += data[: _KEPT - len(into)]


async def _put_away(process: Process, worker: "asyncio.Future[T]") -> None:
    with suppress(UtilityVMError):
        if not process.ended:
            await process.kill(group=True)
    await process.close()  # which ends what the thread waits for
    await asyncio.wait([worker])
    worker.exception()  # has been told, or is the caller's cancellation


def encoded(data: bytes | str, name: str) -> bytes:
    """Return bytes as they are and text as UTF-8; `name` is the parameter's.

    Raises:
        InvalidOptions: it is text that is not UTF-8: surrogates, which is how Python keeps bytes that are none.
    """
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise InvalidOptions(f"{name} is not UTF-8: {data[error.start : error.end][:100]!a}", hint="give bytes") from error


def _checked(path: str) -> str:
    """Return the path without what it can do without; a ``..`` stays, since before it may be a link, of which only the guest knows."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidOptions(f"{path!r:.200} is not an absolute path of the sandbox")
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def _named(path: str) -> str:
    place = _checked(path)
    if posixpath.basename(place) == "..":
        raise InvalidOptions(f"{path!r:.200} does not name what is copied: it ends with ..")
    return place


def _own_name(origin: Path) -> str:
    name = origin.name if origin.name not in {"", ".."} else origin.resolve().name
    if not name:
        raise InvalidOptions(f"{origin} has no name of its own", hint="name the path that it is to have in the sandbox")
    return name


def _is_contents(path: str, place: str) -> bool:
    """Whether a path stands for what is in a folder."""
    return path.endswith("/.") or place == "/"


def _parts(place: str, *, contents: bool) -> tuple[str, str]:
    """Return the folder in which the guest's tar works, and what is asked of it."""
    return (place, ".") if contents else posixpath.split(place)


def _places(place: str, goal: Path, *, contents: bool) -> tuple[Path, tuple[bytes, bytes] | None]:
    """Return the folder here that is written to, and what the first part of all paths becomes."""
    if contents:
        goal.mkdir(exist_ok=True)
        return goal, None
    name = fsencode(posixpath.basename(place))
    return (goal, (name, name)) if goal.is_dir() else (goal.parent, (name, fsencode(goal.name)))


_KINDS: Final = {stat.S_IFREG: FileKind.FILE, stat.S_IFDIR: FileKind.FOLDER, stat.S_IFLNK: FileKind.LINK}
