"""The mean of checkpoints is the mean of their weights, whatever file they came from."""

from pathlib import Path

import pytest
import torch

from training.average import average, main
from training.encoders.encoder import Encoder, StaticEncoder
from training.encoders.encoder_files import load_encoder, write_encoder


def test_the_mean_is_weighted_and_its_weights_need_no_sum_of_one() -> None:
    left, right = StaticEncoder(torch.zeros(4, 2), [0]), StaticEncoder(torch.ones(4, 2), [0])
    mean = average([left, right], [1.0, 3.0])
    assert isinstance(mean, StaticEncoder)
    torch.testing.assert_close(mean.embedding.weight, torch.full((4, 2), 0.75))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    encoders = [StaticEncoder(torch.zeros(4, 2), [0]) for _ in range(2)]
    with pytest.raises(ValueError, match="give one, of at least 0, for each of the 2 models"):
        average(encoders, weights)


def test_models_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model 2 differs from model 1 in embedding\.weight"):
        average([StaticEncoder(torch.zeros(4, 2), [0]), StaticEncoder(torch.zeros(4, 3), [0])], [1, 1])


def test_the_command_writes_a_checkpoint_and_keeps_what_is_there(tiny_encoder: Encoder, tmp_path: Path) -> None:
    write_encoder(tiny_encoder, tmp_path, tmp_path / "a")
    weight = tiny_encoder.backbone.get_input_embeddings().weight  # type: ignore[operator]
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1.0
    write_encoder(tiny_encoder, tmp_path, tmp_path / "b")
    arguments = [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--output",
        str(tmp_path / "mean"),
        "--weights",
        "0.5",
        "0.5",
    ]
    main(arguments)
    mean = load_encoder(tmp_path / "mean")
    assert isinstance(mean, Encoder)
    torch.testing.assert_close(mean.backbone.get_input_embeddings().weight, before + 0.5)  # type: ignore[operator]
    with pytest.raises(SystemExit):
        main(arguments)
