"""Checks of a user's file against a JSON schema, worded for the user.

Every problem becomes one line: where it is, the value found, what is allowed and, for an unknown key, the key that
was probably meant. All problems are collected, so that a file with five mistakes takes one round of corrections.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_SHOWN_PROBLEMS = 20


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the allowed name nearest to ``found``, or an empty text."""
    # In lower case, because a name in other letter case is the nearest of all.
    names = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(str(found).lower(), list(names), n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def schema_problems(schema: Mapping[str, Any], content: object) -> list[str]:
    """Return one line for each way in which ``content`` breaks ``schema``, ordered by place.

    Args:
        schema: a JSON schema, draft 2020-12.
        content: the parsed file.
    """
    # Here, because a deployed network needs no schema, and MONAI Label pins a jsonschema that has no such draft.
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda error: [str(p) for p in error.path])
    return [line for error in errors for line in _describe(error, content)]


def raise_problems(path: object, problems: Sequence[str]) -> None:
    """Raise one ``ValueError`` that lists ``problems`` of the file ``path``; at most 20 lines and a count of the rest.

    Raises:
        ValueError: ``problems`` is not empty.
    """
    if not problems:
        return
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{path}: {count}", *(f"  {line}" for line in problems[:_SHOWN_PROBLEMS])]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _SHOWN_PROBLEMS} more")
    raise ValueError("\n".join(lines))


def _describe(error: ValidationError, content: object) -> list[str]:
    """Word one schema error; an object with two unknown keys gives two lines."""
    place = _place(list(error.absolute_path), content)
    found: Any = error.instance
    rule: Any = error.validator_value
    if error.validator == "additionalProperties" and isinstance(rule, bool):
        allowed: list[str] = list(error.schema.get("properties", {}))  # type: ignore[union-attr]
        return [
            f"{place}: unknown key {key!r}{did_you_mean(key, allowed)} (allowed: {', '.join(allowed)})"
            for key in found
            if key not in allowed
        ]
    if error.validator == "required":
        missing = next(key for key in rule if key not in found and f"{key!r} is a required" in error.message)
        return [f"{place}: key {missing!r} is missing; add it"]
    if error.validator in ("enum", "const"):
        allowed_values = rule if error.validator == "enum" else [rule]
        hint = did_you_mean(found, [value for value in allowed_values if isinstance(value, str)])
        return [f"{place}: found {found!r}, allowed: {', '.join(map(repr, allowed_values))}{hint}"]
    if error.validator == "type":
        kinds = rule if isinstance(rule, str) else " or ".join(rule)
        # YAML reads NO as false, and 1 as a number.
        hint = "; put it in quotes" if "string" in kinds and isinstance(found, bool | int | float) else ""
        return [f"{place}: found {_short(found)} ({type(found).__name__}), expected {kinds}{hint}"]
    if error.validator == "pattern" and "description" in error.schema:  # type: ignore[operator]
        return [f"{place}: found {_short(found)}, allowed: {error.schema['description']}"]  # type: ignore[index]
    if error.validator in ("minItems", "minProperties", "minLength"):
        return [f"{place}: found {_short(found)}, needs at least {rule}"]
    return [f"{place}: found {_short(found)}, which breaks the rule {error.validator}: {_short(rule)}"]


def _place(parts: Sequence[str | int], content: object) -> str:
    """Write a path such as ``cases[3] (id 'a').split`` and name the case, because users know ids and not positions."""
    text = ""
    node: Any = content
    for part in parts:
        node = node[part]
        if isinstance(part, int):
            text += f"[{part}]"
            if isinstance(node, Mapping) and isinstance(node.get("id"), str):
                text += f" (id {node['id']!r})"
        else:
            text += f".{part}" if text else str(part)
    return text or "top level"


def _short(value: object) -> str:
    """Return ``repr(value)``, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
