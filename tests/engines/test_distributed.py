"""Two processes on the CPU train as one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor

from mixstyleflow_monai import processes
from mixstyleflow_monai.engines import distributed, leave_to_first_process, process_device, start_processes
from mixstyleflow_monai.evaluation import CaseResult
from mixstyleflow_monai.evaluation.domain_evaluation import in_order_of_cases
from tests.engines import rank_jobs

Results = list[dict[str, Any]]
needs_processes = pytest.mark.slow
"""Two processes import torch and MONAI, which takes longer than all that they do."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every job returned, by process."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank_jobs.main, (2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@needs_processes
def test_losses_and_gradients_of_three_steps_are_those_of_one_process(results: Results) -> None:
    alone = rank_jobs.gradients_of_three_steps(4)
    for process in results:
        together = process["equivalence"]
        assert len(together["losses"]) == 3
        for step in range(3):
            assert together["losses"][step] == pytest.approx(alone["losses"][step], abs=1e-4)
            for name, gradient in alone["gradients"][step].items():
                torch.testing.assert_close(together["gradients"][step][name], gradient, atol=1e-4, rtol=1e-4)
    assert_same(results[0]["equivalence"]["weights"], results[1]["equivalence"]["weights"])
    assert not any(name.startswith("module.") for name in results[0]["equivalence"]["weights"])


@needs_processes
def test_networks_stay_the_same_with_noise_augmentation_and_batch_norm_of_their_own(results: Results) -> None:
    first, second = (process["ordinary_training"] for process in results)
    assert_same(first["weights"], second["weights"])
    assert not torch.equal(first["noise"], second["noise"])
    # Running statistics were those of a process's own batches until the end of the epoch.
    assert not torch.equal(first["own"], second["own"])
    mean = (first["own"] + second["own"]) / 2
    torch.testing.assert_close(first["weights"]["stem.0.1.running_mean"], mean)


@needs_processes
def test_stylizer_may_go_another_way_in_each_process(results: Results) -> None:
    assert_same(results[0]["styles_of_their_own"], results[1]["styles_of_their_own"])


@needs_processes
def test_step_that_is_not_finite_in_one_process_is_skipped_in_all(results: Results) -> None:
    untrained = dict(rank_jobs.make_network().named_parameters())
    for process in results:
        found = process["non_finite_in_the_second"]
        assert "3 steps in a row had non-finite gradients" in found["error"]
        assert found["steps"] == 3
        for name, value in untrained.items():
            torch.testing.assert_close(found["weights"][name], value)


@needs_processes
def test_processes_share_the_slices_of_an_epoch(results: Results) -> None:
    first, second = (process["shares"] for process in results)
    assert first["steps"] == second["steps"] == 2
    assert sorted(first["order"] + second["order"]) == list(range(rank_jobs.CASES))
    # A step of both takes what a step of one process with the double batch takes.
    assert first["whole"][:4] == [k for pair in zip(first["order"], second["order"], strict=True) for k in pair][:4]


@needs_processes
def test_epochs_are_repeated_and_augmentation_differs_between_processes(results: Results) -> None:
    first, second = (process["shares"]["batches"] for process in results)
    assert torch.equal(first[0], first[2])
    assert torch.equal(second[0], second[2])
    assert not torch.equal(first[0], first[1])
    alone = rank_jobs.make_loader(4, augment=True)
    alone.set_epoch(1)
    assert not torch.equal(torch.cat([first[0], second[0]]).sum(), torch.cat([b["image"] for b in alone]).sum())


@needs_processes
def test_cases_are_divided_without_repeats_unless_there_are_too_few(results: Results) -> None:
    assert [process["shares"]["cases"] for process in results] == [[[0, 2, 4], [0], [0]], [[1, 3], [1], [0]]]


@needs_processes
def test_gradients_and_buffers_are_averaged_and_missing_gradients_stay_missing(results: Results) -> None:
    for process in results:
        found = process["means"]
        assert found["gradients"][0].tolist() == [1.5, 1.5]
        assert found["gradients"][1].tolist() == [0.5, 0.5]
        assert found["gradients"][2] is None
        assert found["running_mean"].unique().tolist() == [0.5]


@needs_processes
def test_training_begins_with_the_network_of_the_first_process_at_one_epoch(results: Results) -> None:
    expected = rank_jobs.make_network(seed=0).state_dict()
    expected["stem.0.1.running_mean"].fill_(0.5)
    for process in results:
        assert_same(process["means"]["weights"], expected)
        assert "from epochs [0, 1]" in process["means"]["message"]
        assert "all nodes share" in process["means"]["message"]


@needs_processes
def test_sum_has_the_gradient_of_all_processes_and_is_none_alone(results: Results) -> None:
    for process in results:
        found = process["sums"]
        # d/dx of (x + y)^2, once for the loss of each process.
        assert float(found["total"]) == 3.0
        assert float(found["gradient"]) == 12.0
        assert found["alone"] == (1, True)
        assert found["after"] == 2


@needs_processes
def test_batch_norm_over_processes_is_the_ordinary_one_alone_and_refused_on_a_cpu(results: Results) -> None:
    for process in results:
        found = process["norms_over_processes"]
        torch.testing.assert_close(found["found"], found["expected"])
        assert "GPU" in found["message"]
        assert found["names"]


@needs_processes
def test_objects_are_gathered_and_one_process_is_left_in_the_end(results: Results) -> None:
    for process in results:
        assert process["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert process["afterwards"] == (1, 0)


@needs_processes
def test_flows_are_refused(results: Results) -> None:
    assert all("flows are trained in one process, here are 2" in process["flows"] for process in results)


@needs_processes
def test_network_before_a_fine_tuning_is_kept_by_the_first_process_while_the_others_wait(results: Results) -> None:
    first, second = (process["kept_network"] for process in results)
    assert (first["copies"], second["copies"]) == (1, 0)
    assert first["kept"] == second["kept"]
    assert first["kind"] == second["kind"] == "segmentation_network"
    assert "nowhere.pt: no such file" in first["message"]
    assert first["message"] == second["message"]


def rows(*cases: str) -> list[CaseResult]:
    return [CaseResult(case, "site", region, 50.0, 1.0, "px") for case in cases for region in ("disc", "cup")]


@pytest.mark.parametrize(
    "parts",
    [
        [rows("a", "b", "c")],
        [rows("a", "c"), rows("b")],
        [rows("a"), rows("b"), rows("c")],
        [rows("a", "b", "c")] * 5,
    ],
    ids=len,
)
def test_rows_of_all_processes_are_in_the_order_of_one_and_none_comes_twice(parts: list[list[CaseResult]]) -> None:
    assert in_order_of_cases(parts) == rows("a", "b", "c")


def test_one_process_needs_no_group() -> None:
    value = torch.ones(2, requires_grad=True)
    assert (processes.world_size(), processes.rank(), processes.is_first()) == (1, 0, True)
    assert processes.sum_over_processes(value) is value
    assert not processes.mean_over_processes(value).requires_grad
    assert processes.gather_objects("item") == ["item"]
    assert processes.process_seed(7) == 7


def test_device_is_the_gpu_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_device() == torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"LOCAL_RANK=2: this machine has 2 GPUs.*--nproc_per_node=2"):
        process_device()


def test_without_torchrun_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    started: list[Any] = []
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *given, **_: started.append(given))
    start_processes("cpu")
    assert started == []


def test_other_processes_leave_the_work_to_the_first(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("RANK", "0")
    leave_to_first_process()
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as caught:
        leave_to_first_process()
    assert caught.value.code == 0
    assert "rank 3" in capsys.readouterr().out
