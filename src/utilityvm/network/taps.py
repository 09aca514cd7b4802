"""What is done for a tap where it is to be, a program: ``nsenter --net=PATH python -I -m utilityvm.network.taps CONTROL``.

`CONTROL` is the number of a socket that keeps messages apart. One order comes by it, and one answer goes back, with the tap's descriptor.
The tap is its descriptor's: the kernel removes it, and what hangs on it, with the last one. What takes the traffic of an interface
hangs on that interface, and may be left behind by who is killed; the next one there removes it.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from utilityvm.kit.errors import Exists, HostError, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.proc import run_tool
from utilityvm.network.bucket import burst
from utilityvm.network.interface import (
    LIMITER,
    PREFERENCE,
    Link,
    Qdisc,
    TrafficFilter,
    Way,
    check_unchosen,
    left_behind,
    place_of,
    rows,
)
from utilityvm.network.orders import TapOrder, TapTold

ORDER_BYTES: Final = 1 << 16
_TOOL: Final = 5.0  # seconds for each; the kernel answers at once
_WAITS: Final = "200ms"  # at most, what goes faster than it may; then it is dropped, and its sender slows down
_TUN: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_IFF: Final = 0x0002 | 0x1000 | 0x4000 | 0x8000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL


def _ip(*words: str) -> str:
    return run_tool(["ip", *words], within=_TOOL, package="iproute2")


def _tc(*words: str) -> str:
    return run_tool(["tc", *words], within=_TOOL, package="iproute2")


def join_interface(order: TapOrder) -> tuple[TapTold, int]:
    """Make a tap in the place of an interface: what arrives at either leaves at the other. Return what it is like, and the tap.

    Raises:
        NotFound: there is no such interface.
        Exists: its place is taken.
        Unsupported, HostError: it is of no use for a guest, or the kernel refuses.
    """
    found = place_of(_link(order.interface), [*_ways("-4", order.interface), *_ways("-6", order.interface)])
    _sweep(order.interface)
    with ExitStack() as undo:
        tap = _tap(order.tap, found.mtu)
        undo.callback(os.close, tap)
        undo.callback(_sweep, order.interface, order.tap)
        if order.rate:
            check_unchosen(order.interface, _qdiscs(order.interface))
            _limit(order.tap, order.rate)
            _limit(order.interface, order.rate)
        _redirect(order.tap, order.interface)
        _redirect(order.interface, order.tap)
        undo.pop_all()
    return found, tap


def join_bridge(order: TapOrder) -> tuple[TapTold, int]:
    """Make a tap that is a port of a bridge. Return what it is like, and the tap.

    Raises:
        NotFound: there is no such bridge.
        Unsupported, HostError: the kernel refuses.
    """
    bridge = _link(order.bridge)
    if bridge.linkinfo.info_kind != "bridge":
        raise NotFound(f"{order.bridge} is no bridge", hint="ip link show type bridge")
    with ExitStack() as undo:
        tap = _tap(order.tap, bridge.mtu)
        undo.callback(os.close, tap)
        if order.rate:
            undo.callback(_forget_detour, order.tap)
            _limit(order.tap, order.rate)
            _detour(order.tap, order.rate)
        _ip("link", "set", "dev", order.tap, "master", order.bridge)
        undo.pop_all()
    return TapTold(mtu=bridge.mtu), tap


def leave(order: TapOrder) -> None:
    """Remove what is left of a tap that is gone: at an interface, or its detour. An interface that is gone itself has nothing left."""
    if order.bridge:
        _forget_detour(order.tap)
        return
    with suppress(NotFound):
        _link(order.interface)
        _sweep(order.interface)


def _link(name: str) -> Link:
    everything = rows(_ip("-json", "-details", "address", "show"), Link)
    found = next((link for link in everything if link.ifname == name), None)
    if found is None:
        names = ", ".join(sorted(link.ifname for link in everything))
        raise NotFound(f"there is no interface {name}", hint=f"there are: {names}")
    return found


def _ways(family: str, interface: str) -> list[Way]:
    return rows(_ip("-json", family, "route", "show", "table", "main", "dev", interface), Way)


def _tap(name: str, mtu: int) -> int:
    try:
        tap = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unsupported(f"{_TUN}: {error.strerror}", hint="load the kernel's module tun (modprobe tun)") from error
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF))
        with suppress(OSError):  # a kernel without IPv6, or whose settings cannot be written: then it says what its guest hears and ignores
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        _ip("link", "set", "dev", name, "mtu", str(mtu), "up")
    except OSError as error:
        os.close(tap)
        if error.errno == errno.EBUSY:
            raise Exists(f"there is an interface {name} already") from error
        raise HostError(f"the tap {name} cannot be made: {error.strerror}") from error
    except BaseException:
        os.close(tap)
        raise
    return tap


def _redirect(source: str, target: str) -> None:
    """Let what arrives at `source` leave at `target`."""
    _tc("qdisc", "add", "dev", source, "ingress")
    words = ["filter", "add", "dev", source, "parent", "ffff:", "protocol", "all", "pref", str(PREFERENCE), "u32", "match", "u32", "0", "0"]
    _tc(*words, "action", "mirred", "egress", "redirect", "dev", target)


def _qdiscs(interface: str) -> list[Qdisc]:
    return rows(_tc("-json", "qdisc", "show", "dev", interface), Qdisc)


def _limit(interface: str, rate: int) -> None:
    """Let at most so many bytes a second leave at an interface.

    Raises:
        Unsupported: the kernel cannot.
    """
    words = ["rate", f"{rate}bps", "burst", str(int(burst(rate))), "latency", _WAITS]
    try:
        _tc("qdisc", "replace", "dev", interface, "root", "handle", LIMITER, "tbf", *words)
    except HostError as error:
        raise Unsupported(f"the rate at {interface} cannot be limited: {error.message}", hint="load sch_tbf (modprobe sch_tbf)") from error


def _detour(tap: str, rate: int) -> None:
    """Let what arrives at a tap go on at most so fast: by an interface of its own, for only what leaves at one can wait.

    Raises:
        Unsupported: the kernel cannot.
    """
    name = _detour_of(tap)
    _forget_detour(tap)
    try:
        _ip("link", "add", "dev", name, "type", "ifb")
    except HostError as error:
        raise Unsupported(f"the rate from {tap} cannot be limited: {error.message}", hint="load ifb (modprobe ifb)") from error
    _limit(name, rate)
    _ip("link", "set", "dev", name, "up")
    _redirect(tap, name)


def _forget_detour(tap: str) -> None:
    with suppress(NotFound):
        _link(_detour_of(tap))
        _ip("link", "del", "dev", _detour_of(tap))


def _detour_of(tap: str) -> str:
    return tap.replace("uvm", "uvr", 1)


def _sweep(interface: str, own: str = "") -> None:
    """Remove what was left at an interface; `own` is a tap that may be there still.

    Raises:
        Exists: see `interface.left_behind`.
    """
    qdiscs = _qdiscs(interface)
    filters = rows(_tc("-json", "filter", "show", "dev", interface, "ingress"), TrafficFilter)
    there = {link.ifname for link in rows(_ip("-json", "link", "show"), Link)} - {own}
    for left in left_behind(interface, qdiscs, filters, there):
        _tc("qdisc", "del", "dev", interface, left)


def carry_out(order: TapOrder) -> tuple[TapTold, int | None]:
    """Do what is ordered.

    Raises:
        UtilityVMError: it cannot be done; nothing is left of it.
    """
    if order.leave:
        leave(order)
        return TapTold(), None
    return join_bridge(order) if order.bridge else join_interface(order)


def main(argv: Sequence[str]) -> int:
    """Carry out one order."""
    control = socket.socket(fileno=int(argv[0]))
    order = msgspec.json.decode(control.recv(ORDER_BYTES), type=TapOrder)
    try:
        told, tap = carry_out(order)
    except UtilityVMError as error:
        told, tap = TapTold(error=type(error).__name__, message=error.message, hint=error.hint), None
    socket.send_fds(control, [msgspec.json.encode(told)], [] if tap is None else [tap])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
