"""_kernels.pyi says what the compiled extension has: its names, its arguments and their defaults."""

import ast
from pathlib import Path

import pytest

from gte_sdk import _kernels

STUB = ast.parse(Path(_kernels.__file__).with_name("_kernels.pyi").read_text(encoding="utf-8"))


def signature(function: ast.FunctionDef) -> list[tuple[str, object]]:
    """Each argument with its default, `...` where it has none."""
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.literal_eval(value) for value in function.args.defaults]
    return list(zip(names, [...] * (len(names) - len(defaults)) + defaults, strict=True))


def stub_functions() -> dict[str, list[tuple[str, object]]]:
    functions = {node.name: signature(node) for node in STUB.body if isinstance(node, ast.FunctionDef)}
    for node in STUB.body:
        if isinstance(node, ast.ClassDef):
            methods = (method for method in node.body if isinstance(method, ast.FunctionDef))
            functions |= {f"{node.name}.{method.name}": signature(method) for method in methods}
    return functions


def compiled_signature(name: str) -> list[tuple[str, object]]:
    """As the first line of the docstring that pybind11 writes says."""
    found: object = _kernels
    for part in name.split("."):
        found = getattr(found, part)
    assert found.__doc__ is not None
    (function,) = ast.parse(f"def {found.__doc__.splitlines()[0]}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return signature(function)


def test_the_names_are_those_of_the_extension() -> None:
    functions = stub_functions()
    values = {
        node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    classes = {node.name for node in STUB.body if isinstance(node, ast.ClassDef)}
    assert {name for name in vars(_kernels) if not name.startswith("_")} == (
        {name for name in functions if "." not in name} | values | classes
    )
    for name in classes:
        methods = {method for method in vars(getattr(_kernels, name)) if not method.startswith("_")} | {"__init__"}
        assert methods == {function.partition(".")[2] for function in functions if function.startswith(f"{name}.")}


@pytest.mark.parametrize("name", list(stub_functions()))
def test_arguments_and_defaults_are_those_of_the_extension(name: str) -> None:
    assert compiled_signature(name) == stub_functions()[name]
