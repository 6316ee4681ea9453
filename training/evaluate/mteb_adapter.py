"""An Embedder for the `mteb` package: EncoderProtocol for every task, SearchProtocol with the kernel that ships.

import mteb
from gte_sdk import Embedder
from training.evaluate.mteb_adapter import MtebModel

mteb.evaluate(MtebModel(Embedder("gte-mini"), "gte-sdk/gte-mini"), mteb.get_tasks(tasks=["SciFact"]))
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk import Embedder, top_k_cosine
from gte_sdk.runtime.engine import cut_rows

if TYPE_CHECKING:
    from mteb.models import ModelMeta


class MtebModel:
    """The methods that mteb calls on a model; it does not ask for a base class.

    `name` is OWNER/NAME, under which mteb files the results. Queries are embedded with the model's query prompt,
    passages with its document prompt, everything else without one. `index` holds one corpus at a time, as mteb needs.
    """

    def __init__(self, embedder: Embedder, name: str, revision: str | None = None, **_: Any) -> None:
        from mteb.models import ModelMeta

        facts = {
            "name": name,
            "revision": revision or embedder.fingerprint,
            "embed_dim": embedder.dim,
            "max_tokens": embedder.max_tokens,
            "framework": ["ONNX"],
            "modalities": ["text"],
            "open_weights": True,
            "similarity_fn_name": "cosine",
        }
        self._embedder = embedder
        self._meta: ModelMeta = ModelMeta.create_empty(facts)
        self._document_ids: list[str] = []
        self._documents_MD: NDArray[np.float32] = np.zeros((0, embedder.dim), dtype=np.float32)

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """(n, dim) unit rows of the "text" of all batches. The Embedder makes batches of its own."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self._embed(texts, None if prompt_type is None else str(prompt_type.value))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """(n, m) cosines of rows of any length."""
        cosines_NM: NDArray[np.float32] = _unit_rows(embeddings1) @ _unit_rows(embeddings2).T
        return cosines_NM

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """(n,) cosines of rows at the same index."""
        cosines_N: NDArray[np.float32] = (_unit_rows(embeddings1) * _unit_rows(embeddings2)).sum(axis=1)
        return cosines_N

    def index(
        self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, encode_kwargs: Any, **_: Any
    ) -> None:
        """Embeds a corpus with the columns id, text and maybe title, as title, a space and text."""
        self._document_ids = list(corpus["id"])
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(self._document_ids)
        texts = [f"{title or ''} {text}".strip() for title, text in zip(titles, corpus["text"], strict=True)]
        self._documents_MD = self._embed(texts, "document")

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The `top_k` nearest documents of each query with their cosines, out of `top_ranked` if it is given."""
        query_ids = list(queries["id"])
        queries_QD = self._embed(list(queries["text"]), "query")
        if top_ranked is not None:
            return self._rerank(query_ids, queries_QD, top_ranked, top_k)
        scores_QK, indices_QK = top_k_cosine(queries_QD, self._documents_MD, min(top_k, len(self._document_ids)))
        return {
            query: {self._document_ids[index]: float(score) for index, score in zip(indices, scores, strict=True)}
            for query, indices, scores in zip(query_ids, indices_QK, scores_QK, strict=True)
        }

    def _rerank(
        self,
        query_ids: Sequence[str],
        queries_QD: NDArray[np.float32],
        candidates: Mapping[str, Sequence[str]],
        top_k: int,
    ) -> dict[str, dict[str, float]]:
        positions = {document: position for position, document in enumerate(self._document_ids)}
        results = {}
        for query, query_D in zip(query_ids, queries_QD, strict=True):
            own = list(candidates[query])
            own_MD = self._documents_MD[[positions[document] for document in own]]
            scores_1K, indices_1K = top_k_cosine(query_D[None], own_MD, min(top_k, len(own)))
            results[query] = {
                own[index]: float(score) for index, score in zip(indices_1K[0], scores_1K[0], strict=True)
            }
        return results

    def _embed(self, texts: Sequence[str], kind: str | None) -> NDArray[np.float32]:
        if kind == "query":
            return self._embedder.embed_query(texts)
        return self._embedder.embed_documents(texts) if kind in ("document", "passage") else self._embedder.embed(texts)


def _unit_rows(vectors: Any) -> NDArray[np.float32]:
    rows_ND = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    return cut_rows(rows_ND, rows_ND.shape[1])
