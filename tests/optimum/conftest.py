"""The tiny checkpoints of the export's own tests."""

from ..export.conftest import make_checkpoint, small_process, tokenizer_directory

__all__ = ["make_checkpoint", "small_process", "tokenizer_directory"]
