"""Rules of templates and clones, the same for both sorts of guests."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from utilityvm.kit.errors import Problem
from utilityvm.options.lcow import OptionsLCOW, RootFSType
from utilityvm.options.rule import Rule
from utilityvm.options.shared import Options
from utilityvm.options.wcow import OptionsWCOW

Cloneable = OptionsLCOW | OptionsWCOW

_OF_ONE_VM: Final = frozenset({"id", "is_template", "is_clone", "template_config", "forkable"})
_MOST_SHOWN: Final = 64  # characters of a value, in messages


def compared(kind: type[Cloneable]) -> tuple[str, ...]:
    """Return the options in which a clone must be as its template, of all layers but the scratch."""
    return tuple(name for name in kind.__struct_fields__ if name not in _OF_ONE_VM)


def _differences(options: Cloneable) -> list[Problem]:
    """Return an entry for each option in which a clone is not as its template; the first says by its text that there are any."""
    if not options.is_clone or options.template_config is None:
        return []
    template = options.template_config.create_options
    values = [(name, _of_both(options, name), _of_both(template, name)) for name in compared(type(template))]
    return [
        Problem(f"$.{name}", "template_config", f"{name} is {_shown(ours)}, the template's is {_shown(theirs)}")
        for name, ours, theirs in values
        if ours != theirs
    ]


def _of_both(options: Options, name: str) -> object:
    """Return an option's value as far as both have it; a scratch is its VM's own, and only that there is one is compared."""
    value = getattr(options, name)
    return (*value[:-1], "(its scratch)") if name == "layer_folders" and value else value


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


NEEDS_TEMPLATE: Rule[Cloneable] = Rule(
    "template_config",
    "template config can not be nil when creating clone",
    lambda options, _: options.is_clone and options.template_config is None,
    reads=("is_clone",),
)

CLONE: tuple[Rule[Cloneable], ...] = (
    Rule(
        "external_guest_connection",
        "External gcs connection can not be disabled for clones",
        lambda options, _: options.is_clone and not options.external_guest_connection,
        reads=("is_clone",),
    ),
    Rule(
        "is_template",
        "Template can not be created from a full physically backed UVM",
        lambda options, _: options.is_template and options.fully_physically_backed,
        reads=("fully_physically_backed",),
    ),
)

IDLE_TEMPLATE: Rule[Cloneable] = Rule(
    "template_config",
    "template_config is for clones: is_clone is false",
    lambda options, _: options.template_config is not None and not options.is_clone,
    reads=("is_clone",),
)
"""A rule of ours: nothing that is said is ignored."""


def _of(flag: str, option: str, text: str, broken: Callable[[OptionsLCOW], bool]) -> Rule[OptionsLCOW]:
    """Return a rule of ours for VMs with the option `flag`, which cannot have this other option so."""
    return Rule(option, f"{option}: {text}", lambda options, _: bool(getattr(options, flag)) and broken(options), reads=(flag,))


def _of_originals() -> Iterator[Rule[OptionsLCOW]]:
    """Give the rules for what others go on from: templates, and VMs that are forked."""
    originals = (("is_template", "a template", "clone", "clones"), ("forkable", "a forkable VM", "child", "children"))
    for flag, one, other, others in originals:
        rule = partial(_of, flag)
        yield rule("allow_overcommit", f"must be true in {one}: its {others} share memory", lambda options: not options.allow_overcommit)
        given_back = f"must be false in {one}: memory that one {other} gives back would be another's too"
        yield rule("enable_cold_discard_hint", given_back, lambda options: options.enable_cold_discard_hint)
        still = f"must be true in {one}: its guest's agent is asked to stand still"
        yield rule("use_guest_connection", still, lambda options: not options.use_guest_connection)
        yield rule("external_guest_connection", still, lambda options: not options.external_guest_connection)
        yield rule(
            "preferred_root_fs_type",
            f"must be initrd in {one}: disks that are there from the start are not in it",
            lambda options: options.preferred_root_fs_type != RootFSType.INITRD,
        )
        pipe = f"not in {one}: its {others} would all want that socket"
        yield rule("console_pipe", pipe, lambda options: bool(options.console_pipe))
        yield rule("graphics_pipe", pipe, lambda options: bool(options.graphics_pipe))


TEMPLATE_LCOW: tuple[Rule[OptionsLCOW], ...] = (
    _of("is_template", "is_clone", "a clone cannot become a template", lambda options: options.is_clone),
    *_of_originals(),
)
"""Rules of ours: what cannot be saved, or would not be one VM's alone."""


def same_as_template(kind: type[Cloneable]) -> Rule[Cloneable]:
    """Return the rule that a clone is as its template; its details are what differs."""
    return Rule(
        "template_config",
        "clone configuration doesn't match with template configuration.",
        lambda options, _: bool(_differences(options)),
        reads=("is_clone", *compared(kind)),
        details=_differences,
    )
