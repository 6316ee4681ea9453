"""Two gloo processes with half the batch each are one process with the whole: same loss, same gradients."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from training.encoders.encoder import Encoder
from training.loss.gather import first_row, gather_rows
from training.loss.grad_cache import backward_through_chunks
from training.loss.losses import PairLabels, contrastive_loss
from training.train import main

from ..ports import free_port
from .tiny_run import change, losses, train

QUERIES = [[2, *range(5, 5 + length), 3] for length in (1, 9, 4, 4, 17, 2)]
DOCUMENTS = [[2, *range(40, 40 + length), 3] for length in (8, 3, 3, 30, 6, 12)]
# One hard negative for the first half of the pairs, three for the second: processes hold different counts.
NEGATIVES = [[[2, 90, 3]], [], [], [[2, 91, 92, 3]], [[2, 93, 3], [2, 94, 95, 96, 3]], []]
LABELS = PairLabels(torch.tensor([0, 1, -1, 0, 1, 0]), torch.tensor([0, 0, 1, 1]))


def step(model: torch.nn.Module, rows: slice, kept_tokens: int, labels: PairLabels | None) -> Tensor:
    queries, documents = QUERIES[rows], DOCUMENTS[rows]
    negatives = [ids for of_pair in NEGATIVES[rows] for ids in of_pair]

    def loss_of(vectors_ND: Tensor) -> Tensor:
        queries_ND, documents_ND, negatives_MD = torch.split(vectors_ND, [len(queries), len(documents), len(negatives)])
        return contrastive_loss(queries_ND, documents_ND, negatives_MD, temperature=0.1, labels=labels, block_rows=2)

    return backward_through_chunks(
        model,
        queries + documents + negatives,
        loss_of,
        chunk_tokens=40,
        kept_tokens=kept_tokens,
        no_sync=model.no_sync if isinstance(model, DistributedDataParallel) else torch.enable_grad,
    )


def in_process(rank: int, encoder: Encoder, kept_tokens: int, labels: PairLabels | None, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)
    model = DistributedDataParallel(encoder)
    loss = step(model, slice(rank * 3, rank * 3 + 3), kept_tokens, labels)
    dist.all_reduce(loss)
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    torch.save({"loss": loss / 2, "gradients": gradients}, directory / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # torch can deadlock between its gloo threads and the interpreter's when a process ends in order


@pytest.mark.parametrize(("kept_tokens", "labels"), [(0, None), (10_000, LABELS)])
def test_two_processes_are_one(
    tiny_encoder: Encoder, kept_tokens: int, labels: PairLabels | None, tmp_path: Path
) -> None:
    single = tiny_encoder.double().eval()
    arguments = (copy.deepcopy(single), kept_tokens, labels, tmp_path)
    spawn(in_process, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    expected = step(single, slice(None), kept_tokens, labels)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(result["loss"], expected, rtol=0, atol=1e-9)
        for name, parameter in single.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(result["gradients"][name], parameter.grad, rtol=0, atol=1e-9)


def run_in_process(rank: int, port: int, recipe: str, data: Path, output: Path, stop_after: int) -> None:
    torch.set_num_threads(1)
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in environment.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    main([recipe, "--data", str(data), "--output", str(output), "--stop-after", str(stop_after)])
    os._exit(0)


def test_two_processes_with_a_sharded_optimizer_train_as_one_and_continue(data: Path) -> None:
    without_dropout = ("max_tokens = 16\narch", "max_tokens = 16\ndropout = 0.0\narch")
    alone = train(data, "alone", "--stop-after", "7", recipe=change(data, without_dropout))
    sharding = ("kept_tokens = 64", "kept_tokens = 64\noptimizer_sharding = true\ngradient_checkpointing = true")
    recipe = str(data.parent / change(data, without_dropout, sharding, name="sharded.toml"))
    for steps in (4, 3):  # the second session continues with the state of both shards
        arguments = (free_port(), recipe, data, data.parent / "sharded", steps)
        spawn(run_in_process, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    assert len(losses(alone)) == 7
    np.testing.assert_allclose(losses(data.parent / "sharded"), losses(alone), rtol=1e-4)


def test_alone_rows_are_gathered_from_nobody() -> None:
    rows_ND = normalize(torch.randn(3, 4), dim=1)
    assert gather_rows(rows_ND) is rows_ND
    assert first_row(rows_ND) == 0
