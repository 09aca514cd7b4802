"""The network that a guest is wanted to have. Without one it has none."""

from msgspec import Struct


class UserNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One that needs no rights: the host's own sockets speak for the guest.

    `allow` None lets it reach every public address. Otherwise it reaches what `allow` names and nothing else: ``CIDR``, ``address``,
    ``domain`` or ``*.domain``, each with ``:PORT`` or ``:PORT-PORT`` and ``/tcp`` or ``/udp`` if it is only about these. Addresses
    that are private, local, of the host's own networks or a cloud's metadata are closed until a rule names them or a network in them.
    `publish` are ports of the guest to be reached on the host, ``[HOST:]PORT:PORT[/udp]`` or ranges of them. `dns` are the servers that
    are asked for names, those of the host when it is empty.
    """

    allow: tuple[str, ...] | None = None
    publish: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
