"""Named pipes of a Windows host that containers in a VM open as their own."""

from typing import Final, final

from utilityvm.devices import paths
from utilityvm.devices.ports import Owner
from utilityvm.devices.vsmb import PREFIX
from utilityvm.schema.requests import ModifySettingRequest

PIPE: Final = "\\\\.\\pipe\\"
"""How the name of a pipe begins."""


def is_pipe(path: str) -> bool:
    """Say whether a path is a named pipe of Windows."""
    return path.startswith(PIPE)


def container_pipe(source: str, destination: str, *, in_vm: bool) -> tuple[str, str]:
    """Return how a container is told of a pipe: where it is, seen from the container's host (a VM or not), and its name in there."""
    return (f"{PREFIX}IPC$\\{source.removeprefix(PIPE)}" if in_vm else source), destination.removeprefix(PIPE)


@final
class Pipes:
    """The pipes of one VM. They are the host service's own: it counts them, and refuses what it does not know."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def add(self, host_path: str) -> None:
        r"""Let containers of the VM open the host's pipe ``\\.\pipe\...``.

        Raises:
            Unsupported: the VM runs on QEMU.
            StateError, HostError, ConnectionLost: see `UtilityVM.modify`.
        """
        await self._owner.modify(ModifySettingRequest(resource_path=paths.pipe(host_path), request_type="Add"))

    async def remove(self, host_path: str) -> None:
        """Undo `add`.

        Raises:
            Unsupported, StateError, HostError, ConnectionLost: as `add`.
        """
        await self._owner.modify(ModifySettingRequest(resource_path=paths.pipe(host_path), request_type="Remove"))
