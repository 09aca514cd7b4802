"""Options as this host gives them: the defaults by what lies here, the user's wishes by keyword and from files."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from utilityvm.kit.errors import HostError, InvalidOptions, NotFound
from utilityvm.options.annotations import options_said
from utilityvm.options.defaults import DefaultsFacts, boot_files_look_at, defaults_look_at, program_boot_files
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.options.read import options_lcow, options_wcow
from utilityvm.options.text import MAX_BYTES, OptionsFile, parse
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.store.layout import Layout
from utilityvm.wire.oci import Spec, read_spec

_LEVEL_WORDS: Final = ((logging.DEBUG, "debug"), (logging.INFO, "info"), (logging.WARNING, "warning"))


def default_options_lcow(**given: object) -> OptionsLCOW:
    """Return the options of a Linux VM on this host, with those of `given` (field names of `OptionsLCOW`) instead of the defaults.

    Files in another `boot_files_path` are looked for there, unless they are named as well.

    Raises:
        InvalidOptions: options that do not exist, are of the wrong type, out of range or contradict each other; `problems` has all
            of it, each with its path (``$.memory_size_in_mb``).
    """
    return options_lcow(_facts(given.get("boot_files_path")), given)


def load_options_lcow(path: str | os.PathLike[str], **given: object) -> OptionsLCOW:
    """Return the options that a TOML or JSON file gives, by the names of the fields; `given` wins over it, the defaults stand behind it.

    Paths in the file begin at the working directory.

    Raises:
        NotFound: there is no such file.
        HostError: it cannot be read.
        InvalidOptions: as `default_options_lcow`; also what is not TOML or JSON, with line and column.
    """
    return options_of(given, read_options_file(path))


def default_options_wcow(**given: object) -> OptionsWCOW:
    """Return the options of a Windows VM, with those of `given` (field names of `OptionsWCOW`) instead of the defaults.

    `layer_folders` have no default; a VM without them is refused when it is created.

    Raises:
        InvalidOptions: as `default_options_lcow`.
    """
    return options_wcow(_facts(None), given)


def load_options_wcow(path: str | os.PathLike[str], **given: object) -> OptionsWCOW:
    """Return the options that a TOML or JSON file gives; `given` wins over it, the defaults stand behind it.

    Raises:
        NotFound, HostError, InvalidOptions: as `load_options_lcow`.
    """
    return options_wcow(_facts(None), given, read_options_file(path))


def options_from_spec(spec: Spec | Mapping[str, object], **given: object) -> OptionsLCOW | OptionsWCOW:
    """Return the options of the VM for a container of this OCI specification: what its annotations say, and its section Windows.Resources.

    `given` wins over it, the defaults stand behind it. Without a section for Linux the guest is Windows.

    Raises:
        InvalidOptions: the specification asks for no VM; an annotation is unknown in its namespace or makes no sense; or as
            `default_options_lcow`.
        Unsupported: an annotation that is not carried out; or a member that the specification does not have.
    """
    wanted = read_spec(spec)
    resources = wanted.windows.resources if wanted.windows else {}
    if wanted.linux is not None:
        return options_of({**options_said(wanted.annotations, resources, windows=False), **given}, None)
    if wanted.windows is None:
        raise InvalidOptions(
            "cannot create UVM opts spec is not LCOW or WCOW", hint="it has neither a section for Linux nor one for Windows"
        )
    if wanted.windows.hyperv is None:
        raise InvalidOptions("cannot create UVM opts for non-isolated spec", hint="its section for Windows has no HyperV")
    return default_options_wcow(**{**options_said(wanted.annotations, resources, windows=True), **given})


def options_of(given: Mapping[str, object], file: OptionsFile | None) -> OptionsLCOW:
    """Return what `default_options_lcow` or, with a file, `load_options_lcow` would."""
    folder = given.get("boot_files_path", file.values.get("boot_files_path") if file else None)
    return options_lcow(_facts(folder), given, file)


def read_options_file(path: str | os.PathLike[str]) -> OptionsFile:
    """Read an options file.

    Raises:
        UtilityVMError: as `load_options_lcow`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path}: no such options file") from error
    except ValueError as error:  # a zero byte
        raise NotFound(f"{path!r}: no file can have this name") from error
    except OSError as error:
        raise HostError(f"{path}: the options file cannot be read: {error.strerror}") from error
    return parse(content, str(path))


def log_level() -> str:
    """Return the guest agent's word for the level of our loggers."""
    level = logging.getLogger("utilityvm").getEffectiveLevel()
    return next((word for limit, word in _LEVEL_WORDS if level <= limit), "error")


def is_there(path: str) -> bool:
    """Whether a path leads to something, as far as we may look."""
    try:
        return Path(path).exists()
    except OSError:  # a folder on the way that is not for us
        return False


def windows_facts(folder: object, *, program_files: str, build: int) -> DefaultsFacts:
    """Return what the defaults depend on where Windows is the host, whose `build` and folder of programs are given."""
    shared = program_boot_files(PathFlavour.WINDOWS, program_files)
    look_at = [*defaults_look_at(PathFlavour.WINDOWS, sys.argv[0], shared)]
    look_at += boot_files_look_at(PathFlavour.WINDOWS, folder) if isinstance(folder, str) else ()
    return DefaultsFacts(
        path_flavour=PathFlavour.WINDOWS,
        build=build,
        num_cpu=os.cpu_count() or 1,
        argv0=sys.argv[0],
        shared_boot_files=shared,
        log_level=log_level(),
        files_present=frozenset(path for path in look_at if is_there(path)),
    )


def _facts(folder: object) -> DefaultsFacts:
    if sys.platform == "win32":
        return windows_facts(folder, program_files=os.environ.get("PROGRAMFILES", r"C:\Program Files"), build=sys.getwindowsversion().build)
    shared = str(Layout.of_user().boot_files)
    look_at = [*defaults_look_at(PathFlavour.POSIX, sys.argv[0], shared)]
    look_at += boot_files_look_at(PathFlavour.POSIX, folder) if isinstance(folder, str) else ()
    return DefaultsFacts(
        path_flavour=PathFlavour.POSIX,
        num_cpu=len(os.sched_getaffinity(0)),
        argv0=sys.argv[0],
        shared_boot_files=shared,
        log_level=log_level(),
        files_present=frozenset(path for path in look_at if is_there(path)),
    )
