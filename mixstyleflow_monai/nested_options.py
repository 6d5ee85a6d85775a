"""Options that reach into a configuration, such as ``--optimizer#weight_decay 0.1``, checked before any training."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import optional_import

from mixstyleflow_monai.data.schema_checks import did_you_mean
from mixstyleflow_monai.option_numbers import is_expression

_REFERENCE = re.compile(r"@[\w#:]+")
_UNKNOWN = object()
"""A value that MONAI has yet to work out."""


def check_nested(phase: int, settings: Mapping[str, Any]) -> None:
    """Check the options with ``#`` or ``::`` in their names, which MONAI sets inside other values.

    Args:
        phase: 1, 2 or 3.
        settings: top level of its train.json, overlays and options merged into it.

    Raises:
        ValueError: nothing of this name is there to be set, or a word is given for a number.
    """
    for name, value in settings.items():
        *path, last = _parts(name)
        if path:
            option = f"--phase{phase}:{name}"
            _check(option, _at(settings, path, option), last, value, settings)


def _parts(name: str) -> list[str]:
    return name.replace("::", "#").split("#")


def _at(settings: Mapping[str, Any], path: Sequence[str], option: str) -> Any:
    """Return the value at a path, `_UNKNOWN` where an expression makes it."""
    value: Any = settings
    for part in path:
        value = _resolved(_item(value, part, option), settings)
        if value is _UNKNOWN:
            break
    return value


def _item(value: Any, part: str, option: str) -> Any:
    """Return what a mapping or a list has under a name or number."""
    if isinstance(value, Mapping):
        if part in value:
            return value[part]
        raise ValueError(f"{option}: there is no {part!r}{did_you_mean(part, sorted(value)) or '.'}")
    if isinstance(value, list):
        if part.isdecimal() and int(part) < len(value):
            return value[int(part)]
        raise ValueError(f"{option}: {part!r} is no number of an entry; there are {len(value)}, counted from 0.")
    raise ValueError(f"{option}: {value!r} has no {part!r} inside. Leave the option out, or set the whole value.")


def _resolved(value: Any, settings: Mapping[str, Any]) -> Any:
    """Follow a reference to another value; other expressions are MONAI's to work out."""
    seen: set[str] = set()
    while is_expression(value):
        if not _REFERENCE.fullmatch(value) or value in seen:
            return _UNKNOWN
        seen.add(value)
        found: Any = settings
        for part in _parts(value[1:]):
            found = found.get(part, _UNKNOWN) if isinstance(found, Mapping) else _UNKNOWN
        value = found
    return value


def _check(option: str, parent: Any, last: str, value: Any, settings: Mapping[str, Any]) -> None:
    if parent is _UNKNOWN:
        return
    if isinstance(parent, Mapping) and last not in parent:
        _check_new(option, parent, last)
        return
    before = _resolved(_item(parent, last, option), settings)
    if isinstance(before, int | float) and isinstance(value, str) and not is_expression(value):
        kind = "true or false" if isinstance(before, bool) else "a number"
        raise ValueError(f"{option} {value}: expected {kind}, as in the configuration ({before!r}).")


def _check_new(option: str, parent: Mapping[str, Any], last: str) -> None:
    """Refuse an argument that the object does not take; one that it takes may have been left to its default."""
    target = parent.get("_target_")
    if not isinstance(target, str) or is_expression(target) or (last.startswith("_") and last.endswith("_")):
        return
    module, _, name = target.rpartition(".")
    made, found = optional_import(module, name=name)
    if not found:
        return
    arguments = inspect.signature(made).parameters
    if last in arguments or any(a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments.values()):
        return
    raise ValueError(f"{option}: {target} takes no {last!r}{did_you_mean(last, sorted(arguments)) or '.'}")
