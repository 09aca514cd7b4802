"""The raw side of plugging in: QEMU's monitor, and a guest that waits for the device's node and mounts it.

usage: attach.py VMLINUX INITRD MEMORY_MIB IMAGES QEMU_OPTION...    (as driver.py; IMAGES is a folder with 0.img, 1.img, ...)

Says `ready`, then answers one command a line on stdin, each with one line of JSON:

    scsi N    seconds of each of N attachments of a disk, from the monitor's command to the guest's word that it is mounted; then it goes
    pmem N    the same of N persistent memory devices, each with the next image: they cannot be taken out
"""

from __future__ import annotations

import json
import socket
import sys
from itertools import count
from pathlib import Path
from time import perf_counter

from driver import Guest, frame
from serving import serve

MOUNT, UNMOUNT = 16, 17
DEVICES = ("-device", "virtio-scsi-pci,id=scsi0", "-device", "pci-bridge,id=b0,chassis_nr=1", "-device", "pci-bridge,id=b1,chassis_nr=2")


class Monitor:
    """QEMU's monitor, one command at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._lines = sock, sock.makefile("rb")
        self._events: set[object] = set()
        self._hear()  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> dict[str, object]:
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": words}).encode() + b"\n")
        return self._answer()

    def give(self, name: str, fd: int) -> None:
        """Give QEMU an open descriptor."""
        line = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode() + b"\n"
        socket.send_fds(self._socket, [line], [fd])
        self._answer()

    def wait(self, event: str) -> None:
        """Wait for an event since the last wait; behind its name may stand the device's that it is about."""
        while event not in self._events:
            self._hear()
        self._events.clear()

    def _answer(self) -> dict[str, object]:
        while "return" not in (said := self._hear()):
            assert "error" not in said, said
        answer = said["return"]
        assert isinstance(answer, dict)
        return answer

    def _hear(self) -> dict[str, object]:
        said: dict[str, object] = json.loads(self._lines.readline())
        data = said.get("data")
        device = data.get("device") if isinstance(data, dict) else None
        self._events |= {said.get("event"), f"{said.get('event')} {device}"}
        return said


class Plugging:
    """A booted guest, and what was plugged into it."""

    def __init__(self, vmlinux: str, initrd: str, memory: str, images: str, options: list[str]) -> None:
        ours, theirs = socket.socketpair()
        monitor = ("-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-mon", "chardev=mon,mode=control")
        self._guest = Guest(vmlinux, initrd, memory, options, ("-m", f"{memory},maxmem=64G", *DEVICES, *monitor), (theirs.fileno(),))
        theirs.close()
        self._monitor, self._images, self._numbers = Monitor(ours), Path(images), count()

    def answer(self, command: str, number: int) -> list[float]:
        measure = {"scsi": self.scsi, "pmem": self.pmem}[command]
        return [measure() for _ in range(number)]

    def scsi(self) -> float:
        start = perf_counter()
        file = {"driver": "file", "filename": str(self._images / "0.img"), "read-only": True}
        self._monitor("blockdev-add", driver="raw", node_name="disk", read_only=True, file=file)
        self._monitor("device_add", driver="scsi-hd", id="sd", drive="disk", bus="scsi0.0", lun=5)
        self._mount("/dev/sda", "")
        seconds = perf_counter() - start
        self._guest.socket.sendall(frame(UNMOUNT, payload=b"/dev/sda\0", flags=1))
        self._guest.end()
        self._monitor("device_del", id="sd")
        self._monitor.wait("DEVICE_DELETED")
        self._guest.end()
        self._monitor("blockdev-del", node_name="disk")
        return seconds

    def pmem(self) -> float:
        number = next(self._numbers)
        image = self._images / f"{number}.img"
        size = image.stat().st_size
        start = perf_counter()
        self._monitor(
            "object-add", qom_type="memory-backend-file", id=f"m{number}", mem_path=str(image), size=size, share=True, readonly=True
        )
        self._monitor("device_add", driver="virtio-pmem-pci", id=f"p{number}", memdev=f"m{number}", bus=f"b{number // 31}")
        self._mount(f"/dev/pmem{number}", "dax=always")
        seconds = perf_counter() - start
        self._guest.socket.sendall(frame(UNMOUNT, payload=b"\0"))
        self._guest.end()
        return seconds

    def end(self) -> None:
        self._guest.process.kill()
        self._guest.process.wait()

    def _mount(self, node: str, options: str) -> None:
        self._guest.socket.sendall(frame(MOUNT, payload=f"{node}\0erofs\0{options}\0".encode()))
        self._guest.end()


def main() -> None:
    vmlinux, initrd, memory, images, *options = sys.argv[1:]
    plugging = Plugging(vmlinux, initrd, memory, images, options)
    try:
        serve(plugging.answer)
    finally:
        plugging.end()


if __name__ == "__main__":
    main()
