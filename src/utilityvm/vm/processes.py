"""A process of a VM as its callers ask for it, in the shape that its guest is told of it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import InvalidOptions

DEFAULT_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def spec_of(argv: Sequence[str] | str, env: Mapping[str, str] | None, cwd: str | None, user: str, *, windows: bool) -> ProcessSpec:
    """Return what `UtilityVM.create_process` is asked for; what is None is as the guest's system has it.

    Raises:
        InvalidOptions: `env` is no mapping.
    """
    line, words = (argv, ()) if isinstance(argv, str) else ("", tuple(argv))
    root, usual = ("C:\\", {}) if windows else ("/", DEFAULT_ENVIRONMENT)
    variables = usual if env is None else env
    if not isinstance(variables, Mapping):
        raise InvalidOptions(f"env is {type(env).__name__}, not a mapping of names to values")
    where = root if cwd is None else cwd
    return ProcessSpec(argv=words, command_line=line, env=tuple(variables.items()), cwd=where, user=user, windows=windows)
