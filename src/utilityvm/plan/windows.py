"""What a VM with a Windows guest has from the start: its disks, its shared folders, the network namespaces it knows."""

from typing import Final

import msgspec
from msgspec import structs

from utilityvm.options.resources import VsmbOption
from utilityvm.schema.devices import VirtualSmbShareOptions

CLONE_NAMESPACE: Final = "89EB8A86-E253-41FD-9800-E6D88EB2E18A"
"""The network namespace of every template, which its clones find in their memory."""


class ScsiSlot(msgspec.Struct, frozen=True):
    """A disk that is attached from the start; `uvm_path` is where the guest mounts it, ``""``: nowhere."""

    controller: int
    lun: int
    host_path: str
    uvm_path: str
    attachment_type: str
    read_only: bool


class VsmbEntry(msgspec.Struct, frozen=True):
    """A folder that is shared from the start; `of_files` when only some of its files are."""

    name: str
    host_path: str
    guest_path: str
    read_only: bool
    of_files: bool
    options: VirtualSmbShareOptions
    allowed_files: tuple[str, ...]


def share_key(host_path: str, *, read_only: bool) -> str:
    """Return the key of a share in a table of them: a folder may be shared once to read and once to write."""
    return f"{host_path}-{'true' if read_only else 'false'}"


def smb_options(words: tuple[VsmbOption, ...]) -> VirtualSmbShareOptions:
    """Return a document's share options of the words for them."""
    return VirtualSmbShareOptions(**{_MEMBERS[word]: True for word in words})


def default_options(*, no_directmap: bool) -> VirtualSmbShareOptions:
    """Return the options of a folder that the guest only reads; without `no_directmap` it may map its files."""
    return VirtualSmbShareOptions(share_read=True, cache_io=True, read_only=True, pseudo_oplocks=True, no_directmap=no_directmap)


def saveable(options: VirtualSmbShareOptions) -> VirtualSmbShareOptions:
    """Return the options with which a share can be saved in a template: nothing of it is held by guest or host."""
    read_only = options.read_only
    return structs.replace(
        options,
        share_read=read_only,
        cache_io=read_only,
        pseudo_oplocks=read_only,
        no_oplocks=not read_only,
        no_locks=True,
        pseudo_dirnotify=True,
        no_directmap=True,
    )


def words_of(options: VirtualSmbShareOptions) -> tuple[VsmbOption, ...]:
    """Return the words for a document's share options, in the order in which a document has them."""
    return tuple(VsmbOption(word) for word, name in _MEMBERS.items() if getattr(options, name))


_MEMBERS: Final = {member.encode_name: member.name for member in structs.fields(VirtualSmbShareOptions)}
