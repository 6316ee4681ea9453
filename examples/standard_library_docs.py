"""Writes the documentation of the Python standard library as Markdown, from what every Python carries inside itself.

    python examples/standard_library_docs.py OUTPUT_DIR

One file for each of MODULES with the docstrings of its public functions, classes and methods, and one for each topic of
the language reference that `help()` knows. It gives `gte search` something real to read with no download.
"""

import argparse
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

# What programs use most: embedding it takes two cores half a minute. No module here does anything when imported.
MODULES = """
    abc argparse array asyncio atexit base64 bisect builtins bz2 calendar collections collections.abc
    concurrent.futures configparser contextlib contextvars copy csv dataclasses datetime decimal difflib enum
    filecmp fnmatch fractions functools gc glob gzip hashlib heapq hmac html html.parser http.client importlib io
    ipaddress itertools json logging lzma math multiprocessing operator os os.path pathlib pickle pprint queue
    random re sched secrets shelve shlex shutil signal socket sqlite3 stat statistics string struct subprocess sys
    tarfile tempfile textwrap threading time timeit types typing unicodedata urllib.parse urllib.request uuid
    weakref xml.etree.ElementTree zipfile zlib
""".split()  # noqa: SIM905 (a hundred quoted names are harder to read)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the standard library's documentation as Markdown.")
    parser.add_argument("output_dir", type=Path)
    output_dir: Path = parser.parse_args().output_dir

    (output_dir / "language").mkdir(parents=True, exist_ok=True)
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:  # such as sqlite3 where Python was built without it
            print(f"{name} is left out: {error}")
            continue
        text = "\n\n".join(module_sections(module, name))
        (output_dir / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    for name, text in topics.items():
        # The topics underline their headings, as reStructuredText does.
        (output_dir / "language" / f"{name}.rst").write_text(text, encoding="utf-8")
    print(f"{len(list(output_dir.rglob('*.*')))} files in {output_dir}")


def module_sections(module: types.ModuleType, name: str) -> Iterator[str]:
    """Yields the module, its functions and its classes, each with its docstring under a heading."""
    yield section(1, name, module)
    for member_name, member in public_members(module, getattr(module, "__all__", None)):
        if inspect.isclass(member) or inspect.isroutine(member):
            yield section(2, f"{name}.{member_name}{signature(member)}", member)
            for method_name, method in public_members(member, list(vars(member))) if inspect.isclass(member) else ():
                if inspect.isroutine(method) or isinstance(method, property):
                    yield section(3, f"{name}.{member_name}.{method_name}{signature(method)}", method)


def public_members(owner: Any, names: list[str] | None) -> Iterator[tuple[str, Any]]:
    """The documented members that the owner lists or, for a module without such a list, defines itself; no aliases."""
    for name in names or sorted(vars(owner)):
        member = getattr(owner, name, None)
        at_home = names is not None or getattr(member, "__module__", None) == owner.__name__
        at_home = at_home and getattr(member, "__name__", name) == name  # array.ArrayType is array.array
        if at_home and not name.startswith("_") and getattr(member, "__doc__", None):
            yield name, member


def section(level: int, title: str, documented: Any) -> str:
    text = inspect.cleandoc(documented.__doc__) if isinstance(documented.__doc__, str) else ""
    # What looks like a heading inside a docstring would come between its text and the name that it documents.
    text = re.sub(r"^[=-]{3,}$|^ {0,3}#+", "", text, flags=re.MULTILINE)
    return f"{'#' * level} {title}\n\n{text}".rstrip()


def signature(member: Any) -> str:
    if inspect.isclass(member):
        return ""  # it can be longer than the documentation, and would stand above every method
    try:
        return str(inspect.signature(member))
    except (TypeError, ValueError):  # many built-in functions state none
        return ""


if __name__ == "__main__":
    main()
