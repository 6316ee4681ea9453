"""Each test runs on the CPU, which shows that it is right, and on the first CUDA device, or says why it does not."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of pairs go to a home of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device of PyTorch, which accelerate chooses as well."""
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(name == "cpu").lower())
    return torch.device(name)
