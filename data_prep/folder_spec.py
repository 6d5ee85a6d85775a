"""The spec of ``python -m data_prep folder``: a YAML file, checked before any image is read."""

from __future__ import annotations

import json
import math
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from mixstyleflow_monai.data.dataset_description import SPLITS
from mixstyleflow_monai.data.schema_checks import did_you_mean, raise_problems, schema_problems
from mixstyleflow_monai.data.splits import FRACTIONS

PLACEHOLDERS = ("stem", "parent", "group")


@dataclass(frozen=True)
class DomainSpec:
    """Where the files of one domain are.

    Attributes:
        name: name of the domain.
        images: glob of the images, relative to the root.
        labels: path of the label of an image, relative to the root, with ``{stem}``, ``{parent}`` or ``{group}``.
        label_values: value to write for each value found in a label file.
        centre_crop: rows and columns to keep, or None.
        group: regular expression whose one group, searched in the case name, names the case's group; or None.
        spacing: millimetres along rows and columns of 2-D images, or None.
        max_aspect_ratio: 2-D images with a larger ratio of long to short side are left out; None accepts all.
        exclude: reason for leaving out a case, by case name.
    """

    name: str
    images: str
    labels: str
    label_values: dict[int, int]
    centre_crop: tuple[int, int] | None
    group: re.Pattern[str] | None
    spacing: tuple[float, float] | None
    max_aspect_ratio: float | None
    exclude: dict[str, str]


@dataclass(frozen=True)
class FolderSpec:
    """A checked spec; make one with :func:`load_spec`.

    Attributes:
        path: the YAML file.
        channels: wanted image channels, or None for 3 if any image is a colour image and 1 otherwise.
        source_domain: the one domain that is trained on; empty if none is.
        fractions: shares of train, validation and test in the source domain.
        seed: seed of the division.
        max_distance: largest distance between perceptual hashes of near-duplicates, or None for no search.
        min_correlation: smallest correlation across the border of adjacent tiles, or None for no search.
        domains: in the order of the file.
    """

    path: Path
    name: str
    spatial_dims: int
    channels: int | None
    regions: dict[str, list[int]]
    source_domain: str
    fractions: tuple[float, float, float]
    seed: int
    max_distance: int | None
    min_correlation: float | None
    domains: tuple[DomainSpec, ...]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, of which PyYAML would silently keep the last.

    Its errors have the line, also where PyYAML lets an error of Python through, as for the date 2020-13-45.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise yaml.YAMLError(
                f"line {line}: {node.value!r} is not a {kind} ({error}); put it in quotes if it is text"
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the merge key '<<' is not supported; write the keys out")
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, list | dict | set):
                raise yaml.YAMLError(f"line {line}: a list or mapping cannot be a key; put the text in quotes")
            # All keys become text later, so 1 and "1" are one key as well.
            if str(key) in seen:
                raise yaml.YAMLError(f"line {line}: key {key!r} is given twice; remove one")
            seen.add(str(key))
            # YAML takes no value for null, which means something here.
            if key == "source_domain" and isinstance(value_node, yaml.ScalarNode) and not value_node.value:
                raise yaml.YAMLError(
                    f"line {line}: source_domain has no value; name the domain to train on, or write null if all are "
                    "only tested on"
                )
        result: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return result


def load_spec(path: str | os.PathLike[str]) -> FolderSpec:
    """Read and check a spec.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, or it breaks the schema or a rule; lists all problems.
    """
    path = Path(path)
    try:
        content = _with_text_keys(yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader))
    except RecursionError as error:
        raise ValueError(f"{path}: not valid YAML: nested too deep, or a part of itself; write it out.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        examples = Path(__file__).parent / "examples"
        raise FileNotFoundError(f"{path}: no such spec. Worked examples are in {examples}.") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    raise_problems(path, schema_problems(_schema(), content))
    raise_problems(path, _problems(content))
    split = content.get("split", {})
    values = sorted({value for region in content["regions"].values() for value in region})
    return FolderSpec(
        path=path,
        name=content["name"],
        spatial_dims=content["spatial_dims"],
        channels=content.get("channels"),
        regions=content["regions"],
        source_domain=content["source_domain"] or "",
        fractions=_fractions(split),
        seed=split.get("seed", 0),
        max_distance=content.get("near_duplicates", {}).get("max_distance"),
        min_correlation=content.get("adjacent_tiles", {}).get("min_correlation"),
        domains=tuple(_domain(name, entry, values) for name, entry in content["domains"].items()),
    )


def _with_text_keys(content: Any) -> Any:
    """Turn all keys into text, because ``0: 1`` has a number as key in YAML, which JSON schemas do not know."""
    if isinstance(content, dict):
        return {str(key): _with_text_keys(value) for key, value in content.items()}
    return [_with_text_keys(value) for value in content] if isinstance(content, list) else content


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("folder_schema.json").read_text(encoding="utf-8"))
    return schema


def _fractions(split: Mapping[str, Any]) -> tuple[float, float, float]:
    given = [split.get(name) for name in SPLITS]
    if given == [None] * len(SPLITS):
        return FRACTIONS
    train, validation, test = (float(value or 0.0) for value in given)
    return train, validation, test


def _domain(name: str, entry: Mapping[str, Any], region_values: list[int]) -> DomainSpec:
    given = entry.get("label_values")
    label_values = {int(k): v for k, v in given.items()} if given else {v: v for v in (0, *region_values)}
    crop, spacing = entry.get("centre_crop"), entry.get("spacing")
    return DomainSpec(
        name=name,
        images=entry["images"],
        labels=entry["labels"],
        label_values=label_values,
        centre_crop=(crop[0], crop[1]) if crop else None,
        group=re.compile(entry["group"]) if "group" in entry else None,
        spacing=(float(spacing[0]), float(spacing[1])) if spacing else None,
        max_aspect_ratio=entry.get("max_aspect_ratio"),
        exclude=dict(entry.get("exclude", {})),
    )


def _problems(content: Mapping[str, Any]) -> list[str]:
    """Collect the problems that a schema cannot express."""
    domains: dict[str, Any] = content["domains"]
    problems = []
    if content["source_domain"] is None and "split" in content:
        problems.append("split: found, and source_domain is null, so that nothing is divided; remove one of them")
    if content["source_domain"] is not None and content["source_domain"] not in domains:
        hint = did_you_mean(content["source_domain"], domains)
        known = f"{', '.join(domains)} (keys of `domains`)"
        problems.append(f"source_domain: found {content['source_domain']!r}, allowed: {known}{hint}")
    fractions = _fractions(content.get("split", {}))
    if min(fractions) <= 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        shares = ", ".join(f"{name} {value:g}" for name, value in zip(SPLITS, fractions, strict=True))
        problems.append(f"split: found {shares}; give all three, above 0 and with sum 1, or none for 0.7, 0.1, 0.2")
    if content["spatial_dims"] == 3:
        if content.get("channels") == 3:
            problems.append("channels: found 3, volumes have 1 channel; remove the key")
        problems += [
            f"{key}: is for 2-D images, spatial_dims is 3; remove it and use `group` to keep a patient together"
            for key in ("near_duplicates", "adjacent_tiles")
            if key in content
        ]
    for name, entry in domains.items():
        problems += [f"domains.{name}.{line}" for line in _domain_problems(entry, content)]
    return problems


def _domain_problems(entry: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("images", "labels"):
        if Path(entry[key]).is_absolute() or PureWindowsPath(entry[key]).is_absolute():
            problems.append(f"{key}: {entry[key]!r} is absolute; write it relative to the folder given by --root")
    problems += _pattern_problems(entry)
    problems += _value_problems(entry.get("label_values", {}), content["regions"])
    if content["spatial_dims"] == 3:
        problems += [
            f"{key}: is for 2-D images, spatial_dims is 3; remove it"
            for key in ("centre_crop", "spacing", "max_aspect_ratio")
            if key in entry
        ]
    return problems


def _pattern_problems(entry: Mapping[str, Any]) -> list[str]:
    """Check the placeholders of ``labels`` and the expression of ``group``."""
    labels = entry["labels"]
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        parsed = [part[1:] for part in string.Formatter().parse(labels) if part[1] is not None]
    except ValueError as error:
        return [f"labels: {labels!r} is not a pattern ({error}); allowed placeholders: {allowed}"]
    fields = [str(field) for field, _, _ in parsed]
    problems = [
        f"labels: {labels!r} has {{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}, "
        f"and a placeholder takes no format; write {{{field}}}"
        for field, spec, conversion in parsed
        if field in PLACEHOLDERS and (spec or conversion)
    ]
    problems += [
        f"labels: unknown placeholder {{{field}}} in {labels!r}, allowed: {allowed}{did_you_mean(field, PLACEHOLDERS)}"
        for field in fields
        if field not in PLACEHOLDERS
    ]
    if not fields:
        problems.append(f"labels: {labels!r} is the same file for all images; put {{stem}} where the image's name goes")
    if "group" in fields and "group" not in entry:
        problems.append(f"labels: {labels!r} uses {{group}}, but the domain has no key `group`; add it")
    if "group" in entry:
        try:
            count = re.compile(entry["group"]).groups
            if count != 1:
                problems.append(
                    f"group: {entry['group']!r} has {count} capture groups, needs exactly 1, as in '^(p\\d+)_'"
                )
        except re.error as error:
            problems.append(f"group: {entry['group']!r} is not a regular expression ({error})")
    return problems


def _value_problems(label_values: Mapping[str, int], regions: Mapping[str, list[int]]) -> list[str]:
    """Check that the mapped values are those that the regions use, and that no region stays without a value."""
    if not label_values:
        return []
    allowed = sorted({0, *(value for values in regions.values() for value in values)})
    problems = [
        f"label_values.{found}: maps to {wanted}, allowed: {allowed} (0 and the values of `regions`); "
        "map it to 0 if it is background"
        for found, wanted in label_values.items()
        if wanted not in allowed
    ]
    problems += [
        f"label_values: nothing maps to {values} of the region {region!r}, so it would be empty; add the value"
        for region, values in regions.items()
        if not set(values) & set(label_values.values())
    ]
    return problems
