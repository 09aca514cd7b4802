"""What the tables of devices must know of their VM, and what they need of its host."""

from collections.abc import Awaitable, Callable, Hashable

import msgspec

from utilityvm.compute.ports import Grants
from utilityvm.devices.mounts import Mounts
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Platform
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.layout import Layout

Modify = Callable[[ModifySettingRequest], Awaitable[None]]
"""Changes a resource of the VM, on the host and in the guest: `UtilityVM.modify`."""


class Seen(msgspec.Struct, frozen=True):
    """What a path of the host is: a folder, or a file of `size` bytes. `identity` changes when another file takes its place.

    `special` is neither: a device, a pipe, a socket. `real` is where links lead from the path, ``""`` when that is the path itself.
    """

    folder: bool
    size: int = 0
    identity: Hashable = None
    special: bool = False
    real: str = ""


Look = Callable[[str], Seen]
"""Looks at a path of the host; raises NotFound when nothing is there, and HostError when it may not be looked at."""


class HostSide(msgspec.Struct, frozen=True):
    """The host of a VM. `grants` is None where files reach it as descriptors, so that there is nothing to grant.

    `layout` says where things lie on it; it is asked when something is to be made there.
    """

    platform: Platform
    build: int
    path_flavour: PathFlavour
    look: Look
    grants: Grants | None
    layout: Callable[[], Layout] = Layout.of_user


class Owner(msgspec.Struct, frozen=True):
    """The VM that has the devices."""

    id: VmId
    windows: bool
    fully_physically_backed: bool
    host: HostSide
    modify: Modify
    guest_knows_namespaces: Callable[[], Awaitable[bool]]
    """Asks whether the guest's agent is told of network namespaces and adapters."""
    mounts: Mounts = msgspec.field(default_factory=Mounts)

    @property
    def name(self) -> str:
        """Its name in errors."""
        return f"vm {self.id}"

    def require_free(self, guest_path: str, what: str) -> None:
        """Refuse to mount `what` where something else of the VM is mounted.

        Raises:
            Exists: something is; the text names both.
        """
        self.mounts.require_free(guest_path, f"{self.name}: {what}", windows=self.windows)

    def needs_linux(self, what: str) -> None:
        """Refuse `what` for a Windows guest.

        Raises:
            Unsupported: the guest is Windows.
        """
        if self.windows:
            raise Unsupported("not supported", hint=f"{self.name}: {what} is for Linux guests")

    def needs_windows(self, what: str) -> None:
        """Refuse `what` for a Linux guest.

        Raises:
            Unsupported: the guest is Linux.
        """
        if not self.windows:
            raise Unsupported("not supported", hint=f"{self.name}: {what} is for Windows guests")
