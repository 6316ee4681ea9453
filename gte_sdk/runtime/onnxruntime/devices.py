"""Which ONNX Runtime is installed, which devices it offers, what really runs on them, and why a device does not start.

onnxruntime and onnxruntime-gpu write the same files. If both are installed, the one installed last wins, and
uninstalling either breaks the other. pip does not prevent that, so the errors here give the command that repairs it.
"""

import contextlib
import ctypes
import io
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from gte_sdk.errors import DeviceError, InputError

DEVICES = ("auto", "cpu", "cuda")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_ONE_GPU_PACKAGE = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu"


def import_onnxruntime() -> Any:
    """The module, with its telemetry off. Raises DeviceError with the command that installs or repairs it."""
    try:
        import onnxruntime
    except ImportError as error:
        if installed_distributions():
            raise DeviceError(f"onnxruntime cannot be imported: {error}; install it again") from error
        raise DeviceError(
            "this model runs on ONNX Runtime, which is not installed: pip install onnxruntime, "
            "or onnxruntime-gpu for CUDA"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # The rest of one package, after the other package with the same files was uninstalled.
        raise DeviceError(
            f"onnxruntime is installed in part ({', '.join(installed_distributions()) or 'no package'} is recorded): "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime, or onnxruntime-gpu for CUDA"
        )
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def installed_distributions() -> list[str]:
    """The installed packages that contain the module onnxruntime, found without importing it."""
    from importlib import metadata  # a third of what `import gte_sdk` would take

    found = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            found.append(name)
    return found


def package_conflict() -> str | None:
    """What is wrong with the installed packages, with the command that repairs it; None if nothing is wrong."""
    found = installed_distributions()
    if len(found) < 2:
        return None
    return f"{' and '.join(found)} are both installed and overwrite each other's files: {_ONE_GPU_PACKAGE}"


def choose_device(device: str) -> str:
    """The device for "auto", or a named device once it is checked.

    Raises InputError for an unknown name, and DeviceError if onnxruntime does not offer the device.
    """
    if device not in DEVICES:
        raise InputError(f"device={device!r}; one of {DEVICES} is supported")
    onnxruntime = import_onnxruntime()
    offered = onnxruntime.get_available_providers()
    if device == "auto":
        if PROVIDERS["cuda"] in offered:
            return "cuda"
        if conflict := package_conflict():
            warnings.warn(f"CUDA is off: {conflict}", stacklevel=5)
        return "cpu"
    if PROVIDERS[device] not in offered:
        raise DeviceError(
            f"device={device!r} needs {PROVIDERS[device]}, and the installed onnxruntime {onnxruntime.__version__} "
            f"offers only {offered}; " + (package_conflict() or f"replace it with onnxruntime-gpu: {_ONE_GPU_PACKAGE}")
        )
    return device


def find_cuda_libraries() -> None:
    """Lets onnxruntime find CUDA and cuDNN in the installed nvidia-* packages, if they are nowhere else."""
    onnxruntime = import_onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; why_not_started says it
            onnxruntime.preload_dlls()


def why_not_started(device: str, started: list[str]) -> str:
    """Why a session for `device` runs on the providers `started` instead.

    Call it only after the session was opened: if the provider's library is loaded before, onnxruntime cannot use it.
    """
    reason = "the driver or the device itself is missing"
    folder = Path(import_onnxruntime().__file__).parent / "capi"
    for library in (*folder.glob("libonnxruntime_providers_cuda.so"), *folder.glob("onnxruntime_providers_cuda.dll")):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            reason = str(error)
    return (
        f"device={device!r}: {PROVIDERS[device]} did not start, onnxruntime fell back to {started}: {reason}; "
        "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the CUDA and cuDNN libraries, or pass device='cpu'"
    )


def count_nodes(source: str | bytes, device: str, inputs: dict[str, Any]) -> dict[str, int]:
    """How many nodes of a graph each provider ran, from onnxruntime's profile of one run on `device`."""
    onnxruntime = import_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="gte-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(source, options, providers=[PROVIDERS[device]])
        names = {node.name for node in session.get_inputs()}
        session.run(None, {name: array for name, array in inputs.items() if name in names})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return dict(
        Counter(
            event["args"]["provider"]
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        )
    )
