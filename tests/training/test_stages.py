"""Around the stages: which sources are mined, what is measured, and that a wrong later stage stops the run at once."""

import json
from pathlib import Path

import pytest

from training.data.pairs import open_source
from training.recipes.recipe import RecipeError
from training.runs.run_log import read_log

from .tiny_run import change, train

MINING = "[stages.finetune.mining]"
ONLY_B = f'{MINING}\nsources = ["b__*"]'
BOTH = ('sources = ["stage1/a__one"]', 'sources = ["stage1/*"]')


def test_only_the_sources_named_are_mined(data: Path) -> None:
    run = train(data, "run", recipe=change(data, BOTH, ("steps = 5", "steps = 12"), (MINING, ONLY_B)))
    assert [path.name for path in (run / "mined" / "finetune").iterdir()] == ["b__two.parquet"]
    mined = open_source(run / "mined" / "finetune" / "b__two.parquet")
    assert {len(mined[row].negatives) for row in range(len(mined))} <= {0, 1, 2, 3}
    assert sum(len(mined[row].negatives) for row in range(len(mined))) > 0
    lines = [line for line in read_log(run / "log.csv") if line.stage == "finetune"]
    assert {line.source for line in lines} == {"a__one", "b__two"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [BOTH, (MINING, f'{MINING}\nsources = ["b__*", "c__*"]')],
            r"stages\.finetune\.mining\.sources: 'c__\*' matches none of the stage's sources a__one, b__two",
        ),
        (
            [("max_tokens = 16\nlearning_rate = 1e-3", "max_tokens = 17\nlearning_rate = 1e-3")],
            r"stages\.finetune\.max_tokens = 17 exceeds encoder\.max_tokens = 16",
        ),
        (
            [("negatives = 2", "negatives = 2\nmatryoshka = [16, 32]")],
            r"finetune\.matryoshka has 32; .* vectors have 16",
        ),
    ],
)
def test_what_is_wrong_in_the_second_stage_stops_before_the_first(
    data: Path, changes: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(data, "run", recipe=change(data, *changes))
    assert not (data.parent / "run" / "log.csv").exists()


@pytest.mark.parametrize("after_stages", [True, False])
def test_sets_are_measured_after_stages_or_only_kept_apart(data: Path, tmp_path: Path, after_stages: bool) -> None:
    (tmp_path / "sets" / "sts" / "words").mkdir(parents=True)
    kept_apart = open_source(data / "stage1" / "a__one.parquet")[0].query
    rows = [("open a file", kept_apart, 4.0), ("sort a list", "send text", 1.0), ("a file", "read a file", 3.0)]
    lines = [json.dumps({"a": a, "b": b, "score": score}) for a, b, score in rows]
    (tmp_path / "sets" / "sts" / "words" / "test.jsonl").write_text("\n".join(lines))
    evaluation = f"[evaluation]\nsets = ['sts/*']\nafter_stages = {str(after_stages).lower()}\n[hardware]"
    recipe = change(data, ("[hardware]", evaluation), ("steps = 5", "steps = 1"), ("steps = 8", "steps = 1"))
    with pytest.raises(RecipeError, match=r"evaluation\.sets = .*: give their directory with --evaluation DIR"):
        train(data, "run", recipe=recipe)
    run = train(data, "run", "--evaluation", str(tmp_path / "sets"), recipe=recipe)
    metrics = json.loads((run / "metrics.json").read_text())
    for stage in ("pretrain", "finetune"):
        assert ("scores" in metrics[stage]) == after_stages
        if after_stages:
            assert set(metrics[stage]["scores"]) == {"sts/words"}
            assert -100 <= metrics[stage]["scores"]["sts/words"] <= 100
    record = json.loads((run / "run.json").read_text())
    assert [source["refused"] for source in record["data"]["pretrain"]] == [1, 0]


@pytest.mark.filterwarnings("ignore")  # of what tensorboard imports
def test_tensorboard_gets_the_losses_of_the_log(data: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = change(data, ('name = "tiny"', 'name = "tiny"\ntensorboard = true'))
    run = train(data, "run", "--stop-after", "4", recipe=recipe)
    events = EventAccumulator(str(next((run / "tensorboard").rglob("events*")).parent))
    events.Reload()
    lines = read_log(run / "log.csv")
    assert [event.step for event in events.Scalars("loss")] == [line.step for line in lines] == [1, 2, 3, 4]
    for key in ("loss", "learning_rate"):
        written = [getattr(line, key) for line in lines]
        assert [event.value for event in events.Scalars(key)] == pytest.approx(written, rel=1e-6)
