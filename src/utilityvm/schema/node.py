"""The two sorts of objects in HCS JSON: those that we write, and those that a peer tells us."""

from msgspec import Struct


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An object that we write. Unknown members are refused: a driver must never drop a wish without a word."""


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An object that a peer tells. What we do not know of it is passed over: newer peers tell more."""
