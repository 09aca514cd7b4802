"""What must be done on the host before a VM can be created, as data: planning says it, `vm.prepare` does it."""

import msgspec


class MakeFolder(msgspec.Struct, frozen=True):
    """Make a folder and those above it. `failure` begins the error when it cannot be done, here and below."""

    path: str
    failure: str


class CopyDisk(msgspec.Struct, frozen=True):
    """Copy a disk for the VM and let it open the copy; without leave to open it no copy stays."""

    source: str
    target: str
    failure: str


class GrantAccess(msgspec.Struct, frozen=True):
    """Let the VM open a disk that is there."""

    path: str
    failure: str


Effect = MakeFolder | CopyDisk | GrantAccess
