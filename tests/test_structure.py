"""What tests/structure.py is for, it finds: made-up trees that are right, then each with one thing wrong."""

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from .structure import circles, crowded_folders, long_files, tracked_files, wrong_imports, wrong_includes

PYTHON = {
    "shop/__init__.py": "from shop.till.sale import sell\n",
    "shop/errors.py": "import os\n",
    "shop/stock/__init__.py": "",
    "shop/stock/shelf.py": "from shop.errors import Empty\nfrom . import box\n",
    "shop/stock/box.py": "",
    "shop/till/__init__.py": "",
    "shop/till/sale.py": "import shop.stock.shelf\nfrom ..errors import Empty\nfrom shop.stock import box\n",
    "shop/door.py": "from shop import sell, till\n",
}
MAY_IMPORT = {
    "errors": set[str](),
    "stock": {"errors"},
    "till": {"errors", "stock"},
    "shop": {"till"},
    "door": {"shop", "till"},
}
CPP = {
    "src/engine/engine.cpp": '#include "engine/engine.hpp"\n#include "parts/bolt.hpp"\n#include <vector>\n',
    "src/engine/engine.hpp": "",
    "src/parts/bolt.hpp": "",
    "src/parts/small/nut.hpp": "",
}
MAY_INCLUDE = {"engine": {"parts"}, "parts": set[str](), "parts/small": set[str]()}


def write_tree(root: Path, contents: dict[str, str]) -> list[PurePosixPath]:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return [PurePosixPath(name) for name in contents]


def test_a_tree_that_follows_its_table(tmp_path: Path) -> None:
    assert wrong_imports(tmp_path, write_tree(tmp_path, PYTHON), "shop", MAY_IMPORT) == []
    assert wrong_includes(tmp_path, write_tree(tmp_path, CPP), "src", MAY_INCLUDE) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("shop/stock/shelf.py", "import shop.till.sale\n", "shop/stock/shelf.py:1: stock imports till"),
        ("shop/stock/shelf.py", "from shop.till import sale\n", "shop/stock/shelf.py:1: stock imports till"),
        ("shop/stock/shelf.py", "from shop import till\n", "shop/stock/shelf.py:1: stock imports till"),
        ("shop/stock/shelf.py", "from shop import sell\n", "shop/stock/shelf.py:1: stock imports shop"),
        ("shop/stock/shelf.py", "import shop\n", "shop/stock/shelf.py:1: stock imports shop"),
        ("shop/stock/shelf.py", "from ..till.sale import sell\n", "shop/stock/shelf.py:1: stock imports till"),
        ("shop/stock/shelf.py", "from .. import till\n", "shop/stock/shelf.py:1: stock imports till"),
        ("shop/stock/shelf.py", "def f():\n    import shop.till\n", "shop/stock/shelf.py:2: stock imports till"),
        (
            "shop/stock/shelf.py",
            "if TYPE_CHECKING:\n    import shop.till\n",
            "shop/stock/shelf.py:2: stock imports till",
        ),
        ("shop/stock/deep/nail.py", "import shop.till\n", "shop/stock/deep/nail.py:1: stock imports till"),
        ("shop/errors.py", "from shop.stock.box import Box\n", "shop/errors.py:1: errors imports stock"),
        ("shop/__init__.py", "import shop.door\n", "shop/__init__.py:1: shop imports door"),
        ("shop/cellar/wine.py", "", "shop: the table has no row for cellar"),
        ("shop/cellar.py", "", "shop: the table has no row for cellar"),
    ],
)
def test_one_wrong_import_is_found(tmp_path: Path, name: str, text: str, found: str) -> None:
    files = write_tree(tmp_path, {**PYTHON, name: text})
    assert wrong_imports(tmp_path, files, "shop", MAY_IMPORT) == [found]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("src/parts/bolt.hpp", '#include "engine/engine.hpp"\n', "src/parts/bolt.hpp:1: parts includes engine"),
        ("src/parts/bolt.hpp", '\n  # include "engine/engine.hpp"', "src/parts/bolt.hpp:2: parts includes engine"),
        ("src/parts/bolt.hpp", '#include "parts/small/nut.hpp"\n', "src/parts/bolt.hpp:1: parts includes parts/small"),
        ("src/parts/small/nut.hpp", '#include "parts/bolt.hpp"',
         "src/parts/small/nut.hpp:1: parts/small includes parts"),
        ("src/parts/bolt.hpp", '#include "../engine/engine.hpp"',
         'src/parts/bolt.hpp:1: "../engine/engine.hpp" is not a path below src/'),
        ("src/parts/bolt.hpp", '#include "engine.hpp"', 'src/parts/bolt.hpp:1: "engine.hpp" is not a path below src/'),
        ("src/wheels/wheel.hpp", "", "src: the table has no row for wheels"),
    ],
)  # fmt: skip
def test_one_wrong_include_is_found(tmp_path: Path, name: str, text: str, found: str) -> None:
    files = write_tree(tmp_path, {**CPP, name: text})
    assert wrong_includes(tmp_path, files, "src", MAY_INCLUDE) == [found]


def test_a_row_without_files_is_found(tmp_path: Path) -> None:
    assert wrong_imports(tmp_path, write_tree(tmp_path, PYTHON), "shop", {**MAY_IMPORT, "attic": set()}) == [
        "shop: attic has a row and no files"
    ]
    assert wrong_includes(tmp_path, write_tree(tmp_path, CPP), "src", {**MAY_INCLUDE, "attic": set()}) == [
        "src: attic has a row and no files"
    ]


def test_a_circle_in_a_table_is_found() -> None:
    assert circles(MAY_IMPORT) == []
    assert circles({**MAY_IMPORT, "errors": {"till"}}) == ["errors", "stock", "till"]


def test_crowded_folders_and_long_files_are_found(tmp_path: Path) -> None:
    files = write_tree(tmp_path, PYTHON)
    assert crowded_folders(files, {"shop": 5}, 3) == []
    assert crowded_folders(files, {"shop": 4}, 2) == [
        "shop has 5 entries, at most 4",
        "shop/stock has 3 entries, at most 2",
    ]
    assert crowded_folders(files, {"shop": None}, 3) == []
    assert long_files(tmp_path, files, 3) == []
    assert long_files(tmp_path, files, 2) == ["shop/till/sale.py has 3 lines, at most 2"]


def test_a_file_that_is_not_committed_yet_counts_and_an_ignored_one_does_not(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    write_tree(tmp_path, {**PYTHON, ".gitignore": "*.so\n", "shop/built.so": ""})
    assert tracked_files(tmp_path) == sorted([PurePosixPath(".gitignore"), *map(PurePosixPath, PYTHON)])
