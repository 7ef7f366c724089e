"""How the compiled modules are built: in, each ELF object of this checkout; out, what its headers say."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

import edgeblock

MODULES = sorted(Path(edgeblock.__file__).parent.rglob("*.so"))
X86 = platform.machine() == "x86_64"


def readelf(path, *what):
    return subprocess.run(["readelf", "--wide", *what, path], capture_output=True, text=True, check=True).stdout


def test_there_is_one_for_each_source():
    sources = {path.with_suffix("").name for path in Path(edgeblock.__file__).parent.rglob("*.pyx")}
    assert {path.name.partition(".")[0] for path in MODULES} == sources


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name.partition(".")[0])
def test_a_module_is_hardened(path):
    head, segments, dynamic = readelf(path, "-h"), readelf(path, "-l"), readelf(path, "-d")
    assert re.search(r"Type: +DYN", head)                                   # anywhere in memory
    assert "TEXTREL" not in dynamic
    assert "GNU_RELRO" in segments and re.search(r"\(FLAGS_1\).*NOW", dynamic)       # all of it, before it is used
    assert re.search(r"GNU_STACK .* RW ", segments)                         # no code on the stack
    assert not re.search(r"LOAD .* RWE ", segments)
    symbols = readelf(path, "--dyn-syms")
    assert "__stack_chk_fail" in symbols
    if X86:
        assert re.search(r"x86 feature: .*SHSTK", readelf(path, "-n"))
        begins = starts_of(path)
        assert begins and all(code == bytes.fromhex("f30f1efa") for code in begins)     # endbr64


def test_calls_of_the_c_library_are_checked():
    """Where there are any that can be: not every module has one."""
    assert sum("_chk@" in readelf(path, "--dyn-syms").replace("__stack_chk", "") for path in MODULES) > 5


def starts_of(path):
    """The first four bytes of each function that can be called from outside."""
    sections = re.findall(r"\] (\S+) +\S+ +([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) ", readelf(path, "-S"))
    [(at, offset, size)] = [map(lambda word: int(word, 16), rest) for name, *rest in sections if name == ".text"]
    data = path.read_bytes()
    found = re.findall(r"([0-9a-f]+) +\d+ FUNC +GLOBAL +DEFAULT +\d+ \S+", readelf(path, "--dyn-syms"))
    return [data[offset + int(place, 16) - at:][:4] for place in found if at <= int(place, 16) < at + size]
