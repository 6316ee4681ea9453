"""`gte serve` as a process: what it says, how it stops, what it bears, and what its documents promise."""

import concurrent.futures
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from gte_sdk import Embedder
from gte_sdk.cli.serve import name_of

from .servers import gte_serve, listens

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")


def requests_read(url: str) -> int:
    """How many requests for embeddings the server has read, answered or not, while there are none but these."""
    metrics = httpx.get(f"{url}/metrics").text
    answered = re.findall(r'^gte_requests_total{route="/v1/embeddings",.*} (\d+)$', metrics, re.MULTILINE)
    in_progress = re.findall(r"^gte_requests_in_progress (\d+)$", metrics, re.MULTILINE)
    return sum(map(int, answered)) + int(in_progress[0]) - 1  # the one for the metrics


# `gte serve` whose model waits for a file.
HELD = """
import sys, time
from pathlib import Path
from gte_sdk import Embedder
from gte_sdk.cli import main
embed_tokens, gate = Embedder.embed_tokens, Path(sys.argv.pop(1))
def held(self, ids):
    while not gate.exists():
        time.sleep(0.01)
    return embed_tokens(self, ids)
Embedder.embed_tokens = held
main()
"""


@posix_only
def test_sigterm_answers_what_was_accepted(embedder: Embedder, tmp_path: Path) -> None:
    """Ten requests are being worked on, or wait, when the signal comes."""
    texts = [f"word {number} " * 40 for number in range(20)]
    gate = tmp_path / "gate"
    server_of = gte_serve(program=["-c", HELD, str(gate)])
    with server_of as server, concurrent.futures.ThreadPoolExecutor(10) as pool:
        body = {"model": "gte-mini", "input": texts, "encoding_format": "float"}
        answers = [pool.submit(httpx.post, f"{server.url}/v1/embeddings", json=body, timeout=120) for _ in range(10)]
        deadline = time.monotonic() + 300
        while requests_read(server.url) < 10:
            assert time.monotonic() < deadline  # a request that came after the signal would be refused, and rightly
        server.process.send_signal(signal.SIGTERM)
        while listens(server.url):
            assert time.monotonic() < deadline
        assert not any(answer.done() for answer in answers)
        gate.touch()
        expected = embedder.embed(texts)
        for answer in answers:
            content = answer.result(120).json()
            np.testing.assert_array_equal(
                np.array([item["embedding"] for item in content["data"]], np.float32), expected
            )
        assert server.process.wait(60) == 0


@posix_only
def test_control_c_ends_an_idle_server_with_130() -> None:
    with gte_serve() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts how often a process woke, which Linux tells")
def test_an_idle_server_sleeps() -> None:
    with gte_serve() as server:
        assert "date" in httpx.get(f"{server.url}/health").headers  # and the connection is closed

        def wakes() -> int:
            tasks = Path(f"/proc/{server.process.pid}/task").glob("*/status")
            counts = (re.search(r"^voluntary_ctxt_switches:\s*(\d+)", task.read_text(), re.MULTILINE) for task in tasks)
            return sum(int(count[1]) for count in counts if count)

        time.sleep(1)
        before = wakes()
        time.sleep(2)
        assert wakes() - before < 5  # a look for signals ten times a second would be 20


def test_a_model_directory_gives_its_name_and_its_prompts(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    spec = importlib.util.spec_from_file_location(
        "tiny_models", Path(__file__).parent.parent / "sdk" / "tiny_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    tiny_models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_models)
    path = tiny_models.write_tiny_model(tmp_path / "tiny", prompts={"query": "query : "})
    with gte_serve("--model", str(path), "--alias", "other") as server:
        assert [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]] == ["tiny", "other"]
        for kind, text in (("query", "query : red"), ("document", "red"), (None, "red")):
            body = {"model": "other", "input": "red", "input_type": kind}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body).json()
            vector = np.array(answer["data"][0]["embedding"])
            np.testing.assert_allclose(vector, tiny_models.tiny_vector(text), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("gte-mini", "gte-mini"),
        ("thenlper/gte-small", "thenlper/gte-small"),
        ("secret-place/tiny", "tiny"),
        ("secret-place/tiny/", "tiny"),
        ("secret-place/link", "tiny"),
        ("secret-place/tiny/../tiny", "tiny"),
        (".", "here"),
        ("secret-place/app.gte", "app"),
    ],
)
def test_the_path_of_the_model_is_not_its_name(
    given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "secret-place" / "tiny").mkdir(parents=True)
    (tmp_path / "here" / "secret-place" / "link").symlink_to("tiny")
    (tmp_path / "here" / "secret-place" / "app.gte").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert name_of(given) == name


def test_nothing_that_is_published_has_the_path_of_the_model(tmp_path: Path) -> None:
    bundle = tmp_path / "secret-place" / "app.gte"
    bundle.parent.mkdir()
    subprocess.run([sys.executable, "-m", "gte_sdk.cli", "bundle", "gte-nano", str(bundle)], check=True, timeout=300)
    with gte_serve("--model", str(bundle)) as server:
        for path in (
            "/health",
            "/v1/models",
            "/metrics",
            "/openapi.json",
            "/",
            "/page.js",
            "/v1/models/else",
            "/nowhere",
        ):
            assert "secret-place" not in httpx.get(f"{server.url}{path}").text
        for body in ({"model": "app", "input": "red"}, {"model": "else", "input": "red"}, {}):
            assert "secret-place" not in httpx.post(f"{server.url}/v1/embeddings", json=body).text


def test_the_key_comes_from_a_file_or_the_environment_and_an_open_host_without_one_warns(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("from-a-file\nnot this\n", encoding="utf-8")
    for arguments, variables, key in (
        (["--api-key-file", str(key_file)], {"GTE_API_KEY": "ignored"}, "from-a-file"),
        ([], {"GTE_API_KEY": "from-the-environment"}, "from-the-environment"),
    ):
        with gte_serve(*arguments, environment=variables) as server:
            assert httpx.get(f"{server.url}/v1/models").status_code == 401
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
    empty = tmp_path / "empty"
    empty.touch()
    result = serve_fails("--api-key-file", str(empty))
    assert "the API key is empty" in result.stderr
    for endless in (Path("/dev/zero"), tmp_path / "long"):
        (tmp_path / "long").write_text("a" * 5000, encoding="ascii")
        assert f"the first line of {endless} has more than" in serve_fails("--api-key-file", str(endless)).stderr


def test_an_address_that_is_taken_or_is_none() -> None:
    with gte_serve() as server:
        result = serve_fails("--port", str(server.port))
        assert f"cannot listen at 127.0.0.1 port {server.port}" in result.stderr
    assert "cannot listen at 192.0.2.1" in serve_fails("--host", "192.0.2.1").stderr


@linux_only
def test_a_host_that_is_open_to_others_warns_without_a_key() -> None:
    command = [sys.executable, "-m", "gte_sdk.cli", "serve", "--port", "0", "--host", "0.0.0.0"]
    variables = {name: value for name, value in os.environ.items() if name != "GTE_API_KEY"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == (
                "gte: warning: 0.0.0.0 is open to other machines and no API key is set (GTE_API_KEY)\n"
            )
        finally:
            process.kill()


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = None; from gte_sdk.cli import main; sys.argv[1:] = ['serve']; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (1, "Error: gte serve needs starlette: pip install 'gte-sdk[serve]'\n")


@linux_only
def test_concurrent_clients_get_their_own_vectors_and_memory_stays(embedder: Embedder) -> None:
    """40 clients, four times: no error, each gets its own vector, memory is flat."""
    texts = [f"text number {number} of a client" for number in range(40)]
    expected = embedder.embed(texts)
    with gte_serve() as server:
        failures: list[str] = []
        resident: list[int] = []

        def client(number: int) -> None:
            with httpx.Client(timeout=120, verify=False) as connection:  # no certificates: 40 times they take a second
                body = {"model": "gte-mini", "input": texts[number]}
                for _ in range(25):
                    answer = connection.post(f"{server.url}/v1/embeddings", json=body)
                    vector = np.array(answer.json()["data"][0]["embedding"], np.float32)
                    if answer.status_code != 200 or not np.array_equal(vector, expected[number]):
                        failures.append(answer.text[:200])

        for _ in range(4):
            threads = [threading.Thread(target=client, args=(number,)) for number in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
            resident.append(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))))
        assert failures == []
        # What a request leaves behind would grow in each round; what comes once does not.
        assert min(later - earlier for earlier, later in itertools.pairwise(resident)) < 4_000  # KiB
        metrics = httpx.get(f"{server.url}/metrics").text
        (embedded,) = re.findall(r"^gte_texts_total (\d+)", metrics, flags=re.MULTILINE)
        (answered,) = re.findall(r'^gte_requests_total{route="/v1/embeddings",status="200"} (\d+)', metrics, flags=re.M)
        assert answered == embedded


def test_the_openapi_document_holds(url: str) -> None:
    """Schemathesis sends what the document allows, and what it does not, and finds no answer that it does not name."""
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed")
    program = Path(sys.executable).parent / "st"
    command = [
        str(program),
        "run",
        f"{url}/openapi.json",
        "-n",
        "5",
        "--checks",
        "all",
        "--phases",
        "fuzzing,coverage",
        "--generation-deterministic",
        "--request-timeout",
        "60",
        "--suppress-health-check",
        "too_slow",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout[-3000:]


def test_the_document_names_the_limits(url: str, embedder: Embedder) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    request = document["components"]["schemas"]["EmbeddingsRequest"]["properties"]
    assert request["input"]["anyOf"][1]["maxItems"] == 2048
    assert request["dimensions"]["enum"] == [*embedder.dims, None]
    assert request["model"]["enum"] == ["gte-mini", "text-embedding-3-small"]


def test_metrics_are_prometheus_text(url: str) -> None:
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for line in answer.text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+({([a-z]+="[^"]*",?)+})? [0-9.e+-]+', line), line
    assert re.search(r'gte_info{model="gte-mini",fingerprint="[^"]+",version="[^"]+"} 1', answer.text)


def serve_fails(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gte_sdk.cli", "serve", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result
