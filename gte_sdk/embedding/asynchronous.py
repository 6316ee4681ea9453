"""The methods of an Embedder for asyncio: the model runs outside the event loop, for all that wait at once."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gte_sdk.checks import check_iterable, check_texts
from gte_sdk.embedding.truncation import report_truncation
from gte_sdk.runtime.tokens import WINDOW_TEXTS

if TYPE_CHECKING:
    from gte_sdk.embedding.embedder import Embedder


async def aembed(embedder: "Embedder", texts: str | Iterable[str], *, prompt: str | None = None) -> NDArray[np.float32]:
    """Embeds texts as `embed` does, outside the event loop. Callers that wait at the same time share a batch.

    Args:
        texts: n texts, or one str.
        prompt: Put before each text; None as in `embed`.
    """
    checked = [texts] if isinstance(texts, str) else check_texts(list(check_iterable(texts)), 0)
    vectors_ND = np.empty((len(checked), embedder.dim), np.float32)
    for start in range(0, len(checked), WINDOW_TEXTS):
        end = start + WINDOW_TEXTS
        vectors_ND[start:end] = await _aembed_window(embedder, checked[start:end], prompt, start)
    return vectors_ND[0] if isinstance(texts, str) else vectors_ND


async def aembed_query(embedder: "Embedder", texts: str | Iterable[str]) -> NDArray[np.float32]:
    """Embeds texts as `aembed` does, with the model's query prompt if it has one.

    Args:
        texts: n queries, or one str.
    """
    return await aembed(embedder, texts, prompt=embedder.prompt_for("query"))


async def aembed_documents(embedder: "Embedder", texts: str | Iterable[str]) -> NDArray[np.float32]:
    """Embeds texts as `aembed` does, with the model's document prompt if it has one.

    Args:
        texts: n documents, or one str.
    """
    return await aembed(embedder, texts, prompt=embedder.prompt_for("document"))


async def _aembed_window(
    embedder: "Embedder", texts: Sequence[str], prompt: str | None, first_index: int
) -> NDArray[np.float32]:
    import asyncio  # takes longer than numpy to import

    from gte_sdk.embedding.micro_batches import INLINE_CHARACTERS, MicroBatcher, run_here_or_in_thread

    is_short = sum(map(len, texts)) <= INLINE_CHARACTERS
    ids, left_out = await run_here_or_in_thread(is_short, lambda: embedder._tokenize(texts, prompt))
    report_truncation(texts, left_out, first_index, embedder.max_tokens, embedder._truncation)
    loop = asyncio.get_running_loop()
    batcher = embedder._micro_batchers.get(loop)
    if batcher is None:
        # Asks for the engine at each batch: `close` replaces it.
        batcher = MicroBatcher(lambda ids: embedder._engine.run(ids, None), embedder.dim)
        embedder._micro_batchers[loop] = batcher
    return await batcher.submit(ids)
