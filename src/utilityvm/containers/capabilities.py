"""Capabilities: docker's default ones, and what is added and dropped. Pure."""

from collections.abc import Iterable
from typing import Final

from utilityvm.kit.errors import InvalidOptions

DEFAULT: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What docker and podman leave to a container."""

ALL: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""All that Linux has since 5.9, in the order of its numbers."""

_EVERY: Final = "ALL"


def granted(add: Iterable[str], drop: Iterable[str]) -> list[str]:
    """Return the capabilities of a container in the kernel's order, of docker's default ones with some added and some dropped.

    Names are taken with and without ``CAP_``, in any case; ``ALL`` is each of them. What is named wins over ``ALL``.

    Raises:
        InvalidOptions: there is no such capability, or one is added and dropped.
    """
    added, dropped = set(map(_known, add)), set(map(_known, drop))
    if both := sorted(added & dropped):
        raise InvalidOptions(f"capability {both[0]} is both added and dropped")
    base = set(ALL) if _EVERY in added else set() if _EVERY in dropped else set(DEFAULT)
    return [name for name in ALL if name in (base - dropped) | added]


def _known(name: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain == _EVERY:
        return _EVERY
    if (whole := f"CAP_{plain}") not in ALL:
        raise InvalidOptions(f"no capability is called {name!r}", hint="capabilities(7) lists them, e.g. NET_ADMIN")
    return whole
