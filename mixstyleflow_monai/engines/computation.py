"""How a network computes: device, precision, memory format, compilation. All of it is checked before long work."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
WORDS = {"true": True, "false": False}


def flag(value: Any, name: str) -> bool:
    """Return a switch of a configuration, which a command line gives as a word.

    Raises:
        ValueError: neither true nor false.
    """
    found = WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError(f"{name}={value!r}: expected true or false.")
    return found


def check_computation(
    device: str | torch.device,
    *,
    amp: bool | str = False,
    compile: bool | str = False,
    sync_batch_norm: bool = False,
) -> None:
    """Refuse what this machine cannot do.

    Args:
        device: that everything runs on.
        amp: see `autocast_type`.
        compile: see `compile_backend`.
        sync_batch_norm: see `place_network`.

    Raises:
        ValueError: names the option, what the machine has, and what to give.
    """
    device = checked_device(device)
    autocast_type(amp, device)
    compile_backend(compile, device)
    if flag(sync_batch_norm, "sync_batch_norm") and device.type != "cuda":
        raise ValueError(
            f"sync_batch_norm=True on {device}: batch norm over processes needs CUDA, torch has none for the CPU. "
            "Leave it false: each process then normalises its own batch."
        )


def named_device(device: str | torch.device) -> torch.device:
    """Return a device by its name, whether this machine has it or not.

    Raises:
        ValueError: not the name of a device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={str(device)!r}: not a device of torch. Give cpu, cuda or cuda:1.") from error


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device if this machine has it.

    Raises:
        ValueError: no CUDA, or fewer GPUs.
    """
    checked = named_device(device)
    if checked.type == "cuda":
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (checked.index or 0) >= gpus:
            raise ValueError(
                f"device={str(checked)!r}: torch finds {gpus} CUDA devices here (torch {torch.__version__}). Give "
                "--device cpu, or leave the option out: the first GPU is taken where there is one, otherwise the CPU."
            )
    return checked


def autocast_type(amp: bool | str, device: str | torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, or None for none.

    Args:
        amp: False; True for bfloat16, or float16 on a GPU without bfloat16; or one of the two by name.
        device: that computes.

    Raises:
        ValueError: an unknown type, or float16 on a CPU, whose small gradients only the GPU's loss scaling saves.
    """
    device = torch.device(device)
    choice = WORDS.get(amp.lower(), amp) if isinstance(amp, str) else amp
    if choice is False:
        return None
    if choice is True:
        has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if choice not in AMP_TYPES:
        raise ValueError(f"amp={amp!r}: expected false, true, 'bfloat16' or 'float16'.")
    if choice == "float16" and device.type != "cuda":
        raise ValueError(f"amp='float16' on {device}: float16 is for GPUs. Give --amp bfloat16.")
    return AMP_TYPES[choice]


def compile_backend(compile: bool | str, device: str | torch.device) -> str | None:
    """Return the name of the ``torch.compile`` backend, or None for no compilation.

    Args:
        compile: False; True for torch's default, "inductor"; or the name of a backend.
        device: that computes.

    Raises:
        ValueError: an unknown backend, or one that needs a compiler which is not there.
    """
    choice = WORDS.get(compile.lower(), compile) if isinstance(compile, str) else compile
    if choice is False:
        return None
    backend = "inductor" if choice is True else str(choice)
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        usual = [name for name in ("inductor", "cudagraphs", "aot_eager", "eager") if name in known]
        raise ValueError(f"compile={compile!r}: expected false, true, or a backend of torch.compile such as {usual}.")
    if backend == "inductor":
        compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
        if not any(shutil.which(name) for name in compilers):
            raise ValueError(
                f"compile={compile!r}: torch.compile needs a C++ compiler and finds none of {compilers}. Install one, "
                "name it in the variable CXX, or give --compile false."
            )
        if torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is None:
            raise ValueError(f"compile={compile!r}: needs the package triton on a GPU. Install it, or give false.")
    return backend


def compiled(function: Callable[..., Any], compile: bool | str, device: str | torch.device) -> Callable[..., Any]:
    """Return a function compiled as `compile_backend` says, or the function itself."""
    backend = compile_backend(compile, device)
    return function if backend is None else torch.compile(function, backend=backend)


def place_network(
    network: nn.Module, device: str | torch.device, *, channels_last: bool = True, sync_batch_norm: bool = False
) -> nn.Module:
    """Move a network to its device.

    Args:
        network: to move.
        device: where to.
        channels_last: memory format of its weights, channels last or contiguous.
        sync_batch_norm: let batch norm use the batches of all processes together. Names and values of the weights
            stay as they are.
    """
    if flag(sync_batch_norm, "sync_batch_norm"):
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    last = flag(channels_last, "channels_last")
    return network.to(device, memory_format=torch.channels_last if last else torch.contiguous_format)  # type: ignore[call-overload]


class MixedPrecisionInferer(Inferer):
    """An inferer whose network computes in mixed precision; the result is float32.

    Args:
        inferer: what runs the network.
        dtype: of the mixed precision.
    """

    def __init__(self, inferer: Inferer, dtype: torch.dtype) -> None:
        super().__init__()
        self.inferer = inferer
        self.dtype = dtype

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the network's output for the inputs."""
        with torch.autocast(inputs.device.type, dtype=self.dtype):
            output = self.inferer(inputs, network, *args, **kwargs)
        return output.float()


class SegmentationEvaluator(SupervisedEvaluator):
    """MONAI's evaluator with mixed precision on every device; its own is for CUDA alone.

    Args:
        amp: see `autocast_type`.
        **kwargs: of `monai.engines.SupervisedEvaluator`.
    """

    def __init__(self, *, amp: bool | str = False, **kwargs: Any) -> None:
        dtype = autocast_type(amp, kwargs["device"])
        if dtype is not None:
            kwargs["inferer"] = MixedPrecisionInferer(kwargs.get("inferer") or SimpleInferer(), dtype)
        super().__init__(**kwargs)
