"""What the owner of a relay tells it, and what it tells of itself: their messages on its control socket. So of the program for taps."""

from msgspec import Struct


class PlaceOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the guest is in its network: hardware addresses as twelve digits, its addresses (`six` may be empty), its resolver's."""

    mac: str
    gateway_mac: str
    gateway: str
    four: str
    six: str
    resolver: str


class Orders(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the filter keeps to: `rules` as `policy.parse_rules` reads them (None: the public network), the servers that are asked for
    names, names that are answered by ourselves, as `policy.parse_hosts` reads them, the guest's ports that are published, and how many
    bytes a second may go each way, 0: however many. Of later messages the rules and servers count.
    """

    number: int
    place: PlaceOrder
    rules: list[str] | None
    servers: list[str]
    hosts: list[str] = []
    rate: int = 0
    tcp: list[int] = []
    udp: list[int] = []


class Told(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of the orders that are kept to, how much was refused, by the reason, and what last."""

    number: int
    refused: dict[str, int]
    last: str


class TapOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done with a tap: made in the place of `interface` or a port of `bridge`, with at most `rate` bytes a second each way
    (0: however many); or with `leave` its traces removed.
    """

    tap: str
    interface: str = ""
    bridge: str = ""
    rate: int = 0
    leave: bool = False


class TapRoute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way of an interface; `gateway` ``""``: straight to the link, `metric` 0: the kernel's own."""

    destination: str
    gateway: str = ""
    metric: int = 0


class TapTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of it: what the guest's adapter is to have, with the tap's descriptor beside it; or an `error`, by its class's name."""

    mac: str = ""
    mtu: int = 0
    addresses: list[str] = []
    routes: list[TapRoute] = []
    error: str = ""
    message: str = ""
    hint: str = ""
