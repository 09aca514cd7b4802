"""What one machine has of the host's processors: its share, and the control group that holds its QEMU to it."""

from contextlib import suppress
from typing import Final, final

from utilityvm.compute.qemu.cgroup import Cgroups, VmGroup
from utilityvm.compute.qemu.share import Share, wrong_share
from utilityvm.compute.qemu.usage import family
from utilityvm.kit.errors import HostError, InvalidOptions, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import CpuGroup
from utilityvm.schema.requests import ProcessorLimits

_TRIES: Final = 100


@final
class Processors:
    """The share of one machine. There is a control group only while something is asked for; `close` removes it."""

    def __init__(self, vm_id: VmId, share: Share, cgroups: Cgroups) -> None:
        self._id, self._share, self._cgroups = vm_id, share, cgroups
        self._group: VmGroup | None = None

    def enter(self) -> tuple[str, ...]:
        """Make the group, if one is needed, and return the files by which QEMU enters it before it is QEMU.

        Raises:
            UtilityVMError: as `Cgroups.make`.
        """
        if self._share.wanted:
            self._group = self._cgroups.make(self._id, self._share)
        return self._group.entries if self._group else ()

    def limit(self, limits: ProcessorLimits, pid: int) -> None:
        """Give the running machine another limit and weight; `pid` is what was spawned, with QEMU below it.

        Raises:
            Unsupported: a member that is not carried out, by its name; or no control group may be made.
            InvalidOptions: a number out of its range.
            HostError: the kernel refuses. Nothing was changed.
        """
        if limits.reservation:
            raise Unsupported(f"Reservation {limits.reservation}: processor time cannot be reserved by a control group")
        if limits.maximum_frequency_mhz:
            raise Unsupported(f"MaximumFrequencyMHz {limits.maximum_frequency_mhz}: Linux bounds a processor's frequency, not a group's")
        self._change(self._share.limited(limits), pid)

    def join(self, group: CpuGroup, pid: int) -> None:
        """Put the running machine into another CPU group, or with the null GUID into none.

        Raises:
            InvalidOptions: the id is empty.
            NotFound: there is no such group.
            Unsupported, HostError: as `limit`.
        """
        if not group.id:
            raise InvalidOptions("must specify an ID to use when configuring a VM's cpugroup")
        self._change(self._share.grouped(group), pid)

    def close(self) -> None:
        """Remove the control group. A second call does nothing."""
        if self._group is not None:
            self._group.close()

    def _change(self, share: Share, pid: int) -> None:
        if wrong := list(wrong_share(share, "Limits")):
            kind = InvalidOptions if wrong[0].rule == "invalid" else Unsupported
            raise kind("; ".join(f"{problem.path}: {problem.message}" for problem in wrong))
        if self._group is None or share.group != self._share.group:
            self._move(share, pid)
        else:
            try:
                self._group.give(share)
            except HostError:
                with suppress(HostError):
                    self._group.give(self._share)
                raise
        self._share = share

    def _move(self, share: Share, pid: int) -> None:
        self._cgroups.check(share)
        new = self._cgroups.make(self._id, share)
        try:
            _settle(new, pid)
        except BaseException:
            if self._group is not None:
                with suppress(HostError):
                    self._group.adopt(family(pid))
            new.close()
            raise
        if self._group is not None:
            self._group.close()
        self._group = new


def _settle(group: VmGroup, pid: int) -> None:
    """Take in a process and all below it. What a process outside starts meanwhile is outside too, so look again until there is none."""
    for _ in range(_TRIES):
        if not (outside := family(pid) - group.pids()):
            return
        group.adopt(outside)
    raise HostError(f"processes below {pid} do not come to rest")
