"""What of a share can be carried out, and what the server is told of it."""

import msgspec
import pytest

from utilityvm.compute.plan9.flags import Flag
from utilityvm.compute.plan9.spec import MAX_ALLOWED, spec_of, wrong_plan9
from utilityvm.schema.devices import Plan9Share

GOOD = Plan9Share(name="0", access_name="0", path="/srv/share", port=564, flags=0x04)


@pytest.mark.parametrize(
    ("changes", "member", "rule"),
    [
        ({"name": ""}, "Name", "invalid"),
        ({"name": "a,b", "access_name": ""}, "Name", "invalid"),
        ({"name": "x" * 256, "access_name": ""}, "Name", "invalid"),
        ({"access_name": "other"}, "AccessName", "unsupported"),
        ({"port": 0}, "Port", "unsupported"),
        ({"flags": 0x08}, "Flags", "unsupported"),
        ({"path": ""}, "Path", "invalid"),
        ({"path": "relative"}, "Path", "invalid"),
        ({"path": "/"}, "Path", "invalid"),
        ({"path": "/a\0"}, "Path", "invalid"),
        ({"flags": 0x80}, "AllowedFiles", "invalid"),
        ({"allowed_files": ["a"]}, "AllowedFiles", "invalid"),
        ({"flags": 0x80, "allowed_files": ["a"] * (MAX_ALLOWED + 1)}, "AllowedFiles", "invalid"),
        *(({"flags": 0x80, "allowed_files": [name]}, "AllowedFiles[0]", "invalid") for name in ("", ".", "..", "a/b", "a\0")),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_its_member(changes: dict[str, object], member: str, rule: str) -> None:
    (problem,) = wrong_plan9(msgspec.structs.replace(GOOD, **changes), "$")
    assert (problem.path, problem.rule) == (f"$.{member}", rule)


@pytest.mark.parametrize(
    ("changes", "ordinary", "flags"),
    [
        ({}, False, Flag(0)),
        ({"flags": 0x05}, False, Flag.READ_ONLY),
        ({"read_only": True}, False, Flag.READ_ONLY),
        ({"flags": 0x80, "allowed_files": ["a"]}, True, Flag.RESTRICT | Flag.ORDINARY),
        ({"use_share_root_identity": True}, False, Flag.SQUASH),
        ({"use_share_root_identity": True}, True, Flag.ORDINARY),
    ],
)
def test_the_server_is_told_what_was_asked_for(changes: dict[str, object], ordinary: bool, flags: Flag) -> None:
    share = msgspec.structs.replace(GOOD, **changes)
    assert list(wrong_plan9(share, "$")) == []
    spec = spec_of(share, ordinary=ordinary)
    assert (spec.name, spec.path, spec.flags, list(spec.allowed)) == ("0", "/srv/share", flags, share.allowed_files)
