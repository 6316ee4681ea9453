"""For the reference: what only running the code would tell of Embedder.

`encode = names.encode` in its body is an attribute to a reader of the source. Here it becomes a method with the
function's parameters, but for the first, and with its docstring. A default that is a constant shows its value.
"""

from copy import copy
from typing import Any

import griffe


class TakenMethods(griffe.Extension):
    """Runs once the package is read whole, so that the functions are known wherever they are."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        if pkg.path == "gte_sdk":
            embedder = pkg["embedding.embedder.Embedder"]
            for name, member in list(embedder.members.items()):
                if member.is_attribute and isinstance(member.value, griffe.ExprAttribute):
                    embedder.set_member(name, _method(name, loader.modules_collection[_path(member)], embedder))
            for parameter in embedder["__init__"].parameters:
                if str(parameter.default).isupper():
                    parameter.default = embedder.module[str(parameter.default)].value


def _path(attribute: griffe.Attribute) -> str:
    module, _, name = str(attribute.value).partition(".")
    return f"{attribute.module.resolve(module)}.{name}"


def _method(name: str, taken: griffe.Object, owner: griffe.Class) -> griffe.Object:
    if taken.is_attribute:  # property(getter, setter)
        getter = taken.module[str(taken.value.arguments[0])]
        member = griffe.Attribute(name, lineno=getter.lineno, endlineno=getter.endlineno, annotation=getter.returns)
        member.labels |= {"property", "writable"}
        taken = getter
    else:
        parameters = griffe.Parameters(*list(taken.parameters)[1:])
        member = griffe.Function(
            name, lineno=taken.lineno, endlineno=taken.endlineno, parameters=parameters, returns=taken.returns
        )
        member.labels |= taken.labels
    member.docstring = copy(taken.docstring)
    member.parent = owner
    if member.docstring is not None:
        member.docstring.parent = member
    return member
