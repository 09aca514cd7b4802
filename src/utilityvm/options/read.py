"""Options from what a user gave, by keyword, in a file or by flags: every mistake is found, each with its path, before anything is made."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.kit.ids import parse_vm_id
from utilityvm.options import builds
from utilityvm.options.defaults import DefaultsFacts, default_options_lcow, default_options_wcow, with_boot_files
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.rule import OptionsT, broken_rules
from utilityvm.options.rules import all_rules
from utilityvm.options.text import OptionsFile
from utilityvm.options.values import MAX_PROBLEMS, path_of, taken
from utilityvm.options.wcow import OptionsWCOW


def options_lcow(facts: DefaultsFacts, given: Mapping[str, object], file: OptionsFile | None = None) -> OptionsLCOW:
    """Return the defaults of a host with the options of `file` instead, and those of `given` instead of these.

    The kernel and the root file system are chosen by what lies in the `boot_files_path` that was given; the facts must say it.

    Raises:
        InvalidOptions: names that no option has, values of the wrong type or out of range, options that contradict each other.
            The message has the first, `problems` all of it up to `MAX_PROBLEMS`.
    """
    defaults = default_options_lcow("", "", facts)
    folder = given.get("boot_files_path", file.values.get("boot_files_path") if file else None)
    if isinstance(folder, str):
        defaults = with_boot_files(defaults, folder, facts)
    return _over(defaults, given, file)


def options_wcow(facts: DefaultsFacts, given: Mapping[str, object], file: OptionsFile | None = None) -> OptionsWCOW:
    """Return the same for a Windows guest. Its layers have no default; that there are some is asked when a VM is planned.

    Raises:
        InvalidOptions: as `options_lcow`.
    """
    return _over(default_options_wcow("", "", facts), given, file, later=frozenset({"layer_folders"}))


def _over(defaults: OptionsT, given: Mapping[str, object], file: OptionsFile | None, later: AbstractSet[str] = frozenset()) -> OptionsT:
    wish, kind = {**(file.values if file else {}), **given}, type(defaults)
    good, problems = taken(wish, kind, "$")
    options = msgspec.convert(msgspec.structs.asdict(defaults) | good, kind)
    problems += _wrong_id(options.id) if options.id else ()
    unknown = (wish.keys() - good.keys()) | (later - wish.keys())
    problems += broken_rules(options, builds.EVERYTHING, all_rules(kind), unknown=unknown)
    if problems := problems[:MAX_PROBLEMS]:
        source = file.name if file and not _is_of(problems[0], given) else "options"
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise InvalidOptions(f"{source}: {problems[0].path}: {problems[0].message}{more}", problems=problems)
    return options


def _is_of(problem: Problem, given: Mapping[str, object]) -> bool:
    paths = [path_of("$", name) for name in given]
    return any(problem.path == path or problem.path.startswith(f"{path}.") for path in paths)


def _wrong_id(vm_id: str) -> tuple[Problem, ...]:
    try:
        parse_vm_id(vm_id)
    except InvalidOptions as error:
        return error.problems
    return ()
