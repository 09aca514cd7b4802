"""A network by a tap, for which the owner must be root: in the place of an interface in a namespace, or as a port of a bridge.

The tap is a descriptor, which QEMU has and nobody else once the adapter is there: it goes with QEMU. Where a guest takes the place of an
interface, that interface's traffic is redirected, which a killed owner leaves behind; so it does what limits a rate. A record says where,
before anything is touched: the next one in the same place removes what is left, and so does `sweep`.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Final, final

import msgspec

from utilityvm.compute.nic import NicEnd, NicKind
from utilityvm.kit.aio import finish
from utilityvm.kit.child import Child
from utilityvm.kit.errors import DeadlineExceeded, Exists, HostError, InvalidOptions, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.network.bucket import check_rate
from utilityvm.network.orders import TapOrder, TapTold
from utilityvm.network.publish import Published
from utilityvm.network.resolvers import check_servers, host_servers
from utilityvm.network.user import mac_of
from utilityvm.options.network import BridgeNetwork, NamespaceNetwork
from utilityvm.schema.hns import IpConfiguration, Route, RoutedEndpoint
from utilityvm.store.layout import Layout
from utilityvm.store.places import Held, Place, leftovers

if sys.platform != "win32":
    import fcntl

START: Final = 10.0
"""Seconds that making a tap may take, and removing its traces."""

_HERE: Final = "/proc/thread-self/ns/net"
_NS_GET_NSTYPE: Final = 0xB703  # ioctl_ns(2)
_CLONE_NEWNET: Final = 0x40000000
_TOLD_BYTES: Final = 1 << 16
_SAID_LINES: Final = 5
_NAME_DIGITS: Final = 12  # with "uvm" as many as the name of an interface can have
_ERRORS: Final[Mapping[str, type[UtilityVMError]]] = {kind.__name__: kind for kind in (Exists, NotFound, Unsupported, HostError)}


@final
class TapUplink:
    """The network of one guest, by a tap. Ports are not published and nothing is refused: its guest is a neighbour among others.

    `records` is the folder of records of places, that of this user by default.

    Raises:
        InvalidOptions: `wish` has an address or a server that is none, or too small a rate.
    """

    published: tuple[Published, ...] = ()

    def __init__(self, vm_id: VmId, wish: NamespaceNetwork | BridgeNetwork, *, records: Path | None = None) -> None:
        self._name, self._id, self._wish, self._records = f"vm {vm_id}: {describe(wish)}", vm_id, wish, records
        check_servers(wish.dns)
        check_rate(wish.rate)
        if isinstance(wish, BridgeNetwork):
            check_addresses(wish)
        self._tap_name = "uvm" + sha256(vm_id.encode()).hexdigest()[:_NAME_DIGITS]
        self._namespace: int | None = None
        self._held: Held | None = None
        self._tap: int | None = None
        self._told: TapTold | None = None

    @property
    def endpoint(self) -> RoutedEndpoint:
        """What its adapter is on.

        Raises:
            StateError: it is not open.
        """
        if self._told is None:
            raise StateError(self._name, "is not open", "tell its endpoint")
        addresses = self._wish.addresses if isinstance(self._wish, BridgeNetwork) else self._told.addresses
        hops = [Route(next_hop=hop) for hop in self._wish.gateways] if isinstance(self._wish, BridgeNetwork) else []
        hops += [Route(next_hop=route.gateway, destination_prefix=route.destination, metric=route.metric) for route in self._told.routes]
        return RoutedEndpoint(
            id=f"{self._id}-tap",
            mac_address=self._told.mac or mac_of(self._id),
            ip_configurations=[_configuration(address) for address in addresses],
            routes=hops,
            dns_server_list=",".join(self._wish.dns or [server for server in host_servers() if not _is_here(server)]),
        )

    @property
    def refused(self) -> Mapping[str, int]:
        """Nothing: what leaves the guest is not looked at here."""
        return {}

    async def open(self) -> None:
        """Make the tap.

        Raises:
            Unsupported: the owner is not root; or the host's kernel, or its iproute2, lacks what is needed.
            NotFound: there is no such namespace, interface or bridge.
            Exists: the place of the interface is taken.
            InvalidOptions: what is there is no namespace of networks.
            HostError, DeadlineExceeded: it cannot be made.
        """
        if os.geteuid() != 0:
            raise Unsupported(f"{self._name}: only root can make taps", hint="a network of the kind user needs no root")
        self._namespace = self._opened(self._path)
        try:
            place = self._place(self._namespace)
            if place.interface or self._wish.rate:  # otherwise all of it goes with the tap
                self._held = Held.take(Layout.of_user().places if self._records is None else self._records, place)
            self._told, self._tap = await ask(self._name, self._namespace, self._order(leave=False))
        except BaseException:
            with suppress(UtilityVMError):  # why it failed says more
                await self.aclose()
            raise

    async def wire(self) -> NicEnd:
        """Return the end for the adapter, which is given once: the network ends with the adapter.

        Raises:
            StateError: it was given before, or the network is not open.
        """
        if self._tap is None or self._told is None:
            raise StateError(self._name, "its end was given before, or it is not open", "give it to an adapter")
        tap, self._tap = self._tap, None
        return NicEnd(NicKind.TAP, tap, self._told.mtu)

    async def allow(self, rules: Sequence[str] | None) -> None:
        """Refuse: what leaves the guest is not looked at here.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(
            f"{self._name}: what its guest reaches is not filtered ({'no rules' if rules is None else ', '.join(rules)})",
            hint="filter it where it leaves the host, or use a network of the kind user",
        )

    async def aclose(self) -> None:
        """End it, after its adapter, and remove what is left of it. A second call does nothing."""
        if self._tap is not None:
            os.close(self._tap)
            self._tap = None
        namespace, self._namespace = self._namespace, None
        held, self._held = self._held, None
        if namespace is None:
            return
        try:
            if held is not None:
                with suppress(Exists):  # somebody else's by now
                    await finish(ask(self._name, namespace, self._order(leave=True)), within=2 * START)
                held.forget()
        finally:
            os.close(namespace)
            if held is not None:
                held.keep()

    def _order(self, *, leave: bool) -> TapOrder:
        rate = self._wish.rate or 0
        if isinstance(self._wish, BridgeNetwork):
            return TapOrder(tap=self._tap_name, bridge=self._wish.bridge, rate=rate, leave=leave)
        return TapOrder(tap=self._tap_name, interface=self._wish.interface, rate=rate, leave=leave)

    @property
    def _path(self) -> str:
        """Where the network namespace is."""
        return self._wish.namespace if isinstance(self._wish, NamespaceNetwork) else _HERE

    def _place(self, namespace: int) -> Place:
        order, known = self._order(leave=False), os.fstat(namespace)
        return Place(
            path=str(Path(self._path).absolute()),
            device=known.st_dev,
            inode=known.st_ino,
            tap=order.tap,
            interface=order.interface,
            bridge=order.bridge,
        )

    def _opened(self, path: str) -> int:
        hint = "ip netns list; a process's is /proc/PID/ns/net"
        try:
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFound(f"{self._name}: there is no such namespace", hint=hint) from error
        except OSError as error:
            raise HostError(f"{self._name}: {error.strerror}") from error
        if not _is_network(namespace):  # asked before it is written down, since a sweep could never get into it
            os.close(namespace)
            raise InvalidOptions(f"{self._name}: that is no network namespace", hint=hint)
        return namespace


async def sweep(records: Path) -> list[Place]:
    """Remove what killed owners have left at interfaces of this host, and return where; who has a place now keeps it.

    Raises:
        HostError, NotFound, DeadlineExceeded: something cannot be removed; its record stays, and the others were seen to.
    """
    swept, failed = list[Place](), list[UtilityVMError]()
    with leftovers(records) as left:
        for place, held in left:
            try:
                if await _sweep(place):
                    swept.append(place)
                held.forget()
            except UtilityVMError as error:
                failed.append(error)
    if failed:
        raise failed[0]
    return swept


async def _sweep(place: Place) -> bool:
    namespace = _find(place)
    if namespace is None:
        return False
    try:
        order = TapOrder(tap=place.tap, interface=place.interface, bridge=place.bridge, leave=True)
        await finish(ask(str(place), namespace, order), within=2 * START)
    except Exists:  # somebody else's by now
        return False
    finally:
        os.close(namespace)
    return True


def _is_network(namespace: int) -> bool:
    try:
        return fcntl.ioctl(namespace, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _find(place: Place) -> int | None:
    """Open the namespace of a place by whatever path it has now; None: nobody can get into it any more, if it still is."""
    paths = (Path(place.path), *_children("/run/netns"), *(process / "ns" / "net" for process in _children("/proc")))
    for path in paths:
        with suppress(OSError):
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            known = os.fstat(namespace)
            if (known.st_dev, known.st_ino) == (place.device, place.inode) and _is_network(namespace):
                return namespace
            os.close(namespace)
    return None


def _children(folder: str) -> list[Path]:
    try:
        return [child for child in Path(folder).iterdir() if folder != "/proc" or child.name.isdecimal()]
    except OSError:
        return []


async def ask(name: str, namespace: int, order: TapOrder) -> tuple[TapTold, int | None]:
    """Let a program of ours carry out an order in a network namespace, and return its answer and what came with it.

    Raises:
        UtilityVMError: it could not be carried out; `name` is whose it is.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ours.send(msgspec.json.encode(order))
            enter = ["nsenter", f"--net=/proc/self/fd/{namespace}", "--"]
            words = [*enter, sys.executable, "-I", "-m", "utilityvm.network.taps", str(theirs.fileno())]
            child = Child(words, pass_fds=[theirs.fileno(), namespace])
        try:
            async with asyncio.timeout(START):
                await child.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{name}: was not ready within {START:g} s: {child.output.text(_SAID_LINES)}") from error
        finally:
            child.kill()
            await finish(child.wait(), within=START)
        said, taps = b"", list[int]()
        with suppress(ConnectionResetError):  # it has ended before it read its order
            said, taps, _, _ = socket.recv_fds(ours, _TOLD_BYTES, 1)
    if not said:
        raise HostError(f"{name}: cannot be made: {child.output.text(_SAID_LINES)}", hint="is that a network namespace?")
    told = msgspec.json.decode(said, type=TapTold)
    if told.error:
        raise _ERRORS.get(told.error, HostError)(f"{name}: {told.message}", hint=told.hint)
    return told, taps[0] if taps else None


def describe(wish: NamespaceNetwork | BridgeNetwork) -> str:
    """Return the words for such a network."""
    if isinstance(wish, BridgeNetwork):
        return f"bridge {wish.bridge}"
    return f"namespace {wish.namespace}"


def check_addresses(wish: BridgeNetwork) -> None:
    """Refuse addresses that are none.

    Raises:
        InvalidOptions: there is none, or one makes no sense, or a gateway.
    """
    if not wish.addresses:
        raise InvalidOptions(f"{describe(wish)}: no address for the guest", hint="--ip 192.0.2.2/24, or addresses=('192.0.2.2/24',)")
    for address in wish.addresses:
        try:
            plain = ip_interface(address).network.prefixlen
        except ValueError as error:
            raise InvalidOptions(f"{describe(wish)}: {address!r}: is no ADDRESS/LENGTH") from error
        if "/" not in address or not plain:
            raise InvalidOptions(f"{describe(wish)}: {address!r}: is no ADDRESS/LENGTH")
    try:
        families = [ip_address(gateway).version for gateway in wish.gateways]
    except ValueError as error:
        raise InvalidOptions(f"{describe(wish)}: gateway: {error}") from error
    if len(set(families)) < len(families):
        raise InvalidOptions(f"{describe(wish)}: several gateways of one family")


def _configuration(address: str) -> IpConfiguration:
    ip, _, length = address.partition("/")
    return IpConfiguration(ip_address=ip, prefix_length=int(length))


def _is_here(server: str) -> bool:
    return ip_address(server.partition("%")[0]).is_loopback or "%" in server
