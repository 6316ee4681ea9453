"""The card's note says what the run recorded, and nothing of the machine's paths."""

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest

from training.describe import main
from training.recipes.recipe import dump_recipe, load_recipe

PACKAGES = ("", "_hypothesis")


def test_a_note_from_what_a_run_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(dump_recipe(load_recipe("smoke")))
    (run / "log.csv").write_text(
        "stage,step,loss,learning_rate,tokens,seconds,source\n"
        "pretrain,1,2.0,0.001,900000,1800,web__a\npretrain,2,1.5,0.001,600000,1800,web__b\nfinetune,3,1.0,0.0001,5,1,qa__c\n"
    )
    source = {"sha256": "0", "pairs": 10, "refused": 2}
    recorded = {
        "data": {
            "pretrain": [{"name": "web__a", **source}, {"name": "web__b", **source}],
            "finetune": [
                {"name": "qa__c", **source},
                *({"name": f"code__docstrings{of}", **source} for of in PACKAGES),
            ],
        },
        "sessions": [{"commit": "0123456789abcdef", "python": "3.11", "packages": {"torch": "2.13"}}],
    }
    (run / "run.json").write_text(json.dumps(recorded))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("category,name,licence,source\nweb,a,MIT | BSD,owner/repository@abc\nqa,c,CC0,owner/other\n")
    reports = {}
    for name, score in (("own", 51.25), ("start", 50.0)):
        reports[name] = tmp_path / f"{name}.json"
        report = {"model": name, "scores": {"sts/A": score}, "summary": {"sts": score, "mean_of_task_types": score}}
        reports[name].write_text(json.dumps(report))

    arguments = [
        str(run),
        str(run),
        "--manifest",
        str(manifest),
        "--scores",
        str(reports["own"]),
        "--use",
        "Search in code.",
    ]
    main([*arguments, "--baseline", str(reports["start"]), "--hardware", "2 cores"])
    note = capsys.readouterr().out
    assert note.count("Recipe `smoke` (training/recipes/smoke.toml) at commit 0123456789ab, seed 0") == 2  # two legs
    assert "1.0 hours on 2 cores; Python 3.11, torch 2.13" in note
    assert "| pretrain | 2 | 64 | 2 | 1.5 M |" in note
    assert "were left out (10)" in note
    assert "| sts/A | 51.25 | 50.00 | +1.25 |" in note
    assert "| mean of sts | 51.25 | 50.00 | +1.25 |" in note
    assert "| web__a | 10 | MIT / BSD | owner/repository@abc |" in note
    assert "| web__b | 10 |  |  |" in note
    python, hypothesis = platform.python_version(), metadata.version("hypothesis")
    assert f"| code__docstrings | 10 | PSF-2.0 | the standard library of Python {python} |" in note
    assert f"| code__docstrings_hypothesis | 10 | MPL-2.0 | the functions of hypothesis {hypothesis} |" in note
    assert "Search in code." in note
    assert str(tmp_path) not in note
    assert "--seed" not in note
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("seed = 0", "seed = 1"))
    main([*arguments, "--baseline", str(reports["start"]), "--hardware", "2 cores"])
    assert "--output runs/smoke --seed 1\n" in capsys.readouterr().out
