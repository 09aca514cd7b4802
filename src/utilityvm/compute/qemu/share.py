"""A VM's share of the host's processors, in the words of the document and in those of control groups. Pure."""

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.kit.errors import Problem
from utilityvm.kit.ids import NULL_GUID
from utilityvm.schema.document import CpuGroup, Processor
from utilityvm.schema.requests import ProcessorLimits

WHOLE: Final = 100_000
"""A limit of all that the VM's processors can do."""

MAX_WEIGHT: Final = 10_000
USUAL_WEIGHT: Final = 100

_PERIOD, _LONGEST_PERIOD, _LEAST_QUOTA = 100_000, 1_000_000, 1_000  # microseconds; the kernel takes no less and no longer
_SHARES_OF_ONE: Final = 10.24  # version 1's 1024 shares are the usual weight
_LEAST_SHARES: Final = 2


class Quota(msgspec.Struct, frozen=True):
    """Microseconds of processor time in each period of so many microseconds."""

    quota: int
    period: int

    @property
    def processors(self) -> float:
        """As many processors' worth."""
        return self.quota / self.period


class Share(msgspec.Struct, frozen=True):
    """What a VM of `count` processors may use of the host's: `limit` of 100 000 (0: all), `weight` and `group` (0, ``""``: not said)."""

    count: int
    limit: int = 0
    weight: int = 0
    group: str = ""

    @property
    def wanted(self) -> bool:
        """Whether anything was said: only then the VM has a control group."""
        return bool(self.limit or self.weight or self.group)

    @property
    def quota(self) -> Quota | None:
        """The limit as processor time; None for none."""
        return quota_of(self.limit * self.count / WHOLE) if 0 < self.limit < WHOLE else None

    @property
    def fields(self) -> str:
        """The document's names of what was said."""
        said = {"Limit": self.limit, "Weight": self.weight, "CpuGroup": self.group}
        return ", ".join(name for name, value in said.items() if value)

    def limited(self, limits: ProcessorLimits) -> "Share":
        """Return the share with another limit and weight."""
        return replace(self, limit=limits.limit, weight=limits.weight)

    def grouped(self, group: CpuGroup) -> "Share":
        """Return the share in another CPU group; the null GUID is none."""
        return replace(self, group="" if group.id == NULL_GUID else group_name(group.id))


def share_of(processor: Processor) -> Share:
    """Return what a document asks for."""
    asked = Share(count=processor.count, limit=processor.limit, weight=processor.weight)
    return asked.grouped(processor.cpu_group) if processor.cpu_group else asked


def group_name(group_id: str) -> str:
    """Return the name of a CPU group: GUIDs, as HCS has them, do not mind their case."""
    return group_id.lower()


def quota_of(processors: float) -> Quota:
    """Return so many processors' worth of time. What is too little for the usual period of 0.1 s is given in one of a second."""
    period = _PERIOD if processors * _PERIOD >= _LEAST_QUOTA else _LONGEST_PERIOD
    return Quota(max(round(processors * period), _LEAST_QUOTA), period)


def shares(weight: int) -> int:
    """Return a weight in the shares of version 1."""
    return max(round((weight or USUAL_WEIGHT) * _SHARES_OF_ONE), _LEAST_SHARES)


def wrong_share(share: Share, path: str) -> Iterator[Problem]:
    """Yield what is wrong with the numbers of a share; `path` is that of its object."""
    if not 0 <= share.limit <= WHOLE:
        yield Problem(f"{path}.Limit", "invalid", f"{share.limit}: from 1 to {WHOLE}, which is all; 0 for no limit")
    elif share.limit and share.limit * share.count * _LONGEST_PERIOD < WHOLE * _LEAST_QUOTA:
        yield Problem(f"{path}.Limit", "unsupported", f"{share.limit}: less than a thousandth of a processor, the least that can be given")
    if not 0 <= share.weight <= MAX_WEIGHT:
        yield Problem(f"{path}.Weight", "invalid", f"{share.weight}: from 1 to {MAX_WEIGHT}; 0 for the usual {USUAL_WEIGHT}")
