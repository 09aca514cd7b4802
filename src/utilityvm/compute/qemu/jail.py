"""The jail around QEMU: its layers, and the words that put QEMU into those that hold. Pure; `jail_probe` finds out which do.

From the outside in: a user of QEMU's own when the owner is root; namespaces; in them a root that holds nothing but what QEMU
reads. The seccomp filter is QEMU's own (`lower`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from utilityvm.kit.enclosure import Enclosure
from utilityvm.kit.ids import RuntimeId

MAX_FILES: Final = 1024
"""Descriptors that QEMU may have open."""

FIRST_UID: Final = 0x7000_0000
"""The users that QEMU runs as when its owner is root begin here, one for each machine; systemd's table of uids has no use for them."""

_UIDS: Final = 0x0FFF_FFFF


class Layer(StrEnum):
    """One thing that holds QEMU."""

    OWN_USER = "own user"
    USER = "user namespace"
    MOUNT = "mount namespace"
    PID = "pid namespace"
    IPC = "ipc namespace"
    NETWORK = "network namespace"
    UTS = "uts namespace"
    CGROUP = "cgroup namespace"
    NO_USER_NAMESPACES = "no further user namespaces"
    NO_CAPABILITIES = "no capabilities"
    NO_NEW_PRIVILEGES = "no new privileges"
    SECCOMP = "seccomp filter"


ALWAYS: Final = (Layer.NO_CAPABILITIES, Layer.NO_NEW_PRIVILEGES, Layer.SECCOMP)
"""Layers that no host refuses; without them QEMU does not start."""

STEPS: Final[tuple[tuple[Layer, ...], ...]] = (
    (Layer.OWN_USER,),
    (Layer.USER, Layer.MOUNT, Layer.PID),
    (Layer.IPC,),
    (Layer.NETWORK,),
    (Layer.UTS,),
    (Layer.CGROUP,),
    (Layer.NO_USER_NAMESPACES,),
)
"""Layers that a host may refuse. Those of one step are had together or not at all; all after the second need the second."""

_UNSHARE: Final[Mapping[Layer, str]] = {Layer.IPC: "--ipc", Layer.NETWORK: "--net", Layer.UTS: "--uts", Layer.CGROUP: "--cgroup"}


class Jail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds QEMU on this host: `layers` do, `lacks` are the others, each with the reason.

    An ordinary user's QEMU has no user of its own: that layer is in neither. `files` are the files and folders that QEMU reads;
    `group` is the group that may open /dev/kvm, 0 when none is needed.
    """

    layers: tuple[Layer, ...] = ALWAYS
    lacks: dict[Layer, str] = {}
    files: tuple[str, ...] = ()
    group: int = 0


def enclosure(
    jail: Jail, uid: int, *, root: bool, files: tuple[str, ...] = (), devices: tuple[str, ...] = (), gids: tuple[int, ...] = ()
) -> Enclosure:
    """Return what QEMU is put into.

    `root` says whether the owner is root, `uid` who QEMU is then; it is its group too. `files` are those of this machine that
    QEMU reads by their absolute path, `devices` the device nodes that it opens, `gids` further groups that may open them.
    """
    setpriv = ["--no-new-privs"]
    if Layer.OWN_USER in jail.layers:
        further = [str(gid) for gid in sorted({jail.group, *gids} - {0})]
        groups = f"--groups={','.join(further)}" if further else "--clear-groups"
        setpriv += [f"--reuid={uid}", f"--regid={uid}", groups]
    limits = ["ulimit -c 0", f"{{ ulimit -n {MAX_FILES} 2>/dev/null || :; }}"]  # a limit that is lower already stays
    if Layer.MOUNT not in jail.layers:
        if root:
            setpriv += ["--bounding-set=-all", "--inh-caps=-all"]
        return Enclosure(setpriv=tuple(setpriv), first=tuple(limits))
    if Layer.NO_USER_NAMESPACES in jail.layers:
        limits.append("echo 0 >/proc/sys/user/max_user_namespaces")
    # Root of a user namespace is nobody outside. Its rights there make the mounts; they are taken from QEMU, for good by the bounding set.
    unshare = ("--user", "--map-root-user", "--keep-caps", *(word for layer, word in _UNSHARE.items() if layer in jail.layers))
    inside = ("setpriv", "--bounding-set=-all", "--", *_bwrap((*jail.files, *files), devices))
    return Enclosure(setpriv=tuple(setpriv), unshare=unshare, first=tuple(limits), inside=inside)


def _bwrap(files: tuple[str, ...], devices: tuple[str, ...]) -> tuple[str, ...]:
    words = ["bwrap", "--unshare-pid", "--die-with-parent", "--cap-drop", "ALL", "--clearenv"]
    for file in files:
        words += ["--ro-bind", file, file]
    words += ["--proc", "/proc"]
    for device in ("/dev/null", *devices):
        words += ["--dev-bind", device, device]
    return (*words, "--remount-ro", "/", "--chdir", "/", "--")


def uid_of(runtime_id: RuntimeId) -> int:
    """Return who a machine's QEMU is when its owner is root: another for each machine, so that they cannot reach each other."""
    return FIRST_UID + (int(runtime_id.replace("-", ""), 16) & _UIDS)


def for_kvm(jail: Jail, *, mode: int, gid: int) -> Jail:
    """Return the jail of a QEMU that opens /dev/kvm, which has this mode and group.

    Where only root may open it, QEMU stays root's: a guest under KVM without its own user is better held than one that is emulated.
    """
    if Layer.OWN_USER not in jail.layers or mode & 0o006 == 0o006:
        return jail
    if gid != 0 and mode & 0o060 == 0o060:
        return msgspec.structs.replace(jail, group=gid)
    reason = f"only root may open /dev/kvm: its mode is {mode & 0o777:04o}, its group {gid}"
    layers = tuple(layer for layer in jail.layers if layer is not Layer.OWN_USER)
    return msgspec.structs.replace(jail, layers=layers, lacks={Layer.OWN_USER: reason, **jail.lacks})


def hint(jail: Jail) -> str:
    """Return what to do about the layers that are lacking, ``""`` when nothing is known to help."""
    if any("failed to execute" in reason for reason in jail.lacks.values()):
        return "install the packages bubblewrap and util-linux"
    if Layer.USER in jail.lacks:
        return (
            "let users make user namespaces, see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns; in a container, also its seccomp profile"
        )
    if "/dev/kvm" in jail.lacks.get(Layer.OWN_USER, ""):
        return "let a group open it: chgrp kvm /dev/kvm; chmod 660 /dev/kvm"
    return ""
