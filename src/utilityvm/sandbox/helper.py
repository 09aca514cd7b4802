"""The one program of ours in a sandbox: the guest's static busybox, mounted where no image has anything. No image needs any program.

Programs of the container can see it and run it, and cannot change it.
"""

from typing import Final

from utilityvm.wire.oci import Mount

BUSYBOX: Final = "/dev/.uvm/busybox"
"""Where it is in the container. Its name begins with ``busybox``, by which it takes its first argument for a program's name."""

MOUNT: Final = Mount(destination=BUSYBOX, type="none", source="/bin/busybox", options=["bind", "ro"])
"""A file of the guest's own root: hosts leave mounts of this type to the guest."""

INIT: Final = (BUSYBOX, "sh", "-c", f"while :; do {BUSYBOX} sleep 2147483647 & wait; done")
"""The first process of a sandbox: it waits, and takes the exit codes of those whose parents are gone.

A program may kill all processes but this one, by ``kill -9 -1``: what it waits for is started again.
"""


def script(text: str, *arguments: str) -> list[str]:
    """Return the words that run a shell's script, in which ``$b`` is busybox and ``$1`` the first argument."""
    return [BUSYBOX, "sh", "-c", f"b={BUSYBOX}; {text}", "sh", *arguments]
