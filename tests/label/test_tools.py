"""The scripts in tools/monai_label, without MONAI Label."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mixstyleflow_monai.artifacts import read_manifest, write_json, write_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.networks import DualDecoderNet
from tests.label.label_server import ROOT, free_port, tool

serve, client = tool("serve"), tool("client")
BUNDLE = ROOT / "bundles" / PHASE_BUNDLES[3]


def test_bundle_is_installed_with_its_weights_and_the_label_names_of_their_task(phases: Path, tmp_path: Path) -> None:
    place = serve.install_bundle(tmp_path, BUNDLE, phases / "phase3")
    assert read_manifest(place / "models" / "model.pt") == read_manifest(phases / "phase3" / "models" / "model.pt")
    metadata = json.loads((place / "configs" / "metadata.json").read_text())
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["channel_def"] == {"0": "background", "1": "organ", "2": "core"}
    assert json.loads((BUNDLE / "configs" / "metadata.json").read_text()) != metadata


def test_fine_tuned_model_in_the_app_is_kept(phases: Path, tmp_path: Path) -> None:
    given = phases / "phase3" / "models" / "model.pt"
    model = serve.install_bundle(tmp_path, BUNDLE, given) / "models" / "model.pt"
    facts = {key: read_manifest(given)[key] for key in ("phase", "task", "source_domain", "dataset", "seed", "cases")}
    save_state_dict(DualDecoderNet(1, 2), model)
    write_manifest(model, "segmentation_network", made_from={"initial_network": given}, facts=facts)
    fine_tuned = model.read_bytes()
    # As of an evaluation in the app before it was fine-tuned.
    write_json(model.parents[1] / "evaluation.json", {"model_sha256": read_manifest(given)["sha256"], "seed": 0})
    for weights in (given, phases / "phase3", None):
        place = serve.install_bundle(tmp_path, BUNDLE, weights)
        assert model.read_bytes() == fine_tuned
        assert json.loads((place / "configs" / "metadata.json").read_text())["eval_metrics"] == {}


def test_other_weights_do_not_replace_those_in_the_app(phases: Path, tmp_path: Path) -> None:
    given = phases / "phase3" / "models" / "model.pt"
    model = serve.install_bundle(tmp_path / "app", BUNDLE, given) / "models" / "model.pt"
    before = model.read_bytes()
    other = tmp_path / "other" / "model.pt"
    facts = {key: read_manifest(given)[key] for key in ("phase", "task", "source_domain", "dataset", "seed", "cases")}
    save_state_dict(DualDecoderNet(1, 2), other)
    write_manifest(other, "segmentation_network", facts=facts)
    with pytest.raises(ValueError, match=r"the app has other weights .* which do not descend from those given"):
        serve.install_bundle(tmp_path / "app", BUNDLE, other)
    assert model.read_bytes() == before


def test_flows_are_installed_if_they_are_of_an_ancestor(phases: Path, tmp_path: Path) -> None:
    place = serve.install_bundle(tmp_path, BUNDLE, phases / "phase3", phases / "phase2" / "models")
    serve.install_bundle(tmp_path, BUNDLE, None, phases / "phase2" / "models")
    assert read_manifest(place / "models" / "style_flows.pt", kind="style_flows")["phase"] == 2
    foreign = tmp_path / "foreign"
    shutil.copytree(phases / "phase2" / "models", foreign)
    manifest = foreign / "style_flows.manifest.json"
    content = json.loads(manifest.read_text())
    content["made_from"]["network"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="its styles describe the network 000000000000"):
        serve.install_bundle(tmp_path, BUNDLE, None, foreign)


@pytest.mark.parametrize("phase", [1, 2])
def test_weights_of_another_phase_are_refused(phase: int, phases: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="phase"):
        serve.install_bundle(tmp_path, BUNDLE, phases / f"phase{phase}")


def test_missing_weights_are_one_message_and_no_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").touch()
    monkeypatch.setattr("subprocess.call", lambda *_, **__: pytest.fail("the server was started"))
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE / "configs", bundle / "configs")
    options = ["--studies", str(tmp_path), "--bundle", str(bundle), "--app", str(tmp_path / "app")]
    assert serve.main(options) == 1
    assert re.fullmatch(r"error: .*bundle/models/model\.pt.*\n", capsys.readouterr().err)


def test_missing_studies_and_missing_monai_label_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve.main(["--studies", str(tmp_path / "nowhere"), "--app", str(tmp_path / "app")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert serve.main(["--studies", str(tmp_path), "--app", str(tmp_path / "app")]) == 1
    assert "tools/monai_label/setup.sh" in capsys.readouterr().err


def test_server_is_started_on_this_machine_only_without_downloads(
    phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr("subprocess.call", lambda command, **_: calls.append(command) or 0)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").touch()
    options = ["--studies", str(tmp_path), "--weights", str(phases / "phase3"), "--app", str(tmp_path / "app")]
    assert serve.main([*options, "--prepare_only"]) == 0
    assert calls == []
    assert serve.main([*options, "--port", "8222"]) == 0
    text = " ".join(calls[0])
    assert "--host 127.0.0.1 --port 8222" in text
    assert f"--conf models {PHASE_BUNDLES[3]} --conf zoo_source ngc --conf sam2 false" in text


class Answers(BaseHTTPRequestHandler):
    """A server that answers like MONAI Label: a training runs for two questions, then fails or is done."""

    asked: ClassVar[list[str]] = []
    result: ClassVar[str] = "DONE"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"{self.command} {self.path}")
        infer = self.path.startswith("/infer/")
        broken = infer and "bad" in self.path
        body: Any = b"label" if infer else {"name": "MONAILabel"}
        if self.path.startswith("/train/"):
            running = len([line for line in self.asked if line.startswith("GET /train/")]) < 2
            body = {"status": "RUNNING" if running else self.result, "details": ["error: the cause"]}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(500 if broken else 200)
        self.end_headers()
        self.wfile.write(b"Internal Server Error" if broken else data)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Answers.asked.clear()
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_client_waits_for_the_end_of_a_training(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = client.LabelServer(url)
    assert server.train(max_epochs=3)["status"] == "DONE"
    assert Answers.asked == [f"POST /train/{PHASE_BUNDLES[3]}", "GET /train/", "GET /train/"]
    Answers.asked.clear()
    monkeypatch.setattr(Answers, "result", "ERROR")
    with pytest.raises(RuntimeError, match="training: ERROR\nerror: the cause"):
        server.train()


def test_commands_of_the_client(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = tmp_path / "label.nii.gz"
    for words in (
        ["info"],
        ["infer", "case01", "--output", str(label)],
        ["label", "case01", str(label)],
        ["batch_infer", "--images", "all"],
    ):
        assert client.main(["--url", url, *words]) == 0
        assert json.loads(capsys.readouterr().out)
    assert label.read_bytes() == b"label"
    assert Answers.asked == [
        "GET /info/",
        f"POST /infer/{PHASE_BUNDLES[3]}?image=case01&output=image",
        "PUT /datastore/label?image=case01&tag=final",
        f"POST /batch/infer/{PHASE_BUNDLES[3]}?images=all&run_sync=true",
    ]
    assert client.main(["--url", url, "infer", "bad", "--output", str(tmp_path / "x")]) == 1
    assert "500 Internal Server Error" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_client_says_that_nothing_answers() -> None:
    server = client.LabelServer(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TimeoutError, match="no answer in 0 s"):
        server.wait(seconds=0)


def test_requirements_name_the_versions_of_the_bundle() -> None:
    text = (ROOT / "tools" / "monai_label" / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)$", text, flags=re.MULTILINE))
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    assert (pins["monai"], pins["torch"]) == (metadata["monai_version"], metadata["pytorch_version"])
    assert pins["monailabel"] == "0.8.5"
    assert pins["numpy"].startswith("1.26.")


def document() -> str:
    return (ROOT / "docs" / "monai_label.md").read_text(encoding="utf-8")


def test_commands_of_the_document_are_those_of_the_client_and_of_the_makefile() -> None:
    blocks = "".join(re.findall(r"^```console\n(.*?)^```", document(), flags=re.MULTILINE | re.DOTALL))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = []
    for line in blocks.splitlines():
        words = line.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
            assert all(re.search(rf"^{word.split('=')[0]} *\?=", makefile, flags=re.MULTILINE) for word in words[2:])
        else:
            assert words[1] == "tools/monai_label/client.py"
            commands.append(client.parse(words[2:]).command)
    assert commands == ["info", "infer", "label", "train", "batch_infer"]
    assert re.search(r"^test-label:", makefile, flags=re.MULTILINE)


def test_versions_of_the_document_are_those_of_the_set_up() -> None:
    text = (ROOT / "tools" / "monai_label" / "requirements.txt").read_text(encoding="utf-8")
    text += (ROOT / "tools" / "monai_label" / "setup.sh").read_text(encoding="utf-8")
    for name, version in (("jsonschema", "4.17.3"), ("torchvision", "0.16.2"), ("numpy", "1.26.4")):
        assert f"{name}=={version}" in text
        assert f"{name} {version}" in document()
    assert "monailabel==0.8.5" in text
    assert "MONAI Label 0.8.5" in document()
