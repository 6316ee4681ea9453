"""What a dry run prints, the arithmetic behind it, and a loss of one's own."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.encoders.encoder import Encoder
from training.loss.losses import contrastive_loss
from training.recipes.recipe import Hardware, RecipeError, Stage, load_recipe
from training.runs.objective import find_loss
from training.runs.plan import Shape, memory_bytes, model_flops, shape_of, step_count, step_flops, utilization
from training.runs.run_log import read_log
from training.train import main

from .tiny_run import change, losses, train


def own_loss(
    queries_AD: Tensor, documents_AD: Tensor, negatives_MD: Tensor, *, own: slice, temperature: float
) -> Tensor:
    """Twice the improved loss."""
    return 2 * contrastive_loss(queries_AD, documents_AD, negatives_MD, own=own, temperature=temperature)


def test_flops_are_those_of_the_matrices_and_of_attention(tiny_encoder: Encoder) -> None:
    shape = shape_of(tiny_encoder)
    of_layer = 4 * 32 * 32 + 2 * 32 * 64
    assert shape == (sum(parameter.numel() for parameter in tiny_encoder.parameters()), 2 * of_layer, 2, 32)
    # As PyTorch counts the products of a forward pass, one text at a time; backward takes twice as many.
    from torch.utils.flop_counter import FlopCounterMode

    tiny_encoder.backbone.set_attn_implementation("eager")  # type: ignore[operator]
    with FlopCounterMode(display=False) as counter:
        for length in (7, 19):
            tiny_encoder(torch.ones(1, length, dtype=torch.int64), torch.ones(1, length, dtype=torch.int64))
    assert model_flops(shape, [7, 19]) == 3 * counter.get_total_flops()
    assert utilization(shape, [7, 19], 2.0, Hardware(peak_tflops=1e-6)) == model_flops(shape, [7, 19]) / 2e6
    assert utilization(shape, [7, 19], 2.0, Hardware()) == 0


def test_a_step_counts_what_is_computed_twice() -> None:
    shape, stage = Shape(100, 50, 1, 4), Stage(8, 1e-3, 16, negatives=1)
    plain = model_flops(shape, [16] * 24)
    assert step_flops(shape, stage, Hardware()) == plain
    assert step_flops(shape, stage, Hardware(kept_tokens=383)) == pytest.approx(plain * 4 / 3)
    assert step_flops(shape, stage, Hardware(kept_tokens=383, gradient_checkpointing=True)) == pytest.approx(
        plain * 5 / 3
    )
    assert step_count(Stage(8, 1e-3, 16, steps=5), [100]) == 5


def test_a_dry_run_says_what_would_be_read_and_reads_nothing_remote(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a dry run opened a connection"))
    epochs = change(data, ("kept_tokens = 64", "kept_tokens = 64\npeak_tflops = 1.0"), ("steps = 5", "epochs = 2"))
    main([str(data.parent / epochs), "--dry-run", "--data", str(data)])
    printed = capsys.readouterr().out
    for text in (
        "60  a__one:",
        "30  b__two:",
        "rows: 90 in 2 of 2 sources",
        "steps: 8, 64 pairs",
        "steps: 20, 120 pairs",
    ):
        assert text in printed
    main(["paper-base", "--dry-run"])
    printed = capsys.readouterr().out
    assert printed.count("__") >= 33
    for text in ("108.9 M parameters", "steps: 50,000, 819,200,000 pairs", "steps: at least "):
        assert text in printed
    assert (
        "hf://datasets/sentence-transformers/gooaq/pair/train-*.parquet (query = question, document = answer)"
        in printed
    )
    base = load_recipe("paper-base")
    assert len(base.stages["pretrain"].shards) == 33
    assert memory_bytes(Shape(108_900_000, 0, 12, 768), base) == pytest.approx(10.5e9, rel=0.05)


def test_a_loss_of_ones_own_trains_and_a_wrong_name_stops_the_run_before_it(data: Path) -> None:
    name = f"{__name__}.own_loss"
    expected = losses(train(data, "improved", "--stop-after", "1"))
    own = change(
        data, ("steps = 8", f'steps = 8\nloss = "{name}"'), ("kept_tokens = 64", "kept_tokens = 64\npeak_tflops = 1e-6")
    )
    run = train(data, "own", "--stop-after", "1", recipe=own)
    assert losses(run)[0] == pytest.approx(2 * expected[0], rel=1e-6)
    assert read_log(run / "log.csv")[0].mfu > 0
    for wrong, message in (
        ("training.nowhere.loss", "No module named"),
        ("training.train.nothing", "has no attribute"),
    ):
        with pytest.raises(RecipeError, match=message):
            find_loss(Stage(8, 1e-3, 16, loss=wrong))
        with pytest.raises(RecipeError, match=message):
            train(data, f"wrong {message}", recipe=change(data, ("steps = 8", f'steps = 8\nloss = "{wrong}"')))
