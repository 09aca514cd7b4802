"""How long the host service is waited for: four minutes for each sort of operation, as the original, which also reads these variables."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.kit.errors import InvalidOptions, Problem

VARIABLES: Final[Mapping[str, str]] = {
    "create": "HCSSHIM_TIMEOUT_SYSTEMCREATE",
    "start": "HCSSHIM_TIMEOUT_SYSTEMSTART",
    "pause": "HCSSHIM_TIMEOUT_SYSTEMPAUSE",
    "resume": "HCSSHIM_TIMEOUT_SYSTEMRESUME",
    "save": "HCSSHIM_TIMEOUT_SYSTEMSAVE",
    "slow": "HCSSHIM_TIMEOUT_SYSCALLWATCHER",
}
"""The variables of the environment, in whole seconds, by what they bound."""


SECONDS: Final = 240.0
"""Seconds for each, unless a variable says otherwise."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds until an operation is given up; after `slow` a call that has not returned is told of."""

    create: float = SECONDS
    start: float = SECONDS
    pause: float = SECONDS
    resume: float = SECONDS
    save: float = SECONDS
    slow: float = SECONDS


def timeouts_of(environ: Mapping[str, str]) -> Timeouts:
    """Return the timeouts that an environment asks for.

    Raises:
        InvalidOptions: a variable is no whole number above 0; `problems` has all of them.
    """
    said = {name: environ[variable] for name, variable in VARIABLES.items() if variable in environ}
    wrong = [name for name, text in said.items() if not (text.isascii() and text.isdecimal() and int(text) > 0)]
    problems = [Problem(VARIABLES[name], "seconds", f"{VARIABLES[name]}: {said[name]!r} is no number of seconds above 0") for name in wrong]
    if problems:
        raise InvalidOptions(problems[0].message, problems=problems)
    return replace(Timeouts(), **{name: float(text) for name, text in said.items()})
