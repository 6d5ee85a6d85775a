"""Options that reach into a configuration, such as ``--optimizer#weight_decay 0.1``, checked before any training."""

from __future__ import annotations

import copy
import inspect
import pydoc
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mixstyleflow_monai.data.schema_checks import did_you_mean
from mixstyleflow_monai.option_numbers import is_expression

_REFERENCE = re.compile(r"@[\w#:]+")


def check_nested(phase: int, settings: Mapping[str, Any]) -> None:
    """Check the options with ``#`` or ``::`` in their names, which MONAI sets inside other values, in their order.

    Args:
        phase: 1, 2 or 3.
        settings: top level of its train.json, overlays and options merged into it.

    Raises:
        ValueError: there is nothing to set it in, the object takes no such argument, or its number or switch is given
            something else.
    """
    given = {name: value for name, value in settings.items() if len(_parts(name)) > 1}
    inside = {_parts(name)[0] for name in given}
    result = {
        name: copy.deepcopy(value) if name in inside else value for name, value in settings.items() if name not in given
    }
    for name, value in given.items():
        option = f"--phase{phase}:{name}"
        *path, last = _parts(name)
        parent = _at(result, path, option)
        if not isinstance(parent, Mapping) or last in parent:
            _check_kind(option, _item(parent, last, option), value, result)
        parent[last if isinstance(parent, Mapping) else int(last)] = copy.deepcopy(value)
    # An argument may come before the class that takes it.
    for name in given:
        option = f"--phase{phase}:{name}"
        *path, last = _parts(name)
        _check_argument(option, _at(result, path, option), last)


def _parts(name: str) -> list[str]:
    return name.replace("::", "#").split("#")


def _at(settings: Mapping[str, Any], path: Sequence[str], option: str) -> Any:
    """Return the mapping or list at a path; MONAI follows no references on its way there."""
    value: Any = settings
    for part in path:
        value = _item(value, part, option)
    if not isinstance(value, Mapping | list):
        raise ValueError(f"{option}: {'#'.join(path)} is {value!r}, with nothing inside it. Set the whole value.")
    return value


def _item(value: Any, part: str, option: str) -> Any:
    """Return what a mapping or a list has under a name or number."""
    if isinstance(value, Mapping):
        if part in value:
            return value[part]
        raise ValueError(f"{option}: there is no {part!r}{did_you_mean(part, sorted(value)) or '.'}")
    if isinstance(value, list):
        if re.fullmatch(r"-?\d+", part) and -len(value) <= int(part) < len(value):
            return value[int(part)]
        raise ValueError(f"{option}: {part!r} is no number of an entry; there are {len(value)}, counted from 0.")
    raise ValueError(f"{option}: {value!r} has no {part!r} inside. Set the whole value.")


def _check_kind(option: str, before: Any, value: Any, settings: Mapping[str, Any]) -> None:
    """Refuse something else where there was a number or a switch; a switch by reference takes words."""
    if is_expression(value):
        return
    old = _resolved(before, settings)
    if isinstance(before, bool) and not isinstance(value, bool):
        raise ValueError(f"{option} {value}: expected True or False, as in the configuration ({before}).")
    if isinstance(old, bool) or not isinstance(old, int | float):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError(f"{option} {value}: expected a number, as in the configuration ({old!r}).")


def _resolved(value: Any, settings: Mapping[str, Any]) -> Any:
    """Follow a reference to another value; other expressions are MONAI's to work out, and stay as they are."""
    seen: set[str] = set()
    while is_expression(value) and _REFERENCE.fullmatch(value) and value not in seen:
        seen.add(value)
        found: Any = settings
        for part in _parts(value[1:]):
            found = found.get(part) if isinstance(found, Mapping) else None
        value = found
    return value


def _check_argument(option: str, parent: Any, last: str) -> None:
    """Refuse an argument that an object of the configuration does not take."""
    target = parent.get("_target_") if isinstance(parent, Mapping) else None
    if not isinstance(target, str) or is_expression(target) or (last.startswith("_") and last.endswith("_")):
        return
    try:
        arguments = inspect.signature(pydoc.locate(target)).parameters  # type: ignore[arg-type]
    except (pydoc.ErrorDuringImport, TypeError, ValueError):
        return  # not found, or of those that tell nothing; MONAI will say what is wrong with it, if anything is
    if last in arguments or any(a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments.values()):
        return
    raise ValueError(f"{option}: {target} takes no {last!r}{did_you_mean(last, sorted(arguments)) or '.'}")
