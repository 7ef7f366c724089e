"""The extension modules; everything else is in setup.cfg.

EDGEBLOCK_COVERAGE=1 builds them with line tracing for coverage; EDGEBLOCK_SANITIZE=1 with AddressSanitizer.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COVERAGE = os.environ.get("EDGEBLOCK_COVERAGE") == "1"
SANITIZE = os.environ.get("EDGEBLOCK_SANITIZE") == "1"

# The C compiler's warnings about our own code are errors. The exceptions are what Cython itself emits.
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-function",
            "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
FLAGS = ["-O3", "-fno-strict-aliasing", *WARNINGS]
if SANITIZE:
    FLAGS += ["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]

# Tables of international names, compiled in: what is on the wire needs no library.
TABLES = Path("edgeblock/blocklist/international_tables.h")
if not TABLES.exists() or TABLES.stat().st_mtime < TABLES.with_suffix(".py").stat().st_mtime:
    subprocess.run([sys.executable, TABLES.with_suffix(".py"), TABLES], check=True)

# The first stage is bytecode for the kernel, the same for every machine; without clang there is none (and all works).
STAGE1 = Path("edgeblock/netfilter/stage1/program.c")
STAGE1_FLAGS = ["-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]

# What is compiled with the structures that the first stage's programs share.
SHARING = ("netfilter/stage1/structures", "source/recall", "source/marking", "source/nfqueue")
HEADERS = dict.fromkeys(SHARING, STAGE1.with_name("structures.h")) | {"blocklist/international": TABLES}

# What a module links with, by its path below edgeblock/.
LIBRARIES = {
    "core/connections": ["sodium"],
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
            include_dirs=[STAGE1.parent.as_posix()],
            depends=[HEADERS[part].as_posix()] if part in HEADERS else [],
            libraries=LIBRARIES.get(part, []),
            extra_compile_args=FLAGS,
            extra_link_args=["-fsanitize=address"] if SANITIZE else [],
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else [],
        )


class Build(build_ext):
    """The extension modules, as many at a time as there are processors, and the first stage."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        super().run()
        clang = next(filter(None, map(shutil.which, ("clang", "clang-14", "clang-16", "clang-19"))), None)
        if clang is None:
            self.warn("no clang: built without the first stage (package clang)")
            return
        # <asm/types.h> is in a folder of the machine's own.
        include = [f"-I{folder}" for folder in Path("/usr/include").glob("*-linux-gnu")]
        target = STAGE1.with_suffix(".o")
        subprocess.run([clang, *STAGE1_FLAGS, *include, "-c", STAGE1, "-o", target], check=True)
        if not self.inplace:
            built = Path(self.build_lib, target)
            built.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, built)


setup(
    cmdclass={"build_ext": Build},
    ext_modules=cythonize(
        list(extensions()),
        nthreads=os.cpu_count(),
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
