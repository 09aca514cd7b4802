"""What a template had that a clone gets as well, as both are told in options: SCSI disks and shared folders."""

from enum import StrEnum
from typing import Annotated

import msgspec

from utilityvm.options.declare import option


class VsmbOption(StrEnum):
    """How a shared folder behaves; the words are those of the document."""

    READ_ONLY = "ReadOnly"
    SHARE_READ = "ShareRead"
    CACHE_IO = "CacheIo"
    NO_OPLOCKS = "NoOplocks"
    TAKE_BACKUP_PRIVILEGE = "TakeBackupPrivilege"
    USE_SHARE_ROOT_IDENTITY = "UseShareRootIdentity"
    NO_DIRECTMAP = "NoDirectmap"
    NO_LOCKS = "NoLocks"
    NO_DIRNOTIFY = "NoDirnotify"
    VM_SHARED_MEMORY = "VmSharedMemory"
    RESTRICT_FILE_ACCESS = "RestrictFileAccess"
    FORCE_LEVEL_II_OPLOCKS = "ForceLevelIIOplocks"
    REPARSE_BASE_LAYER = "ReparseBaseLayer"
    PSEUDO_OPLOCKS = "PseudoOplocks"
    NON_CACHE_IO = "NonCacheIo"
    PSEUDO_DIRNOTIFY = "PseudoDirnotify"
    SINGLE_FILE_MAPPING = "SingleFileMapping"


class ScsiMount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="SCSIMount"):
    """A disk on a SCSI controller. A clone gets a copy of one that can be written to."""

    host_path: Annotated[str, option("The disk's file, or the host's disk.", go="HostPath")]
    uvm_path: Annotated[str, option("Where the guest mounts it; empty: nowhere.", go="UVMPath")] = ""
    controller: Annotated[int, option("Number of the controller, 0 to 3.", go="Controller")] = 0
    lun: Annotated[int, option("The disk's place on the controller, 0 to 63.", go="LUN")] = 0
    read_only: Annotated[bool, option("The guest can only read it.", go="ReadOnly")] = False
    attachment_type: Annotated[str, option("VirtualDisk or PassThru; empty: VirtualDisk.", go="AttachmentType")] = ""


class VsmbShare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="VSMBShare"):
    """A folder of the host that the guest sees, or some files of it."""

    host_path: Annotated[str, option("The folder.", go="HostPath")]
    name: Annotated[str, option("The share's name.", go="Name")]
    allowed_files: Annotated[tuple[str, ...], option("The only files of it that are shared; none: all are.", go="AllowedFiles")] = ()
    guest_path: Annotated[str, option("Where the guest finds it.", go="GuestPath")] = ""
    options: Annotated[tuple[VsmbOption, ...], option("How it behaves.", go="Options")] = ()


CloneableResource = ScsiMount | VsmbShare
"""What can be cloned. Devices of PCI, 9p shares and pipes cannot."""
