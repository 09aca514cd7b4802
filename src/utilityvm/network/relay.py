"""Between a guest's network adapter and passt, a program: ``python -I -m utilityvm.network.relay CONTROL GUEST HOST UID``.

The numbers are those of sockets: `CONTROL` keeps messages apart, `GUEST` and `HOST` are streams of frames, each after its length in
four bytes. What the guest sends passes a filter first. The first message to us says what it lets through; each has its answer, in which
we tell what was refused, and so we do once a second while more is. We end when any of the three is gone.
"""

import math
import os
import resource
import secrets
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final, final

import msgspec

from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.outgoing import send_waiting
from utilityvm.network import dns
from utilityvm.network.addresses import HostNetworks
from utilityvm.network.bucket import Bucket
from utilityvm.network.filter import DNS_PORT, PASS, Asked, Filter, Place
from utilityvm.network.frames import ARP, MAX_FRAME, TCP, UDP, arp, link_local, solicit
from utilityvm.network.orders import Orders, Told
from utilityvm.network.policy import Policy, parse_hosts, parse_rules

MAX_QUESTIONS: Final = 64
"""Questions for names that are asked at a time; one more is answered that it cannot be."""

PATIENCE: Final = 3.0
"""Seconds that one server may take to answer."""

TELL_EVERY: Final = 1.0
"""Seconds between two reports of what was refused."""

_OUT_BYTES: Final = 1 << 20
_BACK_BYTES: Final = 8 << 20  # passt drops what is not taken at once, and waits a second before it sends that again
_LONGEST: Final = 1 << 17  # what QEMU may write as one frame; beyond it the stream is not one of frames
_MAX_REPLIES: Final = 256
_FILES: Final = 512
_NOBODY: Final = IPv4Address("192.0.2.1")  # passt answers for every address but the guest's; for this one nobody else asks
_REPLY: Final = b"\0\2"
_ORDERS: Final = 1 << 20


class EndedError(Exception):
    """One of the two ends is gone, or writes what are no frames."""


@final
class Way:
    """One direction: whole frames that `judge` lets pass go from `source` to `target` together, without being copied.

    So many frames wait as fit into `size` bytes; then nothing more is read, and whoever sends too fast waits too. So it is when more
    than `rate` bytes a second have come, 0: however many.
    """

    def __init__(self, source: socket.socket, target: socket.socket, judge: Callable[[memoryview], bool], size: int, rate: int = 0) -> None:
        self._source, self._target, self._judge = source, target, judge
        self._bucket = Bucket(rate) if rate else None
        self._view = memoryview(bytearray(size))
        self._end = 0
        self._rest = 0
        self._out: deque[memoryview] = deque()

    def takes(self, now: float) -> bool:
        """Return whether more may be read."""
        return (not self._out or self._end + _LONGEST <= len(self._view)) and not self.rests(now)

    def rests(self, now: float) -> float:
        """Return how many seconds nothing more is to be read because too much was."""
        return self._bucket.wait(now) if self._bucket is not None else 0.0

    @property
    def waits(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._out)

    def put(self, frame: bytes) -> bool:
        """Send a frame of our own after those that wait, and say so. When there are many it is lost, as on any network."""
        if len(self._out) >= _MAX_REPLIES:
            return False
        self._out.append(memoryview(len(frame).to_bytes(4) + frame))
        return True

    def pump(self, now: float) -> None:
        """Read what is there, judge it, and send.

        Raises:
            EndedError: there will be nothing more.
        """
        send_waiting(self._target, self._out)
        if not self.takes(now):
            return
        if self._rest and not self._out:
            self._view[: self._end - self._rest] = self._view[self._rest : self._end]
            self._end, self._rest = self._end - self._rest, 0
        try:
            room = self._view[self._end :] if self._bucket is None else self._view[self._end : self._end + _LONGEST]
            count = self._source.recv_into(room)
        except BlockingIOError:
            return
        if not count:
            raise EndedError
        if self._bucket is not None:
            self._bucket.spend(count, now)
        self._end += count
        self._sort()
        send_waiting(self._target, self._out)

    def _sort(self) -> None:
        """Find the frames that have arrived; those that pass in a row are sent as one piece."""
        view, at, end, judge = self._view, self._rest, self._end, self._judge
        begin = at
        while end - at >= 4:
            size = int.from_bytes(view[at : at + 4])
            if size > _LONGEST:
                raise EndedError
            after = at + 4 + size
            if after > end:
                break
            if not judge(view[at + 4 : after]):
                if begin < at:
                    self._out.append(view[begin:at])
                begin = after
            at = after
        if begin < at:
            self._out.append(view[begin:at])
        self._rest = at


class _Asking(msgspec.Struct):
    asked: Asked
    number: int
    servers: list[str]
    until: float = 0.0
    sock: socket.socket = msgspec.field(default_factory=socket.socket)


@final
class Relay:
    """All of it."""

    def __init__(self, control: socket.socket, guest: socket.socket, host: socket.socket) -> None:
        self._control = control
        self._orders = self._order()
        self._networks = HostNetworks()
        place = self._orders.place
        self._filter = Filter(
            Place(
                bytes.fromhex(place.mac),
                bytes.fromhex(place.gateway_mac),
                IPv4Address(place.four),
                IPv6Address(place.six) if place.six else None,
                IPv4Address(place.resolver),
            ),
            self._policy(),
            {TCP: frozenset(self._orders.tcp), UDP: frozenset(self._orders.udp)},
            parse_hosts(self._orders.hosts),
            self._room(host),
        )
        for sock in (guest, host):
            sock.setblocking(False)
        self._guest, self._host = guest, host
        rate = self._orders.rate
        self._out, self._back = Way(guest, host, self._outgoing, _OUT_BYTES, rate), Way(host, guest, self._incoming, _BACK_BYTES, rate)
        self._greetings, self._sent = list[bytes](), deque[list[bytes]]()
        self._mark = arp(bytes.fromhex(place.mac), IPv4Address(place.four), _NOBODY)
        self._asking: dict[int, _Asking] = {}
        self._now = time.monotonic()
        self._told, self._tell_at = 0, 0.0
        self._poll = select.poll()
        for fd in (control, self._networks):
            self._poll.register(fd, select.POLLIN)
        self._masks = {guest.fileno(): 0, host.fileno(): 0}
        if self._meet():
            self._tell()

    def _room(self, host: socket.socket) -> int:
        """Return how much may be on its way to the guest: half of what passt's socket holds, as ours does, and half a second's worth.

        The rest of a socket is the kernel's own, and what takes two seconds is sent by passt again.
        """
        room = host.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        return min(room, self._orders.rate // 2) if self._orders.rate else room

    def run(self) -> None:
        """Relay to the end."""
        with suppress(EndedError, OSError):
            while self._turn():
                pass

    def _turn(self) -> bool:
        self._now = time.monotonic()
        self._wait_for(self._guest, reads=self._out.takes(self._now), writes=self._back.waits)
        self._wait_for(self._host, reads=self._back.takes(self._now), writes=self._out.waits)
        ready = self._poll.poll(self._patience())
        self._now = time.monotonic()
        for fd, events in ready:
            if fd in self._masks:
                if events & (select.POLLHUP | select.POLLERR) and not events & select.POLLIN:
                    raise EndedError  # and nobody is left to take what waits
                self._move()
            elif fd == self._control.fileno():
                if not self._obey():
                    return False
            elif fd == self._networks.fileno():
                self._networks.drain()
                self._filter.change(self._policy())
            elif fd in self._asking:
                self._answer(fd)
        self._expire()
        for frame in self._filter.knocks.again(self._now):
            self._back.put(frame)
        if self._tell_at and self._now >= self._tell_at:
            self._tell()
        return True

    def _move(self) -> None:
        for way in (self._out, self._back):
            way.pump(self._now)
        if self._greetings and self._out.put(self._mark):
            self._sent.append(self._greetings)
            self._greetings = []

    def _wait_for(self, sock: socket.socket, *, reads: bool, writes: bool) -> None:
        mask = (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)
        if self._masks[sock.fileno()] != mask:
            self._masks[sock.fileno()] = mask
            self._poll.register(sock, mask)

    def _patience(self) -> int | None:
        times = [asking.until for asking in self._asking.values()] + ([self._tell_at] if self._tell_at else [])
        times += [self._now + rest for way in (self._out, self._back) if (rest := way.rests(self._now))]
        first = min(*times, self._filter.knocks.due, math.inf)
        return None if first == math.inf else max(0, round((first - time.monotonic()) * 1000) + 1)

    # -- frames -----------------------------------------------------------------------------------------------------

    def _outgoing(self, frame: memoryview) -> bool:
        verdict = self._filter.outgoing(frame, self._now)
        if verdict is PASS:
            return True
        if verdict.reply:
            self._back.put(verdict.reply)
        if verdict.greeting and len(self._greetings) < _MAX_REPLIES:
            self._greetings.append(verdict.greeting)
        if verdict.asked is not None:
            self._ask(verdict.asked)
        if not self._tell_at and self._refused != self._told:
            self._tell_at = self._now + TELL_EVERY
        return verdict.passes

    def _incoming(self, frame: memoryview) -> bool:
        if len(frame) > MAX_FRAME:
            return False
        if self._sent and frame[12:14] == ARP and bytes(frame[20:22]) == _REPLY and frame[28:32] == _NOBODY.packed:
            for greeting in self._sent.popleft():  # passt has read all that was sent before our question
                self._back.put(greeting)
            return False
        self._filter.incoming(frame, self._now)
        return True

    @property
    def _refused(self) -> int:
        return self._filter.refused.total()

    # -- orders -----------------------------------------------------------------------------------------------------

    def _order(self) -> Orders:
        data = self._control.recv(_ORDERS)
        if not data:
            raise EndedError
        return msgspec.json.decode(data, type=Orders)

    def _meet(self) -> bool:
        """Ask passt who the gateway is: it answers when all its ports are taken. Say whether there is anything to relay."""
        place = self._orders.place
        asked = arp(bytes.fromhex(place.mac), IPv4Address(place.four), IPv4Address(place.gateway))
        self._host.send(len(asked).to_bytes(4) + asked)
        if place.six:  # passt sends connections from its own link to the address there that it has seen the guest have
            mac = bytes.fromhex(place.mac)
            seen = solicit(mac, link_local(mac), IPv6Address(place.six))
            self._host.send(len(seen).to_bytes(4) + seen)
        poll = select.poll()
        for sock in (self._control, self._host):
            poll.register(sock, select.POLLIN)
        poll.poll()
        return bool(self._host.recv(len(asked) + 4, socket.MSG_PEEK))

    def _obey(self) -> bool:
        try:
            self._orders = self._order()
        except EndedError:
            return False
        self._filter.change(self._policy())
        self._tell()
        return True

    def _policy(self) -> Policy:
        rules = self._orders.rules
        return Policy(None if rules is None else parse_rules(rules), self._networks.look())

    def _tell(self) -> None:
        self._told, self._tell_at = self._refused, 0.0
        told = Told(number=self._orders.number, refused=dict(self._filter.refused), last=self._filter.last)
        with suppress(BlockingIOError):  # who does not read them gets the next ones
            self._control.send(msgspec.json.encode(told), socket.MSG_DONTWAIT)

    # -- names ------------------------------------------------------------------------------------------------------

    def _ask(self, asked: Asked) -> None:
        servers = list(self._orders.servers)
        if len(self._asking) >= MAX_QUESTIONS or not servers:
            self._back.put(self._filter.answered(asked, 0, b"", self._now))
            return
        self._ask_next(_Asking(asked, secrets.randbelow(1 << 16), servers))

    def _ask_next(self, asking: _Asking) -> None:
        """Ask the next server that can be asked; the last one's silence is an answer too."""
        while asking.servers:
            server = asking.servers.pop(0)
            asking.sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                asking.sock.connect((server, DNS_PORT))
                asking.sock.send(dns.ask(asking.asked.question, asking.number))
            except OSError:
                asking.sock.close()
                continue
            asking.until = self._now + PATIENCE
            self._asking[asking.sock.fileno()] = asking
            self._poll.register(asking.sock, select.POLLIN)
            return
        self._back.put(self._filter.answered(asking.asked, 0, b"", self._now))

    def _answer(self, fd: int) -> None:
        asking = self._asking[fd]
        try:
            message = asking.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._done(fd)
            self._ask_next(asking)
            return
        self._done(fd)
        self._back.put(self._filter.answered(asking.asked, asking.number, message, self._now))

    def _done(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._asking.pop(fd).sock.close()

    def _expire(self) -> None:
        for fd in [fd for fd, asking in self._asking.items() if asking.until <= self._now]:
            asking = self._asking[fd]
            self._done(fd)
            self._ask_next(asking)


def main(argv: Sequence[str]) -> int:
    """Relay to the end."""
    control, guest, host = (socket.socket(fileno=int(number)) for number in argv[:3])
    uid = int(argv[3])
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), min(_FILES, hard)))
    try:
        relay = Relay(control, guest, host)
    except (UtilityVMError, OSError, msgspec.MsgspecError) as error:
        print(error, file=sys.stderr)  # noqa: T201 (kept by whoever started us)
        return 1
    relay.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
