"""The host's own addresses and the networks that it is in, asked of the kernel (rtnetlink)."""

import errno
import socket
import struct
from ipaddress import ip_interface, ip_network
from typing import Final, final

from utilityvm.kit.errors import HostError
from utilityvm.network.policy import Net

_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP: Final = 0x301
_GROUPS: Final = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_CHUNK: Final = 1 << 16
_ROUNDS: Final = 1024
_UNKNOWN: Final = "the kernel tells of addresses in a way that is not known"


def parse(data: bytes) -> tuple[list[Net], bool]:
    """Return the networks that the messages of one datagram tell of, and whether there are no more.

    Raises:
        HostError: the kernel refuses, or says what cannot be read.
    """
    nets, at = list[Net](), 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if size < 16 or at + size > len(data):
            raise HostError(_UNKNOWN)
        if kind == _NLMSG_DONE:
            return nets, True
        if kind == _NLMSG_ERROR:
            raise HostError("the kernel does not tell this host's addresses")
        if kind == _RTM_NEWADDR:
            try:
                nets += _nets(data[at + 16 : at + size])
            except (IndexError, ValueError) as error:  # too short, or a network of more bits than an address has
                raise HostError(_UNKNOWN) from error
        at += size + 3 & ~3
    return nets, False


def _nets(body: bytes) -> list[Net]:
    """Return an address and its network."""
    length, at, found = body[1], 8, dict[int, bytes]()
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:
            break
        found[kind] = body[at + 4 : at + size]
        at += size + 3 & ~3
    told = [found[kind] for kind in (_IFA_LOCAL, _IFA_ADDRESS) if len(found.get(kind, b"")) in {4, 16}]
    if not told:
        return []
    own, peer = told[0], told[-1]
    own_text = socket.inet_ntop(socket.AF_INET if len(own) == 4 else socket.AF_INET6, own)
    peer_text = socket.inet_ntop(socket.AF_INET if len(peer) == 4 else socket.AF_INET6, peer)
    return [ip_network(own_text), ip_interface(f"{peer_text}/{length}").network]


@final
class HostNetworks:
    """What is known of the host's networks; `fileno` is readable when they change, and then `look` tells them anew."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def look(self) -> tuple[Net, ...]:
        """Return the addresses and networks of all interfaces, also of those that are down.

        Raises:
            HostError: the kernel does not tell them.
        """
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
            asking.send(struct.pack("=IHHII", 17, _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + b"\0")
            nets = list[Net]()
            for _ in range(_ROUNDS):
                more, done = parse(asking.recv(_CHUNK))
                nets += more
                if done:
                    return tuple(dict.fromkeys(nets))
        raise HostError("the kernel tells of addresses without end")

    def drain(self) -> None:
        """Take the news; what they are of is looked at anew anyway."""
        try:
            while self._socket.recv(_CHUNK, socket.MSG_DONTWAIT):
                pass
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENOBUFS}:
                raise
