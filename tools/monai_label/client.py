"""Drive a MONAI Label server from the command line, as 3D Slicer and OHIF do through their plugins.

For example ``client.py infer case01 --output case01_label.nii.gz``. Prints what the server answers as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import requests

MODEL = "phase3_mixstyleflow_segmentation"


class LabelServer:
    """The REST interface of a MONAI Label server, as far as a bundle needs it.

    Args:
        url: of the server.
        model: name of the bundle.
        timeout: seconds to wait for an answer; the segmentation of many images answers when it has ended.
    """

    def __init__(self, url: str = "http://127.0.0.1:8111", model: str = MODEL, timeout: float = 3600) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self.timeout = timeout

    def wait(self, seconds: float = 120) -> dict[str, Any]:
        """Return `info` as soon as the server answers.

        Raises:
            TimeoutError: it has not in this time.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return self.info()
            except requests.ConnectionError:
                if time.monotonic() > end:
                    raise TimeoutError(f"{self.url}: no answer in {seconds:g} s. Is the server running?") from None
                time.sleep(0.5)

    def info(self) -> dict[str, Any]:
        """Return what the server offers."""
        return self._answer(requests.get(f"{self.url}/info/", timeout=self.timeout)).json()

    def infer(self, image: str, output: Path, device: str = "cpu") -> Path:
        """Segment an image of the studies folder and write the label map.

        Args:
            image: its id, the file name without suffix.
            output: file to write.
            device: "cpu" or "cuda".
        """
        answer = requests.post(
            f"{self.url}/infer/{self.model}",
            params={"image": image, "output": "image"},
            data={"params": json.dumps({"device": device})},
            timeout=self.timeout,
        )
        output.write_bytes(self._answer(answer).content)
        return output

    def save_label(self, image: str, label: Path, tag: str = "final") -> dict[str, Any]:
        """Store a label map as the final one of an image."""
        with open(label, "rb") as stream:
            answer = requests.put(
                f"{self.url}/datastore/label",
                params={"image": image, "tag": tag},
                data={"params": "{}"},
                files={"label": (label.name, stream)},
                timeout=self.timeout,
            )
        return self._answer(answer).json()

    def train(self, max_epochs: int = 1, val_split: float = 0.2, device: str = "cpu", **options: Any) -> dict[str, Any]:
        """Fine-tune on all images with a final label; returns what the server tells of the task when it has ended.

        Args:
            max_epochs: epochs of this training.
            val_split: share of the labelled images that is kept for validation.
            device: "cpu" or "cuda".
            **options: further entries of the request.

        Raises:
            RuntimeError: it has failed; with the last lines that it printed.
        """
        request = {"max_epochs": max_epochs, "val_split": val_split, "device": device, **options}
        task = self._start("train", request, {})
        while task["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.5)
            task = self._answer(requests.get(f"{self.url}/train/", timeout=self.timeout)).json()
        if task["status"] != "DONE":
            raise RuntimeError("\n".join([f"training: {task['status']}", *task.get("details", [])]))
        return task

    def batch_infer(self, images: str = "all", device: str = "cpu") -> dict[str, Any]:
        """Segment many images; the label maps go to the datastore with the tag "original".

        Args:
            images: "all", "labeled" or "unlabeled".
            device: "cpu" or "cuda".
        """
        # Without multi_gpu false the server divides by the number of GPUs, which may be zero.
        request = {"device": [device], "multi_gpu": False, "max_workers": 1}
        return self._start("batch/infer", request, {"images": images, "run_sync": "true"})

    def _start(self, name: str, request: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        answer = requests.post(
            f"{self.url}/{name}/{self.model}",
            params=query,
            json=request,
            timeout=self.timeout,
        )
        return self._answer(answer).json()

    @staticmethod
    def _answer(answer: requests.Response) -> requests.Response:
        """Return an answer that is not an error.

        Raises:
            RuntimeError: with the server's own text.
        """
        if not answer.ok:
            raise RuntimeError(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text[:2000]}")
        return answer


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8111")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cpu")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="what the server offers")
    infer = commands.add_parser("infer", help="segment one image")
    infer.add_argument("image")
    infer.add_argument("--output", type=Path, required=True)
    label = commands.add_parser("label", help="store a final label")
    label.add_argument("image")
    label.add_argument("label", type=Path)
    train = commands.add_parser("train", help="fine-tune on the final labels")
    train.add_argument("--max_epochs", type=int, default=10)
    train.add_argument("--val_split", type=float, default=0.2)
    batch = commands.add_parser("batch_infer", help="segment many images")
    batch.add_argument("--images", default="unlabeled", choices=("all", "labeled", "unlabeled"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    options = parse(arguments)
    server = LabelServer(options.url, options.model)
    calls: dict[str, Any] = {
        "info": server.info,
        "infer": lambda: str(server.infer(options.image, options.output, options.device)),
        "label": lambda: server.save_label(options.image, options.label),
        "train": lambda: server.train(options.max_epochs, options.val_split, options.device),
        "batch_infer": lambda: server.batch_infer(options.images, options.device),
    }
    try:
        print(json.dumps(calls[options.command](), indent=2))
    except (RuntimeError, TimeoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
