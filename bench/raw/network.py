"""The raw side of networks: QEMU on a tap in the place of eth0, or on passt, and adapters that are plugged in; in the bench's namespace.

usage: network.py tap|user|nic VMLINUX INITRD MEMORY_MIB QEMU_OPTION...    (as driver.py)

Says `ready`, then answers one command a line on stdin, each with one line of JSON:

    out BYTES    seconds until a program of the guest has sent BYTES to the world, and the world has them
    in BYTES     seconds until a program of the guest has read BYTES of the world's
    nic N        seconds of each of N adapters, from the monitor's command to the guest's word that it is set up; then it goes
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from attach import Monitor
from driver import Guest, frame
from nets import ADDRESS, GATEWAY, LENGTH, WORLD
from serving import serve

SET_UP = 18
MTU = 65520
USER, USER_GATEWAY = "10.0.2.15", "10.0.2.2"
BUSYBOX = "/bin/busybox"
PORTS = {"in": "80", "out": "81"}
CARD = "virtio-net-pci,netdev=n0,romfile="


def tap() -> tuple[str, int]:
    """Make a tap in the place of eth0; return the words for QEMU and its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"raw0", 0x0002 | 0x1000 | 0x4000))
    subprocess.run(["ip", "link", "set", "raw0", "up"], check=True)
    for here, there in (("eth0", "raw0"), ("raw0", "eth0")):
        subprocess.run(["tc", "qdisc", "add", "dev", here, "ingress"], check=True)
        words = ["tc", "filter", "add", "dev", here, "parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0"]
        subprocess.run([*words, "action", "mirred", "egress", "redirect", "dev", there], check=True)
    return f"tap,id=n0,fd={fd}", fd


def passt() -> tuple[str, int]:
    """Start passt, which ends with its stream of frames; return the words for QEMU and our end of that."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
    words = ["passt", "--foreground", "--quiet", "--stderr", "--ipv4-only", "--no-map-gw", "--no-dhcp", "--runas", "65534:65534"]
    words += ["--address", USER, "--netmask", "24", "--gateway", USER_GATEWAY, "--mac-addr", "02:75:56:64:73:6f", "--mtu", str(MTU)]
    subprocess.Popen([*words, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    fd = ours.detach()
    return f"socket,id=n0,fd={fd}", fd


class Networked:
    """A guest on one of the two."""

    def __init__(self, kind: str, words: list[str]) -> None:
        mac = Path("/sys/class/net/eth0/address").read_text().strip()
        netdev, fd = tap() if kind == "tap" else passt()
        more = f",host_mtu={MTU}" if kind == "user" else ""
        vmlinux, initrd, memory, *options = words
        self.guest = Guest(vmlinux, initrd, memory, options, ("-netdev", netdev, "-device", f"{CARD},mac={mac}{more}"), (fd,))
        address, gateway = (ADDRESS, GATEWAY) if kind == "tap" else (USER, USER_GATEWAY)
        for line in (f"addr add {address}/{LENGTH} dev eth0", "link set eth0 up", f"route add default via {gateway}"):
            self.guest.request((BUSYBOX, "ip", *line.split()), 1)
            self.guest.end()

    def answer(self, command: str, number: int) -> list[float]:
        start = perf_counter()
        self.guest.request(("/bin/stream", command, WORLD, PORTS[command], str(number)), 1)
        self.guest.end()
        return [perf_counter() - start]


class Plugging:
    """A guest that is given adapters, on a stream of frames that nobody reads."""

    def __init__(self, words: list[str]) -> None:
        vmlinux, initrd, memory, *options = words
        ours, theirs = socket.socketpair()
        monitor = ("-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-mon", "chardev=mon,mode=control")
        bridge = ("-device", "pci-bridge,id=b0,chassis_nr=1")
        self.guest = Guest(vmlinux, initrd, memory, options, (*bridge, *monitor), (theirs.fileno(),))
        theirs.close()
        self._monitor = Monitor(ours)

    def answer(self, _command: str, number: int) -> list[float]:
        return [self._nic() for _ in range(number)]

    def _nic(self) -> float:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            start = perf_counter()
            self._monitor.give("n0", theirs.fileno())
            self._monitor("netdev_add", type="socket", id="n0", fd="n0")
            self._monitor(
                "device_add", driver="virtio-net-pci", id="d0", netdev="n0", bus="b0", addr="3", mac="02:00:00:00:00:77", romfile=""
            )
            self.guest.socket.sendall(frame(SET_UP, payload="eth0 10.77.0.2 10.77.0.1 ".replace(" ", "\0").encode()))
            self.guest.end()
            seconds = perf_counter() - start
            self._monitor("device_del", id="d0")
            self._monitor.wait("DEVICE_DELETED d0")
            self._monitor("netdev_del", id="n0")
        return seconds


def main() -> None:
    kind, *words = sys.argv[1:]
    side = Plugging(words) if kind == "nic" else Networked(kind, words)
    try:
        serve(side.answer)
    finally:
        side.guest.process.kill()
        side.guest.process.wait()


if __name__ == "__main__":
    main()
