"""Defaults that depend on the host."""

import msgspec
import pytest

from utilityvm.options import builds
from utilityvm.options.defaults import (
    DefaultsFacts,
    boot_files_look_at,
    default_options_lcow,
    default_processor_count,
    defaults_look_at,
    program_boot_files,
    with_boot_files,
)
from utilityvm.options.lcow import OptionsLCOW, RootFSType
from utilityvm.options.paths import PathFlavour

FACTS = DefaultsFacts(path_flavour=PathFlavour.POSIX, num_cpu=4, argv0="/opt/bin/uvm", shared_boot_files="/var/boot")


def having(*files: str) -> DefaultsFacts:
    return msgspec.structs.replace(FACTS, files_present=frozenset(files))


def test_an_empty_host_gives_the_shared_folder_and_the_plain_names() -> None:
    expected = OptionsLCOW(id="a", owner="me", boot_files_path="/var/boot")
    assert default_options_lcow("a", "me", FACTS) == expected


def test_an_empty_owner_becomes_the_program_s_name() -> None:
    assert default_options_lcow("a", "", FACTS).owner == "uvm"


def test_a_folder_beside_the_program_is_preferred() -> None:
    options = default_options_lcow("a", "me", having("/opt/bin/LinuxBootFiles", "/var/boot/vmlinux"))
    assert (options.boot_files_path, options.kernel_file) == ("/opt/bin/LinuxBootFiles", "kernel")


def test_an_uncompressed_kernel_and_a_disk_are_found() -> None:
    options = default_options_lcow("a", "me", having("/var/boot/vmlinux", "/var/boot/rootfs.vhd"))
    assert (options.kernel_file, options.root_fs_file, options.preferred_root_fs_type) == ("vmlinux", "rootfs.vhd", RootFSType.VHD)


def test_an_old_host_boots_the_compressed_kernel_by_uefi() -> None:
    facts = msgspec.structs.replace(having("/var/boot/vmlinux"), build=builds.KERNEL_DIRECT - 1)
    options = default_options_lcow("a", "me", facts)
    assert (options.kernel_direct, options.kernel_file) == (False, "kernel")


def test_the_log_level_goes_into_the_guest_s_command_line() -> None:
    facts = msgspec.structs.replace(FACTS, log_level="debug")
    assert default_options_lcow("a", "me", facts).exec_command_line == "/bin/gcs -v4 -log-format json -loglevel debug"


def test_another_folder_is_looked_at_again() -> None:
    facts = having("/var/boot/vmlinux", "/var/boot/rootfs.vhd", "/other/vmlinux")
    options = with_boot_files(default_options_lcow("a", "me", facts), "/other", facts)
    assert (options.boot_files_path, options.kernel_file) == ("/other", "vmlinux")
    assert (options.root_fs_file, options.preferred_root_fs_type) == ("initrd.img", RootFSType.INITRD)
    assert options.owner == "me"


def test_what_the_defaults_look_at_is_all_that_they_need() -> None:
    assert defaults_look_at(PathFlavour.POSIX, FACTS.argv0, FACTS.shared_boot_files) == (
        "/opt/bin/LinuxBootFiles",
        "/opt/bin/LinuxBootFiles/vmlinux",
        "/opt/bin/LinuxBootFiles/rootfs.vhd",
        "/var/boot/vmlinux",
        "/var/boot/rootfs.vhd",
    )
    assert boot_files_look_at(PathFlavour.WINDOWS, "C:\\b") == ("C:\\b\\vmlinux", "C:\\b\\rootfs.vhd")


def test_the_shared_folder_of_windows_lies_among_its_programs() -> None:
    assert program_boot_files(PathFlavour.WINDOWS, "C:\\Program Files") == "C:\\Program Files\\Linux Containers"


@pytest.mark.parametrize(("seen", "given"), [(1, 1), (2, 2), (64, 2)])
def test_a_vm_gets_two_processors_where_there_are_two(seen: int, given: int) -> None:
    assert default_processor_count(seen) == given
