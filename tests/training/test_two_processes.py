"""Several gloo processes with a share of the batch each are one process with the whole: same losses, same weights."""

import copy
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from training.encoders.encoder import Encoder
from training.loss.gather import Counts, average_gradients, gather_batch
from training.loss.grad_cache import backward_through_chunks
from training.loss.losses import PairLabels, contrastive_loss
from training.train import main

from ..ports import free_port
from .tiny_run import change, losses, train

QUERIES = [[2, *range(5, 5 + length), 3] for length in (1, 5, 4, 4, 17, 2)]
DOCUMENTS = [[2, *range(40, 40 + length), 3] for length in (4, 3, 3, 30, 6, 12)]
# One hard negative for the first half of the pairs, three for the second: processes hold different counts.
NEGATIVES = [[[2, 90, 3]], [], [], [[2, 91, 92, 3]], [[2, 93, 3], [2, 94, 95, 96, 3]], []]
LABELS = PairLabels(torch.tensor([0, 1, -1, 0, 1, 0]), torch.tensor([0, 0, 1, 1]))


class Case(NamedTuple):
    kept_tokens: int
    labels: PairLabels | None = None


# The graphs of no chunk, of all, and of all chunks in the processes with short texts but not in the others.
CASES = (Case(0), Case(10_000, LABELS), Case(60))


def step(model: torch.nn.Module, rows: slice, case: Case) -> Tensor:
    queries, documents = QUERIES[rows], DOCUMENTS[rows]
    negatives = [ids for of_pair in NEGATIVES[rows] for ids in of_pair]
    starts = range(0, len(QUERIES), len(queries))
    shares = [NEGATIVES[start : start + len(queries)] for start in starts]
    counts: list[Counts] = [(len(queries), len(queries), sum(map(len, of_one))) for of_one in shares]

    def loss_of(vectors_ND: Tensor) -> Tensor:
        batch = gather_batch(vectors_ND, counts)
        return contrastive_loss(*batch[:3], own=batch.own, temperature=0.1, labels=case.labels, block_rows=2)

    token_ids = queries + documents + negatives
    loss = backward_through_chunks(model, token_ids, loss_of, chunk_tokens=40, kept_tokens=case.kept_tokens)
    average_gradients(model.parameters())
    return loss


def take_steps(model: Encoder, rows: slice) -> list[Tensor]:
    """The losses of three steps in each of the cases, one after another."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for case in CASES:
        for _ in range(3):
            losses.append(step(model, rows, case))
            optimizer.step()
            optimizer.zero_grad()
    return losses


def in_process(rank: int, count: int, encoder: Encoder, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=count)
    encoder = copy.deepcopy(encoder)  # spawn passes weights in memory that the processes share
    share = len(QUERIES) // count
    own = torch.stack(take_steps(encoder, slice(rank * share, (rank + 1) * share)))
    dist.all_reduce(own)
    torch.save({"losses": own / count, "weights": encoder.state_dict()}, directory / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # torch can deadlock between its gloo threads and the interpreter's when a process ends in order


def test_three_processes_with_texts_of_unlike_lengths_are_one(tiny_encoder: Encoder, tmp_path: Path) -> None:
    single = tiny_encoder.double().eval()
    spawn(in_process, (3, single, tmp_path), nprocs=3)  # type: ignore[no-untyped-call]
    expected = torch.stack(take_steps(single, slice(None)))
    assert expected[-1] < expected[0]
    for rank in range(3):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(result["losses"], expected, rtol=0, atol=1e-9)
        for name, weight in single.state_dict().items():
            torch.testing.assert_close(result["weights"][name], weight, rtol=0, atol=1e-9)


def test_gradients_travel_in_parts_and_those_that_are_not_there_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr("training.loss.gather.process_count", lambda: 2)
    monkeypatch.setattr("training.loss.gather.MOST_NUMBERS", 10)

    def reduce_with_a_twin(flat: Tensor) -> None:
        sizes.append(len(flat))
        flat += 3 * flat  # the other process has three times as much

    monkeypatch.setattr(dist, "all_reduce", reduce_with_a_twin)
    parameters = [torch.nn.Parameter(torch.zeros(rows, 2)) for rows in (2, 3, 12, 1, 1)]
    for number, parameter in enumerate(parameters[:-1], 1):
        parameter.grad = torch.full_like(parameter, number)
    average_gradients(parameters)
    assert sizes == [10, 24, 2]
    for number, parameter in enumerate(parameters[:-1], 1):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2 * number))
    assert parameters[-1].grad is None


def run_on_a_node(rank: int, port: int, recipe: str, data: Path, stop_after: int) -> None:
    """One of two processes, each the first of its node, with an output that the other does not see."""
    torch.set_num_threads(1)
    environment = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in environment.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    output = data.parent / f"node-{rank}"
    main([recipe, "--data", str(data), "--output", str(output), "--stop-after", str(stop_after)])
    os._exit(0)


def test_two_nodes_with_a_sharded_optimizer_train_as_one_process_and_continue(data: Path) -> None:
    same = (
        ("max_tokens = 16\narch", "max_tokens = 16\ndropout = 0.0\narch"),
        ("layers = 1", "layers = 2"),
        ("steps = 8", "steps = 8\nfrozen_layers = 1"),
    )
    alone = train(data, "alone", "--stop-after", "11", recipe=change(data, *same))
    # Where the texts of a process are short, the graphs of all its chunks are kept.
    hardware = "chunk_tokens = 40\nkept_tokens = 76\noptimizer_sharding = true\ngradient_checkpointing = true"
    sharded = change(data, *same, ("chunk_tokens = 64\nkept_tokens = 64", hardware), name="sharded.toml")
    recipe = str(data.parent / sharded)
    nodes = [data.parent / f"node-{rank}" for rank in range(2)]
    for steps in (4, 7):  # the second session continues with the state of both shards, and into the second stage
        (nodes[1] / "checkpoints" / "step-00000099").mkdir(parents=True, exist_ok=True)
        (nodes[1] / "checkpoints" / "step-00000099" / "state.pt").write_text("of another run, deleted meanwhile")
        spawn(run_on_a_node, (free_port(), recipe, data, steps), nprocs=2)  # type: ignore[no-untyped-call]
    assert len(losses(alone)) == 11
    np.testing.assert_allclose(losses(nodes[0]), losses(alone), rtol=1e-4)
    copied = {path.name for path in (nodes[1] / "checkpoints").iterdir() if any(path.iterdir())}
    assert copied == {"step-00000003", "step-00000004"}  # what the second session began with, and nothing old
    for name in ("tokenizer/tokenizer.json", "mined/finetune/a__one.parquet"):
        assert (nodes[1] / name).read_bytes() == (nodes[0] / name).read_bytes()


def test_alone_a_batch_is_that_of_this_process() -> None:
    rows_ND = torch.randn(5, 4)
    batch = gather_batch(rows_ND, [(2, 2, 1)])
    assert torch.equal(torch.cat(batch[:3]), rows_ND)
    assert (len(batch.queries_AD), len(batch.negatives_MD), batch.own) == (2, 1, slice(0, 2))
