"""What planning must know of the host; the caller looks, planning only reads."""

from enum import StrEnum

import msgspec

from utilityvm.options import builds
from utilityvm.options.paths import PathFlavour


class Platform(StrEnum):
    """Who runs the VM: it decides on which bus devices sit and which console there is."""

    HYPERV = "hyperv"
    QEMU = "qemu"


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="counted"):
    """The host's logical processors, counted by the caller."""

    logical_processors: int


class Answered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="answered"):
    """The host service's answer to a query for its processor topology, as it came."""

    service_properties: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="refused"):
    """The query for the processor topology failed; `reason` says how."""

    reason: str


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host's side of a plan.

    `files_present` are those of `plan.lcow.boot_file_paths` or `plan.wcow.paths_looked_at` that exist, spelled as there. A failed
    query for the processors is a fact too, because the plan fails of other things first. `emulated`: the guest's instructions run
    in software (TCG).
    `unique` is a text that no name of a file ends with yet: chance, which planning has none of.
    """

    platform: Platform
    path_flavour: PathFlavour
    build: int = builds.EVERYTHING
    processors: Counted | Answered | Refused
    files_present: frozenset[str]
    emulated: bool = False
    unique: str = ""
