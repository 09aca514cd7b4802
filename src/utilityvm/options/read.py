"""Options from what a user gave, by keyword, in a file or by flags: every mistake is found, each with its path, before anything is made."""

from collections.abc import Mapping

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.kit.ids import parse_vm_id
from utilityvm.options import builds
from utilityvm.options.defaults import DefaultsFacts, default_options_lcow, with_boot_files
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.rules import BOUNDS, VERIFY
from utilityvm.options.rules import problems as broken_rules
from utilityvm.options.text import OptionsFile
from utilityvm.options.values import MAX_PROBLEMS, path_of, taken


def options_lcow(facts: DefaultsFacts, given: Mapping[str, object], file: OptionsFile | None = None) -> OptionsLCOW:
    """Return the defaults of a host with the options of `file` instead, and those of `given` instead of these.

    The kernel and the root file system are chosen by what lies in the `boot_files_path` that was given; the facts must say it.

    Raises:
        InvalidOptions: names that no option has, values of the wrong type or out of range, options that contradict each other.
            The message has the first, `problems` all of it up to `MAX_PROBLEMS`.
    """
    wish = {**(file.values if file else {}), **given}
    defaults = default_options_lcow("", "", facts)
    if isinstance(folder := wish.get("boot_files_path"), str):
        defaults = with_boot_files(defaults, folder, facts)
    good, problems = taken(wish, OptionsLCOW, "$")
    options = msgspec.convert(msgspec.structs.asdict(defaults) | good, OptionsLCOW)
    problems += _wrong_id(options.id) if options.id else ()
    problems += broken_rules(options, builds.EVERYTHING, (*BOUNDS, *VERIFY), unknown=wish.keys() - good.keys())
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
