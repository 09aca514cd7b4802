"""What must be done on the host before a VM can be created, as data: planning says it, `vm.prepare` does it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder and those above it. `failure` begins the error when it cannot be done, here and below."""

    path: str
    failure: str


@dataclass(frozen=True, slots=True)
class CopyDisk:
    """Copy a disk for the VM and let it open the copy; without leave to open it no copy stays."""

    source: str
    target: str
    failure: str


@dataclass(frozen=True, slots=True)
class GrantAccess:
    """Let the VM open a disk that is there."""

    path: str
    failure: str


Effect = MakeFolder | CopyDisk | GrantAccess
