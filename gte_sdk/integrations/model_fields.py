"""The parameters of `Embedder` as fields of a pydantic model, for the frameworks whose adapters are such models."""

from pydantic import BaseModel, ConfigDict

from gte_sdk.embedding.embedder import DEFAULT_MAX_BATCH_TOKENS


class ModelFields(BaseModel):
    """Every parameter of `Embedder` but the model, whose name each framework has its own word for; no other field."""

    model_config = ConfigDict(extra="forbid")

    device: str = "auto"
    threads: int | None = None
    revision: str | None = None
    offline: bool | None = None
    variant: str = "auto"
    max_tokens: int | None = None
    dim: int | None = None
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    truncation: str = "warn"
    engine: str = "auto"
    unload_after: float | None = None
    pooling: str | None = None
    prompts: dict[str, str] | None = None
