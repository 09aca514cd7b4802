"""What a child process is put into, and the command line that does it: it dies with its owner in any case. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

# The kernel kills the child when we end. Had we ended before the child could ask for that, it would outlive us: so, once it
# has asked, it looks whether its parent is still the process that spawned it. From then on there is no moment left to miss.
_PARENT_IS_OWNER: Final = '[ "$PPID" = "$0" ]'

# In a pid namespace the parent is `unshare`, and its parent the owner; /proc is still the owner's. Both have asked by now.
_GRANDPARENT_IS_OWNER: Final = (
    'read -r _ _ _ parent _ </proc/self/stat && read -r _ _ _ owner _ <"/proc/$parent/stat" && [ "$owner" = "$0" ]'
)

# Before anything else, so that all that comes of the child is in the groups, and while it is still us who may enter them.
_ENTER_GROUPS: Final = 'until [ "$1" = -- ]; do echo 0 >"$1" || exit; shift; done; shift; exec "$@"'


class Enclosure(msgspec.Struct, frozen=True):
    """What a child is put into, from the outside in. The default is nothing.

    `groups` are files of control groups (``cgroup.procs``) that the child enters, and all its children with it.
    `setpriv` and `unshare` are options of these programs. With any of `unshare` the child is in a pid namespace of its own, which
    ends as a whole when we do and when the child does. There `inside` may be a program that runs the words after its own in a
    process below it, and ends with their exit code or 128 plus their signal. `first` are commands of a shell that come before.
    """

    groups: tuple[str, ...] = ()
    setpriv: tuple[str, ...] = ()
    unshare: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()

    def words(self, owner: int, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs `argv` enclosed, as a child of the process `owner`."""
        start = ["sh", "-c", _ENTER_GROUPS, "sh", *self.groups, "--"] if self.groups else []
        start += ["setpriv", "--pdeathsig", "KILL", *self.setpriv, "--"]
        if self.unshare:
            start += ["unshare", "--pid", "--fork", "--kill-child", *self.unshare, "--"]
        check = _GRANDPARENT_IS_OWNER if self.unshare else _PARENT_IS_OWNER
        return [*start, "sh", "-c", " && ".join([check, *self.first, 'exec "$@"']), str(owner), *self.inside, *argv]


OPEN: Final = Enclosure()
"""Nothing around the child."""
