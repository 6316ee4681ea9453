"""What PyInstaller cannot see by reading the code of gte_sdk: its files that are no code, and what it must not follow.

The C++ extension, tokenizers, numpy and onnxruntime are imported by name, so PyInstaller finds them itself.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent

datas = [
    (str(_PACKAGE / "models"), "gte_sdk/models"),
    (str(_PACKAGE / "server" / "page"), "gte_sdk/server/page"),
    (str(_PACKAGE / "runtime" / "int8" / "texts.json"), "gte_sdk/runtime/int8"),
]
