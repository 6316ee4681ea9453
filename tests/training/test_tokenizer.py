"""A tokenizer that learns more words: which, at which ids, and what a static encoder that starts with them says."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from gte_sdk.runtime.tokens import load_tokenizer, special_tokens_around
from training.data.pairs import Pair, Source, open_source, write_pairs
from training.data.tokenizer import extend_tokenizer
from training.encoders.embed import embed_token_ids
from training.encoders.encoder import Encoder
from training.encoders.encoder_files import load_encoder, write_encoder
from training.recipes.recipe import RecipeError, load_recipe
from training.runs.start import distil_static_encoder

from .tiny_run import train

IDENTIFIERS = "createdAt HTTPServer URLs utf8Name isA ABCd"


@pytest.fixture
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    """The tiny tokenizer with two places kept free as BERT does, from id 5 on."""
    state = json.loads((tokenizer_directory / "tokenizer.json").read_text())
    tokens = [token for token, _ in sorted(state["model"]["vocab"].items(), key=lambda item: item[1])]
    tokens[5:5] = ["[unused1]", "[unused2]"]
    state["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    return Tokenizer.from_str(json.dumps(state))


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """ "zebra" stands in both sources, "yacht" more often but in one, "xylophone" once, "file" is a token already."""
    texts = {"a": ["zebra yacht yacht yacht file file", "Zebra 1234"], "b": ["zebra xylophone", "zebraZebra file"]}
    for name, (query, document) in texts.items():
        write_pairs(tmp_path / f"{name}.parquet", [Pair(query, document)])
    return [open_source(tmp_path / f"{name}.parquet") for name in texts]


def test_common_words_take_the_free_places_first(tokenizer: Tokenizer, sources: list[Source]) -> None:
    before = tokenizer.get_vocab()
    extended = extend_tokenizer(tokenizer, sources, words=3, split_case=True)
    added = {token: number for token, number in extended.get_vocab().items() if token not in before}
    assert added == {"zebra": before["[unused1]"], "yacht": before["[unused2]"], "xylophone": len(before)}
    kept = {token: number for token, number in before.items() if not token.startswith("[unused")}
    assert {**kept, **added} == extended.get_vocab()
    assert extended.encode("a zebra").ids == [2, before["a"], added["zebra"], 3]
    assert extended.to_str() == extend_tokenizer(tokenizer, sources, words=3, split_case=True).to_str()


def test_places_that_no_word_takes_stay_free(tokenizer: Tokenizer, sources: list[Source]) -> None:
    extended = extend_tokenizer(tokenizer, sources, words=1, split_case=False).get_vocab()
    assert extended["zebra"] == tokenizer.token_to_id("[unused1]")
    assert extended["[unused2]"] == tokenizer.token_to_id("[unused2]")
    assert len(extended) == tokenizer.get_vocab_size()
    more_than_there_are = extend_tokenizer(tokenizer, sources, words=50, split_case=False)
    assert more_than_there_are.get_vocab_size() == tokenizer.get_vocab_size() + 4 - 2  # "zebrazebra" is one, uncut


def test_identifiers_are_cut_where_their_case_changes(tokenizer: Tokenizer, sources: list[Source]) -> None:
    extended = extend_tokenizer(tokenizer, sources, words=0, split_case=True)
    assert extended.get_vocab() == tokenizer.get_vocab()
    normal = extended.normalizer.normalize_str(IDENTIFIERS)
    assert normal == "created at http server urls utf8 name is a abcd"


def test_only_an_uncased_word_piece_tokenizer_is_extended(sources: list[Source]) -> None:
    with pytest.raises(RecipeError, match="for an uncased BERT tokenizer; this is WordLevel"):
        extend_tokenizer(Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), sources, 3, False)


def test_a_new_word_starts_from_what_the_transformer_says_of_its_pieces(
    tiny_encoder: Encoder, tokenizer_directory: Path, sources: list[Source]
) -> None:
    own = load_tokenizer(tokenizer_directory / "tokenizer.json")
    extended = extend_tokenizer(own, sources, words=3, split_case=False)
    static = distil_static_encoder(tiny_encoder, own, extended, tiny_encoder.dim, 64)
    words = ["file", "zebra", "xylophone"]
    ids = [extended.get_vocab()[word] for word in words]
    expected_VE = embed_token_ids(tiny_encoder, [own.encode(word).ids for word in words], 0)
    assert [len(own.encode(word).ids) > 3 for word in words] == [False, True, True]
    # All principal components together only turn and move the vectors.
    started_VE = static.embedding.weight[ids]
    assert torch.allclose(torch.cdist(started_VE, started_VE), torch.cdist(expected_VE, expected_VE), atol=1e-5)
    weights = static.token_weights.tolist()
    assert weights[ids[0]] < weights[ids[1]] == weights[ids[2]] == max(weights)


def test_a_static_encoder_may_start_in_the_space_of_its_transformer(
    tiny_encoder: Encoder, tokenizer_directory: Path
) -> None:
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    before, after = special_tokens_around(tokenizer)
    ids = [[*before, token, *after] for token in range(tokenizer.get_vocab_size())]
    vectors_VE = embed_token_ids(tiny_encoder, ids, 0)
    for dim in (tiny_encoder.dim, 3):
        static = distil_static_encoder(tiny_encoder, tokenizer, tokenizer, dim, 64, keep_space=True)
        expected_VD = (vectors_VE - vectors_VE.mean(dim=0))[:, :dim]
        assert torch.allclose(static.embedding.weight, expected_VD, atol=1e-5)


def static_recipe(data: Path, start: Path, words: str) -> str:
    """Writes a recipe that starts a token table with `words`, and returns its name."""
    (data.parent / "static.toml").write_text(f"""
name = "static"
[encoder]
kind = "static"
start = "{start}"
dim = 8
max_tokens = 32
{words}
[stages.one]
sources = ["stage1/*"]
batch_size = 8
steps = 3
max_tokens = 16
learning_rate = 1e-2
""")
    return "static.toml"


def test_a_run_trains_with_the_words_and_leaves_them_in_its_model(
    data: Path, tiny_encoder: Encoder, tokenizer_directory: Path
) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, data.parent / "start")
    write_pairs(data / "stage1" / "c__more.parquet", [Pair(f"zebra {row}", f"aZebra {row}") for row in range(20)])
    recipe = static_recipe(data, data.parent / "start", "added_words = 2\nsplit_case = true")
    run = train(data, "static", recipe=recipe)
    tokenizer = load_tokenizer(run / "model" / "tokenizer.json")
    assert tokenizer.encode("aZebra").tokens == ["[CLS]", "a", "zebra", "[SEP]"]
    assert load_encoder(run / "model").dim == 8

    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(run / "model")
    assert theirs("aZebra")["input_ids"] == tokenizer.encode("aZebra").ids
    assert (theirs.pad_token, theirs.model_max_length) == ("[PAD]", 32)


def test_a_trained_table_keeps_its_words(data: Path, tiny_encoder: Encoder, tokenizer_directory: Path) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, data.parent / "start")
    table = train(data, "table", recipe=static_recipe(data, data.parent / "start", "")) / "model"
    with pytest.raises(
        RecipeError, match="is a static encoder; added_words, split_case and keep_space need a transformer"
    ):
        train(data, "further", recipe=static_recipe(data, table, "added_words = 2"))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            'start = "x"\nadded_words = 5',
            r"added_words, split_case and keep_space need kind = \"static\" and a `start`",
        ),
        ('kind = "static"\nsplit_case = true', "added_words, split_case and keep_space need"),
        ('kind = "static"\nkeep_space = true', "added_words, split_case and keep_space need"),
        ('kind = "static"\nstart = "x"\nadded_words = -1', r"encoder\.added_words = -1 must not be negative"),
    ],
)
def test_words_for_an_encoder_that_cannot_take_them_are_refused(tmp_path: Path, encoder: str, message: str) -> None:
    stage = 'sources = ["a"]\nbatch_size = 4\nsteps = 3\nlearning_rate = 1e-3\nmax_tokens = 32'
    (tmp_path / "r.toml").write_text(f'name = "r"\n[encoder]\n{encoder}\n[stages.first]\n{stage}\n')
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "r.toml"))
