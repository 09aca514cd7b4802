"""Control groups of Linux, version 1 and 2: one for each VM that has a share of the host's processors, and CPU groups above them.

They lie in ``utilityvm`` at the top of what this user may change: ``utilityvm/ID`` for a VM, ``utilityvm/@NAME`` for a CPU group and
``utilityvm/@NAME/ID`` for a VM in it; no VM's id begins with ``@``. Whoever made a VM's group keeps a lock on its folder, which the kernel
drops with its holder: what nobody holds is left over, and removed by `sweep`. A group with a process in it the kernel does not remove.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import msgspec

from utilityvm.compute.qemu.share import USUAL_WEIGHT, Quota, Share, group_name, quota_of, shares
from utilityvm.kit.errors import Exists, HostError, InvalidOptions, NotFound, StateError, Unsupported
from utilityvm.kit.ids import VmId

if sys.platform != "win32":  # where there are none
    import fcntl

OURS: Final = "utilityvm"
_MARK: Final = "@"
_GROUP: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")
_PROCS: Final = "cgroup.procs"
_TRIES: Final = 1000  # against somebody who sweeps, and holds a lock for microseconds
_HINT: Final = "run as root; or, with version 2 and systemd, from a session to which the cpu controller is delegated"


class Tree(msgspec.Struct, frozen=True):
    """A hierarchy in which we may make groups, below the folder `base`; `controllers` are those of ``cpu`` and ``cpuset`` that it has."""

    base: Path
    controllers: frozenset[str]
    unified: bool

    @property
    def ours(self) -> Path:
        """The folder of all our groups."""
        return self.base / OURS

    def parent(self, group: str) -> Path:
        """The folder in which a VM's group is, in the CPU group `group`, or in none (``""``)."""
        return self.ours / f"{_MARK}{group}" if group else self.ours


class CpuGroupInfo(msgspec.Struct, frozen=True):
    """A CPU group: `cap` is the most that all its VMs together use, in processors (None: no bound), `affinity` those that they run on, as
    ``0,2-3`` (``""``: all), `vms` their ids.
    """

    name: str
    cap: float | None
    affinity: str
    vms: tuple[str, ...]


@final
class VmGroup:
    """One VM's control group, held until `close`. Made by `Cgroups.make`."""

    def __init__(self, folders: dict[Path, int], trees: tuple[Tree, ...]) -> None:
        self._folders, self._trees = folders, trees

    @property
    def entries(self) -> tuple[str, ...]:
        """The files into which a process writes ``0`` to be in the group, with all its children."""
        return tuple(f"{folder}/{_PROCS}" for folder in self._folders)

    def give(self, share: Share) -> None:
        """Give it limit and weight.

        Raises:
            HostError: the kernel does not take them.
        """
        for folder, tree in self._with("cpu"):
            with _kernel(folder):
                _set_quota(folder, share.quota, unified=tree.unified)
                if tree.unified:
                    _write(folder / "cpu.weight", str(share.weight or USUAL_WEIGHT))
                else:
                    _write(folder / "cpu.shares", str(shares(share.weight)))

    def adopt(self, pids: Iterable[int]) -> None:
        """Take processes in; one that has ended is none the worse.

        Raises:
            HostError: the kernel refuses.
        """
        numbers = list(pids)
        for tree in self._trees:
            folder = next((folder for folder in self._folders if folder.is_relative_to(tree.base)), tree.base)
            for pid in numbers:
                with _kernel(folder), suppress(ProcessLookupError):
                    _write(folder / _PROCS, str(pid))

    def pids(self) -> set[int]:
        """The processes in it."""
        (folder, _), *_ = self._with("cpu")
        with _kernel(folder):
            return {int(word) for word in (folder / _PROCS).read_text().split()}

    def close(self) -> None:
        """Remove it and let it go. When something still runs in it, it is left for `sweep`. A second call does nothing."""
        for folder, lock in self._folders.items():
            with suppress(OSError):
                folder.rmdir()
            os.close(lock)
        self._folders = {}

    def _with(self, controller: str) -> list[tuple[Path, Tree]]:
        trees = [tree for tree in self._trees if controller in tree.controllers]
        return [(folder, tree) for folder in self._folders for tree in trees if folder.is_relative_to(tree.base)]


@final
class Cgroups:
    """The control groups of this host, as far as this process may change them; `proc` is its folder in /proc."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc

    def check(self, share: Share) -> None:
        """Find out whether a VM can have this share; also sweeps.

        Raises:
            Unsupported: this host gives this user no control group; the text has the fields that need one.
            NotFound: there is no such CPU group.
        """
        self.sweep()
        if not share.wanted:
            return
        tree = self._need("cpu", share.fields)
        with _kernel(tree.ours):
            _prepare(tree)
        if share.group and not tree.parent(share.group).is_dir():
            raise NotFound(f"CPU group {share.group!r}: there is none of that name", hint=f"uvm cpugroup create {share.group}")

    def make(self, vm_id: VmId, share: Share) -> VmGroup:
        """Make the group of a VM, with its share.

        Raises:
            Unsupported, NotFound: as `check`.
            Exists: another VM of this id has a group.
            HostError: the kernel does not take the share.
        """
        self._need("cpu", share.fields)
        trees, held = tuple(self._trees()), dict[Path, int]()
        group = VmGroup(held, trees)
        try:
            for tree in trees:
                parent = tree.parent(share.group)
                if "cpu" not in tree.controllers and not (share.group and parent.is_dir()):
                    continue
                with _kernel(parent):
                    _prepare(tree)
                    held[parent / vm_id] = _hold(parent / vm_id)
                    _inherit_cpus(tree, parent / vm_id)
            group.give(share)
        except BaseException:
            group.close()
            raise
        return group

    def sweep(self) -> None:
        """Remove the groups of VMs whose owner is gone."""
        for tree in self._trees():
            for folder in [*_vms(tree.ours), *(vm for group in _groups(tree.ours) for vm in _vms(group))]:
                with suppress(OSError):
                    _remove_if_free(folder)

    def create_group(self, name: str, *, cap: float | None = None, affinity: str = "") -> None:
        """Make a CPU group.

        Raises:
            InvalidOptions: the name, the cap or the affinity makes no sense.
            Exists: there is one of that name.
            Unsupported: this host gives this user no control group.
        """
        name = group_name(name)
        if not _GROUP.fullmatch(name):
            raise InvalidOptions(f"CPU group {name!r}: 1 to 128 of a-z 0-9 _ . -, not beginning with a mark")
        made = list[Path]()
        try:
            for tree in self._wanted(cap, affinity):
                folder = tree.parent(name)
                with _kernel(folder):
                    _prepare(tree)
                    try:
                        folder.mkdir()
                    except FileExistsError as error:
                        raise Exists(f"CPU group {name!r}: there is one already") from error
                    made.append(folder)
                    _equip(tree, folder, cap, affinity)
        except BaseException:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
            raise

    def groups(self) -> list[CpuGroupInfo]:
        """Return all CPU groups, by name."""
        trees = self._trees()
        cpu = next((tree for tree in trees if "cpu" in tree.controllers), None)
        cpuset = next((tree for tree in trees if "cpuset" in tree.controllers), None)
        found = list[CpuGroupInfo]()
        for folder in sorted(_groups(cpu.ours)) if cpu else ():
            quota = _read_quota(folder)
            affinity = _read(cpuset.ours / folder.name / "cpuset.cpus") if cpuset else ""
            vms = tuple(sorted(vm.name for vm in _vms(folder)))
            found.append(CpuGroupInfo(folder.name.removeprefix(_MARK), quota.processors if quota else None, affinity, vms))
        return found

    def remove_group(self, name: str) -> None:
        """Remove a CPU group.

        Raises:
            NotFound: there is none of that name.
            StateError: there are VMs in it.
        """
        self.sweep()
        name, found = group_name(name), False
        for tree in self._trees():
            folder = tree.parent(name)
            if not folder.is_dir():
                continue
            found = True
            if vms := sorted(vm.name for vm in _vms(folder)):
                raise StateError(f"CPU group {name!r}", f"VMs are in it ({', '.join(vms)})", "remove it")
            with _kernel(folder):
                folder.rmdir()
        if not found:
            raise NotFound(f"CPU group {name!r}: there is none of that name")

    def _wanted(self, cap: float | None, affinity: str) -> list[Tree]:
        cpu = self._need("cpu", "a CPU group")
        if cap is not None and not 0.001 <= cap < float("inf"):  # the least that the kernel takes
            raise InvalidOptions(f"cap {cap:g}: at least a thousandth of a processor")
        if not affinity:
            return [cpu]
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", affinity):
            raise InvalidOptions(f"affinity {affinity!r}: numbers of processors, as 0,2-3")
        cpuset = self._need("cpuset", "the affinity of a CPU group")
        return [cpu] if cpuset == cpu else [cpu, cpuset]

    def _need(self, controller: str, what: str) -> Tree:
        for tree in self._trees():
            if controller in tree.controllers:
                return tree
        reason = f"this user (uid {os.geteuid()}) may change none with the {controller} controller"
        raise Unsupported(f"{what}: needs a control group, and {reason}", hint=_HINT)

    def _trees(self) -> list[Tree]:
        """Find the hierarchies of version 1 that have our controllers; what no such has may be had of version 2."""
        own, found, unified = self._own(), list[Tree](), None
        for root, mount, kind, options in self._mounts():
            wanted = frozenset({"cpu", "cpuset"} & set(options))
            if kind == "cgroup" and wanted:
                path = next((own[names] for names in own if wanted <= set(names.split(","))), "/")
                if (base := _highest(mount, root, path, frozenset())) is not None:
                    found.append(Tree(base, wanted, unified=False))
            elif kind == "cgroup2":
                unified = _highest(mount, root, own.get("", "/"), frozenset({"cpu"}))
        if unified is not None and not any("cpu" in tree.controllers for tree in found):
            here = frozenset({"cpu", "cpuset"} & set((unified / "cgroup.controllers").read_text().split()))
            found = [Tree(unified, here, unified=True)]
        return found

    def _own(self) -> dict[str, str]:
        """Return where this process is, by the controllers' names as /proc has them."""
        lines = (line.split(":", 2) for line in (self._proc / "cgroup").read_text().splitlines())
        return {names: path for _, names, path in lines}

    def _mounts(self) -> Iterator[tuple[str, Path, str, list[str]]]:
        for line in (self._proc / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            root, mount = (re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word) for word in before.split()[3:5])
            kind, _, options = after.split(" ", 2)
            if kind in {"cgroup", "cgroup2"}:
                yield root, Path(mount), kind, options.split(",")


# -- folders of groups ------------------------------------------------------------------------------------------------------


def _highest(mount: Path, root: str, own: str, needs: frozenset[str]) -> Path | None:
    """Return the highest folder from the mount down to where we are in which this user may make groups and move processes."""
    inner = Path(own).relative_to(root) if Path(own).is_relative_to(root) else Path()
    for folder in (mount.joinpath(*inner.parts[:depth]) for depth in range(len(inner.parts) + 1)):
        if os.access(folder, os.W_OK | os.X_OK) and os.access(folder / _PROCS, os.W_OK):
            with suppress(OSError):
                if not needs or needs <= set((folder / "cgroup.controllers").read_text().split()):
                    return folder
    return None


def _prepare(tree: Tree) -> None:
    """Make the folder of all our groups, in which groups can be made."""
    if tree.unified:
        _hand_down(tree, tree.base)
    with suppress(FileExistsError):
        tree.ours.mkdir(mode=0o700)  # so that no other user holds a lock in it
    if tree.unified:
        _hand_down(tree, tree.ours)
    _inherit_cpus(tree, tree.ours)


def _hand_down(tree: Tree, folder: Path) -> None:
    """Version 2: let groups in `folder` have the controllers."""
    control = folder / "cgroup.subtree_control"
    for name in sorted(tree.controllers - set(_read(control).split())):
        _write(control, f"+{name}")


def _inherit_cpus(tree: Tree, folder: Path) -> None:
    """Version 1: a new group has no processors, and takes no process before it has some."""
    if not tree.unified and "cpuset" in tree.controllers:
        for name in ("cpuset.mems", "cpuset.cpus"):
            if not _read(folder / name):
                _write(folder / name, _read(folder.parent / name))


def _equip(tree: Tree, folder: Path, cap: float | None, affinity: str) -> None:
    if tree.unified:
        _hand_down(tree, folder)
    if cap is not None and "cpu" in tree.controllers:
        _set_quota(folder, quota_of(cap), unified=tree.unified)
    if affinity and "cpuset" in tree.controllers:
        _inherit_cpus(tree, folder)
        _write(folder / "cpuset.cpus", affinity)


def _set_quota(folder: Path, quota: Quota | None, *, unified: bool) -> None:
    if unified:
        _write(folder / "cpu.max", f"{quota.quota} {quota.period}" if quota else "max")
        return
    above = _read_quota(folder.parent)  # version 1 refuses a group more than the one above has, where version 2 takes the lesser of both
    _write(folder / "cpu.cfs_quota_us", "-1")
    if quota and (above is None or quota.processors < above.processors):
        _write(folder / "cpu.cfs_period_us", str(quota.period))
        _write(folder / "cpu.cfs_quota_us", str(quota.quota))


def _read_quota(folder: Path) -> Quota | None:
    words = _read(folder / "cpu.max").split() or [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    return None if words[0] in {"", "max", "-1"} else Quota(int(words[0]), int(words[1]))  # the top of a hierarchy has no such file


def _vms(folder: Path) -> list[Path]:
    return [inner for inner in _inner(folder) if not inner.name.startswith(_MARK)]


def _groups(folder: Path) -> list[Path]:
    return [inner for inner in _inner(folder) if inner.name.startswith(_MARK)]


def _inner(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # there is none, or it is another user's
        return []


def _hold(folder: Path) -> int:
    """Make a VM's folder, or take over one that was left behind, and return the descriptor that holds it."""
    for _ in range(_TRIES):
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # swept just now
            continue
        # An owner shares its lock with nobody but other owners, of whom there are none; who sweeps wants it alone, for a moment.
        if _locked(lock, fcntl.LOCK_EX):
            if _locked(lock, fcntl.LOCK_SH) and _still(folder, lock):
                return lock
        elif _locked(lock, fcntl.LOCK_SH):
            os.close(lock)
            raise Exists(f"vm {folder.name}: there is a control group of a VM with this id: {folder}", hint="choose another id")
        os.close(lock)
    raise HostError(f"{folder}: another process keeps a lock on this control group")


def _remove_if_free(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _locked(lock, fcntl.LOCK_EX):
            folder.rmdir()
    finally:
        os.close(lock)


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still(folder: Path, lock: int) -> bool:
    """Whether what was locked is what has the name now."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False


def _read(file: Path) -> str:
    """Return a setting, ``""`` where there is none of that name."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


def _write(file: Path, text: str) -> None:
    file.write_text(text)


@contextmanager
def _kernel(folder: Path) -> Iterator[None]:
    """Tell a refusal of the kernel as an error of ours."""
    try:
        yield
    except OSError as error:
        raise HostError(f"control group {folder}: {error.filename or 'it'}: {error.strerror}", hint=_HINT) from error
