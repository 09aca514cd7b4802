"""The raw side of clones: a guest whose memory and devices were saved, and QEMUs that go on from there.

usage: clone.py VMLINUX INITRD MEMORY_MIB QEMU_OPTION...    (as driver.py)

Says `ready` when the template is saved, then answers one command a line on stdin, each with one line of JSON:

    clone N    seconds of each of N clones, from before QEMU starts to the end of the first process
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

from attach import Monitor
from driver import Guest
from serving import serve

IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]
ROUND_TRIPS = 3  # in the template before it is saved, as on our side


class Cloning:
    """A template in `folder`, which lies in memory."""

    def __init__(self, vmlinux: str, initrd: str, memory: str, options: list[str], folder: Path) -> None:
        self._boot, self._options = (vmlinux, initrd, memory), options
        self._memory, self._state = folder / "memory", folder / "state"
        self._memory.touch()
        os.truncate(self._memory, int(memory) << 20)
        guest, monitor = self._start("share=on")
        for _ in range(ROUND_TRIPS):
            guest.round_trip()
        monitor("stop")
        with self._state.open("wb") as file:
            monitor("migrate-set-capabilities", capabilities=IGNORE_SHARED)
            monitor.give("state", file.fileno())
            monitor("migrate", uri="fd:state")
            finished(monitor)
        end(guest)

    def answer(self, _command: str, number: int) -> list[float]:
        return [self.clone() for _ in range(number)]

    def clone(self) -> float:
        start = perf_counter()
        guest, monitor = self._start("share=off", ("-incoming", "defer"))
        with self._state.open("rb") as file:
            monitor("migrate-set-capabilities", capabilities=IGNORE_SHARED)
            monitor.give("state", file.fileno())
            monitor("migrate-incoming", uri="fd:state")
            finished(monitor)
        monitor("cont")
        guest.round_trip()
        seconds = perf_counter() - start
        end(guest)
        return seconds

    def _start(self, share: str, more: tuple[str, ...] = ()) -> tuple[Guest, Monitor]:
        ours, theirs = socket.socketpair()
        words = (
            "-chardev",
            f"socket,id=mon,fd={theirs.fileno()}",
            "-mon",
            "chardev=mon,mode=control",
            "-device",
            "vmgenid,guid=auto",
            *more,
        )
        memory = f"memory-backend-file,id=ram0,mem-path={self._memory},{share}"
        guest = Guest(*self._boot, self._options, words, (theirs.fileno(),), memory_words=memory, boots=not more)
        theirs.close()
        return guest, Monitor(ours)


def finished(monitor: Monitor) -> None:
    while (status := monitor("query-migrate")["status"]) != "completed":
        assert status != "failed"
        sleep(0.001)


def end(guest: Guest) -> None:
    guest.process.kill()
    guest.process.wait()
    guest.socket.close()


def main() -> None:
    vmlinux, initrd, memory, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        cloning = Cloning(vmlinux, initrd, memory, options, Path(folder))
        serve(cloning.answer)


if __name__ == "__main__":
    main()
