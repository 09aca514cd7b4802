"""What the server of a share must know of it, as one number."""

from enum import IntFlag


class Flag(IntFlag):
    """How a share is served. A number among the server's words."""

    READ_ONLY = 1
    """Nothing is changed."""
    RESTRICT = 2
    """The root has no other names than those that are given."""
    SQUASH = 4
    """The server acts as the owner of the share's root, whom the guest sees as root."""
    ORDINARY = 8
    """Whoever started the server is an ordinary user, in a namespace in which he is root."""
