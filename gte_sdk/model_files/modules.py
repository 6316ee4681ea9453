"""From the states of a published model's tokens to one vector: its pooling, its dense layers, its table of tokens.

sentence-transformers lists the steps in modules.json, each with a folder. A step that gte-sdk cannot do itself may
still be inside the graph, which then has the output sentence_embedding. A pooling that nobody names may be there too.
"""

from typing import NamedTuple

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.known_models import known_model, original_name
from gte_sdk.model_files.published import (
    CONFIG_JSON,
    IN_GRAPH,
    MODULES_JSON,
    POOLING_MODES,
    ModelPath,
    known_of,
    published_name,
    read_json,
    read_modules,
    read_pooling,
)

SAFETENSORS = "model.safetensors"
_TANH = {"torch.nn.modules.activation.Tanh": True, "torch.nn.modules.linear.Identity": False}
_TABLE = "StaticEmbedding"
# What every engine does, or nobody has to: a Dropout does nothing outside of training.
_NOTHING = ("Transformer", "Pooling", "Normalize", "Dropout")
# What may follow a module. Unit length before a dense layer with a bias is not the same as behind it.
_FOLLOWS = {
    "Transformer": ("Transformer", "Pooling", "Normalize"),
    "Pooling": ("Dense", "Normalize"),
    "Dense": ("Dense", "Normalize"),
    "Normalize": ("Normalize",),
}


class Pooled(NamedTuple):
    pooling: str
    """One of POOLING_MODES or IN_GRAPH."""
    dense: tuple[str, ...] = ()
    """The folders of the dense layers behind the pooling, in their order."""
    why_in_graph: str = ""
    """Of IN_GRAPH: why nothing else will do, and the remedy, for a graph without sentence_embedding."""


class Dense(NamedTuple):
    """A dense layer, as its config.json describes it."""

    in_features: int
    out_features: int
    has_bias: bool
    tanh: bool


def read_pooled(path: ModelPath, asked: str | None) -> Pooled:
    """How the vectors of the published model in `path` come about. asked: the pooling that the caller names, or None.

    Raises InputError for an unknown pooling, and ModelFormatError for a model that gte-sdk cannot run.
    """
    if asked is not None and asked not in (*POOLING_MODES, IN_GRAPH):
        raise InputError(f"pooling={asked!r}; one of {(*POOLING_MODES, IN_GRAPH)} is supported")
    if asked == IN_GRAPH:
        return Pooled(IN_GRAPH, why_in_graph=f"pooling={IN_GRAPH!r} asks for it; pass one of {POOLING_MODES}")
    known = known_of(path)
    if known and known.refused and asked is None:
        raise ModelFormatError(f"{path}: {known.names[0]} cannot be run: {known.refused}")
    dense: list[str] = []
    before = "Transformer"
    for kind, folder in read_modules(path):
        if kind == "Transformer" and folder:
            raise ModelFormatError(
                f"{path / MODULES_JSON} puts the transformer into {folder!r}, and gte-sdk reads it beside "
                f"{MODULES_JSON}; save the model again with a newer sentence-transformers"
            )
        is_in_turn = kind in _FOLLOWS.get(before, ()) or kind == "Dropout"
        before = before if kind == "Dropout" else kind
        if kind == "Dense" and is_in_turn and _can_compute(path, folder):
            dense.append(folder)
        elif kind not in _NOTHING or not is_in_turn:
            why = f"{path / MODULES_JSON} has a module {kind} in {folder!r} that gte-sdk cannot compute there"
            return Pooled(IN_GRAPH, why_in_graph=f"{why}; take a graph that contains it")
    if known and known.dense and not (path / MODULES_JSON).is_file():
        original = original_name(published_name(path) or "")
        why = f"{original} has dense layers behind the pooling, which are not among these files"
        return Pooled(IN_GRAPH, why_in_graph=f"{why}; take {original}")
    pooling = asked or read_pooling(path)
    return Pooled(IN_GRAPH, why_in_graph=_nobody_says(path)) if pooling is None else Pooled(pooling, tuple(dense))


def modules_only_in_graph(path: ModelPath) -> list[str]:
    """The modules of an exported model that only its graph computes, such as its dense layers."""
    return [kind for kind, _ in read_modules(path) if kind not in (*_NOTHING, _TABLE)]


def static_folder(path: ModelPath) -> str | None:
    """The folder of a static model's table of token vectors and its tokenizer, or None for any other model.

    Its layout is that of sentence-transformers' StaticEmbedding ("0_StaticEmbedding"), or model2vec's (""). Raises
    ModelFormatError for further modules behind the table.
    """
    modules = read_modules(path)
    if modules and modules[0][0] == _TABLE:
        if others := [kind for kind, _ in modules[1:] if kind not in _NOTHING]:
            raise ModelFormatError(f"{path / MODULES_JSON} has {others[0]} behind a {_TABLE}; it cannot be run")
        return modules[0][1]
    is_model2vec = (path / CONFIG_JSON).is_file() and read_json(path / CONFIG_JSON).get("model_type") == "model2vec"
    return "" if is_model2vec and not modules else None


def read_dense(path: ModelPath, folder: str) -> Dense:
    """Reads the config.json of a dense layer. Raises ModelFormatError where it is missing or says something else."""
    file = path / folder / CONFIG_JSON
    config = read_json(file)
    inside, outside = config.get("in_features"), config.get("out_features")
    tanh = _TANH.get(str(config.get("activation_function", "torch.nn.modules.activation.Tanh")))
    elsewhere = {config.get(key) for key in ("module_input_name", "module_output_name")} - {None, "sentence_embedding"}
    if type(inside) is not int or type(outside) is not int or inside < 1 or outside < 1:
        raise ModelFormatError(f"{file} has in_features={inside!r} and out_features={outside!r}; both are ints from 1")
    if tanh is None or elsewhere or config.get("use_residual"):
        raise ModelFormatError(f"{file} describes another layer than a linear one with tanh or no activation: {config}")
    return Dense(inside, outside, config.get("bias") is not False, tanh)


def _can_compute(path: ModelPath, folder: str) -> bool:
    try:
        read_dense(path, folder)
    except ModelFormatError:
        return False
    return True


def _nobody_says(path: ModelPath) -> str:
    alike = known_model(path.name)
    hint = f" ({original_name(path.name)}, of the same name, has {alike.pooling!r})" if alike else ""
    return (
        "nothing says how the states of its tokens become one vector; pass pooling= (--pooling), one of "
        f"{POOLING_MODES}, as the model card says{hint}, and prompts= (--prompt) if the model has any"
    )
