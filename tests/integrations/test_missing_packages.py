"""What somebody reads who imports an adapter without its framework."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{package!r}] = None
import gte_sdk.integrations
frameworks = {{
    "chromadb", "haystack", "lancedb", "langchain_core", "llama_index", "llm", "pandas", "polars", "pyarrow",
    "pydantic", "pyspark", "ray", "sklearn",
}}
assert not frameworks & {{name for name, module in sys.modules.items() if module is not None}}
try:
    import gte_sdk.integrations.{module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "package", "command"),
    [
        ("chroma", "chromadb", "pip install chromadb"),
        ("haystack", "haystack", "pip install haystack-ai"),
        ("lancedb", "lancedb", "pip install lancedb"),
        ("langchain", "langchain_core", "pip install langchain-core"),
        ("llama_index", "llama_index", "pip install llama-index-core"),
        ("llm", "llm", "pip install llm"),
        ("pandas", "pandas", "pip install pandas pyarrow"),
        ("polars", "polars", "pip install polars"),
        ("scikit_learn", "sklearn", "pip install scikit-learn"),
        ("spark", "pyspark", "pip install pyspark pandas pyarrow"),
    ],
)
def test_a_missing_framework_is_named_with_its_command(module: str, package: str, command: str) -> None:
    program = PROGRAM.format(module=module, package=package)
    finished = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(f"gte_sdk.integrations.{module} needs ")
    assert finished.stdout.endswith(f": {command}\n")
