"""Options in Go's spelling, as hcsshim users and the parity vectors write them (``MemorySizeInMB``)."""

from collections.abc import Mapping

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.declare import go_names
from utilityvm.options.lcow import OptionsLCOW


def to_go(options: OptionsLCOW) -> dict[str, object]:
    """Return the options under their Go names; options that are only ours are left out."""
    return {go: getattr(options, name) for name, go in go_names(type(options)).items()}


def from_go(fields: Mapping[str, object]) -> OptionsLCOW:
    """Make options of Go-spelled fields; an absent field has its default.

    Raises:
        InvalidOptions: a name that no option has, or a value of the wrong type.
    """
    names = {go: name for name, go in go_names(OptionsLCOW).items()}
    strangers = [Problem(f"$.{field}", "unknown", f"{field} is not an option") for field in fields if field not in names]
    if strangers:
        raise InvalidOptions(strangers[0].message, problems=strangers)
    try:
        return msgspec.convert({names[field]: value for field, value in fields.items()}, OptionsLCOW)
    except msgspec.ValidationError as error:
        raise InvalidOptions(str(error)) from error
