"""The last lines of `make test`, over reports that pytest itself writes."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("skipped.py")
TESTS = {
    "test_some.py": (
        "import pytest\n"
        "def test_runs(): pass\n"
        "@pytest.mark.skipif(True, reason='no Chromium is installed')\n"
        "@pytest.mark.parametrize('number', [1, 2])\n"
        "def test_left_out(number): pass\n"
        "def test_inside(): pytest.skip('no fork here')\n"
        "@pytest.mark.xfail\n"
        "def test_known(): assert False\n"
    ),
    "test_module.py": "import pytest\npytest.importorskip('no_such_package', reason='no_such_package is missing')\n",
    "test_whole.py": "def test_runs(): pass\n",
}


def summary_of(folder: Path, *modules: str) -> str:
    reports = []
    for module in modules:
        (folder / module).write_text(TESTS[module], encoding="utf-8")
        reports.append(folder / f"{module}.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
        subprocess.run(
            [*command, "--rootdir", folder, "--junit-xml", reports[-1], folder / module],
            check=False,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
    command = [sys.executable, str(PROGRAM), *map(str, reports)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_skipped_tests_are_gathered_by_reason(tmp_path: Path) -> None:
    assert summary_of(tmp_path, "test_some.py", "test_module.py") == (
        "skipped: 4 tests\n"
        "  2 in test_some: no Chromium is installed\n"
        "  1 in test_some: no fork here\n"
        "  1 in test_module: no_such_package is missing\n"
    )


def test_where_nothing_was_skipped_it_says_so(tmp_path: Path) -> None:
    assert summary_of(tmp_path, "test_whole.py") == "skipped: 0 tests\n"
