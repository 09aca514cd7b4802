"""What a user wants of a container, and docker's spellings of it, read into values. Pure.

Each `parse_` function takes one text as `docker run` takes it and refuses what it cannot mean by name.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from utilityvm.kit.errors import InvalidOptions

SMALLEST_MEMORY: Final = 6 << 20
"""Bytes; docker refuses less, since no container starts with less."""

_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgtp])?(?:i?b)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_HOSTNAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_LONGEST_HOSTNAME: Final = 64
_BLANKS: Final = " \t"

_LIMITS: Final = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()  # noqa: SIM905
)
_UNLIMITED: Final = (1 << 64) - 1

_FLAGS: Final = frozenset("ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime strictatime".split())  # noqa: SIM905
_VALUES: Final = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"})
_USUAL_TMPFS: Final = ("noexec", "nosuid", "nodev")

_OF_IPC: Final = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


class Volume(msgspec.Struct, frozen=True):
    """What is mounted at `target` of the container: the host's file or folder `path`, or the named volume `name`; one of them is ``""``.

    `size` is in bytes, for a volume that is made because there is none of that name. `copy` fills one that is empty with what the image
    has at `target`.
    """

    target: str
    path: str = ""
    name: str = ""
    read_only: bool = False
    size: int | None = None
    copy: bool = True


class Tmpfs(msgspec.Struct, frozen=True):
    """A file system in memory at `target`, mounted with `options`."""

    target: str
    options: tuple[str, ...] = _USUAL_TMPFS


class Ulimit(msgspec.Struct, frozen=True):
    """A limit of the kernel's for each process: `name` as in docker, e.g. ``nofile``."""

    name: str
    soft: int
    hard: int


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a container beyond what its image says; nothing said leaves it to the image, and then to docker's defaults.

    `args` replace the image's command. An `entrypoint` replaces the image's entrypoint and command; an empty one means none. `env` are
    added to the image's, a value of None takes the image's away. `user` is a name or number, or two with a colon; names are those of the
    image's own files. `memory` is in bytes, `cpus` in processors; `pids` is how many processes it may have at once (-1: any number),
    `shm_size` the bytes of ``/dev/shm``. With `vm_network` it is in the VM's own network; otherwise it has a
    loopback of its own and nothing else.
    """

    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    user: str = ""
    cwd: str = ""
    console_size: tuple[int, int] | None = None
    read_only: bool = False
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    hostname: str = ""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_size: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    vm_network: bool = False


def parse_size(text: str) -> int:
    """Return bytes of ``512m``, ``1.5g``, ``64MiB`` or a plain number; every unit is a power of 1024, as in docker.

    Raises:
        InvalidOptions: it is none.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidOptions(f"{text!r} is not a size", hint="a number of bytes, or one with b, k, m, g or t, as 512m")
    return int(float(found[1]) * (1 << _POWERS[(found[2] or "").lower()]))


def parse_memory(text: str) -> int:
    """Return the bytes of memory that a container may use.

    Raises:
        InvalidOptions: it is no size, or too small for any container.
    """
    size = parse_size(text)
    if size < SMALLEST_MEMORY:
        hint = f"with a unit: {text}m" if text.isdigit() else ""
        raise InvalidOptions(f"{text!r} is {size} bytes of memory; a container needs {SMALLEST_MEMORY >> 20} MiB at least", hint=hint)
    return size


def parse_cpus(text: str) -> float:
    """Return how many processors a container may use; parts of one count.

    Raises:
        InvalidOptions: it is no such number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.01 <= number < 1 << 16:  # NaN compares with nothing
        raise InvalidOptions(f"{text!r} is not a number of processors of 0.01 or more")
    return number


def parse_env(word: str, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the variable that ``NAME=VALUE`` sets. A name alone takes the value from `environment`, None where it has none.

    Raises:
        InvalidOptions: it has no name.
    """
    name, given, value = word.partition("=")
    if not name:
        raise InvalidOptions(f"{word!r} sets a variable without a name")
    return name, value if given else environment.get(name)


def parse_env_file(text: str, file: str, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the variables of a file: a ``NAME=VALUE`` a line, nothing quoted, ``#`` begins a comment line.

    A name alone takes the value from `environment`, and is left out where that has none. `file` is for errors.

    Raises:
        InvalidOptions: a line says something else.
    """
    found = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.removesuffix("\r").lstrip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or any(blank in name for blank in _BLANKS):
            raise InvalidOptions(f"{file}, line {number}: {line[:80]!r} is not NAME=VALUE")
        value = parse_env(line, environment)[1]
        if value is not None:
            found.append((name, value))
    return found


def parse_volume(text: str) -> Volume:
    """Return what ``HOST-PATH:PATH[:ro]`` or ``NAME:PATH[:OPTION,…]`` mounts. A path of the host has a slash, a name has none.

    The options of a named volume are ``ro``, ``size=SIZE`` and ``nocopy``.

    Raises:
        InvalidOptions: it is neither.
    """
    source, *rest = text.split(":")
    if not rest:
        hint = f"--tmpfs {text} for one in memory, NAME:{text} for one that is kept"
        raise InvalidOptions(f"{text!r} is a volume without a source", hint=hint)
    target, words = rest[0], rest[1:]
    if len(words) > 1 or not source:
        raise InvalidOptions(f"{text!r} is not SOURCE:PATH[:ro]")
    options = words[0].split(",") if words else []
    size = _volume_size(text, options)
    place, read_only, copy = _target(target, text), "ro" in options, "nocopy" not in options
    if "/" in source or source in {".", ".."}:
        if size is not None:
            raise InvalidOptions(f"{text!r}: a folder of the host has no size of its own")
        if not copy:
            raise InvalidOptions(f"{text!r}: nocopy is for volumes that have a name")
        return Volume(place, path=source, read_only=read_only)
    return Volume(place, name=parse_name(source, "a volume"), read_only=read_only, size=size, copy=copy)


_MOUNTS: Final = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
"""Other names of a mount's parts."""

_KINDS: Final = {"bind": {"source"}, "volume": {"source", "volume-nocopy"}, "tmpfs": {"tmpfs-size", "tmpfs-mode"}}
"""Kinds of mounts, and the parts that each has beside ``type``, ``target`` and ``readonly``."""


def parse_mount(text: str) -> Volume | Tmpfs:
    """Return what ``type=bind|volume|tmpfs,source=…,target=…[,readonly]`` mounts; without ``type`` it is a volume, by its name.

    Raises:
        InvalidOptions: it is none.
    """
    parts = {
        _MOUNTS.get(name, name): value if given else "true" for name, given, value in (word.partition("=") for word in text.split(","))
    }
    kind = parts.pop("type", "volume")
    if kind not in _KINDS:
        raise InvalidOptions(f"{text!r}: a mount is of the type {', '.join(_KINDS)}, and not {kind!r}")
    for name in parts:
        if name not in _KINDS[kind] | {"target", "readonly"}:
            raise InvalidOptions(f"{text!r}: a mount of the type {kind} has no {name!r}")
    target, read_only = _target(parts.get("target", ""), text), _is_true(parts.get("readonly", "false"), text)
    if kind == "tmpfs":
        said = [f"{name.removeprefix('tmpfs-')}={parts[name]}" for name in ("tmpfs-size", "tmpfs-mode") if name in parts]
        return parse_tmpfs(f"{target}:{','.join([*said, *['ro'] * read_only])}")
    if not parts.get("source"):
        raise InvalidOptions(f"{text!r}: source is missing: a {'path of the host' if kind == 'bind' else 'name of a volume'}")
    if kind == "bind":
        return Volume(target, path=parts["source"], read_only=read_only)
    copy = not _is_true(parts.get("volume-nocopy", "false"), text)
    return Volume(target, name=parse_name(parts["source"], "a volume"), read_only=read_only, copy=copy)


def _is_true(word: str, text: str) -> bool:
    if word not in {"true", "false", "1", "0"}:
        raise InvalidOptions(f"{text!r}: {word!r} is neither true nor false")
    return word in {"true", "1"}


def parse_pids(text: str) -> int:
    """Return how many processes and threads a container may have at once; -1 is unlimited, as 0 is.

    Raises:
        InvalidOptions: it is no such number.
    """
    if not re.fullmatch(r"-1|\d{1,9}", text):
        raise InvalidOptions(f"{text!r} is not a number of processes")
    return int(text) or -1


def _volume_size(text: str, words: Iterable[str]) -> int | None:
    """Return the size that the options of a volume give, and refuse those that there are not."""
    size = None
    for word in words:
        if word.startswith("size="):
            size = parse_size(word.removeprefix("size="))
            continue
        if word.lower() == "z":
            raise InvalidOptions(f"{text!r}: {word!r} is for SELinux, which the guest has not", hint="leave it out")
        if word not in {"ro", "rw", "nocopy"}:
            raise InvalidOptions(f"{text!r}: a volume has the options ro, rw, size=SIZE and nocopy, and not {word!r}")
    return size


def parse_name(text: str, what: str) -> str:
    """Return the name of `what`: 1 to 128 letters, digits, ``_``, ``.`` and ``-``.

    Raises:
        InvalidOptions: it is none.
    """
    if not _NAME.fullmatch(text):
        said = f"{text!r:.200} cannot name {what}"
        raise InvalidOptions(f"{said}: letters, digits, '_', '.' and '-', at most 128, a letter or digit first")
    return text


def parse_hostname(text: str) -> str:
    """Return the name of a host.

    Raises:
        InvalidOptions: it is none.
    """
    if len(text) > _LONGEST_HOSTNAME or not _HOSTNAME.fullmatch(text):
        raise InvalidOptions(f"{text!r} is not a host's name: letters, digits, '-' and '.', at most {_LONGEST_HOSTNAME}")
    return text


def parse_tmpfs(text: str) -> Tmpfs:
    """Return what ``PATH[:OPTION,…]`` mounts. It is noexec, nosuid and nodev unless the options say otherwise.

    Raises:
        InvalidOptions: no such option, or no path.
    """
    place, _, words = text.partition(":")
    options = [word for word in words.split(",") if word]
    for word in options:
        name, given, value = word.partition("=")
        if not (name in _VALUES and value) if given else word not in _FLAGS:
            known = ", ".join([*sorted(_FLAGS), *(f"{name}=" for name in sorted(_VALUES))])
            raise InvalidOptions(f"{text!r}: tmpfs has no option {word!r}", hint=f"it has {known}")
    usual = [word for word in _USUAL_TMPFS if word.removeprefix("no") not in options and word not in options]
    return Tmpfs(_target(place, text), (*usual, *options))


def parse_ulimit(text: str) -> Ulimit:
    """Return the limit of ``NAME=SOFT[:HARD]``; -1 is unlimited.

    Raises:
        InvalidOptions: no such limit, or no numbers.
    """
    name, _, numbers = text.partition("=")
    if name not in _LIMITS:
        raise InvalidOptions(f"{text!r}: no limit is called {name!r}", hint=f"they are {', '.join(sorted(_LIMITS))}")
    found = re.fullmatch(r"(-1|\d{1,19})(?::(-1|\d{1,19}))?", numbers)
    if found is None:
        raise InvalidOptions(f"{text!r} is not NAME=SOFT[:HARD]")
    soft, hard = (_UNLIMITED if number == "-1" else int(number) for number in (found[1], found[2] or found[1]))
    if soft > hard:
        raise InvalidOptions(f"{text!r}: the soft limit is above the hard one")
    return Ulimit(name, soft, hard)


def parse_sysctl(text: str) -> tuple[str, str]:
    """Return the kernel parameter of ``NAME=VALUE``: one that a container has for itself.

    Raises:
        InvalidOptions: it is not, or none at all.
    """
    name, given, value = text.partition("=")
    if not given or not name:
        raise InvalidOptions(f"{text!r} is not NAME=VALUE")
    if name not in _OF_IPC and not name.startswith(("fs.mqueue.", "net.")):
        hint = "it has net.*, fs.mqueue.* and those of System V IPC"
        raise InvalidOptions(f"sysctl {name!r} is the kernel's, not a container's own", hint=hint)
    if not _is_text(text):
        raise InvalidOptions(f"{text!r} is not UTF-8, or has a zero byte")
    return name, value


def _target(path: str, text: str) -> str:
    if not _is_text(path):
        raise InvalidOptions(f"{text!r}: {path!r} is not UTF-8, or has a zero byte")
    if not path.startswith("/") or not path.strip("/"):
        raise InvalidOptions(f"{text!r}: {path!r} is not an absolute path of the container below /")
    return path


def _is_text(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # surrogates, which is how Python keeps bytes that are not text
        return False
