"""Which ONNX Runtime is there: none, half of one, two at once, one without CUDA, one whose CUDA does not start."""

import importlib.metadata
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gte_sdk import DeviceError, Embedder
from gte_sdk.runtime import tokens
from gte_sdk.runtime.onnxruntime import devices as providers
from gte_sdk.runtime.onnxruntime.graph import open_graph, run_bound

from ..tiny_models import tiny_vector, write_tiny_model

CPU, CUDA = providers.PROVIDERS["cpu"], providers.PROVIDERS["cuda"]


def test_a_bound_output_is_the_sessions(tmp_path: Path) -> None:
    graph = open_graph(write_tiny_model(tmp_path) / "onnx" / "model.onnx", "cpu", 1)
    inputs = {name: np.array([[2, 7, 3], [2, 3, 0]], dtype=np.int64) for name in graph.input_names}
    (expected,) = graph.session.run([graph.output_name], inputs)
    np.testing.assert_array_equal(run_bound(graph.session, graph.output_name, inputs, "cpu"), expected)


def record(folder: Path, *names: str) -> None:
    """What pip leaves of an installed package for others to find."""
    for name in names:
        information = folder / f"{name.replace('-', '_')}-9.9.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n", encoding="utf-8")


@pytest.fixture
def only_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that importlib.metadata looks through."""
    folder = tmp_path / "site"
    folder.mkdir()
    find = importlib.metadata.Distribution.discover
    monkeypatch.setattr(
        importlib.metadata.Distribution, "discover",
        classmethod(lambda cls, **context: find(**{**context, "path": [str(folder)]})),
    )  # fmt: skip
    return folder


def test_two_packages_that_overwrite_each_other_are_found_in_the_metadata(only_recorded: Path) -> None:
    assert providers.installed_distributions() == []
    record(only_recorded, "onnxruntime")
    assert providers.installed_distributions() == ["onnxruntime"]
    assert providers.package_conflict() is None
    record(only_recorded, "onnxruntime-gpu")
    assert providers.package_conflict() == (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu"
    )


def test_cuda_that_the_other_package_hides_is_said(
    only_recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(only_recorded, "onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    directory = write_tiny_model(tmp_path / "model")
    with pytest.raises(DeviceError, match=r"device='cuda' needs CUDAExecutionProvider.* are both installed"):
        Embedder(directory, device="cuda")
    with pytest.warns(UserWarning, match="CUDA is off: .* are both installed") as seen:
        assert Embedder(directory).device == "cpu"
    assert seen[0].filename == __file__


def test_no_onnxruntime_names_the_packages(
    only_recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it could not be imported
    with pytest.raises(DeviceError, match="not installed: pip install onnxruntime, or onnxruntime-gpu for CUDA"):
        Embedder(write_tiny_model(tmp_path / "model"))
    assert Embedder("gte-mini").engine == "native"


def test_half_of_a_package_names_the_repair(only_recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(only_recorded, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(DeviceError, match=r"installed in part \(onnxruntime-gpu is recorded\): pip uninstall -y"):
        providers.import_onnxruntime()


@pytest.fixture
def cuda_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu behaves where CUDA is missing: it offers the provider, and its session falls back."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("CUDA may start here")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])


@pytest.mark.usefixtures("cuda_that_does_not_start")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_cuda_that_does_not_start_is_an_error_and_auto_goes_on_with_a_warning(tmp_path: Path) -> None:
    directory = write_tiny_model(tmp_path)
    message = r"device='cuda': CUDAExecutionProvider did not start, onnxruntime fell back to \['CPUExecutionProvider'\]"
    with pytest.raises(DeviceError, match=message):
        Embedder(directory, device="cuda")
    with pytest.warns(UserWarning, match=f"the CPU is used: {message}") as seen:
        model = Embedder(directory)
    assert __file__ in [warning.filename for warning in seen]
    assert model.device == "cpu"
    np.testing.assert_allclose(model.embed("red"), tiny_vector("red"), atol=1e-6)


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capi = tmp_path / "capi"
    capi.mkdir()
    (capi / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    assert "libonnxruntime_providers_cuda.so" in providers.why_not_started("cuda", [CPU])


def test_int8_on_cuda_is_said_to_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A CPU stands for CUDA, which the machines that run these tests do not have.
    monkeypatch.setitem(providers.PROVIDERS, "cuda", CPU)
    directory = write_tiny_model(tmp_path, graph_name="onnx/model_quantized.onnx")
    with pytest.warns(UserWarning, match="variant='int8' on 'cuda': most of its nodes run on the CPU") as seen:
        model = Embedder(directory, device="cuda")
    assert seen[0].filename == __file__
    assert (model.device, model.variant) == ("cuda", "int8")


def test_nodes_are_counted_by_the_provider_that_ran_them(tmp_path: Path) -> None:
    graph = write_tiny_model(tmp_path) / "onnx" / "model.onnx"
    inputs: dict[str, Any] = tokens.pad_batch([[2, 4, 3]])._asdict()
    counted = providers.count_nodes(str(graph), "cpu", inputs)
    assert set(counted) == {CPU}
    assert 1 <= counted[CPU] <= 2  # a Gather, and an Identity that onnxruntime may take away
    assert json.dumps(counted)
    assert not list(Path.cwd().glob("*profile*.json"))
