"""The sorts of guests that options and documents are made for: the one table, for all verbs that have a guest's name after them."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.shared import Options
from utilityvm.options.text import OptionsFile
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.vm.host_options import default_options_lcow, default_options_wcow, log_level, options_of

if TYPE_CHECKING:
    from utilityvm.options.defaults import DefaultsFacts
    from utilityvm.schema.document import ComputeSystem

QEMU: Final = "qemu"
HYPERV: Final = "hyperv"


class Wish(msgspec.Struct, frozen=True):
    """What a document is wanted for: options as they were given, and the host, of which nothing is looked up."""

    given: Mapping[str, object]
    file: OptionsFile | None
    platform: str
    emulated: bool
    processors: int


class Guest(msgspec.Struct, frozen=True):
    """One sort: what it is, the struct of its options, these on this host when nothing is asked for, and the document of a wish.

    `platforms` can run it; the first is meant where none is named.
    """

    meaning: str
    options: type[Options]
    defaults: Callable[[], Options]
    document: Callable[[Wish], "ComputeSystem"]
    platforms: tuple[str, ...]


def add_guests(parser: argparse.ArgumentParser, describe: Callable[[argparse.ArgumentParser, Guest], None]) -> None:
    """Let a guest's name follow the verb; `describe` describes the command line behind it. The namespace has the name as `guest`."""
    names = parser.add_subparsers(dest="guest", required=True, metavar="|".join(GUESTS))
    for name, guest in GUESTS.items():
        describe(names.add_parser(name, help=guest.meaning), guest)


def _lcow(wish: Wish) -> "ComputeSystem":
    import msgspec

    from utilityvm.options.paths import PathFlavour
    from utilityvm.options.rules import refuse_not_built
    from utilityvm.plan.facts import Counted, Facts, Platform
    from utilityvm.plan.lcow import boot_file_paths, plan_lcow
    from utilityvm.vm.adjusted import warn

    options = options_of(wish.given, wish.file) if wish.platform == QEMU else _lcow_on_windows(wish)
    refuse_not_built(options)
    facts = Facts(
        platform=Platform(wish.platform),
        path_flavour=PathFlavour.POSIX if wish.platform == QEMU else PathFlavour.WINDOWS,
        processors=Counted(logical_processors=wish.processors),
        files_present=frozenset(),
        emulated=wish.emulated,
    )
    paths = boot_file_paths(options, facts.platform, facts.path_flavour)
    facts = msgspec.structs.replace(facts, files_present=paths.all)
    return plan_lcow(options, facts, vm_id=options.id, warn=warn).document


def _lcow_on_windows(wish: Wish) -> OptionsLCOW:
    from utilityvm.options.read import options_lcow

    return options_lcow(_windows(wish), wish.given, wish.file)


def _wcow(wish: Wish) -> "ComputeSystem":
    """Plan as on a host where the base layer has the utility VM, and no scratch is there yet."""
    from utilityvm.options.paths import PathFlavour
    from utilityvm.options.read import options_wcow
    from utilityvm.options.rules import refuse_not_built
    from utilityvm.plan.facts import Counted, Facts, Platform
    from utilityvm.plan.wcow import image_folder, locate, plan_wcow
    from utilityvm.vm.adjusted import warn

    options = options_wcow(_windows(wish), wish.given, wish.file)
    refuse_not_built(options)
    facts = Facts(
        platform=Platform.HYPERV,
        path_flavour=PathFlavour.WINDOWS,
        processors=Counted(logical_processors=wish.processors),
        files_present=frozenset(image_folder(PathFlavour.WINDOWS, folder) for folder in options.layer_folders[-2:-1]),
    )
    return plan_wcow(options, locate(options, facts), facts, vm_id=options.id, warn=warn).document


def _windows(wish: Wish) -> "DefaultsFacts":
    """Take a Windows host on which `uvm` was called by its name and no boot file was found."""
    from utilityvm.options.defaults import DefaultsFacts, program_boot_files
    from utilityvm.options.paths import PathFlavour

    return DefaultsFacts(
        path_flavour=PathFlavour.WINDOWS,
        num_cpu=wish.processors,
        argv0="uvm.exe",
        shared_boot_files=program_boot_files(PathFlavour.WINDOWS, "C:\\Program Files"),
        log_level=log_level(),
    )


GUESTS: Final[Mapping[str, Guest]] = MappingProxyType(
    {
        "lcow": Guest("a VM with a Linux guest", OptionsLCOW, default_options_lcow, _lcow, (QEMU, HYPERV)),
        "wcow": Guest("a VM with a Windows guest", OptionsWCOW, default_options_wcow, _wcow, (HYPERV,)),
    }
)
