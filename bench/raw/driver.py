"""The raw side's host: QEMU and one socket, no library in the way.

usage: driver.py VMLINUX INITRD MEMORY_MIB QEMU_OPTION...    (-accel, -cpu and -smp, as the VM has that it is compared with)

Boots the guest, runs `/bin/busybox true` in it and prints a line as soon as that process has ended. Then it answers one command a line on
stdin, each with one line of JSON, and ends the VM at end of file:

    round_trips N    seconds of each of N processes
    out BYTES        seconds until a child that writes BYTES has ended
    in BYTES         seconds until a child that reads BYTES has ended
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from functools import partial
from time import perf_counter

from serving import serve

HEADER = struct.Struct("<QQIIIHHIII")  # a VIRTIO socket packet's header; init.c says how it is used
REQUEST, RESPONSE, SHUTDOWN, RW = 1, 2, 4, 5
PAYLOAD = 64 << 10
APPEND = "panic=-1 quiet 8250.nr_uarts=0 mitigations=off cryptomgr.notests"
TRUE = ("/bin/busybox", "true")


def frame(op: int, *, port: int = 0, flags: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(0, 0, 0, port, len(payload), 1, op, flags, 0, 0) + payload


class Guest:
    """A VM and its port; one that `boots` says when it is ready. `memory_words` are the backend of its memory, but for the size."""

    def __init__(
        self,
        vmlinux: str,
        initrd: str,
        memory: str,
        options: list[str],
        more: tuple[str, ...] = (),
        fds: tuple[int, ...] = (),
        *,
        memory_words: str = "memory-backend-memfd,id=ram0,share=on",
        boots: bool = True,
    ) -> None:
        self.socket, theirs = socket.socketpair()
        argv = ["qemu-system-x86_64", "-M", "q35,memory-backend=ram0", *options]
        argv += ["-m", memory, "-object", f"{memory_words},size={memory}M"]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-kernel", vmlinux, "-initrd", initrd, "-append", APPEND, "-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=c0,fd={theirs.fileno()}", "-device", "virtserialport,chardev=c0", *more]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno(), *fds], stdin=subprocess.DEVNULL)
        theirs.close()
        self.stream = self.socket.makefile("rb", buffering=1 << 20)
        if boots:
            self.end()

    def end(self) -> int:
        """Reads output until a child's end; returns the bytes of output."""
        total = 0
        while True:
            header = HEADER.unpack(self.stream.read(HEADER.size))
            total += len(self.stream.read(header[4]))
            if header[6] == RESPONSE:
                assert header[7] == 0, f"the child ended with wait status {header[7]}"
                return total

    def request(self, argv: tuple[str, ...], child_end: int) -> None:
        self.socket.sendall(frame(REQUEST, port=child_end, payload=b"".join(arg.encode() + b"\0" for arg in argv)))

    def round_trip(self) -> float:
        start = perf_counter()
        self.request(TRUE, 1)
        self.end()
        return perf_counter() - start

    def out(self, size: int) -> float:
        start = perf_counter()
        self.request(("/bin/busybox", "dd", "if=/dev/zero", "bs=64k", f"count={size >> 16}"), 1)
        assert self.end() == size
        return perf_counter() - start

    def into(self, size: int) -> float:
        piece = frame(RW, payload=bytes(PAYLOAD))
        start = perf_counter()
        self.request(("/bin/busybox", "dd", "of=/dev/null", "bs=64k"), 0)
        for _ in range(size // PAYLOAD):
            self.socket.sendall(piece)
        self.socket.sendall(frame(SHUTDOWN))
        self.end()
        return perf_counter() - start


def answer(guest: Guest, command: str, number: int) -> list[float]:
    match command:
        case "round_trips":
            return [guest.round_trip() for _ in range(number)]
        case "out":
            return [guest.out(number)]
        case "in":
            return [guest.into(number)]
    raise ValueError(command)


def main() -> None:
    vmlinux, initrd, memory, *options = sys.argv[1:]
    guest = Guest(vmlinux, initrd, memory, options)
    try:
        guest.round_trip()
        serve(partial(answer, guest))
    finally:
        guest.process.kill()
        guest.process.wait()


if __name__ == "__main__":
    main()
