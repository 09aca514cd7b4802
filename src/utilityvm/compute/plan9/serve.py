"""The server of one share, a program: ``python -I -m utilityvm.compute.plan9.serve CONTROL VM NAME FLAGS PATH [NAME...]``.

`CONTROL` is the number of a socket that keeps messages apart. On it we say that we are ready, or why not; then each message to us is
the limit of messages that a guest has agreed on, with the descriptor of its connection. We end when the socket's other end is gone.
"""

import os
import resource
import select
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, final

from utilityvm.compute.plan9.enclose import give_up_rights, make_root
from utilityvm.compute.plan9.flags import Flag
from utilityvm.compute.plan9.session import Session
from utilityvm.compute.plan9.tree import THEIRS, Identity, Tree
from utilityvm.kit.errors import ProtocolError, UtilityVMError
from utilityvm.kit.outgoing import send_waiting
from utilityvm.wire.ninep import MAX_MSIZE, MIN_MSIZE, MessageReader

READY: Final = b"ready"
MAX_CONNECTIONS: Final = 8
"""Connections to one share at a time; one more is closed."""

_FILES: Final = 65_536  # descriptors; what one guest reaches is bounded by `tree.MAX_NODES` and `session.MAX_FIDS`


@final
class Connection:
    """A guest's connection: reads no request before the answer to the one before is written."""

    def __init__(self, sock: socket.socket, tree: Tree, aname: bytes, msize: int) -> None:
        sock.setblocking(False)
        self._socket, self._session, self._reader = sock, Session(tree, aname, msize), MessageReader(msize)
        self._out: deque[memoryview] = deque()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """End it."""
        self._session.close()
        self._socket.close()

    def serve(self) -> int:
        """Do what can be done now, and return the events to wait for; 0 when the connection has ended."""
        try:
            while send_waiting(self._socket, self._out):
                while (message := self._reader.next()) is None:
                    if not (count := self._socket.recv_into(self._reader.space())):
                        return 0
                    self._reader.filled(count)
                self._out.extend(map(memoryview, self._session.handle(message)))
        except BlockingIOError:
            return select.POLLIN
        except OSError:  # the other end is gone
            return 0
        except ProtocolError as error:
            print(f"connection ended: {error}", file=sys.stderr)  # noqa: T201 (kept by whoever started us)
            return 0
        return select.POLLOUT


@final
class Server:
    """All connections to one share."""

    def __init__(self, control: socket.socket, tree: Tree, aname: bytes) -> None:
        self._control, self._tree, self._aname = control, tree, aname
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._connections: dict[int, Connection] = {}

    def run(self) -> None:
        """Serve until nobody wants us any more."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._serve(self._connections[fd])
                elif not self._accept():
                    return

    def _serve(self, connection: Connection) -> None:
        if events := connection.serve():
            self._poll.modify(connection, events)
        else:
            self._poll.unregister(connection)
            del self._connections[connection.fileno()]
            connection.close()

    def _accept(self) -> bool:
        said, fds, _, _ = socket.recv_fds(self._control, 16, 1)
        if not said:
            return False
        if not fds:  # we have no number left for it, and it is closed, which its other end hears
            return True
        sock = socket.socket(fileno=fds[0])
        msize = int.from_bytes(said, "little")
        if len(self._connections) >= MAX_CONNECTIONS or not MIN_MSIZE <= msize <= MAX_MSIZE:
            sock.close()
            return True
        connection = Connection(sock, self._tree, self._aname, msize)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)
        return True


def enclosed(flags: Flag, path: str, allowed: Sequence[str]) -> Tree:
    """Make the folder `path` this process's root, give up its rights, and return the share.

    Raises:
        UtilityVMError, OSError: it cannot be done.
    """
    root = make_root(path, read_only=Flag.READ_ONLY in flags)
    os.umask(0)  # modes are what the guest says
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _FILES)), hard))
    identity = THEIRS
    if Flag.SQUASH in flags and os.geteuid() == 0:
        told = os.fstat(root)
        give_up_rights(told.st_uid, told.st_gid)
        identity = Identity(own=True, uid=told.st_uid, gid=told.st_gid)
    else:
        give_up_rights()
        if Flag.ORDINARY in flags:
            identity = Identity(own=True)
    names = frozenset(map(os.fsencode, allowed)) if Flag.RESTRICT in flags else None
    return Tree(root, read_only=Flag.READ_ONLY in flags, allowed=names, identity=identity)


def main(argv: Sequence[str]) -> int:
    """Serve a share to the end."""
    control = socket.socket(fileno=int(argv[0]))
    _vm, name, flags, path, *allowed = argv[1:]
    try:
        tree = enclosed(Flag(int(flags)), path, allowed)
    except (UtilityVMError, OSError) as error:
        kind = error.kind.value if isinstance(error, UtilityVMError) else "host"
        control.send(f"{kind}\n{error}".encode(errors="replace"))
        return 1
    control.send(READY)
    Server(control, tree, os.fsencode(name)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
