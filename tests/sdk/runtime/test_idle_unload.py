"""What runs a model is dropped after a time without calls and comes back, under threads, after fork and close."""

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gte_sdk import Embedder, InputError
from gte_sdk.runtime import idle_unload
from gte_sdk.runtime.idle_unload import Loaded
from gte_sdk.runtime.native import engine as native
from gte_sdk.runtime.onnxruntime import graph as session

from ..run_python import run_python


class Runner:
    """Something that can be told to be gone."""


class Loads:
    """Counts them, and keeps no runner alive."""

    def __init__(self) -> None:
        self.runners: list[weakref.ref[Runner]] = []

    def __call__(self) -> Runner:
        runner = Runner()
        self.runners.append(weakref.ref(runner))
        return runner

    @property
    def alive(self) -> int:
        return sum(runner() is not None for runner in self.runners)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def timer_count() -> int:
    return sum(isinstance(thread, threading.Timer) for thread in threading.enumerate())


# --- the mechanism


def test_it_is_loaded_at_once_dropped_when_idle_and_back_at_the_next_call() -> None:
    loads = Loads()
    loaded = Loaded(loads, 0.05, survives_fork=True)
    assert len(loads.runners) == 1
    wait_until(lambda: loads.alive == 0)
    with loaded.use() as runner:
        assert len(loads.runners) == 2
        time.sleep(0.15)  # longer than unload_after, inside a call
        assert loads.alive == 1
    del runner
    wait_until(lambda: loads.alive == 0)
    wait_until(lambda: timer_count() == 0)


def test_calls_that_follow_each_other_keep_it_and_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    timers: list[threading.Timer] = []
    start = threading.Timer.start

    def ring(timer: threading.Timer) -> None:
        timer.interval = 0
        start(timer)
        timer.join()

    monkeypatch.setattr(idle_unload, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timers.append(timer))
    loads = Loads()
    loaded = Loaded(loads, 3.0, survives_fork=True)
    for _ in range(100):
        now += 0.02
        with loaded.use():
            pass
    assert [timer.interval for timer in timers] == [3.0]  # no call started another
    now = 3.0
    ring(timers[0])  # too early, so it sets one more for what is left
    assert loads.alive == 1
    assert timers[1].interval == pytest.approx(2.0)
    assert len(timers) == 2
    now = 5.0 + 1e-6
    ring(timers[1])
    assert (loads.alive, len(loads.runners), len(timers)) == (0, 1, 2)


def test_without_a_time_nothing_is_dropped_and_no_timer_runs() -> None:
    loads = Loads()
    loaded = Loaded(loads, None, survives_fork=True)
    with loaded.use():
        pass
    assert timer_count() == 0
    assert loads.alive == 1
    loaded.drop()
    assert loads.alive == 0


def test_dropping_lets_calls_that_run_end() -> None:
    loads = Loads()
    loaded = Loaded(loads, None, survives_fork=True)
    with loaded.use() as runner:
        loaded.drop()
        assert loads.alive == 1
    del runner
    assert loads.alive == 0


def test_who_forgets_it_leaves_nothing_behind() -> None:
    loads = Loads()
    Loaded(loads, 3600.0, survives_fork=True)
    assert loads.alive == 0
    wait_until(lambda: timer_count() == 0)


def test_sixty_four_threads_around_the_moment_of_unloading() -> None:
    loads = Loads()
    loaded = Loaded(loads, 0.002, survives_fork=True)
    wrong: list[str] = []

    def work(index: int) -> None:
        for turn in range(40):
            with loaded.use() as runner:
                if runner is None or loads.alive == 0:
                    wrong.append(f"thread {index} turn {turn} had nothing")
            time.sleep(0.002 * (turn % 4))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    wait_until(lambda: loads.alive == 0)


# --- an Embedder


@pytest.mark.parametrize(("engine", "module", "opener"), [
    ("native", native, "load_encoder"), ("onnxruntime", session, "open_graph"),
])  # fmt: skip
def test_an_idle_embedder_is_unloaded_and_gives_the_same_vectors(
    monkeypatch: pytest.MonkeyPatch, engine: str, module: Any, opener: str
) -> None:
    open_really = getattr(module, opener)
    opened: list[weakref.ref[Any]] = []

    def counted(*arguments: Any) -> Any:
        result = open_really(*arguments)
        opened.append(weakref.ref(result.encoder if engine == "native" else result.session))
        return result

    monkeypatch.setattr(module, opener, counted)
    texts = ["red", "a longer text of some words", ""]
    model = Embedder("gte-mini", engine=engine, unload_after=0.3)
    before = model.embed(texts)
    for _ in range(2):
        wait_until(lambda: opened[-1]() is None)
        count = len(opened)
        np.testing.assert_array_equal(model.embed(texts), before)
        assert len(opened) == count + 1
    model.close()
    assert opened[-1]() is None
    wait_until(lambda: timer_count() == 0)
    with pytest.raises(InputError, match="this Embedder is closed"):
        model.embed("red")


def test_threads_that_call_an_unloaded_embedder_get_equal_vectors() -> None:
    texts = [f"text {index} of several words" for index in range(64)]
    model = Embedder("gte-mini", unload_after=0.02)
    expected = model.embed(texts)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(3):
            if not (model.embed(texts[index]) == expected[index]).all():
                wrong.append(index)
            time.sleep(0.1)  # all of them at once, so that it is unloaded between the turns

    threads = [threading.Thread(target=work, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    model.close()


def test_a_file_that_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    import shutil

    from gte_sdk import ModelFormatError
    from gte_sdk.model_files.directory import bundled_model_path

    directory = Path(shutil.copytree(bundled_model_path("gte-mini"), tmp_path / "model"))
    model = Embedder(directory, unload_after=0.05)
    graph = directory / "onnx" / "model_quantized.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    wait_until(lambda: timer_count() == 0)
    with pytest.raises(ModelFormatError, match=r"model_quantized\.onnx has \d+ bytes where"):
        model.embed("red")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_a_child_that_is_forked_while_others_call_is_not_stuck(engine: str) -> None:
    program = f"""
import os, threading, time, warnings
import gte_sdk
model = gte_sdk.Embedder(engine={engine!r}, unload_after=0.05)
before = model.embed("a text")
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork with threads
stop = threading.Event()
def call():
    while not stop.wait(0.06):
        model.embed("another text")
threads = [threading.Thread(target=call) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(3):
    child = os.fork()
    if child == 0:
        same = (model.embed("a text") == before).all()
        time.sleep(0.15)  # unloaded in the child, too
        same &= (model.embed("a text") == before).all()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert (model.embed("a text") == before).all()
"""
    assert run_python(program) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_waits_for_what_is_being_loaded() -> None:
    program = """
import os, threading, time, warnings
from gte_sdk.runtime.idle_unload import Loaded
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork with threads
begun, loading = threading.Event(), False
def load():
    global loading
    loading = True
    begun.set()
    time.sleep(0.3)
    loading = False
    return object()
thread = threading.Thread(target=Loaded, args=(load, None, False))
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    Loaded(object, None, False)
    os._exit(int(loading))
assert os.waitpid(child, 0)[1] == 0
thread.join()
"""
    assert run_python(program) == ""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_unloading_gives_memory_back() -> None:
    program = """
import threading, time
from pathlib import Path
import gte_sdk
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
may_unload = threading.Event()
def run(timer):
    may_unload.wait()
    timer.function(*timer.args, **timer.kwargs)
threading.Timer.run = run
model = gte_sdk.Embedder(unload_after=0.01, threads=1)
given_back = []
for _ in range(3):
    may_unload.clear()
    model.embed(["a text"] * 10)
    held = megabytes()
    may_unload.set()
    while any(isinstance(thread, threading.Timer) for thread in threading.enumerate()):
        time.sleep(0.02)
    given_back.append(held - megabytes())
print(min(given_back))
"""
    assert float(run_python(program)) > 15  # of the 22 MB that the weights take


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "unload_after=0; it must be above 0"),
        (-1.0, "unload_after=-1.0"),
        (float("nan"), "unload_after=nan"),
        (float("inf"), "unload_after=inf"),
        ("10", "unload_after='10' is a str"),
        (True, "unload_after=True is a bool"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Embedder("gte-mini", unload_after=value)
    assert message in str(caught.value)
