"""A guest's screen and keyboard: whoever connects to a named socket is handed to QEMU, which speaks VNC with them.

QEMU itself sees no path: the jail has none. It gets each connection as a descriptor, by its monitor.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, final

from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.kit.errors import ConnectionLost, QmpError, Unsupported, UtilityVMError
from utilityvm.kit.named import ACCEPT_AGAIN, NamedSocket
from utilityvm.kit.proc import run_tool
from utilityvm.kit.trace import event

PROBE_TIMEOUT: Final = 20.0
"""Seconds that QEMU has to say whether it has a screen and VNC."""

_ELF: Final = b"\x7fELF"


def require_screen(qemu: str, kernel: Path) -> None:
    """Find out whether a machine of this QEMU that boots `kernel` has a screen.

    Raises:
        Unsupported: it has none, and why.
    """
    with kernel.open("rb") as file:
        if file.read(len(_ELF)) == _ELF:
            why = f"{kernel}: an ELF kernel is entered at once (PVH), and is told of no screen"
            raise Unsupported(why, hint="name the compressed image beside it, kernel")
    try:
        run_tool([qemu, "-machine", "none", "-display", "none", "-vnc", "none", "-device", "VGA,help"], within=PROBE_TIMEOUT)
    except UtilityVMError as error:
        raise Unsupported(f"{qemu} has no screen (VGA), or does not offer it by VNC: {error.message}") from error


@final
class Screen:
    """The socket at `path` by which a VM's screen is seen, ``""`` for none. `name` is the VM's, in events."""

    def __init__(self, path: str, name: str) -> None:
        self._named = NamedSocket(Path(path), "the screen's") if path else None
        self._name = name
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Listen; those who connect wait until `run`. See `NamedSocket.open` for errors."""
        if self._named is not None:
            self._listener = self._named.open()

    async def run(self, monitor: Monitor) -> None:
        """Hand over whoever connects, one after the other, until QEMU ends."""
        if self._listener is None:
            return
        with suppress(ConnectionLost):  # then QEMU has ended
            await self._hand_over(monitor, self._listener)

    async def _hand_over(self, monitor: Monitor, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in count(1):
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # we have no descriptor left: whoever looks on waits, the VM does not
                event("vm.screen.refused", level=logging.WARNING, vm=self._name.removeprefix("vm "), error=str(error))
                await asyncio.sleep(ACCEPT_AGAIN)
                continue
            with client:
                try:
                    await monitor.execute("getfd", {"fdname": f"screen{number}"}, fds=[client.fileno()])
                    await monitor.execute("add_client", {"protocol": "vnc", "fdname": f"screen{number}", "skipauth": True})
                except QmpError as error:
                    vm = self._name.removeprefix("vm ")
                    event("vm.screen.refused", level=logging.WARNING, vm=vm, error=error.message)

    def close(self) -> None:
        """Let go of the socket and its path. Who looks on stays connected until QEMU ends. A second call does nothing."""
        if self._listener is not None:
            # Who waits for it would keep its number in the selector, and whatever socket gets that number next would never be heard.
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener = None
        if self._named is not None:
            self._named.close()
