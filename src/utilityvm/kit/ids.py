"""Identifiers: which string is which, made only by the functions here."""

import re
import uuid
from typing import NewType

from utilityvm.kit.errors import InvalidOptions, Problem

VmId = NewType("VmId", str)
"""Compute-system id of a utility VM: what its owner calls it."""

RuntimeId = NewType("RuntimeId", str)
"""GUID of the running partition; addresses of guest sockets use it, never the VM id."""

NULL_GUID = "00000000-0000-0000-0000-000000000000"

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def new_guid() -> str:
    """Return a version 4 GUID, lower-case, without braces."""
    return str(uuid.uuid4())


def guid_of(text: str) -> str:
    """Return the GUID of a text, always the same (version 5), lower-case, without braces."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def is_guid(text: str) -> bool:
    """Whether a text is a GUID as those that are made here are written: lower-case, without braces."""
    return _GUID.fullmatch(text) is not None


def check_name(text: str, otherwise: str, problem_path: str, rule: str) -> None:
    """Refuse a text that cannot name what is in paths and names outside; `otherwise` says what it cannot name.

    Raises:
        InvalidOptions: empty, over 128 characters, or a character outside ``A-Za-z0-9_.-``.
    """
    if not _NAME.fullmatch(text):
        message = f"{otherwise}: 1 to 128 of A-Z a-z 0-9 _ . -, not beginning with a mark"
        raise InvalidOptions(message, problems=[Problem(problem_path, rule, message)])


def parse_vm_id(text: str) -> VmId:
    """Check a caller's VM id: it becomes part of names outside (cgroup, tap, directory). See `check_name` for errors."""
    check_name(text, f"id {text!r} cannot name a VM", "$.id", "id")
    return VmId(text)
