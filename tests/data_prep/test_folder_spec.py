"""The spec of a folder import: what is refused, and what is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.folder_spec import FolderSpec, load_spec

Spec = dict[str, Any]


@pytest.fixture
def spec() -> Spec:
    values = {0: 0, 100: 1, 200: 2}
    return {
        "name": "tiny",
        "spatial_dims": 2,
        "regions": {"cell": [1, 2], "nucleus": [2]},
        "source_domain": "home",
        "domains": {
            "home": {"images": "home/*.png", "labels": "home/masks/{stem}.png", "label_values": values},
            "away": {"images": "away/*.png", "labels": "away/masks/{stem}.png"},
        },
    }


def load(spec: Spec, folder: Path) -> FolderSpec:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return load_spec(path)


def test_optional_keys_have_defaults(spec: Spec, tmp_path: Path) -> None:
    read = load(spec, tmp_path)
    assert (read.channels, read.fractions, read.seed) == (None, (0.7, 0.1, 0.2), 0)
    assert (read.max_distance, read.min_correlation) == (None, None)
    home, away = read.domains
    assert (home.name, away.name) == ("home", "away")
    assert home.label_values == {0: 0, 100: 1, 200: 2}
    assert away.label_values == {0: 0, 1: 1, 2: 2}
    assert (home.centre_crop, home.group, home.spacing, home.max_aspect_ratio, home.exclude) == (None,) * 4 + ({},)


def change_domain(**values: Any) -> Callable[[Spec], object]:
    return lambda spec: spec["domains"]["home"].update(values)


MISTAKES: dict[str, tuple[Callable[[Spec], object], str]] = {
    "unknown key": (lambda spec: spec.update(region={}), r"unknown key 'region'; did you mean 'regions'\?"),
    "unknown domain key": (change_domain(label="x"), r"domains\.home: unknown key 'label'; did you mean 'labels'\?"),
    "missing key": (lambda spec: spec.pop("regions"), r"key 'regions' is missing; add it"),
    "split without a source": (
        lambda spec: spec.update(source_domain=None, split={"seed": 1}),
        r"split: found, and source_domain is null, so that nothing is divided; remove one",
    ),
    "unknown source": (
        lambda spec: spec.update(source_domain="hom"),
        r"source_domain: found 'hom', allowed: home, away .* did you mean 'home'",
    ),
    "fractions": (
        lambda spec: spec.update(split={"train": 0.9, "validation": 0.1, "test": 0.2}),
        r"split: found train 0\.9, validation 0\.1, test 0\.2; give all three, above 0 and with sum 1",
    ),
    "value outside of regions": (
        change_domain(label_values={0: 0, 100: 1, 200: 3}),
        r"domains\.home\.label_values\.200: maps to 3, allowed: \[0, 1, 2\]",
    ),
    "region without value": (
        change_domain(label_values={0: 0, 100: 1, 200: 1}),
        r"domains\.home\.label_values: nothing maps to \[2\] of the region 'nucleus'",
    ),
    "unknown placeholder": (change_domain(labels="{stam}.png"), r"unknown placeholder \{stam\} .* did you mean 'stem'"),
    "format of a placeholder": (
        change_domain(labels="{stem:d}/{parent!r}.png"),
        r"spec\.yaml: 2 problems\n  domains\.home\.labels: .* has \{stem:d\}, and a placeholder takes no format; write "
        r"\{stem\}\n  domains\.home\.labels: .* has \{parent!r\}, and .*; write \{parent\}",
    ),
    "placeholder in a placeholder": (
        change_domain(labels="{stem:{q}}.png"),
        r"labels: .* has \{stem:\{q\}\}, and a plac",
    ),
    "no placeholder": (
        change_domain(labels="m.png"),
        r"labels: 'm\.png' is the same file for all images; put \{stem\}",
    ),
    "absolute path": (change_domain(images="/data/*.png"), r"images: '/data/\*\.png' is absolute; write it relative"),
    "group without capture": (change_domain(group="^p"), r"group: '\^p' has 0 capture groups, needs exactly 1"),
    "broken group": (change_domain(group="(p"), r"group: '\(p' is not a regular expression"),
    "crop of a volume": (
        lambda spec: (spec.update(spatial_dims=3), change_domain(centre_crop=[9, 9])(spec)),
        r"domains\.home\.centre_crop: is for 2-D images, spatial_dims is 3; remove it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_value_and_remedy(mistake: str, spec: Spec, tmp_path: Path) -> None:
    change, message = MISTAKES[mistake]
    change(spec)
    with pytest.raises(ValueError, match=message):
        load(spec, tmp_path)


TEXTS = {
    "a date that is none": (
        "name: 2020-13-45\n",
        r"line 1: '2020-13-45' is not a timestamp \(month must be in 1",
    ),
    "a date inside": ("domains:\n  a: {images: 2020-02-31}\n", r"line 2: '2020-02-31' is not a timestamp"),
    "a number that is none": ("name: !!int abc\n", r"line 1: 'abc' is not a int .*put it in quotes if it is text"),
    "a yes that is none": ("name: !!bool perhaps\n", r"line 1: 'perhaps' is not a bool"),
    "a merge key": ("a: &a {x: 1}\nb:\n  <<: *a\n", r"line 3: the merge key '<<' is not supported; write the keys out"),
    "a part of itself": ("name: &a {x: *a}\n", r"nested too deep, or a part of itself"),
    "deep": ("name: " + "[" * 5000, r"nested too deep"),
    "other letters": (b"name: \xff\n", r"'utf-8' codec can't decode"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_faults_of_the_yaml_name_the_file_and_the_line(text: str, tmp_path: Path) -> None:
    content, message = TEXTS[text]
    path = tmp_path / "spec.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"spec\.yaml: not valid YAML: .*{message}"):
        load_spec(path)


def test_all_problems_are_told_at_once(spec: Spec, tmp_path: Path) -> None:
    spec["source_domain"] = "nowhere"
    change_domain(group="(p", labels="m.png")(spec)
    with pytest.raises(ValueError, match=r"spec\.yaml: 3 problems\n  source_domain: .*\n  .*labels: .*\n  .*group: "):
        load(spec, tmp_path)


def test_a_key_given_twice_and_a_missing_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ValueError, match=r"twice\.yaml: not valid YAML: line 2: key 'name' is given twice"):
        load_spec(tmp_path / "twice.yaml")
    (tmp_path / "empty.yaml").write_text("name: a\nsource_domain:   # later\n")
    with pytest.raises(ValueError, match=r"line 2: source_domain has no value; name the domain .*, or write null"):
        load_spec(tmp_path / "empty.yaml")
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such spec\. Worked examples are in"):
        load_spec(tmp_path / "none.yaml")
