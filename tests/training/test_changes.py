"""A checkpoint comes back from its start and what training changed of it."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.encoders.changes import ChangesError, main, restore, write_changes
from training.encoders.encoder import Encoder, StaticEncoder
from training.encoders.encoder_files import load_encoder, write_encoder


def test_what_changed_is_kept_in_float16_and_the_rest_as_it_was(tiny_encoder: Encoder, tmp_path: Path) -> None:
    trained = copy.deepcopy(tiny_encoder)
    trained.max_tokens, trained.matryoshka_dims = 8, (8, 4)
    layer = dict(trained.named_parameters())["backbone.encoder.layer.0.output.dense.weight"]
    with torch.no_grad():
        layer.add_(0.123)
    assert write_changes(trained, tiny_encoder, tmp_path / "changes") == [
        "backbone.encoder.layer.0.output.dense.weight"
    ]
    again = restore(tmp_path / "changes", copy.deepcopy(tiny_encoder))
    assert (again.max_tokens, again.matryoshka_dims) == (8, (8, 4))
    for (name, weight), expected in zip(again.named_parameters(), trained.parameters(), strict=True):
        assert weight.equal(expected.half().float() if expected is layer else expected), name


def test_the_command_writes_and_restores_a_checkpoint(tiny_encoder: Encoder, tmp_path: Path) -> None:
    write_encoder(tiny_encoder, tmp_path, tmp_path / "start")
    with torch.no_grad():
        for parameter in tiny_encoder.parameters():
            parameter.copy_((parameter + 1).half())
    write_encoder(tiny_encoder, tmp_path, tmp_path / "trained")
    start, changes, again = str(tmp_path / "start"), str(tmp_path / "changes"), str(tmp_path / "again")
    main(["write", str(tmp_path / "trained"), start, "--output", changes])
    main(["restore", changes, start, "--output", again])
    expected = load_encoder(str(tmp_path / "trained")).state_dict()
    assert all(weight.equal(expected[name]) for name, weight in load_encoder(again).state_dict().items())
    with pytest.raises(SystemExit):
        main(["restore", changes, start, "--output", again])


def test_another_start_too_large_numbers_and_damage_are_refused(tmp_path: Path) -> None:
    start, path = StaticEncoder(torch.zeros(4, 2), [0]), tmp_path / "changes"
    with pytest.raises(ChangesError, match=r"embedding\.weight is of another shape"):
        write_changes(StaticEncoder(torch.zeros(4, 3), [0]), start, path)
    with pytest.raises(ChangesError, match=r"embedding\.weight has a number that is too large for float16"):
        write_changes(StaticEncoder(torch.full((4, 2), 1e6), [0]), start, path)
    assert not path.exists()
    write_changes(StaticEncoder(torch.ones(4, 2), [0]), start, path)
    with pytest.raises(ChangesError, match=r"embedding\.weight, which the start does not have, or of another shape"):
        restore(path, StaticEncoder(torch.zeros(4, 3), [0]))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ChangesError, match="no file of changes, or damaged"):
        restore(path, start)
    save_file({"embedding.weight": torch.ones(4, 2)}, path)
    with pytest.raises(ChangesError, match="no file of changes, or damaged"):
        restore(path, start)
