"""`--from`: the VM goes on from a template, whose options it has."""

import argparse
from collections.abc import Mapping

from utilityvm.cli.flags import given_file, given_options, wanted_options
from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.declare import declared
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.rules_clone import compared
from utilityvm.templates.template import Template, open_template

_OURS = ("is_template", "is_clone", "template_config")


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Describe the flag."""
    parser.add_argument(
        "--from", dest="template", metavar="TEMPLATE", help="go on from this template (uvm template), with its memory, instead of a boot"
    )


async def template_of(args: argparse.Namespace) -> Template | None:
    """Return the template that was named, None for none.

    Raises:
        UtilityVMError: as `open_template`.
    """
    return None if args.template is None else await open_template(args.template)


def options_of(
    args: argparse.Namespace, template: Template | None, *, vm_id: str = "", least: Mapping[str, int] | None = None
) -> OptionsLCOW:
    """Return the options of the VM: this host's with what was given, or those of a clone. `vm_id` is its id, unless another was given.

    `least` is what its size must be at least, by option, for what is to run in it: a VM that is booted gets that, unless told otherwise.

    Raises:
        InvalidOptions: what was given is not as the template's, or too much for it; `problems` has all of it by name. Or it is to become a
            template, or to be forked, and the verb does neither.
        UtilityVMError: as `wanted_options`.
    """
    named = {"id": vm_id} if vm_id else {}
    if template is None:
        options = wanted_options(args, **(least or {}), **named)
        if options.is_template:
            raise InvalidOptions("is_template: the VM ends with its command and nobody saves it", hint="uvm template create saves one")
        return options
    file = given_file(args)
    given = {*given_options(args), *(file.values if file is not None else ())}
    wanted = wanted_options(args, **named)
    problems = [_differs(name, wanted, template) for name in compared(OptionsLCOW) if name in given]
    problems += [_of_one(name, template) for name in _OURS if name in given]
    problems += [_too_small(name, size, template) for name, size in (least or {}).items() if name not in given]
    found = [problem for problem in problems if problem is not None]
    if found:
        hint = "leave it out, or make a template with it: uvm template create"
        raise InvalidOptions(f"--from {template.id}: {found[0].message}", problems=found, hint=hint)
    return template.clone_options(wanted.id)


def _differs(name: str, wanted: OptionsLCOW, template: Template) -> Problem | None:
    ours, theirs = (getattr(options, name) for options in (wanted, template.options))
    return None if ours == theirs else _problem(name, f"is {ours!r}, the template's is {theirs!r}")


def _of_one(name: str, template: Template) -> Problem:
    return _problem(name, f"is what --from {template.id} says")


def _too_small(name: str, size: int, template: Template) -> Problem | None:
    there = getattr(template.options, name)
    return None if there >= size else _problem(name, f"would have to be {size} for what is to run in it, the template's is {there}")


def _problem(name: str, said: str) -> Problem:
    return Problem(f"$.{name}", "template_config", f"{_flag(name)} {said}")


def _flag(name: str) -> str:
    return declared(OptionsLCOW)[name].flag
