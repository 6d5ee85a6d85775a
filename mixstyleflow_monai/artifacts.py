"""Files that one step leaves for the next: atomic writes, hashes and manifests.

Every artifact of a phase has a manifest beside it (``model.pt`` -> ``model.manifest.json``) that says what it was
trained on, from which other artifacts it was made, and with what software. A consumer compares hashes before it
trusts an artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mixstyleflow_monai

MANIFEST_FORMAT = 1


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` when the block ends without an error.

    The temporary name keeps all suffixes of ``path``, because writers choose the format by the suffix. A reader never
    sees half a file: the bytes are flushed to disk before the rename, and an error removes the temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=f"-{target.name}", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with open(partial, "rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; give the result the permissions any other new file would have.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(**folders: str | os.PathLike[str]) -> None:
    """Refuse folders that cannot be written, before hours of work that would end there. Nothing is made.

    Args:
        **folders: by option.

    Raises:
        ValueError: the folder, or the first one above it that is there, is no folder or cannot be written.
    """
    for name, folder in folders.items():
        path = Path(folder).resolve()
        there = next(above for above in (path, *path.parents) if above.exists())
        if not there.is_dir():
            raise ValueError(f"--{name} {folder}: {there} is a file. Give a folder.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"--{name} {folder}: {there} cannot be written. Give another folder, or its permissions.")


def save_tensors(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` with ``torch.save``, atomically; the same content gives the same bytes.

    Given a name, torch writes that name into the file, and the temporary one would change every hash.
    """
    import torch  # not needed by those who only read JSON

    with atomic_path(path) as partial, open(partial, "wb") as stream:
        torch.save(dict(content), stream)


def read_tensors(path: str | os.PathLike[str], what: str, remedy: str) -> Any:
    """Return what `save_tensors` or ``torch.save`` wrote, on the CPU; no code in it is run.

    Args:
        path: the file.
        what: it should be, for the message.
        remedy: last sentence of the message.

    Raises:
        ValueError: not written by PyTorch, damaged or cut off.
    """
    import torch  # not needed by those who only read JSON

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as {what} ({error}). {remedy}") from error


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any] | list[Any]) -> None:
    """Write ``content`` as indented JSON, atomically. NaN is refused: JSON has no NaN."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def manifest_path(artifact: str | os.PathLike[str]) -> Path:
    """Return the path of the manifest beside an artifact: ``model.pt`` -> ``model.manifest.json``."""
    return Path(artifact).with_suffix(".manifest.json")


def write_manifest(
    artifact: str | os.PathLike[str],
    kind: str,
    *,
    made_from: Mapping[str, str | os.PathLike[str]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the manifest of an artifact that is on disk.

    Args:
        artifact: the file described.
        kind: what it is, "segmentation_network", "style_statistics" or "style_flows".
        made_from: name -> artifact that it was made from. Their hashes are recorded, and all their ancestors' too.
        facts: further JSON values: configuration, seed, source domain, case ids, task.

    Returns:
        The manifest.
    """
    sources: dict[str, Any] = {}
    ancestors: list[str] = []
    for name, path in (made_from or {}).items():
        digest = sha256_file(path)
        sources[name] = {"file": Path(path).name, "sha256": digest}
        ancestors.append(digest)
        if manifest_path(path).exists():
            ancestors += _read_object(manifest_path(path)).get("ancestors", [])
    content = {
        "format": MANIFEST_FORMAT,
        "kind": kind,
        "file": Path(artifact).name,
        "sha256": sha256_file(artifact),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": software_versions(),
        "git_commit": git_commit(),
        "made_from": sources,
        "ancestors": list(dict.fromkeys(ancestors)),
        **(facts or {}),
    }
    write_json(manifest_path(artifact), content)
    return content


def read_manifest(artifact: str | os.PathLike[str], *, kind: str | None = None) -> dict[str, Any]:
    """Read the manifest beside an artifact and check that it belongs to it.

    Raises:
        FileNotFoundError: the artifact or its manifest is missing.
        ValueError: no manifest, another kind of artifact, or the file is not the one that the manifest describes.
    """
    path = manifest_path(artifact)
    if not Path(artifact).is_file():
        raise FileNotFoundError(
            f"{artifact}: no such file. Run the phase that makes it, or give its "
            "folder (--phase1_dir, --phase2_dir; to evaluate or infer, the model itself with --ckpt_path)."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Copy the manifest together with {Path(artifact).name}; without it nobody can tell "
            "what the artifact was trained on."
        )
    content = _read_object(path)
    if kind is not None and content.get("kind") != kind:
        raise ValueError(f"{artifact}: this is a {content.get('kind')!r}, expected a {kind!r}. Give the right file.")
    found = sha256_file(artifact)
    if found != content.get("sha256"):
        raise ValueError(
            f"{artifact}: SHA-256 {found} differs from {content.get('sha256')} in {path.name}. The file was replaced "
            "or damaged; restore it or run its phase again."
        )
    return content


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no valid JSON ({error}). Restore it, or run its phase again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is no manifest, a JSON object. Restore it, or run its phase again.")
    return content


def check_lineage(network: Mapping[str, Any], flows: Mapping[str, Any]) -> None:
    """Refuse flows or statistics of another network than the one to start from, or of none of its ancestors.

    Args:
        network: manifest of the network that Phase III starts from.
        flows: manifest of the style flows or of the statistics.
    """
    described = flows["made_from"]["network"]["sha256"]
    known = [network["sha256"], *network.get("ancestors", [])]
    if described not in known:
        raise ValueError(
            f"{flows['file']}: its styles describe the network {described[:12]}..., but training would start from "
            f"{network['sha256'][:12]}..., which does not descend from it. Channel statistics of one network mean "
            "nothing in another: run phase 2 on this network, or give the network that they were made from."
        )


def software_versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    names = ("torch", "monai", "numpy", "pytorch-ignite", "nflows")
    # Its own is that of this very code: beside a packed bundle another one, or none, may be installed.
    versions = {"python": platform.python_version(), "mixstyleflow_monai": mixstyleflow_monai.__version__}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def case_counts(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of training cases by split; a manifest in a packed bundle holds no more than these."""
    counts = manifest.get("cases", {})
    return {split: cases if isinstance(cases, int) else len(cases) for split, cases in counts.items()}


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "+" if changed; None outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any], length: int = 200) -> list[str]:
    """Return "name: was x, now y" for each entry in which two records differ, values cut to ``length`` characters."""

    def shown(record: Mapping[str, Any], name: str) -> str:
        text = str(record[name]) if name in record else "absent"
        return text if len(text) <= length else f"{text[:length]}..."

    return [
        f"{name}: was {shown(before, name)}, now {shown(now, name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def check_same_sources(manifest: Mapping[str, Any], sources: Mapping[str, str | os.PathLike[str]]) -> bool:
    """Tell whether an artifact was made from these very files."""
    recorded = {name: entry["sha256"] for name, entry in manifest["made_from"].items()}
    return recorded == {name: sha256_file(path) for name, path in sources.items()}
