"""The stubs say what the compiled modules show Python: no name more, none less, and the same parameters.

In: each module as it was compiled, its source and its stub. Out: the names that stand on one side only. Types are
mypy's to check, which reads the stubs where Python code uses them.
"""

import ast
import importlib
import inspect
import re
from enum import EnumType
from pathlib import Path
from types import ModuleType

import pytest

import edgeblock

PACKAGE = Path(edgeblock.__file__).parent
IMPORTS = re.compile(r"^(?:from [\w.]+ import (\((?:[^)]|\n)+\)|.+)|import (.+))", re.MULTILINE)


def module_of(source: Path) -> ModuleType:
    return importlib.import_module(".".join(("edgeblock", *source.relative_to(PACKAGE).with_suffix("").parts)))


def members(names) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def public(source: Path) -> set[str]:
    """What the module shows Python and has not imported itself."""
    bound = {name.split(" as ")[-1].strip("() \n") for first, second in IMPORTS.findall(source.read_text())
             for name in re.sub(r"#.*", "", first or second).split(",")}
    return members(vars(module_of(source))) - bound


def shown(kind: type) -> set[str]:
    """Methods, properties, attributes, fields or members of a class of a compiled module."""
    if isinstance(kind, EnumType):
        return set(kind.__members__)
    return members(vars(kind))


def stated(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a stub, or a class in one, defines, by name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            found.update((target.id, node) for target in node.targets if isinstance(target, ast.Name))
    return found


def stated_parameters(node: ast.FunctionDef) -> list[str]:
    asked = node.args
    return [one.arg for one in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs)]


def constructor_parameters(source: Path, name: str) -> list[str] | None:
    """Those of __init__ or __cinit__ as the source writes them, which the compiled class cannot tell."""
    text = source.read_text().split(f"cdef class {name}", 1)[-1]
    text = re.split(r"^cdef class ", text, maxsplit=1, flags=re.MULTILINE)[0]
    every = re.findall(r"    def __c?init__\((.*?)\)(?: -> \w+)?:\n", text, re.DOTALL)
    words = [re.sub(r"\s+not None\b|=.*", "", one, flags=re.DOTALL).split()[-1]
             for one in re.split(r",(?![^(]*\))", max(every, key=len, default="")) if one.strip()]
    return [word for word in words if word != "*"] or None


SOURCES = sorted(PACKAGE.rglob("*.pyx"))
WITH_STUB = [source for source in SOURCES if public(source)]


def label(source: Path) -> str:
    return source.relative_to(PACKAGE).with_suffix("").as_posix()


def test_a_compiled_module_has_a_stub_when_it_shows_python_something():
    stubs = {path.with_suffix(".pyx") for path in PACKAGE.rglob("*.pyi")}
    assert {label(source) for source in stubs} == {label(source) for source in WITH_STUB}


@pytest.mark.parametrize("source", WITH_STUB, ids=label)
def test_the_stub_names_what_there_is(source: Path):
    module = module_of(source)
    named = stated(ast.parse(source.with_suffix(".pyi").read_text()).body)
    assert members(named) == public(source)
    for name, node in named.items():
        made = getattr(module, name, None)
        if isinstance(node, ast.ClassDef):
            assert members(stated(node.body)) == shown(made), name


@pytest.mark.parametrize("source", WITH_STUB, ids=label)
def test_the_stub_gives_the_parameters(source: Path):
    module = module_of(source)
    for name, node in stated(ast.parse(source.with_suffix(".pyi").read_text()).body).items():
        if isinstance(node, ast.FunctionDef):
            assert stated_parameters(node) == list(inspect.signature(getattr(module, name)).parameters), name
        elif isinstance(node, ast.ClassDef):
            for method, inner in stated(node.body).items():
                if not isinstance(inner, ast.FunctionDef):
                    continue
                made = getattr(getattr(module, name), method, None)
                if method == "__init__":
                    assert stated_parameters(inner) == constructor_parameters(source, name), name
                elif inspect.isroutine(made) and not method.startswith("__"):
                    assert stated_parameters(inner) == list(inspect.signature(made).parameters), (name, method)
