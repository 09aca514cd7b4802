"""The host's files without a host: what is asked is written down, and nothing happens."""

from collections.abc import Set as AbstractSet
from typing import final

from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import VmId


@final
class FakeHostFiles:
    """A `compute.ports.HostFiles`. `asked` is what it was asked, in order, also what failed; `present` are the files that can be copied.

    Access to the files of `forbidden` cannot be granted.
    """

    def __init__(self, present: AbstractSet[str] = frozenset(), *, forbidden: AbstractSet[str] = frozenset()) -> None:
        self.present, self.forbidden = set(present), frozenset(forbidden)
        self.asked: list[tuple[str, ...]] = []

    async def make_folder(self, path: str) -> None:
        """See `compute.ports.HostFiles.make_folder`."""
        self.asked.append(("make_folder", path))

    async def copy(self, source: str, target: str) -> None:
        """See `compute.ports.HostFiles.copy`; fails as Windows does when there is no such file."""
        self.asked.append(("copy", source, target))
        if source not in self.present:
            raise HostError(f"failed CopyFileW Win32 call from '{source}' to '{target}': The system cannot find the file specified.")
        self.present.add(target)

    async def grant_access(self, vm_id: VmId, path: str) -> None:
        """See `compute.ports.Grants.grant_access`."""
        self.asked.append(("grant_access", vm_id, path))
        if path in self.forbidden:
            raise HostError(f"access to {path} cannot be granted")

    async def grant_group_access(self, path: str) -> None:
        """See `compute.ports.Grants.grant_group_access`."""
        self.asked.append(("grant_group_access", path))
        if path in self.forbidden:
            raise HostError(f"access to {path} cannot be granted")

    async def remove(self, path: str) -> None:
        """See `compute.ports.HostFiles.remove`."""
        self.asked.append(("remove", path))
        self.present.discard(path)
