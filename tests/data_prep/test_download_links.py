"""The list of public data sets: complete, consistent with the commands, and printed so that it can be used."""

from __future__ import annotations

import io
import re
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml
from rich.console import Console

from data_prep.__main__ import COMMANDS, main
from data_prep.download_links import DATA_FILE, PublicData, load_public_data, print_links
from data_prep.fundus.releases import RELEASES

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = load_public_data()
UNKNOWN = ("not stated", "not verified")


def printed(width: int) -> str:
    stream = io.StringIO()
    print_links(Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_tells_everything_or_that_it_is_not_known(entry: PublicData) -> None:
    for value in (entry.name, entry.holds, entry.licence, entry.by_hand, entry.cite, entry.checked):
        assert value == value.strip() != ""
    assert entry.size in UNKNOWN or re.match(r"\d+(\.\d+)? [MG]B, \w+\.(zip|tar)\b", entry.size)
    assert entry.licence.startswith((*UNKNOWN, "CC BY", "CC0", "GPL-"))
    assert re.search(r"\b(19|20)\d\d\b", entry.cite)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_addresses_are_addresses(entry: PublicData) -> None:
    assert entry.addresses
    for address in entry.addresses:
        parts = urlparse(address)
        assert parts.scheme in ("http", "https")
        assert "." in parts.netloc
        assert re.fullmatch(r"\S+", address)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_command_exists_and_reads_what_it_names(entry: PublicData) -> None:
    command, *words = entry.command.split(",")[0].split()
    assert command in COMMANDS
    for word in words:
        if word.startswith("--"):
            assert word[2:] in COMMANDS[command].__annotations__
        else:
            assert (ROOT / word).is_file()


def test_every_release_of_the_fundus_command_is_listed() -> None:
    listed = " ".join(address for entry in ENTRIES for address in entry.addresses)
    public = [release for release in RELEASES if release.origin.startswith("http")]
    assert len(public) >= 5
    for release in public:
        assert urlparse(release.origin).path.rsplit("/", 1)[-1] in listed
        assert urlparse(release.origin).netloc in listed


def test_the_address_of_the_decathlon_is_the_one_that_monai_downloads() -> None:
    # Read as text: importing monai.apps takes seconds.
    source = Path(str(metadata.distribution("monai").locate_file("monai/apps/datasets.py"))).read_text()
    (address,) = re.findall(r'"(https://\S+/Task05_Prostate\.tar)"', source)
    assert any(address in entry.addresses for entry in ENTRIES)


@pytest.mark.parametrize("width", [60, 120, 200])
def test_addresses_are_printed_unbroken_and_every_set_is_named(width: int) -> None:
    lines = printed(width).splitlines()
    for entry in ENTRIES:
        assert entry.name in lines
        assert all(f"  {address}" in lines for address in entry.addresses)
    text = " ".join(" ".join(lines).split())
    assert all(" ".join(entry.holds.split()) in text for entry in ENTRIES)


def test_the_command_prints_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download-links"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "Nothing was downloaded" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 120


def test_an_entry_with_other_keys_is_refused(tmp_path: Path) -> None:
    entries = yaml.safe_load((ROOT / "data_prep" / DATA_FILE).read_text(encoding="utf-8"))
    entries[2]["lisence"] = entries[2].pop("licence")
    path = tmp_path / DATA_FILE
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(ValueError, match=r"public_data\.yaml: 'Fundus images of five.*'lisence'.*expected .*'licence'"):
        load_public_data(path)
