"""The table and the plot of ablations, from the scores of finished runs."""

import json
from pathlib import Path

import pytest

from training.ablate import main


def test_the_table_and_plot_are_of_the_last_stage_of_each_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = dict.fromkeys(("sts", "retrieval", "code_search", "reranking", "pair_classification"), 7.0)
    for name, seed, score in (("base", 0, 50.0), ("base", 1, 52.0), ("transformer/base", 0, 40.0)):
        run = tmp_path / f"{name}.{seed}"
        run.mkdir(parents=True)
        stages = {"pretrain": {"summary": {}}, "finetune": {"summary": {"mean_of_task_types": score, **tasks}}}
        (run / "metrics.json").write_text(json.dumps(stages))
    directories = ["--output", str(tmp_path), "--data", str(tmp_path), "--evaluation", str(tmp_path)]
    main([*directories, "--table", "--plot", str(tmp_path / "plot.png")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        f"| base | 2 | 51.00 ± 1.41 |{' 7.00 ± 0.00 |' * 5}",
        f"| transformer/base | 1 | 40.00 |{' 7.00 |' * 5}",
    ]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
