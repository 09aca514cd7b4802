"""The network that a guest is wanted to have. Without one it has none."""

from msgspec import Struct


class UserNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One that needs no rights: the host's own sockets speak for the guest.

    `allow` None lets it reach every public address. Otherwise it reaches what `allow` names and nothing else: ``CIDR``, ``address``,
    ``domain`` or ``*.domain``, each with ``:PORT`` or ``:PORT-PORT`` and ``/tcp`` or ``/udp`` if it is only about these. Addresses
    that are private, local, of the host's own networks or a cloud's metadata are closed until a rule names them or a network in them.
    `publish` are ports of the guest to be reached on the host, ``[HOST:]PORT:PORT[/udp]`` or ranges of them. `dns` are the servers that
    are asked for names, those of the host when it is empty. `hosts` are addresses of names, ``NAME:ADDRESS``, that the guest is told when
    it asks for them, and no server is; what it reaches is `allow`'s all the same. `rate` is how many bytes a second may go each way at
    most, 65 536 at least; None: however many.
    """

    allow: tuple[str, ...] | None = None
    publish: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    rate: int | None = None


class NamespaceNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The place of an interface in a network namespace of the host, as a CNI plugin makes it; only root can have it.

    What arrives at `interface` in the namespace at the path `namespace` goes to the guest, and what the guest sends leaves there: its
    hardware address, addresses, ways and MTU become the guest's. `dns` are the servers that the guest asks for names; when it is empty,
    those of the host that are not on its loopback. `rate` is as in `UserNetwork`. What the guest may reach is the namespace's own matter.
    """

    namespace: str
    interface: str = "eth0"
    dns: tuple[str, ...] = ()
    rate: int | None = None


class BridgeNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of a bridge of the host; only root can have it.

    `addresses` are the guest's, ``ADDRESS/LENGTH`` of IPv4 or IPv6, one at least: nothing is asked by DHCP. `gateways` are its ways to
    everything, at most one of each family. `dns` is as in `NamespaceNetwork`, `rate` as in `UserNetwork`. What the guest may reach is the
    bridge's own matter.
    """

    bridge: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    rate: int | None = None


NetworkWish = UserNetwork | NamespaceNetwork | BridgeNetwork
"""All kinds."""
