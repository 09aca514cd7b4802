"""What an image says of itself and what a user wants of it, as the OCI specification of a container. Pure.

Meanings and defaults are docker's, but for two: there is no seccomp profile and no AppArmor, since the boundary round the container is
its VM, whose kernel is nobody else's.
"""

import math
from collections.abc import Iterator
from typing import Final

from utilityvm.containers import capabilities
from utilityvm.containers.mounts import NOCOPY, SCRATCH, VOLUME
from utilityvm.containers.wish import Ulimit, Wish
from utilityvm.guest.spec import ProcessSpec, parameters
from utilityvm.images.image import ImageConfig
from utilityvm.kit.errors import InvalidOptions
from utilityvm.plan.topology import GUEST_MEMORY
from utilityvm.wire import oci

OCI_VERSION: Final = "1.0.2"
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM: Final = "TERM=xterm"
"""The terminal that a container is told of, as by docker: every image that knows any knows this one."""

CPU_PERIOD: Final = 100_000
"""Microseconds in which a container has its share of the processors."""

_PER_PAGE: Final = 48  # of a container's memory, one byte in so many is the kernel's for keeping account of it
_MIB: Final = 1 << 20

_MASKED: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CLOSED: Final = ("nosuid", "noexec", "nodev")
_MOUNTS: Final = (
    oci.Mount(destination="/proc", type="proc", source="proc", options=[*_CLOSED]),
    oci.Mount(destination="/dev", type="tmpfs", source="tmpfs", options=["nosuid", "strictatime", "mode=755", "size=65536k"]),
    oci.Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    oci.Mount(destination="/sys", type="sysfs", source="sysfs", options=[*_CLOSED, "ro"]),
    oci.Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=["ro", *_CLOSED]),
    oci.Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=[*_CLOSED]),
)
_SHM: Final = 64 << 20  # bytes of /dev/shm
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def spec_of(config: ImageConfig, wish: Wish, container_id: str) -> oci.Spec:
    """Return what the container `container_id` of an image is to be.

    Raises:
        InvalidOptions: nothing is to be run, a path is not absolute, or two things are mounted at one place.
    """
    hostname = wish.hostname or container_id[:12]
    return oci.Spec(
        oci_version=OCI_VERSION,
        process=process_of(config, wish, hostname),
        root=oci.Root(path="rootfs", readonly=wish.read_only),
        hostname=hostname,
        mounts=_mounts(config, wish),
        linux=oci.Linux(
            sysctl=dict(wish.sysctls),
            resources=_resources(wish),
            namespaces=[oci.Namespace(type=kind) for kind in _NAMESPACES if kind != "network" or not wish.vm_network],
            masked_paths=[*_MASKED],
            readonly_paths=[*_READ_ONLY],
        ),
    )


def process_of(config: ImageConfig, wish: Wish, hostname: str) -> oci.OciProcess:
    """Return a process of the container whose host name is `hostname`: `wish` says which.

    Raises:
        InvalidOptions: there is none, or its folder is not absolute.
    """
    cwd = _folder(wish.cwd or config.working_dir or "/")
    granted = capabilities.granted(wish.cap_add, wish.cap_drop)
    height_width = wish.console_size
    return oci.OciProcess(
        terminal=height_width is not None,
        console_size=None if height_width is None else oci.Box(height=height_width[0], width=height_width[1]),
        user=oci.User(uid=0, gid=0, username=wish.user or config.user),
        args=_args(config, wish),
        env=list(_env(config, wish, hostname)),
        cwd=cwd,
        capabilities=oci.Capabilities(bounding=granted, effective=granted, permitted=granted),
        rlimits=list(map(_rlimit, wish.ulimits)),
    )


_NO_IMAGE: Final = ImageConfig(architecture="", os="")


def check_wish(wish: Wish) -> None:
    """Refuse what no container of any image could be made with.

    Raises:
        InvalidOptions: words, variables, user or folder that no process can have; `problems` has all. Or two things are to be mounted at
            one place.
    """
    words = ("command", *(wish.entrypoint or ()), *wish.args)
    parameters(ProcessSpec(argv=words, env=tuple((name, value or "") for name, value in wish.env), cwd=wish.cwd, user=wish.user))
    _folder(wish.cwd or "/")
    _mounts(_NO_IMAGE, wish)
    capabilities.granted(wish.cap_add, wish.cap_drop)


def _folder(cwd: str) -> str:
    if not cwd.startswith("/"):
        raise InvalidOptions(f"the working directory {cwd!r} is not an absolute path of the container")
    return cwd


def vm_size(wish: Wish) -> dict[str, int]:
    """Return the options of a VM that has room for the container; what is not wanted stays out of them.

    `wish.memory` is the container's own: the VM has it and `GUEST_MEMORY` more, and what the kernel needs to keep account of it.
    """
    size = {}
    if wish.memory is not None:
        whole = wish.memory + wish.memory // _PER_PAGE + GUEST_MEMORY
        size["memory_size_in_mb"] = -(-whole // (2 * _MIB)) * 2  # an odd number is rounded up with a warning to whoever asked for it
    if wish.cpus is not None:
        size["processor_count"] = math.ceil(wish.cpus)
    return size


def _args(config: ImageConfig, wish: Wish) -> list[str]:
    # An image's command was written for its own entrypoint.
    entrypoint, command = (config.entrypoint, config.cmd) if wish.entrypoint is None else (wish.entrypoint, ())
    args = [*entrypoint, *(wish.args or command)]
    if not args:
        raise InvalidOptions("no command: the image has none, and none was given")
    return args


def _env(config: ImageConfig, wish: Wish, hostname: str) -> Iterator[str]:
    """Give the image's variables in their order, changed in their places, and then the new ones."""
    usual = [DEFAULT_PATH, f"HOSTNAME={hostname}"] + [TERM] * (wish.console_size is not None)
    said = (text.partition("=") for text in [*usual, *config.env])
    variables: dict[str, str | None] = {name: value for name, _, value in said}
    variables |= dict(wish.env)
    return (f"{name}={value}" for name, value in variables.items() if value is not None)


def _mounts(config: ImageConfig, wish: Wish) -> list[oci.Mount]:
    own = [oci.Mount(destination=one.target, type="tmpfs", source="tmpfs", options=list(one.options)) for one in wish.tmpfs]
    for volume in wish.volumes:
        flag = "ro" if volume.read_only else "rw"
        if volume.name:
            more = [] if volume.size is None else [f"size={volume.size}"]
            more += [] if volume.copy else [NOCOPY]
            own.append(oci.Mount(destination=volume.target, type=VOLUME, source=volume.name, options=[flag, *more]))
        else:
            own.append(oci.Mount(destination=volume.target, type="bind", source=volume.path, options=["rbind", flag]))
    taken: set[str] = set()
    for place in (_plain(mount.destination) for mount in own):
        if place in taken:
            raise InvalidOptions(f"two things are mounted at {place}")
        taken.add(place)
    own += [  # what is written to an image's volumes is not the root's, which may be closed
        oci.Mount(destination=place, type=SCRATCH, source=str(number), options=["rw"])
        for number, place in enumerate(config.volumes)
        if _plain(place) not in taken
    ]
    size = _SHM if wish.shm_size is None else wish.shm_size
    shm = oci.Mount(destination="/dev/shm", type="tmpfs", source="shm", options=[*_CLOSED, "mode=1777", f"size={size}"])  # noqa: S108
    return [mount for mount in (*_MOUNTS, shm) if mount.destination not in taken] + sorted(
        own, key=lambda mount: mount.destination.count("/")
    )


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)


def _resources(wish: Wish) -> oci.Resources:
    cpu = None
    if wish.cpus is not None and not wish.cpus.is_integer():  # whole ones are the VM's processors
        cpu = oci.CpuLimits(quota=round(wish.cpus * CPU_PERIOD), period=CPU_PERIOD)
    return oci.Resources(
        devices=[oci.DeviceRule(allow=False, access="rwm")],
        memory=None if wish.memory is None else oci.MemoryLimits(limit=wish.memory),
        cpu=cpu,
        pids=None if wish.pids is None else oci.PidsLimit(limit=wish.pids),
    )


def _rlimit(limit: Ulimit) -> oci.Rlimit:
    return oci.Rlimit(type=f"RLIMIT_{limit.name.upper()}", hard=limit.hard, soft=limit.soft)
