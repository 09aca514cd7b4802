"""Defaults that depend on the host; pure: the host's side of it arrives as facts."""

import msgspec

from utilityvm.options import builds
from utilityvm.options.lcow import INITRD_FILE, KERNEL_FILE, UNCOMPRESSED_KERNEL_FILE, VHD_FILE, OptionsLCOW, RootFSType
from utilityvm.options.paths import PathFlavour, base_name, directory, join
from utilityvm.options.wcow import OptionsWCOW


class DefaultsFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the defaults depend on.

    `argv0` is this program's path as it was called; `shared_boot_files` the host's folder of boot files, used when there is no
    ``LinuxBootFiles`` beside the program; `log_level` a word such as ``info``; `num_cpu` the processors that this process may use;
    `files_present` those of `defaults_look_at` that exist, spelled as there.
    """

    path_flavour: PathFlavour
    build: int = builds.EVERYTHING
    num_cpu: int
    argv0: str
    shared_boot_files: str
    log_level: str = "info"
    files_present: frozenset[str] = frozenset()


def program_boot_files(flavour: PathFlavour, program_files: str) -> str:
    """Return the shared folder of boot files of a host that has a folder of programs (``%ProgramFiles%`` on Windows)."""
    return join(flavour, program_files, "Linux Containers")


def defaults_look_at(flavour: PathFlavour, argv0: str, shared_boot_files: str) -> tuple[str, ...]:
    """Return every path whose existence the defaults ask about."""
    folders = (_private_boot_files(flavour, argv0), shared_boot_files)
    return (folders[0], *(path for folder in folders for path in boot_files_look_at(flavour, folder)))


def boot_files_look_at(flavour: PathFlavour, folder: str) -> tuple[str, ...]:
    """Return the paths in a folder of boot files whose existence `with_boot_files` asks about."""
    return tuple(join(flavour, folder, name) for name in (UNCOMPRESSED_KERNEL_FILE, VHD_FILE))


def default_options_lcow(vm_id: str, owner: str, facts: DefaultsFacts) -> OptionsLCOW:
    """Return the options that a user begins with; an empty `owner` becomes the base name of the program."""
    private = _private_boot_files(facts.path_flavour, facts.argv0)
    options = OptionsLCOW(
        id=vm_id,
        owner=owner or base_name(facts.path_flavour, facts.argv0),
        processor_count=default_processor_count(facts.num_cpu),
        kernel_direct=facts.build >= builds.KERNEL_DIRECT,
        exec_command_line=f"/bin/gcs -v4 -log-format json -loglevel {facts.log_level}",
    )
    return with_boot_files(options, private if private in facts.files_present else facts.shared_boot_files, facts)


def default_options_wcow(vm_id: str, owner: str, facts: DefaultsFacts) -> OptionsWCOW:
    """Return the options of a VM with a Windows guest that a user begins with; its layers have no default."""
    return OptionsWCOW(
        id=vm_id,
        owner=owner or base_name(facts.path_flavour, facts.argv0),
        processor_count=default_processor_count(facts.num_cpu),
    )


def with_boot_files(options: OptionsLCOW, folder: str, facts: DefaultsFacts) -> OptionsLCOW:
    """Return the options with another folder of boot files, the kernel and root file system chosen by what lies there.

    Setting `boot_files_path` alone keeps file names that were chosen for another folder.
    """
    kernel, disk = (path in facts.files_present for path in boot_files_look_at(facts.path_flavour, folder))
    return msgspec.structs.replace(
        options,
        boot_files_path=folder,
        kernel_file=UNCOMPRESSED_KERNEL_FILE if kernel and options.kernel_direct else KERNEL_FILE,
        root_fs_file=VHD_FILE if disk else INITRD_FILE,
        preferred_root_fs_type=RootFSType.VHD if disk else RootFSType.INITRD,
    )


def default_processor_count(num_cpu: int) -> int:
    """Return 1 where this process sees one processor, else 2."""
    return 1 if num_cpu == 1 else 2


def _private_boot_files(flavour: PathFlavour, argv0: str) -> str:
    return join(flavour, directory(flavour, argv0), "LinuxBootFiles")
