"""Options in Go's spelling, as hcsshim users and the parity vectors write them (``MemorySizeInMB``)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.declare import Option, declared, go_names
from utilityvm.options.resources import VsmbOption
from utilityvm.options.rule import OptionsT


def to_go(options: msgspec.Struct) -> dict[str, object]:
    """Return the options under their Go names; options that are only ours are left out."""
    return {go: _to_go(declared(type(options))[name], getattr(options, name)) for name, go in go_names(type(options)).items()}


def from_go(fields: Mapping[str, object], kind: type[OptionsT]) -> OptionsT:
    """Make options of Go-spelled fields; an absent field has its default.

    Raises:
        InvalidOptions: a name that no option has, or a value of the wrong type.
    """
    names = go_names(kind).values()
    strangers = [Problem(f"$.{field}", "unknown", f"{field} is not an option") for field in fields if field not in names]
    if strangers:
        raise InvalidOptions(strangers[0].message, problems=strangers)
    try:
        return msgspec.convert(_ours(kind, fields), kind)
    except msgspec.ValidationError as error:
        raise InvalidOptions(str(error)) from error


def _to_go(option: Option, value: Any) -> object:  # noqa: ANN401 (a value of any option)
    if option.items == (VsmbOption,):
        return {word.value: word in value for word in VsmbOption}
    if option.items:
        return [_to_go_item(item) for item in value] or None
    return to_go(value) if isinstance(value, msgspec.Struct) else value


def _to_go_item(item: object) -> object:
    return {"type": item.__struct_config__.tag, **to_go(item)} if isinstance(item, msgspec.Struct) else item


def _ours(kind: type[msgspec.Struct], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields under our names, the structs in them too; what we do not know stays, for the conversion to refuse."""
    known = {go: declared(kind)[name] for name, go in go_names(kind).items()}
    return {known[go].name if go in known else go: _value(known.get(go), value) for go, value in fields.items()}


def _value(option: Option | None, value: Any) -> Any:  # noqa: ANN401 (a value of any option)
    if option is None:
        return value
    if option.items == (VsmbOption,) and isinstance(value, Mapping):
        return [word for word, wanted in value.items() if wanted]
    if option.items:
        of = {str(kind.__struct_config__.tag): kind for kind in option.items if issubclass(kind, msgspec.Struct)}
        return [_ours(of[item["type"]], item) if of else item for item in value or ()]
    if not issubclass(option.kind, msgspec.Struct) or not isinstance(value, Mapping):
        return value
    # In Go the options of a template are behind a pointer; without them there is nothing to clone.
    template = value.get("CreateOpts")
    return None if isinstance(template, Mapping) and template.get("Options", ...) is None else _ours(option.kind, value)
