"""What `ip` and `tc` tell of an interface, in JSON: what a guest in its place has to have, and whether its place is free. Pure."""

from collections.abc import Collection, Sequence
from ipaddress import ip_address, ip_network
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct, UnsetType

from utilityvm.kit.errors import Exists, HostError, Unsupported
from utilityvm.network.orders import TapRoute, TapTold

PREFERENCE: Final = 30_321
"""The number of our filters, by which they are known."""

LIMITER: Final = "7576:"
"""The handle of what limits the rate at an interface, by which it is known."""

MAX_LISTED: Final = 64
"""Addresses, and ways, that a guest is told: so many its agent takes."""

_INGRESS: Final = "ingress"
_Row = TypeVar("_Row")


class Address(Struct, frozen=True):
    """An address of an interface."""

    local: str = ""
    prefixlen: int = 0
    scope: str = ""


class Detail(Struct, frozen=True):
    """What kind of interface it is, where it is of a kind."""

    info_kind: str = ""


class Link(Struct, frozen=True):
    """An interface."""

    ifname: str = ""
    mtu: int = 0
    address: str = ""
    link_type: str = ""
    addr_info: list[Address] = []
    linkinfo: Detail = Detail()


class Way(Struct, frozen=True):
    """A route."""

    dst: str
    type: str = "unicast"
    gateway: str = ""
    protocol: str = ""
    metric: int = 0
    via: Raw | UnsetType = msgspec.UNSET
    nexthops: Raw | UnsetType = msgspec.UNSET


class Action(Struct, frozen=True):
    """What a filter does."""

    to_dev: str = ""


class FilterOptions(Struct, frozen=True):
    """A filter's actions."""

    actions: list[Action] = []


class TrafficFilter(Struct, frozen=True):
    """A filter of traffic."""

    pref: int = 0
    options: FilterOptions = FilterOptions()


class Qdisc(Struct, frozen=True):
    """A queueing discipline."""

    kind: str = ""
    handle: str = ""
    root: bool = False


def rows(text: str, kind: type[_Row]) -> list[_Row]:
    """Return what a tool has printed.

    Raises:
        HostError: it is of another shape.
    """
    try:
        return msgspec.json.decode(text or "[]", type=list[kind])  # type: ignore[valid-type]
    except msgspec.MsgspecError as error:
        raise HostError(f"iproute2 says what is not understood: {error}", hint="version 6.1 is known to work") from error


def place_of(link: Link, ways: Sequence[Way]) -> TapTold:
    """Return what a guest in the place of `link` has to have.

    Raises:
        HostError: it is no interface of Ethernet, or has no address.
        Unsupported: one of its ways is of a kind that guests are not told.
    """
    if link.link_type != "ether":
        raise HostError(f"the interface {link.ifname} is no interface of Ethernet but {link.link_type or 'unknown'}")
    addresses = [f"{one.local}/{one.prefixlen}" for one in link.addr_info if _is_own(one)]
    if not addresses:
        raise HostError(f"the interface {link.ifname} has no address", hint="give it one: a guest asks nobody for its address")
    routes = [_route(way) for way in ways if way.protocol != "kernel" and way.type in {"unicast", ""}]
    for count, what in ((len(addresses), "addresses"), (len(routes), "routes")):
        if count > MAX_LISTED:
            raise Unsupported(f"the interface {link.ifname} has {count} {what}: at most {MAX_LISTED}")
    return TapTold(mac=link.address, mtu=link.mtu, addresses=addresses, routes=routes)


def _is_own(address: Address) -> bool:
    return bool(address.local) and address.scope != "host" and not ip_address(address.local).is_link_local


def _route(way: Way) -> TapRoute:
    if way.via is not msgspec.UNSET or way.nexthops is not msgspec.UNSET:
        raise Unsupported(f"the route to {way.dst} has several hops, or one of the other family, which a guest is not told")
    if way.dst == "default":
        if not way.gateway:
            raise Unsupported("the route to everything has no gateway, which a guest is not told", hint="add one that has")
        everything = "::/0" if ":" in way.gateway else "0.0.0.0/0"
        return TapRoute(destination=everything, gateway=way.gateway, metric=way.metric)
    return TapRoute(destination=str(ip_network(way.dst)), gateway=way.gateway, metric=way.metric)


def left_behind(interface: str, qdiscs: Sequence[Qdisc], filters: Sequence[TrafficFilter], there: Collection[str]) -> list[str]:
    """Return which qdiscs at `interface` were left by a VM that is gone, as `tc` names their places; `there` are the interfaces beside it.

    Raises:
        Exists: a VM has its place, or it is somebody else's.
    """
    kinds = [one.kind for one in qdiscs if one.kind in {_INGRESS, "clsact"}]
    limits = ["root"] if any(one.root and one.handle == LIMITER for one in qdiscs) else []
    if not kinds:
        return limits
    targets = {action.to_dev for one in filters for action in one.options.actions if action.to_dev}
    if kinds != [_INGRESS] or any(one.pref != PREFERENCE for one in filters):
        raise Exists(f"something else takes the traffic of the interface {interface}", hint=f"tc filter show dev {interface} ingress")
    if taken := targets & set(there):
        raise Exists(f"the place of the interface {interface} is taken by {', '.join(sorted(taken))}", hint="a namespace is one VM's")
    return [_INGRESS, *limits]


def check_unchosen(interface: str, qdiscs: Sequence[Qdisc]) -> None:
    """Refuse to limit what leaves at an interface where somebody has chosen how it leaves: the kernel's own choices have no handle.

    Raises:
        Unsupported: somebody has.
    """
    if chosen := [one.kind for one in qdiscs if one.root and one.handle not in {"0:", LIMITER}]:
        hint = f"limit it there, or: tc qdisc del dev {interface} root"
        raise Unsupported(f"the rate at {interface} cannot be limited: it has the qdisc {chosen[0]} of somebody's choice", hint=hint)
