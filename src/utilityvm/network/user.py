"""A network without rights: passt speaks for the guest with the host's own sockets, and a relay of ours stands before it.

Both are children of ours. passt ends with its stream of frames, the relay with our end of its control socket; so nothing is left whoever
is killed, and whatever of it when.
"""

import asyncio
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, final

import msgspec
from msgspec import structs

from utilityvm.compute.nic import NicEnd, NicKind
from utilityvm.compute.qemu.jail import uid_of
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.child import Child, next_message
from utilityvm.kit.enclosure import Enclosure
from utilityvm.kit.errors import DeadlineExceeded, HostError, StateError, Unsupported
from utilityvm.kit.ids import RuntimeId, VmId, new_guid
from utilityvm.kit.trace import event
from utilityvm.network.bucket import check_rate
from utilityvm.network.orders import Orders, PlaceOrder, Told
from utilityvm.network.policy import parse_hosts, parse_rules
from utilityvm.network.publish import Published, must_be_free, parse_published
from utilityvm.network.resolvers import check_servers, has_six, host_servers
from utilityvm.options.network import UserNetwork
from utilityvm.schema.hns import HNSEndpoint

MTU: Final = 65_520
"""Bytes of a packet between guest and passt: the more in one, the less each costs."""

FOUR, GATEWAY, RESOLVER, LENGTH = "10.0.2.15", "10.0.2.2", "10.0.2.3", 24
SIX, GATEWAY_SIX, LENGTH_SIX = "fd75:766d::15", "fd75:766d::2", 64
"""Its addresses of IPv6, where its host has a way to everything by that. Programs prefer IPv4 to such ones (RFC 6724)."""

GATEWAY_MAC: Final = "02755664736f"
START: Final = 10.0
"""Seconds that passt and the relay may take to be ready."""

ANSWER: Final = 5.0
"""Seconds that the relay may take to keep to another policy."""

_CLEANUP: Final = 5.0
_ROUTES_SIX: Final = Path("/proc/thread-self/net/ipv6_route")
_SAID_LINES: Final = 5
_SOCKET_BYTES: Final = 4 << 20
_SO_SNDBUFFORCE: Final = 32
_ANSWER_BYTES: Final = 1 << 16
_ENCLOSED: Final = Enclosure(setpriv=("--no-new-privs",), first=("ulimit -c 0",))


@final
class UserUplink:
    """The network of one guest, by passt. `endpoint` is what its adapter is on, once it is open.

    `published` are the guest's ports on this host.

    Raises:
        InvalidOptions: `wish` has a rule, a port, a name or a server that is none, or too small a rate.
    """

    published: tuple[Published, ...]

    def __init__(self, vm_id: VmId, wish: UserNetwork) -> None:
        self._allow = None if wish.allow is None else list(wish.allow)
        parse_rules(self._allow or ())
        parse_hosts(wish.hosts)
        self.published = parse_published(wish.publish)
        check_servers(wish.dns)
        check_rate(wish.rate)
        self.endpoint = HNSEndpoint(
            id=f"{vm_id}-user",
            mac_address=mac_of(vm_id),
            ip_address=FOUR,
            prefix_length=LENGTH,
            gateway_address=GATEWAY,
            dns_server_list=RESOLVER,
        )
        self._six = False
        self._id, self._name, self._wish = vm_id, f"vm {vm_id}: user network", wish
        self._scope = Scope(self._name)
        self._ours = ExitStack()
        self._control: socket.socket | None = None
        self._guest: socket.socket | None = None
        self._children: list[Child] = []
        self._number, self._over, self._last = 0, False, Told(number=0, refused={}, last="")
        self._news = asyncio.Condition()

    @property
    def refused(self) -> Mapping[str, int]:
        """How much was refused to the guest until now, by the reason; up to a second old."""
        return dict(self._last.refused)

    async def open(self) -> None:
        """Start it: when this returns its ports are taken, and an adapter may be wired to it.

        Raises:
            Exists: a port is not free.
            Unsupported: there is no passt; or a port is published at an address of IPv6, which is not carried on this host.
            HostError, DeadlineExceeded: it does not get ready; the text says why.
        """
        must_be_free(self.published)
        self._six = has_six(_ROUTES_SIX)
        if not self._six and any(":" in port.host for port in self.published):
            text = f"{self._name}: a port is published at an address of IPv6, and this host has no way to everything by IPv6"
            raise Unsupported(text, hint="publish it at an address of IPv4: without such a way passt carries nothing else")
        if self._six:
            self.endpoint = structs.replace(self.endpoint, ipv6_address=SIX, ipv6_prefix_length=LENGTH_SIX, gateway_address_v6=GATEWAY_SIX)
        try:
            async with asyncio.timeout(START):
                control = self._spawn()
                self._told(await self._first(control))
        except TimeoutError as error:
            await self.aclose()
            raise DeadlineExceeded(f"{self._name}: was not ready within {START:g} s: {self._said()}") from error
        except BaseException:
            await finish(self.aclose(), within=_CLEANUP)
            raise
        self._scope.start("told", self._read(control))
        if self.published:
            event("network.published", level=logging.INFO, vm=self._id, message=", ".join(map(str, self.published)))

    async def wire(self) -> NicEnd:
        """Return the end for the adapter, which is given once: the network ends with the adapter.

        Raises:
            StateError: it was given before, or the network is not open.
        """
        if self._guest is None:
            raise StateError(self._name, "its end was given before, or it is not open", "give it to an adapter")
        guest, self._guest = self._guest, None
        return NicEnd(NicKind.STREAM, guest.detach(), MTU)

    async def allow(self, rules: Sequence[str] | None) -> None:
        """Let the guest reach what `rules` name from now on, None: every public address. What it has begun otherwise ends.

        Raises:
            InvalidOptions: one is no rule; nothing was changed.
            StateError: the network is not open.
            DeadlineExceeded: the relay does not answer.
        """
        if rules is not None:
            parse_rules(rules)
        if self._control is None:
            raise StateError(self._name, "is not open", "change what is allowed")
        self._allow = None if rules is None else list(rules)
        number = self._order(self._control)
        try:
            async with asyncio.timeout(ANSWER), self._news:
                await self._news.wait_for(lambda: self._last.number >= number or self._over)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: the relay keeps to no other policy within {ANSWER:g} s") from error
        if self._over:
            raise StateError(self._name, "has ended", "change what is allowed")

    async def aclose(self) -> None:
        """End it, and wait until nothing of it is left. A second call does nothing."""
        await self._scope.aclose()
        for child in self._children:
            child.kill()
        for child in self._children:
            await child.wait()
        self._ours.close()
        self._control = self._guest = None

    def _spawn(self) -> socket.socket:
        """Start both children, and return our end of the relay's control socket."""
        uid = uid_of(RuntimeId(new_guid())) if os.geteuid() == 0 else 0
        words = self._passt_words(uid)
        with ExitStack() as theirs:
            control, theirs_control = self._pair(theirs, socket.SOCK_SEQPACKET)
            guest, relays_guest = self._pair(theirs, socket.SOCK_STREAM)
            relays_host, passts = socket.socketpair()
            theirs.enter_context(relays_host)
            theirs.enter_context(passts)
            for sock in (guest, relays_guest, relays_host, passts):
                _widen(sock)
            control.setblocking(False)
            fds = [sock.fileno() for sock in (theirs_control, relays_guest, relays_host)]
            relay = [sys.executable, "-I", "-m", "utilityvm.network.relay", *map(str, fds), str(uid)]
            self._children.append(Child(relay, pass_fds=fds, enclosure=_ENCLOSED))
            self._children.append(Child([*words, "--fd", str(passts.fileno())], pass_fds=[passts.fileno()], enclosure=_ENCLOSED))
        self._control, self._guest = control, guest
        return control

    def _pair(self, theirs: ExitStack, kind: int) -> tuple[socket.socket, socket.socket]:
        ours, other = socket.socketpair(socket.AF_UNIX, kind)
        self._ours.callback(ours.close)
        theirs.enter_context(other)
        return ours, other

    def _passt_words(self, uid: int) -> list[str]:
        program = shutil.which("passt")
        if program is None:
            raise Unsupported(f"{self._name}: there is no passt, which carries it", hint="install the package passt")
        words = [program, "--foreground", "--quiet", "--stderr", "--no-map-gw", "--no-dhcp", "--no-ra"]
        words += ["--no-dhcpv6", "--address", SIX, "--gateway", GATEWAY_SIX] if self._six else ["--ipv4-only", "--no-ndp"]
        words += ["--address", FOUR, "--netmask", str(LENGTH), "--gateway", GATEWAY]
        words += ["--mac-addr", bytes.fromhex(GATEWAY_MAC).hex(":"), "--mtu", str(MTU)]
        words += ["--runas", f"{uid}:{uid}"] if uid else []
        for port in self.published:
            words += ["-u" if port.protocol == "udp" else "-t", f"{port.host}/{port.port}:{port.guest_port}"]
        return words

    async def _first(self, control: socket.socket) -> Told:
        """Tell the relay what it is to do, and wait until both are ready."""
        self._order(control)
        said = await next_message(control, _ANSWER_BYTES)
        if not said:
            for child in self._children:
                child.kill()
                await child.wait()
            raise HostError(
                f"{self._name}: cannot be started: {self._said()}", hint="passt needs user namespaces where root does not start it"
            )
        return msgspec.json.decode(said, type=Told)

    def _order(self, control: socket.socket) -> int:
        self._number += 1
        tcp, udp = ([port.guest_port for port in self.published if port.protocol == kind] for kind in ("tcp", "udp"))
        mac = self.endpoint.mac_address.replace("-", "")
        orders = Orders(
            number=self._number,
            place=PlaceOrder(mac=mac, gateway_mac=GATEWAY_MAC, gateway=GATEWAY, four=FOUR, six=SIX if self._six else "", resolver=RESOLVER),
            rules=self._allow,
            servers=list(self._wish.dns) or host_servers(),
            hosts=list(self._wish.hosts),
            rate=self._wish.rate or 0,
            tcp=tcp,
            udp=udp,
        )
        control.send(msgspec.json.encode(orders))
        return self._number

    async def _read(self, control: socket.socket) -> None:
        """Take what the relay tells, to its end."""
        while said := await next_message(control, _ANSWER_BYTES):
            self._told(msgspec.json.decode(said, type=Told))
            async with self._news:
                self._news.notify_all()
        self._over = True
        codes = [await child.wait() for child in self._children]
        if any(codes):  # otherwise the adapter is gone, and they have ended after it
            event("network.ended", level=logging.ERROR, vm=self._id, error=f"passt and its relay ended with {codes}: {self._said()}")
        async with self._news:
            self._news.notify_all()

    def _told(self, told: Told) -> None:
        if told.refused != self._last.refused:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(told.refused.items()))
            event("network.refused", level=logging.INFO, vm=self._id, message=f"{told.last} (so far: {counts})")
        self._last = told

    def _said(self) -> str:
        return " ".join(filter(None, (child.output.text(_SAID_LINES) for child in self._children)))


def mac_of(vm_id: VmId) -> str:
    """Return the hardware address of a VM's adapter: the same for the same id, and given by nobody but us (locally administered)."""
    return (b"\2" + sha256(vm_id.encode()).digest()[:5]).hex("-")


def _widen(sock: socket.socket) -> None:
    """Let a stream of frames hold many of the longest, as far as the host lets users do so (net.core.wmem_max) who are not root."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    with suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BYTES)
