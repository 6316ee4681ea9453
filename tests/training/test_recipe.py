"""Recipes: the paper's values, strict keys and types with suggestions, extension, and that a dump reads back."""

import dataclasses
from pathlib import Path

import pytest

from training.recipes.recipe import RECIPES, Recipe, RecipeError, dump_recipe, load_recipe
from training.runs.command_line import choose_recipe, parse_options
from training.train import main

MINIMAL = """
name = "minimal"
[encoder]
start = "somewhere"
[stages.first]
sources = ["a"]
batch_size = 4
steps = 3
learning_rate = 1e-3
max_tokens = 32
"""


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_values_defaults_and_whole_numbers_for_fractions(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.toml", MINIMAL + "alpha = 1\n"))
    stage = recipe.stages["first"]
    assert (stage.alpha, type(stage.alpha), stage.loss, stage.temperature) == (1.0, float, "improved", 0.01)
    assert recipe.evaluation.refuse_texts


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat = 1.0", r"unknown key stages\.first\.learning_rat; did you mean learning_rate\?"),
        ('alpha = "half"', r"stages\.first\.alpha = 'half' is str, expected float"),
        ("negatives = true", r"stages\.first\.negatives = True is bool, expected int"),
        (
            'loss = "improve"',
            r"stages\.first\.loss = 'improve' is not .* nor a dotted name; did you mean improved\?",
        ),
        ("distillation = 3", r"stages\.first\.distillation = 3 is int, expected a table"),
        ("temperature = 0", r"stages\.first\.temperature = 0\.0 must be more than 0"),
        ("alpha = -0.5", r"stages\.first\.alpha = -0\.5 must not be negative"),
        ("warmup = 5", r"stages\.first\.warmup = 5\.0 is a fraction"),
        ("epochs = 2", r"both steps = 3 and epochs = 2\.0"),
        ("betas = [0.9]", r"betas = \[0\.9\] must be two numbers"),
        ("[stages.first.mining]\ncuont = 3", r"unknown key stages\.first\.mining\.cuont; did you mean count\?"),
        (
            "[stages.first.distillation]\nteacher = 'x'",
            r"stages\.first\.distillation\.teacher = 'x' is str, expected a table",
        ),
        (
            "mixed_sources = true\n[stages.first.distillation.a.category_weights]\ncode = 1.0",
            r"stages\.first\.distillation\.a\.category_weights needs mixed_sources = false",
        ),
        ("[stages.first.distillation.a]\ntemperature = 0", r"distillation\.a\.temperature = 0\.0 must be more than 0"),
        ("loss_weights = { code = -1.0 }", r"stages\.first\.loss_weights has a negative weight"),
        (
            "mixed_sources = true\nloss_weights = { code = 1.0 }",
            r"stages\.first\.loss_weights needs mixed_sources = false",
        ),
        ("[stages.first.distillation.a]\nweight = -1.0", r"stages\.first\.distillation\.a has a negative weight"),
        ("[stages.first.distillation.a.category_weights]\ncode = -1.0", r"distillation\.a has a negative weight"),
        ("[evaluations]", r"unknown key evaluations; did you mean evaluation\?"),
        ("[stages.second]\nsources = ['a']", r"stages\.second\.batch_size is missing"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "r.toml", f"{MINIMAL}{line}\n")
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_unknown_recipe_is_suggested_and_broken_toml_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'smok' is neither .* did you mean smoke\?"):
        load_recipe("smok")
    with pytest.raises(RecipeError, match=r"r\.toml is not TOML"):
        load_recipe(write(tmp_path / "r.toml", "name = "))
    with pytest.raises(RecipeError, match="encoder needs `start`"):
        load_recipe(write(tmp_path / "r.toml", MINIMAL.replace('start = "somewhere"', "")))
    with pytest.raises(RecipeError, match="no stage has steps or epochs"):
        load_recipe(write(tmp_path / "r.toml", MINIMAL.replace("steps = 3", "steps = 0")))


def test_a_recipe_says_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", MINIMAL)
    recipe = load_recipe(write(tmp_path / "r.toml", 'extends = "base"\nname = "r"\n[stages.first]\nloss = "vanilla"\n'))
    base = load_recipe(str(tmp_path / "base.toml"))
    assert recipe.stages["first"].loss == "vanilla"
    assert recipe.stages["first"].batch_size == base.stages["first"].batch_size == 4
    assert (recipe.name, recipe.encoder) == ("r", base.encoder)


def recipe_names() -> list[str]:
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.toml"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_its_dump_reads_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert load_recipe(write(tmp_path / "dump.toml", dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("size", "start", "learning_rate"),
    [
        ("small", "microsoft/MiniLM-L12-H384-uncased", 3e-4),
        ("base", "bert-base-uncased", 2e-4),
        ("large", "bert-large-uncased", 5e-5),
    ],
)
def test_paper_recipes_have_the_papers_values(size: str, start: str, learning_rate: float) -> None:
    recipe = load_recipe(f"paper-{size}")
    pretrain, finetune = recipe.stages["pretrain"], recipe.stages["finetune"]
    assert recipe.encoder.start.endswith(start)
    assert (recipe.encoder.max_tokens, recipe.encoder.kind) == (512, "transformer")
    assert (pretrain.batch_size, pretrain.max_tokens, pretrain.steps, pretrain.alpha) == (16_384, 128, 50_000, 0.5)
    assert (finetune.batch_size, finetune.max_tokens, finetune.epochs, finetune.negatives) == (128, 512, 1.0, 15)
    assert pretrain.learning_rate == learning_rate
    assert finetune.learning_rate == pytest.approx(learning_rate / 10)
    for stage in (pretrain, finetune):
        assert (stage.temperature, stage.loss, stage.warmup) == (0.01, "improved", 0.05)
        assert not stage.mixed_sources
    hardware = recipe.hardware
    assert (hardware.precision, hardware.gradient_checkpointing, hardware.optimizer_sharding) == ("fp16", True, True)


def test_the_command_line_names_another_start_and_teacher() -> None:
    options = ["nano-cpu", "--output", "out", "--encoder", "leg-1", "--teacher", "MiniLM", "--seed", "3"]
    recipe = choose_recipe(parse_options(None, options))
    assert (recipe.encoder.start, recipe.seed) == ("leg-1", 3)
    teachers = [teacher.teacher for stage in recipe.stages.values() for teacher in stage.distillation.values()]
    assert teachers == ["MiniLM"] * 4
    untaught = choose_recipe(parse_options(None, ["paper-small", "--output", "out", "--teacher", "MiniLM"]))
    assert [stage.distillation for stage in untaught.stages.values()] == [{}, {}]
    named = choose_recipe(parse_options(None, ["nano", "--print", "--teacher", "mini=over there"]))
    assert {stage.distillation["mini"].teacher for stage in named.stages.values()} == {"over there"}
    with pytest.raises(RecipeError, match=r"--teacher maxi=x: the recipe has no teacher 'maxi' but mini"):
        choose_recipe(parse_options(None, ["nano", "--print", "--teacher", "maxi=x"]))


def test_a_printed_recipe_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["nano-cpu", "--print", "--seed", "4"])
    printed = load_recipe(write(tmp_path / "printed.toml", capsys.readouterr().out))
    assert printed == dataclasses.replace(load_recipe("nano-cpu"), seed=4)
    with pytest.raises(SystemExit):
        main(["nano-cpu"])
    assert "--output DIR" in capsys.readouterr().err
