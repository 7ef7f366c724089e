"""The extension modules; everything else is in setup.cfg.

EDGEBLOCK_COVERAGE=1 builds them with line tracing for coverage; EDGEBLOCK_SANITIZE=1 with AddressSanitizer.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

COVERAGE = os.environ.get("EDGEBLOCK_COVERAGE") == "1"
SANITIZE = os.environ.get("EDGEBLOCK_SANITIZE") == "1"

# The C compiler's warnings about our own code are errors. The exceptions are what Cython itself emits.
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-function",
            "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
FLAGS = ["-O3", "-fno-strict-aliasing", *WARNINGS]

# What makes a fault in compiled code harder to use, each where the compiler has it (docs/decisions.md): compiling,
# linking. CET's shadow stack has to be asked for by the linker as well: Debian's start files do not say that they
# have it, although they return from nothing that they were not called by.
HARDENING = [
    (["-fstack-protector-strong"], []),
    (["-fstack-clash-protection"], []),
    (["-fcf-protection=full"], ["-Wl,-z,shstk"]),                   # x86
    (["-mbranch-protection=standard"], []),                         # ARM
    ([], ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]),
    ([f"-ffile-prefix-map={Path.cwd()}=."], []),                    # the same bytes wherever the sources lie
]
FORTIFY = [(["-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={level}"], []) for level in (3, 2)]
PROBE = "#include <string.h>\nint probe(char *to, const char *from) { strcpy(to, from); return 0; }\n"
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
    "core/sketch": ["sodium"],
    "core/tally": ["m"],
    "enforce/seal": ["crypto"],
    "blocklist/commitments": ["sodium"],
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
            depends=["setup.py", *([HEADERS[part].as_posix()] if part in HEADERS else [])],
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

    def build_extensions(self):
        flags, link = self.hardening()
        for extension in self.extensions:
            extension.extra_compile_args = [*extension.extra_compile_args, *flags]
            extension.extra_link_args = [*extension.extra_link_args, *link]
        super().build_extensions()

    def hardening(self):
        flags, link = [], []
        # AddressSanitizer has checks of its own in place of those of the C library.
        fortify = [] if SANITIZE else [next(filter(self.has, FORTIFY), ([], []))]
        for compiling, linking in [*filter(self.has, HARDENING), *fortify]:
            flags += compiling
            link += linking
        return flags, link

    def has(self, flags):
        """Whether compiler and linker take these."""
        with tempfile.TemporaryDirectory() as place:
            source = Path(place, "probe.c")
            source.write_text(PROBE)
            try:
                made = self.compiler.compile([source.as_posix()], output_dir="/",
                                             extra_postargs=["-O2", "-Werror", *flags[0]])
                self.compiler.link_shared_object(made, Path(place, "probe.so").as_posix(), extra_postargs=flags[1])
            except (CompileError, LinkError):
                return False
        return True

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
