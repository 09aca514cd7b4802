"""What a user may ask of a utility VM with a Linux guest, beyond what is asked of every VM (`options.shared`)."""

from enum import IntEnum
from typing import Annotated

import msgspec

from utilityvm.options.declare import option
from utilityvm.options.shared import Options

MAX_VPMEM_COUNT = 128
DEFAULT_VPMEM_COUNT = 64
DEFAULT_VPMEM_SIZE_BYTES = 4 << 30
INITRD_FILE = "initrd.img"
VHD_FILE = "rootfs.vhd"
KERNEL_FILE = "kernel"
UNCOMPRESSED_KERNEL_FILE = "vmlinux"


class RootFSType(IntEnum):
    """Where the guest's root file system comes from."""

    INITRD = 0
    VHD = 1


class OptionsLCOW(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a utility VM with a Linux guest.

    The receiver of the guest's log stream is not among them: a function cannot be written down, compared or sent. It is the
    `output_handler` argument of `create_lcow`.
    """

    boot_files_path: Annotated[
        str, option("Folder of the kernel and the root file system; empty: the working directory.", go="BootFilesPath", value="DIR")
    ] = ""
    kernel_file: Annotated[str, option("The kernel's file name in that folder.", go="KernelFile")] = KERNEL_FILE
    kernel_direct: Annotated[bool, option("Boot the kernel directly; false: by UEFI.", go="KernelDirect")] = True
    root_fs_file: Annotated[str, option("The initrd's or root disk's file name in that folder.", go="RootFSFile")] = INITRD_FILE
    kernel_boot_options: Annotated[str, option("More kernel arguments, passed on as they are.", go="KernelBootOptions")] = ""
    enable_graphics_console: Annotated[
        bool, option("Give the VM a screen and a keyboard with a console and a shell on them.", go="EnableGraphicsConsole")
    ] = False
    graphics_pipe: Annotated[str, option("Socket that offers that screen; on QEMU by VNC, and needed there.", value="PATH")] = ""
    console_pipe: Annotated[
        str,
        option(
            "Named pipe or socket of the first serial port, with a console and a shell on it; empty: none.", go="ConsolePipe", value="PATH"
        ),
    ] = ""
    scsi_controller_count: Annotated[int, option("SCSI controllers, 0 or 1, of 64 disks.", go="SCSIControllerCount")] = 1
    use_guest_connection: Annotated[
        bool, option("Connect to the guest compute service; false: the guest has none.", go="UseGuestConnection")
    ] = True
    exec_command_line: Annotated[str, option("What the guest's init starts.", go="ExecCommandLine")] = (
        "/bin/gcs -v4 -log-format json -loglevel info"
    )
    forward_stdout: Annotated[bool, option("Send that program's standard output to the host's log.", go="ForwardStdout")] = False
    forward_stderr: Annotated[bool, option("Send that program's standard error to the host's log.", go="ForwardStderr")] = True
    vpmem_device_count: Annotated[int, option("Most virtual persistent memory devices, at most 128; 0: none.", go="VPMemDeviceCount")] = (
        DEFAULT_VPMEM_COUNT
    )
    vpmem_size_bytes: Annotated[int, option("Most bytes of one such device; a multiple of 4096.", go="VPMemSizeBytes")] = (
        DEFAULT_VPMEM_SIZE_BYTES
    )
    # An int, not a RootFSType: what a peer's number means is decided by the rules, which name the option.
    preferred_root_fs_type: Annotated[
        int, option("The root file system: 0 or initrd, 1 or vhd (a disk).", go="PreferredRootFSType", words=RootFSType)
    ] = RootFSType.INITRD
    enable_cold_discard_hint: Annotated[
        bool, option("Let the guest tell which memory it does not use, so that the host takes it back.", go="EnableColdDiscardHint")
    ] = False
    vpci_enabled: Annotated[bool, option("Leave the guest's PCI on. On QEMU it always is: devices sit on it.", go="VPCIEnabled")] = False
    assigned_devices: Annotated[
        tuple[str, ...],
        option(
            "Devices of the host that the VM has from its start: on QEMU by PCI address, as 0000:01:00.0. Needs allow_overcommit false.",
            value="DEVICE",
        ),
    ] = ()
    forkable: Annotated[
        bool, option("Fork the VM quickly: a VM that goes on from another gets its memory as a whole, and its guest learns of a fork.")
    ] = False
    is_template: Annotated[bool, option("The VM will be saved as a template for clones.")] = False
    is_clone: Annotated[bool, option("Create the VM from a template.")] = False
    template_config: Annotated["TemplateConfig | None", option("The template that a clone is made from.")] = None


class TemplateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a clone must know of its template: the template's VM id, and the options it was created with."""

    uvm_id: Annotated[str, option("The template's VM id.")]
    create_options: Annotated[OptionsLCOW, option("The options that the template was created with.")]
