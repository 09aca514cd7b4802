"""What the owner of a relay tells it, and what it tells of itself: their messages on its control socket."""

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
    names, and the guest's ports that are published. Of later messages the rules and servers count.
    """

    number: int
    place: PlaceOrder
    rules: list[str] | None
    servers: list[str]
    tcp: list[int] = []
    udp: list[int] = []


class Told(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of the orders that are kept to, how much was refused, by the reason, and what last."""

    number: int
    refused: dict[str, int]
    last: str
