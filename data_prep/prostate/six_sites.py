"""The six-site release of prostate T2 volumes (sites A-F), as it comes out of its archive.

One folder a site with ``CaseNN.nii.gz`` and ``CaseNN_segmentation.nii.gz``. Two sites (A and B, from one challenge)
label the zones 1 and 2, the others the whole prostate as 1; site B writes ``_Segmentation``. Numbers have gaps (BIDMC)
or start late (UCL at 01 and 26, HK at 38), because they are those of the challenges that the volumes come from.

References:
    Liu et al., Shape-aware meta-learning (SAML), MICCAI 2020, https://liuquande.github.io/SAML/; the folder names
    ``ISBI`` and ``ISBI_1.5`` for A and B are those of the file lists in its code
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from data_prep.import_summary import LeftOut
from data_prep.prostate.cases import ReleaseCase
from mixstyleflow_monai.data.schema_checks import did_you_mean

PAGE = "https://liuquande.github.io/SAML/"


@dataclass(frozen=True)
class Site:
    """A site of the release.

    Attributes:
        letter: its letter in the papers.
        name: its name, which becomes the domain.
        cases: how many the release has.
        other_names: what its folder is called as well.
    """

    letter: str
    name: str
    cases: int
    other_names: tuple[str, ...] = ()

    def is_called(self, folder: str) -> bool:
        """Say whether a folder of that name is this site's: by its name, its letter, or both, in any letter case."""
        names = [_plain(name) for name in (self.name, *self.other_names)]
        letter = self.letter.lower()
        accepted = {*names, f"site{letter}"}
        accepted |= {prefix + name for prefix in (letter, f"site{letter}") for name in names}
        return _plain(folder) in accepted


SITES = (
    Site("A", "RUNMC", 30, ("ISBI",)),
    Site("B", "BMC", 30, ("ISBI_1.5",)),
    Site("C", "I2CVB", 19),
    Site("D", "UCL", 13),
    Site("E", "BIDMC", 12),
    Site("F", "HK", 12),
)

_FILE = re.compile(r"case[ _-]?(\d+)(_segmentation)?\.nii(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class SixSites:
    """What was found of the release.

    Attributes:
        sites: those whose folders are there, in the order A-F.
        cases: their cases, by site and number.
        left_out: files that are no case, and labels without an image.
    """

    sites: tuple[Site, ...]
    cases: tuple[ReleaseCase, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def missing(self) -> tuple[Site, ...]:
        """The sites that are not there."""
        return tuple(site for site in SITES if site not in self.sites)


def find_sites(root: str | os.PathLike[str]) -> SixSites:
    """Find the sites' folders in ``root``, or in a folder in it, and the cases in them; no volume is opened.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no site's folder in it, one site twice, a folder without cases, or one case in two files.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file; extract it and give the folder" if root.is_file() else "no such folder"
        raise FileNotFoundError(f"--sites {root}: {what}. It holds {', '.join(site.name for site in SITES)}.")
    folders = _site_folders(root)
    cases: list[ReleaseCase] = []
    left_out: list[LeftOut] = []
    for site, folder in folders.items():
        found, rest = _site_cases(site, folder, root)
        cases += found
        left_out += rest
    return SixSites(tuple(folders), tuple(cases), tuple(left_out))


def _site_folders(root: Path) -> dict[Site, Path]:
    """Return the folder of each site that is there, in the order A-F."""
    nearest = _folders(root)
    for candidates in (nearest, [inner for folder in nearest for inner in _folders(folder)]):
        found = {site: [folder for folder in candidates if site.is_called(folder.name)] for site in SITES}
        for site, folders in found.items():
            if len(folders) > 1:
                raise ValueError(
                    f"--sites {root}: site {site.letter} is there twice, as "
                    f"{' and '.join(folder.relative_to(root).as_posix() for folder in folders)}; remove one."
                )
        if any(found.values()):
            return {site: folders[0] for site, folders in found.items() if folders}
    names = [folder.name for folder in nearest]
    hint = next((text for name in names if (text := did_you_mean(name, [site.name for site in SITES]))), "")
    raise ValueError(
        f"--sites {root}: no folder of a site in it; found {', '.join(names[:8]) or 'no folder'}, allowed: "
        f"{', '.join(site.name for site in SITES)}{hint}. Get the release from {PAGE} and give its folder."
    )


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder; hidden ones and what macOS adds to archives are passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _site_cases(site: Site, folder: Path, root: Path) -> tuple[list[ReleaseCase], list[LeftOut]]:
    """Return the cases of one site, by number, and the files that are none."""
    files: dict[tuple[int, bool], Path] = {}
    left_out = []
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None:
            if not path.name.startswith(".") and path.is_file():
                left_out.append(LeftOut(site.name, _shown(path, root), "name is not CaseNN.nii.gz", "none needed"))
            continue
        key = int(match[1]), match[2] is not None
        if key in files:
            raise ValueError(
                f"--sites {folder}: {files[key].name} and {path.name} are the same case in two files; remove one."
            )
        files[key] = path
    numbers = [number for number, is_label in sorted(files) if not is_label]
    if not numbers:
        raise ValueError(_no_cases(site, folder))
    left_out += [
        LeftOut(site.name, _shown(path, root), "no image for this label", "restore the image")
        for (number, is_label), path in files.items()
        if is_label and number not in numbers
    ]
    cases = []
    for number in numbers:
        image, name = files[number, False], f"Case{number:02d}"
        label = files.get((number, True), folder / f"{name}_segmentation.nii.gz")
        cases.append(ReleaseCase(site.name, name, image, label, _shown(image, root)))
    return cases, left_out


def _no_cases(site: Site, folder: Path) -> str:
    """Word the error for a site's folder that is laid out otherwise."""
    held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    hint = ""
    if any(name.startswith("patient_") for name in held):
        hint = " Folders patient_N are a set that others resampled and cut to the prostate."
    return (
        f"--sites {folder}: no CaseNN.nii.gz of site {site.letter} ({site.name}) in it; found "
        f"{', '.join(held[:5]) or 'nothing'}{', ...' if len(held) > 5 else ''}.{hint} Get the release from {PAGE}."
    )


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _plain(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
