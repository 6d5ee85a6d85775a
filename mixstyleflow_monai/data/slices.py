"""Training slices: cached deterministic part, fresh augmentation, seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.data.utils import list_data_collate
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset, Sampler

from mixstyleflow_monai.data.transforms import EncodeRegionsd
from mixstyleflow_monai.processes import is_first, process_seed, rank, world_size

SLICE_CHOICES = ("all", "labelled")


def check_slices(slices: str) -> None:
    """Raise a ValueError for what is no choice of slices."""
    if slices not in SLICE_CHOICES:
        raise ValueError(f"slices={slices!r}: expected one of {SLICE_CHOICES}.")


class SliceDataset(Dataset[Any], Randomizable):
    """The 2-D slices of a list of cases; a 2-D image is one slice.

    The transform is deterministic and runs once a case; its result is cached. Augmentation runs at every access.

    Args:
        data: MONAI datalist, items with ``image`` and ``label`` paths.
        transform: deterministic transform to ``image`` (C, H, W[, D]) float and ``label`` (K, H, W[, D]) uint8.
        augmentation: random transform of one slice, or None.
        keep_plain: if True, an item is the list [augmented, plain] of the same slice, which MONAI's collate makes
            two images of the batch.
        slices: "all", or "labelled" for slices with a label only (a 2-D image is always kept).
        cache_rate: share of cases kept in memory, in [0, 1].
        num_workers: threads that fill the cache; None for one a core.
        progress: show a progress bar while caching.

    Raises:
        ValueError: no data, an unknown choice, no slice left, an image with non-finite values, or one that is on
            another grid than its label; the last two name the file.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        *,
        augmentation: Compose | None = None,
        keep_plain: bool = False,
        slices: str = "all",
        cache_rate: float = 1.0,
        num_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        if not data:
            raise ValueError("SliceDataset: the list of cases is empty. Check the splits in dataset.json.")
        check_slices(slices)
        self.data = data
        self.augmentation = augmentation
        self.keep_plain = keep_plain
        encoders = (step for step in transform.transforms if isinstance(step, EncodeRegionsd))
        self.exclusive = any(step.encoding.activation == "softmax" for step in encoders)
        self.cases = CacheDataset(
            list(data),
            transform,
            cache_rate=cache_rate,
            num_workers=num_workers,
            progress=progress and is_first(),
            copy_cache=False,
        )
        self.index: list[tuple[int, int | None]] = []
        if getattr(data, "missing", None):
            return  # a placeholder, see `mixstyleflow_monai.inspection`
        for number in range(len(self.cases)):
            self.index += self._slices_of(number, slices)
        targets = (self.cases[number]["label"] for number in range(len(self.cases)))
        if not any(bool((target[1:] if self.exclusive else target).any()) for target in targets):
            raise ValueError(
                f"SliceDataset: no region is in any of the {len(data)} labels of this split, the first is "
                f"{data[0]['label']}. If the labels are right and these cases are without it, divide the cases anew "
                "(`python -m data_prep resplit`, --seed). Else check that the labels hold the values that the regions "
                "of dataset.json list, and that in volumes they lie within image_size x pixel_spacing mm around the "
                "centre and are not smaller than a pixel of pixel_spacing (null resizes whole slices)."
            )
        if not self.index:
            raise ValueError(
                f"SliceDataset: no slice of the {len(data)} labels of this split has a border of a region in it, the "
                f"first is {data[0]['label']}. Check the labels: a region that fills all of a slice teaches nothing."
            )

    def _slices_of(self, number: int, slices: str) -> list[tuple[int, int | None]]:
        case = self.cases[number]
        image, label = case["image"], case["label"]
        _check_pair(image, label, self.data[number])
        if image.ndim == 3:
            return [(number, None)]
        keep = range(image.shape[-1])
        if slices == "labelled":
            # A target that varies over the slice has a border in it, for regions and for exclusive classes alike.
            pixels = label.flatten(1, 2)
            labelled = (pixels.amax(1) != pixels.amin(1)).any(0)
            return [(number, k) for k in keep if bool(labelled[k])]
        return [(number, k) for k in keep]

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.index)

    def __getitem__(self, index: int) -> Any:
        """Return the plain item, or [augmented, plain]."""
        number, position = self.index[index]
        case = self.cases[number]
        # Plain tensors: augmentation of MetaTensors costs several times as much, and nothing inverts it.
        item = {
            key: torch.as_tensor(_slice(case[key], position)).as_subclass(torch.Tensor).float()
            for key in ("image", "label")
        }
        if self.augmentation is None:
            return item
        augmented = self.augmentation(dict(item))
        augmented = {key: torch.as_tensor(augmented[key]).as_subclass(torch.Tensor).float() for key in item}
        if self.exclusive:
            # Geometry fills with zeros, but what lies outside the image is background, which has a channel of its own.
            foreground = augmented["label"][1:]
            augmented["label"] = torch.cat([1.0 - foreground.amax(0, keepdim=True), foreground])
        return [augmented, item] if self.keep_plain else augmented

    def set_random_state(self, seed: int | None = None, state: Any = None) -> SliceDataset:
        """Seed the augmentation. MONAI's DataLoader calls this in every worker."""
        super().set_random_state(seed, state)
        if self.augmentation is not None:
            self.augmentation.set_random_state(seed, state)
        return self


def _slice(volume: torch.Tensor, position: int | None) -> torch.Tensor:
    return volume if position is None else volume[..., position]


def _check_pair(image: torch.Tensor, label: torch.Tensor, item: Mapping[str, Any]) -> None:
    """Refuse what would train on nonsense: an image and a label of another grid, values that are no numbers.

    The grids compared are those of the files, which the metadata keeps: on the network's grid all have one size.
    """
    grids = [tuple(map(int, getattr(t, "meta", {}).get("spatial_shape", t.shape[1:]))) for t in (image, label)]
    same = grids[0] == grids[1] and image.shape[1:] == label.shape[1:]
    where = ""
    if same and image.ndim == 4 and isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
        affines = [torch.as_tensor(t.meta["original_affine"], dtype=torch.float64) for t in (image, label)]
        # The farthest that a corner of the volume moves from one affine to the other, in mm.
        corners = torch.cartesian_prod(*(torch.tensor([0.0, n]) for n in grids[0]), torch.ones(1)).double()
        moved = float(torch.linalg.vector_norm((corners @ (affines[0] - affines[1]).T)[:, :3], dim=1).max())
        same = moved < 0.5 * float(image.pixdim.min())
        where = f", and their affines place a corner {moved:.3g} mm apart"
    if not same:
        raise ValueError(
            f"{item['image']}: the image has the grid {grids[0]} and its label {item['label']} the grid "
            f"{grids[1]}{where}. Both must have the same size, position and orientation."
        )
    if not bool(torch.isfinite(image).all()):
        raise ValueError(f"{item['image']}: the image has values that are not finite. Replace them, for example by 0.")


class EpochOrder(Sampler[int]):
    """Positions in an order that depends on seed and epoch alone, each as often as the others.

    PyTorch's ``RandomSampler`` draws once more from its generator when an exhausted iterator is asked for more, which
    Ignite does at the start of every epoch but the first: a resumed training would see another order.

    Args:
        length: number of positions.
        seed: of the run.
        num_samples: how many to give out; above ``length`` permutations are strung together. None for ``length``.
        share: (k, n) for every n-th of them from the k-th on, which of n processes is the share of process k.
    """

    def __init__(self, length: int, seed: int, num_samples: int | None = None, share: tuple[int, int] = (0, 1)) -> None:
        self.length = length
        self.seed = seed
        self.num_samples = length if num_samples is None else num_samples
        self.share = share
        self.epoch = 1

    def __len__(self) -> int:
        """Return how many positions an epoch has for this process."""
        first, step = self.share
        return len(range(first, self.num_samples, step))

    def __iter__(self) -> Iterator[int]:
        """Return the order of the current epoch."""
        first, step = self.share
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        rounds = -(-self.num_samples // self.length)
        order = torch.cat([torch.randperm(self.length, generator=generator) for _ in range(rounds)])
        return iter(order[first : self.num_samples : step].tolist())


class ProcessSampler(Sampler[int]):
    """The positions of a data set that are this process's, in order: every n-th of n processes, none of them twice.

    PyTorch's ``DistributedSampler`` repeats items so that all processes have the same number; a mean over cases would
    count those twice. A data set with fewer items than processes is given whole to each, because a process without any
    would leave the others waiting: drop items that come again, as `mixstyleflow_monai.evaluation` does.

    Args:
        dataset: anything with a length.
    """

    def __init__(self, dataset: Sized) -> None:
        share = slice(rank(), None, world_size()) if len(dataset) >= world_size() else slice(None)
        self.positions = range(len(dataset))[share]

    def __len__(self) -> int:
        """Return how many positions are this process's."""
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        """Return the positions."""
        return iter(self.positions)


class TrainingLoader(DataLoader):
    """Batches of training slices whose order and augmentation depend on the seed and the epoch alone.

    Several processes share one order: each step takes its slices from them, and no slice goes to two of them. Their
    augmentation differs.

    Args:
        dataset: slices, with a method ``set_random_state``.
        batch_size: images a step and process, B. With ``keep_plain`` a step takes B/2 slices, each augmented and plain.
        seed: of the run.
        epoch_length: steps an epoch; None (or the word "null", as a command line gives it) for one pass over the
            slices, at least one step.
        num_workers: processes that augment.

    Raises:
        ValueError: an odd batch size with ``keep_plain``, or one below 1; an epoch without steps, or of a length that
            is not a number.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        *,
        seed: int = 0,
        epoch_length: int | str | None = None,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        copies = 2 if dataset.keep_plain else 1
        if batch_size < copies or batch_size % copies:
            raise ValueError(
                f"batch_size={batch_size}: expected a positive multiple of {copies}, because each slice comes "
                "augmented and plain. Use an even number."
            )
        processes = world_size()
        per_step = batch_size // copies
        steps = _epoch_length(epoch_length) or max(1, len(dataset) // (per_step * processes))
        self.slices = dataset
        self.seed = seed
        # Whole batches only: an epoch longer than the data set strings permutations together.
        self.order = EpochOrder(len(dataset), seed, steps * per_step * processes, share=(rank(), processes))
        # Where workers augment, PyTorch draws their seeds from this generator.
        self.worker_seeds = torch.Generator().manual_seed(seed)
        super().__init__(
            dataset,
            num_workers=num_workers,
            batch_size=per_step,
            sampler=self.order,
            generator=self.worker_seeds,
            collate_fn=list_data_collate,
            **kwargs,
        )

    def set_epoch(self, epoch: int) -> None:
        """Seed order and augmentation for an epoch, counted from 1, so that a resumed run sees what it would have."""
        seed = epoch_seed(process_seed(self.seed), epoch)
        self.order.epoch = epoch
        self.worker_seeds.manual_seed(seed)
        self.slices.set_random_state(seed % 2**32)


def _epoch_length(value: int | str | None) -> int | None:
    if value is None or value in ("null", "None"):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"epoch_length={value}: expected at least 1 step, or null for one pass over the slices.")
    return value


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a seed for one epoch of a run; different for all (seed, epoch) with epoch below a million."""
    return seed * 1_000_003 + epoch
