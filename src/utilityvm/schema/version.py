"""The version of the schema that a document follows."""

from msgspec import field

from utilityvm.schema.node import Node


class Version(Node, frozen=True, kw_only=True):
    """Version of the schema that a document follows."""

    major: int = field(default=0, name="Major")
    minor: int = field(default=0, name="Minor")
