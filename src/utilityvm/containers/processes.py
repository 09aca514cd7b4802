"""A process that is run in a container beside its first one. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from utilityvm.guest.spec import ProcessSpec, parameters
from utilityvm.kit.errors import InvalidOptions
from utilityvm.wire.oci import Box, OciProcess, User, read_process

ROOT: Final = User(uid=0, gid=0)


def another(
    first: OciProcess | None,
    process: Sequence[str] | OciProcess | Mapping[str, object],
    name: str,
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
    console_size: tuple[int, int] | None,
) -> OciProcess:
    """Return the process that `Container.exec` is asked for; `first` is the container's first one, if it is known, and `name` its own.

    Raises:
        InvalidOptions: no guest could start it; or it is an OCI process, and parts of it are given beside it.
        Unsupported: it has members that an OCI process does not have.
    """
    if isinstance(process, str):
        raise InvalidOptions(f'{name}: the process is one text: give a list of words, or ["sh", "-c", {process[:100]!r}]')
    if isinstance(process, OciProcess | Mapping):
        given = {"env": env, "cwd": cwd, "user": user, "console_size": console_size}
        if beside := [part for part, value in given.items() if value is not None]:
            raise InvalidOptions(f"{name}: {', '.join(beside)} beside an OCI process, which says them itself")
        return read_process(process)
    if first is None:
        raise InvalidOptions(f"{name}: its own first process is not known to be like: give an OCI process", hint="see wire.oci.OciProcess")
    spec = ProcessSpec(argv=tuple(process), env=tuple((env or {}).items()), cwd=cwd or "", user=user or "", console_size=console_size)
    parameters(spec)  # which refuses what no guest could start
    if cwd and not cwd.startswith("/"):
        raise InvalidOptions(f"{name}: the working directory {cwd!r} is not an absolute path of the container")
    wanted = replace(first, args=list(process), command_line="", env=_env(first.env, env or {}), cwd=cwd or first.cwd)
    wanted = replace(
        wanted, terminal=console_size is not None, console_size=Box(height=console_size[0], width=console_size[1]) if console_size else None
    )
    return wanted if user is None else replace(wanted, user=replace(ROOT, username=user))


def _env(first: Sequence[str], more: Mapping[str, str]) -> list[str]:
    kept = [text for text in first if text.partition("=")[0] not in more]
    return kept + [f"{name}={value}" for name, value in more.items()]
