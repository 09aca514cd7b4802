"""Where in one guest its disks, devices and shares are mounted: a path has one of them, whichever table it is in."""

import ntpath
import posixpath
from collections.abc import Callable, Iterable
from typing import final

import msgspec

from utilityvm.devices.holdings import Held
from utilityvm.kit.errors import Exists


class Mount(msgspec.Struct, frozen=True):
    """What a table has at a path of the guest: `what` names it in errors; `state` is where it is on its way in or out."""

    guest_path: str
    what: str
    state: Held


@final
class Mounts:
    """The paths of one guest. Each table says by `watch` what it has."""

    def __init__(self) -> None:
        self._tables: list[Callable[[], Iterable[Mount]]] = []

    def watch(self, table: Callable[[], Iterable[Mount]]) -> None:
        """Look into a table too; it is asked for its mounts each time."""
        self._tables.append(table)

    def require_free(self, guest_path: str, what: str, *, windows: bool) -> None:
        """Refuse a path at which something is mounted, or is being mounted or unmounted; ``""`` is no path.

        Raises:
            Exists: there is something; the text names both.
        """
        if not guest_path:
            return
        wanted = _same(guest_path, windows=windows)
        for mount in (mount for table in self._tables for mount in table()):
            # Of what is half detached the guest has let go.
            if mount.guest_path and mount.state is not Held.HALF and _same(mount.guest_path, windows=windows) == wanted:
                hint = "one would hide the other: name another path, or remove the first"
                raise Exists(f"{what}: {guest_path}: {mount.what} is {mount.state} there", hint=hint)


def _same(path: str, *, windows: bool) -> str:
    """Return a path in the one spelling that its guest has for it."""
    return ntpath.normcase(ntpath.normpath(path)) if windows else "/" + posixpath.normpath(path).lstrip("/")
