"""Several processes against one: the same batches, losses, weights and metrics; and what goes wrong among them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import World
from recbole.utils import init_seed

from recbole_rlmrec.errors import RLMRecError, SettingError, TrainingError
from recbole_rlmrec.ops.distributed import Shard, gather_rows, join_rows, this_shard
from recbole_rlmrec.quick_start import run
from recbole_rlmrec.training import launch
from recbole_rlmrec.training.launch import Processes, _raise_failure, run_in_processes
from recbole_rlmrec.training.trainer import trainer_class

SCRIPT = Path(__file__).parents[2] / "run_recbole_rlmrec.py"
PAPER = {"layer_combination": "sum", "l2_scope": "all", "reg_weight": 1e-3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("LightGCN", {"edge_keep_rate": 0.7, **PAPER}),
    "Con all": ("LightGCN_RLMRecCon", {"alignment_weight": 1.0, **PAPER}),
    "Con batch": ("LightGCN_RLMRecCon", {"alignment_weight": 1.0, "alignment_negatives": "batch"}),
    "Con mapped": (
        "LightGCN_RLMRecCon",
        {"alignment_weight": 1.0, "alignment_negatives": "batch", "semantic_storage": "memory_map"},
    ),
    "concat": ("LightGCN_RLMRecCon", {"alignment_weight": 1.0, "layer_combination": "concat"}),
    "clipped": ("LightGCN", {"clip_grad_norm": {"max_norm": 0.01}, **PAPER}),
    "Con summed": ("SGL_RLMRecCon", {"alignment_weight": 1.0}),
    "Gen": ("LightGCN_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 0.4, "edge_keep_rate": 0.7}),
    "Gen, views": ("SGL_RLMRecGen", {"view_edge_drop": "independent", "edge_keep_rate": 0.7, "loss_reduction": "mean"}),
    "noise": ("SimGCL_RLMRecCon", {"ssl_weight": 0.5}),
    "noise, all": ("SimGCL", {"ssl_weight": 0.5, "ssl_negatives": "all", "ssl_negative_items": True}),
    "self-loops": ("GCCF_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 0.4}),
    "intents": ("DCCF_RLMRecCon", {"ssl_weight": 0.5, "alignment_weight": 1.0, "item_contrast_divisor": "users"}),
    "experts": ("LightGCN_KAR", {"edge_keep_rate": 0.7, **PAPER}),
    "experts, views": ("SGL_KAR", {"kar_shared_experts": 1, "loss_reduction": "mean"}),
    "language": ("AlphaRec", {"negatives_per_positive": 8, "reg_weight": 1e-3}),
    "centres": ("AutoCF_RLMRecCon", {"alignment_weight": 1.0, "fix_steps": 2}),
    "centres, masked": ("AutoCF_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 0.4}),
    "RecBole's": ("BPR", {}),
    "state beside the weights": ("NGCF", {"reg_weight": 0.0, "node_dropout": 0.0, "message_dropout": 0.0}),
    "a mean, with dropout": ("NeuMF_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 0.4}),
    "a norm": ("NGCF_RLMRecCon", {"reg_weight": 0.1, "alignment_weight": 1.0}),
    "a sum over users": ("ENMF_RLMRecCon", {"alignment_weight": 1.0, "learning_rate": 1e-3, "train_batch_size": 11}),
    "rows computed": ("SimpleX_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 0.4}),
    "rows of a batch": (
        "MultiVAE_RLMRecCon",
        {"alignment_weight": 1.0, "learning_rate": 1e-3, "train_batch_size": 11},
    ),
    "RecBole's, at weight 0": ("NGCF_RLMRecCon", {"reg_weight": 0.1, "alignment_weight": 0.0}),
    "batches of two": ("LightGCN_RLMRecGen", {"train_batch_size": 2}),
    "RecBole's, batches of two": ("BPR", {"train_batch_size": 2}),
    "users": ("LightGCN", {"metrics": ["GAUC"], "valid_metric": "GAUC"}),
}


def trained(world: World, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train two epochs by plain gradient descent, which passes on every difference in proportion, and evaluate."""
    # 63 pairs a batch do not divide by three, nor do 40 users.
    config = world.config(
        name, **{"learner": "sgd", "learning_rate": 0.1, "train_batch_size": 63, "metric_decimal_place": 10, **settings}
    )
    _, train_data, valid_data, test_data = world.loaders(config)
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, train_data._dataset)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    trainer = trainer_class(config)(config, model)
    trainer.eval_collector.data_collect(train_data)
    losses = [trainer._train_epoch(train_data, epoch) for epoch in range(2)]
    metrics = [trainer.evaluate(data, load_best_model=False) for data in (valid_data, test_data)]
    trainer.tensorboard.close()
    return {
        "losses": np.array([np.ravel(loss) for loss in losses]),
        "metrics": [dict(each) for each in metrics],
        "weights": {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()},
    }


def all_cases(join: Callable[[Any], Any], root: Path) -> dict[str, Any]:
    """Run every case in this process, and check that the processes end with the same weights."""
    torch.set_num_threads(1)
    world = World(root)
    with join(world.config("LightGCN")):
        results: dict[str, Any] = {name: trained(world, *case) for name, case in CASES.items()}
        for result in results.values():
            for weights in result["weights"].values():
                everyones = [torch.empty(weights.shape) for _ in range(dist.get_world_size())]
                dist.all_gather(everyones, torch.from_numpy(weights))
                assert all(torch.equal(each, everyones[0]) for each in everyones)
        results["tensors"] = collectives()
    return results


def collectives() -> dict[str, Any]:
    """What the operations on rows give in this process."""
    rank = this_shard().rank
    rows = torch.arange(14, dtype=torch.float32).view(7, 2)
    share = rows[this_shard().rows(7)].clone().requires_grad_()
    joined = join_rows(share, 7)
    (joined * (rank + 1)).sum().backward()
    gathered = gather_rows(torch.full((rank, 2), rank))  # none, one and two rows
    return {"joined": joined.detach().numpy(), "gradient": share.grad.numpy(), "gathered": gathered.numpy()}


@pytest.fixture(scope="module")
def three_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_in_processes(Processes(nproc=3), all_cases, folder / "dataset")


@pytest.mark.parametrize("case", CASES)
def test_three_processes_are_one(world: World, three_processes: dict[str, Any], case: str) -> None:
    expected, found = trained(world, *CASES[case]), three_processes[case]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=2e-5)
    assert np.abs(expected["losses"]).min() > 0
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weights in expected["weights"].items():
        scale = np.abs(weights).max()
        np.testing.assert_allclose(found["weights"][name] / scale, weights / scale, atol=2e-5, err_msg=name)
    for ours, theirs in zip(found["metrics"], expected["metrics"]):
        assert ours == pytest.approx(theirs, abs=1e-6) and max(ours.values()) > 0


def test_rows_join_and_gather(three_processes: dict[str, Any]) -> None:
    found = three_processes["tensors"]
    np.testing.assert_array_equal(found["joined"], np.arange(14).reshape(7, 2))
    np.testing.assert_array_equal(found["gradient"], np.full((2, 2), 1 + 2 + 3))  # rank 0's share is two rows
    np.testing.assert_array_equal(found["gathered"], [[1, 1], [2, 2], [2, 2]])


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shares_are_even_and_complete(n: int, world_size: int) -> None:
    shares = [list(range(n))[Shard(rank, world_size).rows(n)] for rank in range(world_size)]
    assert [row for share in shares for row in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_run_in_two_processes_ends_like_one(world: World) -> None:
    settings = {
        "data_path": str(world.root),
        "benchmark_filename": ["train", "valid", "test"],
        "embedding_size": 8,
        "epochs": 3,
        "state": "ERROR",
        "show_progress": False,
        "metric_decimal_place": 8,
        "checkpoint_dir": "saved",
        "result_file": "result.json",
    }
    one = run("LightGCN_RLMRecGen", world.name, config_dict=settings)
    two = run("LightGCN_RLMRecGen", world.name, config_dict=settings, nproc=2)
    assert two.test_result == pytest.approx(one.test_result, abs=1e-6)
    assert (two.best_epoch, two.settings) == (one.best_epoch, one.settings)
    assert (two.kept, two.base["test"], two.stopped) == (
        one.kept,
        pytest.approx(one.base["test"], abs=1e-6),
        one.stopped,
    )
    # The base of the first run served the second as well; where a base is kept, it has a checkpoint of its own.
    names = Counter(path.name.split("-")[0] for path in Path("saved").glob("*.pth"))
    assert names == {"LightGCN": 1, "LightGCN_RLMRecGen": 2 if one.kept == "model" else 4}
    assert Path(two.checkpoint).is_file()
    assert len(list(Path("log_tensorboard").iterdir())) <= 2 and not list(Path().glob("log_tensorboard/model-*"))
    assert Path("result.json").is_file()


def test_two_machines_meet_over_tcp_and_end_like_one(world: World, tmp_path: Path) -> None:
    """Two parents, each in a folder of its own, stand for two machines: nothing but the network joins them."""
    settings = {
        "data_path": str(world.root),
        "benchmark_filename": ["train", "valid", "test"],
        "embedding_size": 8,
        "epochs": 3,
        "state": "ERROR",
        "show_progress": False,
        "metric_decimal_place": 8,
        "result_file": "result.json",
    }
    several = [sys.executable, str(SCRIPT), "--model=LightGCN_RLMRecCon", f"--dataset={world.name}"]
    several += [f"--{name}={value}" for name, value in settings.items()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    several += ["--nproc=1", "--world_size=2", "--ip=127.0.0.1", f"--port={port}"]
    started = {}
    for name, command in {"first": several, "second": [*several, "--group_offset=1"]}.items():
        (tmp_path / name).mkdir()
        started[name] = subprocess.Popen(command, cwd=tmp_path / name, stderr=subprocess.PIPE, text=True)
    run("LightGCN_RLMRecCon", world.name, config_dict=settings)
    for name, process in started.items():
        assert process.wait(timeout=120) == 0, (name, process.communicate()[1])
    one, first = (json.loads((folder / "result.json").read_text()) for folder in (Path(), tmp_path / "first"))
    assert first["test_result"] == pytest.approx(one["test_result"], abs=1e-6)
    assert first["best_epoch"] == one["best_epoch"]
    assert not list((tmp_path / "second").rglob("*.json")) and not list((tmp_path / "second").rglob("*.pth"))


def fails(join: Callable[[Any], Any], how: str, config: Any) -> None:
    """Fail in rank 1 while rank 0 waits for it."""
    with join(config):
        if this_shard().rank == 1:
            if how == "setting":
                raise SettingError("this is wrong")
            raise ZeroDivisionError("that broke")
        dist.barrier()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [("setting", SettingError, "this is wrong"), ("other", TrainingError, "ZeroDivisionError: that broke")],
)
def test_a_failure_of_one_process_ends_all(how: str, error: type[RLMRecError], message: str, world: World) -> None:
    with pytest.raises(error, match=message):
        run_in_processes(Processes(nproc=2), fails, how, FakeConfig())


def dies(join: Callable[[Any], Any], config: Any) -> None:
    """Be killed in rank 1, as where memory runs out, while rank 0 waits for it."""
    with join(config):
        if this_shard().rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()


def test_a_killed_process_is_what_went_wrong() -> None:
    """Not the traceback of the one that lost its partner."""
    with pytest.raises(TrainingError) as caught:
        run_in_processes(Processes(nproc=2), dies, FakeConfig())
    message = str(caught.value)
    assert message.startswith("The process of rank 1 was killed by signal 9 (SIGKILL); the others were ended.")
    assert "Traceback" not in message and "\n" not in message


@pytest.mark.parametrize(
    ("codes", "found", "message"),
    [
        ([1, -9], {"crash": "Traceback"}, "rank 5 was killed by signal 9 (SIGKILL)"),
        ([-11, 2], {"error": SettingError("wrong")}, "rank 4 was killed by signal 11 (SIGSEGV)"),
        ([-6, 2], {"error": SettingError("wrong")}, "wrong"),
        ([1, -6], {"crash": "Traceback"}, "One of 2 processes failed: Traceback"),
        ([0, 3], {}, "One of 2 processes failed: that of rank 5 ended with 3."),
    ],
)
def test_of_several_failures_the_first_is_named(codes: list[int], found: dict[str, Any], message: str) -> None:
    with pytest.raises(RLMRecError) as caught:
        _raise_failure(Processes(nproc=2, world_size=6, group_offset=4), codes, found)
    assert message in str(caught.value)


def waits(join: Callable[[Any], Any], folder: Path) -> None:
    """Say which process this is, and wait longer than any test."""
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
@pytest.mark.parametrize("how", ["killed in the background", "interrupted"])
def test_processes_end_with_their_parent(how: str, tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from test_launch import Processes, run_in_processes, waits\n"
    if how == "interrupted":  # which whoever runs the tests in the background lets all below it ignore
        script += "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "if __name__ == '__main__': run_in_processes(Processes(nproc=2), waits, Path(sys.argv[1]))"
    (tmp_path / "script.py").write_text(script)
    shell = "trap '' INT; exec" if how == "killed in the background" else "exec"
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'{shell} "$0" "$@"', sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2 and all(map(is_running, pids))
    if how == "interrupted":
        os.killpg(process.pid, signal.SIGINT)  # as the keyboard does
    else:
        process.kill()
    _, printed = process.communicate(timeout=60)
    until = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
    if how == "interrupted":
        # The rest is the script's, which does not catch the interrupt as the command line does.
        assert "Interrupted; all 2 processes have ended." in printed and "Process SpawnProcess" not in printed
        assert process.returncode != 0


@pytest.mark.parametrize("rank", [0, 1])
def test_machines_that_do_not_come_are_waited_for_so_long(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_MINUTES_TO_MEET", 0.01)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = Processes(world_size=2, ip="127.0.0.1", port=port, group_offset=rank)
    with pytest.raises(TrainingError) as caught:
        launch._meeting_of_machines(processes, rank)
    message = str(caught.value)
    assert f"1 of the 2 processes of world_size=2, and rank {rank} could not meet the others at 127.0.0.1:" in message
    assert "within 0.01 minutes: " in message and message.endswith("on one machine leave out --world_size.")
    assert "\n" not in message


class FakeConfig:
    """As much of a configuration as a process needs to join."""

    def __init__(self) -> None:
        self.final_config_dict: dict[str, Any] = {"device": torch.device("cpu")}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"nproc": 0}, "nproc=0: expected a whole number at least 1"),
        ({"nproc": 2.5}, "nproc=2.5"),
        ({"world_size": 0}, "world_size=0: expected a whole number at least -1 but 0"),
        ({"nproc": 2, "world_size": 1}, "nproc=2 with group_offset=0 needs ranks up to 1, but world_size=1 ends at 0"),
        ({"nproc": 2, "world_size": 4, "group_offset": 3}, "needs ranks up to 4"),
        ({"port": 70000}, "port=70000"),
        ({"group_offset": -1}, "group_offset=-1"),
    ],
)
def test_numbers_that_do_not_go_together(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Processes(**numbers)


def test_world_size_defaults_to_the_processes_of_this_machine() -> None:
    assert Processes(nproc=3).total == 3 and Processes(nproc=3).on_one_machine
    assert Processes(nproc=2, world_size=4).total == 4 and not Processes(nproc=2, world_size=4).on_one_machine


def other_trainer(join: Callable[[Any], Any], root: Path) -> None:
    world = World(root)
    config = world.config("NCL")
    with join(config):
        trainer_class(config)


def test_a_model_with_a_trainer_of_its_own_is_refused(world: World) -> None:
    with pytest.raises(SettingError, match=r"NCL is trained by RecBole's NCLTrainer.*Leave out --nproc"):
        run_in_processes(Processes(nproc=2), other_trainer, world.root)


def batches(join: Callable[[Any], Any], root: Path) -> list[Any]:
    """Return what loaders with workers of their own give."""
    world = World(root)
    _, train_data, _, test_data = world.loaders(world.config("BPR", worker=1))
    trained = [(batch["item_id"].tolist(), batch["neg_item_id"].tolist()) for batch in train_data]
    return [trained, [block[0]["user_id"].tolist() for block in test_data]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are refused")
def test_loaders_have_workers_in_a_process_of_several(world: World) -> None:
    """Python would spawn them there, and what they share cannot be pickled."""
    found = run_in_processes(Processes(nproc=1), batches, world.root)
    assert found == batches(nullcontext, world.root) and len(found[0]) == 4 and found[1]


def large_answer(join: Callable[[Any], Any]) -> np.ndarray:
    return np.ones(10**6)


def test_a_large_answer_is_taken_while_the_process_waits() -> None:
    assert run_in_processes(Processes(nproc=2), large_answer).sum() == 10**6


def test_a_script_without_a_main_guard_gets_one_sentence(tmp_path: Path) -> None:
    """Each process imports the script, which must not begin the run, nor another one before it, again."""
    (tmp_path / "train.py").write_text(
        """
from recbole_rlmrec import run
from recbole_rlmrec.errors import SettingError
try:
    run("LightGCN", "tiny", nproc=2)
except SettingError as error:
    print(error)
"""
    )
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"nproc=2: each process imports '{tmp_path / 'train.py'}', which calls run() when it is imported. Put the "
        'call, and what comes before it, below the line `if __name__ == "__main__":`.\n'
    )
