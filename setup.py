"""The extension modules; everything else is in setup.cfg.

EDGEBLOCK_COVERAGE=1 builds them with line tracing for coverage; EDGEBLOCK_SANITIZE=1 with AddressSanitizer.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

COVERAGE = os.environ.get("EDGEBLOCK_COVERAGE") == "1"
SANITIZE = os.environ.get("EDGEBLOCK_SANITIZE") == "1"

# The C compiler's warnings about our own code are errors. The exceptions are what Cython itself emits.
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-function",
            "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
FLAGS = ["-O3", "-fno-strict-aliasing", *WARNINGS]
if SANITIZE:
    FLAGS += ["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]

# What a module links with, by its path below edgeblock/.
LIBRARIES = {
    "core/engine": ["sodium"],
    "core/flow": ["sodium"],
    "core/quic": ["crypto"],
    "blocklist/matcher": ["sodium"],
    "blocklist/fingerprint": ["sodium"],
    "source/nfqueue": ["netfilter_queue", "nfnetlink", "mnl"],
}


def extensions():
    for path in sorted(Path("edgeblock").rglob("*.pyx")):
        part = path.with_suffix("").relative_to("edgeblock").as_posix()
        yield Extension(
            f"edgeblock.{part.replace('/', '.')}",
            [path.as_posix()],
            libraries=LIBRARIES.get(part, []),
            extra_compile_args=FLAGS,
            extra_link_args=["-fsanitize=address"] if SANITIZE else [],
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else [],
        )


setup(
    ext_modules=cythonize(
        list(extensions()),
        compiler_directives={
            "language_level": 3,
            "boundscheck": True,
            "wraparound": False,
            "cdivision": True,
            "linetrace": COVERAGE,
            "embedsignature": True,
        },
    )
)
