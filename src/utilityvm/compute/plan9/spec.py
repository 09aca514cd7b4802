"""What a share is to be, out of a document or a request. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from utilityvm.compute.plan9.flags import Flag
from utilityvm.kit.errors import Problem
from utilityvm.schema.devices import Plan9Share

PORT: Final = 564
"""The port on which every share is served."""

MAX_ALLOWED: Final = 1024
"""Names to which one share may be restricted."""

_READ_ONLY, _LINUX_METADATA, _RESTRICT = 0x01, 0x04, 0x80  # flags of the host service
_NAME: Final = 255  # bytes of a file's name; a share's is one for us


class ShareSpec(msgspec.Struct, frozen=True):
    """A share: the name by which a guest attaches to it, the folder, and what may be done there."""

    name: str
    path: str
    flags: Flag
    allowed: Sequence[str] = ()


def spec_of(share: Plan9Share, *, ordinary: bool) -> ShareSpec:
    """Return the share that is meant; `ordinary` says whether the owner is not root. It has been checked with `wrong_plan9`."""
    flags = Flag.READ_ONLY if share.read_only or share.flags & _READ_ONLY else Flag(0)
    flags |= Flag.RESTRICT if share.flags & _RESTRICT else Flag(0)
    if ordinary:
        flags |= Flag.ORDINARY
    elif share.use_share_root_identity:
        flags |= Flag.SQUASH
    return ShareSpec(share.name, share.path, flags, tuple(share.allowed_files))


def wrong_plan9(share: Plan9Share, path: str) -> Iterator[Problem]:
    """Yield what cannot be carried out of the share at `path` of a document or request."""
    if not share.name:
        yield Problem(f"{path}.Name", "invalid", "missing")
        return
    if "," in share.name or not _is_text(share.name):
        yield Problem(f"{path}.Name", "invalid", f"{share.name!r}: at most {_NAME} bytes, no comma, no zero byte")
    if share.access_name not in {"", share.name}:
        yield Problem(
            f"{path}.AccessName", "unsupported", f"{share.access_name!r}: a guest attaches to a share by its Name, {share.name!r}"
        )
    if share.port != PORT:
        yield Problem(f"{path}.Port", "unsupported", f"{share.port}: shares are served on port {PORT}")
    if unknown := share.flags & ~(_READ_ONLY | _LINUX_METADATA | _RESTRICT):
        known = "0x1 (read-only), 0x4 (Linux metadata, which is always kept) and 0x80 (restricted)"
        yield Problem(f"{path}.Flags", "unsupported", f"{unknown:#x}: the flags that are carried out are {known}")
    if not share.path.startswith("/") or "\0" in share.path or share.path.strip("/") == "":
        yield Problem(f"{path}.Path", "invalid", f"{share.path!r}: must be the absolute path of a folder, not of the whole host")
    yield from _wrong_names(share, path)


def _wrong_names(share: Plan9Share, path: str) -> Iterator[Problem]:
    restricted, names = bool(share.flags & _RESTRICT), share.allowed_files
    if restricted and not names:
        yield Problem(f"{path}.AllowedFiles", "invalid", "missing: a restricted share names what is in it")
    if names and not restricted:
        yield Problem(f"{path}.AllowedFiles", "invalid", "a share is restricted to them with 0x80 among its Flags")
    if len(names) > MAX_ALLOWED:
        yield Problem(f"{path}.AllowedFiles", "invalid", f"{len(names)} names: at most {MAX_ALLOWED}")
    for at, name in enumerate(names):
        if name in {".", ".."} or "/" in name or not _is_text(name):
            yield Problem(f"{path}.AllowedFiles[{at}]", "invalid", f"{name!r}: must be a name in the folder")


def _is_text(name: str) -> bool:
    return "\0" not in name and 0 < len(name.encode(errors="surrogateescape")) <= _NAME
