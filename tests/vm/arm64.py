"""The core for arm64, cross-compiled on this machine and tested under qemu's emulation of one program, in two roots
of Debian 12: one that compiles, and one of arm64 that is only unpacked. A part of releases.py.

In: this checkout as committed, the locks, an index of packages. Out: a line for each step; AssertionError at the
first that fails. No binfmt_misc is needed: the emulator is called by its name, so a test that starts a program of
arm64 would fail; none of those that run here does. Times are the emulator's: tests of them are left out, and
hypothesis tries few examples.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from roots import ROOT, Root, said, sources

SUITE, PYTHON = "bookworm", "3.11"
COMPILING = ("git,build-essential,clang,python3-venv,python3-dev,gcc-aarch64-linux-gnu,qemu-user-static,"
             "libc6-dev:arm64,libpython3-dev:arm64,libssl-dev:arm64,libsodium-dev:arm64,libnetfilter-queue-dev:arm64,"
             "libmnl-dev:arm64,libnfnetlink-dev:arm64")
RUNNING = "python3,libssl3,libsodium23,libnetfilter-queue1,libmnl0,libseccomp2,ca-certificates"
TESTS = ("tests/core", "tests/enforce")
FROM_SOURCE = ("netfilterqueue", "pyseccomp")       # the index has no wheel of them for arm64
# Wheels for the other machine, of this Python or of any.
FOREIGN = " ".join(["--only-binary :all: --no-deps --implementation cp --python-version", PYTHON,
                    *(f"--abi {abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")),
                    *(f"--platform manylinux{end}_aarch64" for end in ("2014", "_2_17", "_2_28", "_2_34"))])
# Debian's Python has what was said when it was built for arm64: the compiler's name, and that of what it makes.
CROSS = "_PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu _PYTHON_HOST_PLATFORM=linux-aarch64"
# Root cannot be nobody again, and the tests of root ask for a lab.
START = ("import os, runpy, sys; os.chdir('/srv/edgeblock'); os.setgid(65534); os.setuid(65534); "
         "sys.argv = ['pytest', *sys.argv[1:]]; runpy.run_module('pytest', run_name='__main__')")


def tested(folder: Path) -> None:
    since = time.monotonic()

    compiling = Root(SUITE, folder, "--architectures=amd64,arm64", f"--include={COMPILING}", name="compiling")
    running = folder / "running"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", f"--include={RUNNING}",
                    SUITE, running, sources(SUITE, folder)], check=True)
    said("arm64", since, "two roots")
    compile_core(compiling)
    for made in ("edgeblock", "site"):
        shutil.copytree(compiling.path / "srv" / made, running / "srv" / made, symlinks=True,
                        ignore=shutil.ignore_patterns(".venv", ".git"))
    shutil.copy(compiling.path / "usr/bin/qemu-aarch64-static", running / "usr/bin")
    subprocess.run(["chown", "-R", "nobody", running / "srv"], check=True)
    for name in ("dev", "proc", "tmp"):         # which nothing in it has made
        (running / name).mkdir(exist_ok=True)
    (running / "tmp").chmod(0o1777)
    objects = list((running / "srv/edgeblock/edgeblock").rglob("*.so"))
    kinds = {path.read_bytes()[18:20] for path in objects}
    assert kinds == {b"\xb7\0"}, f"machines of the objects: {kinds}"        # EM_AARCH64 of elf.h
    said("arm64", since, f"{len(objects)} objects cross-compiled")
    text = emulated(running, "-m", "not live and not alone", "-k", "not test_cost_is_linear", *TESTS)
    said("arm64", since, text.strip().splitlines()[-1])


def compile_core(root: Root) -> None:
    """Packages of Python and our modules for arm64, in the root that is of this machine."""
    subprocess.run(["git", "clone", "--quiet", ROOT, root.path / "srv/edgeblock"], check=True)
    locks = root.path / "srv/edgeblock/packaging/locks"
    for name in ("core", "test"):
        parts = re.split(r"(?m)^(?=[a-z])", (locks / f"{name}.txt").read_text())
        for kind, chosen in (("wheels", False), ("source", True)):
            text = "".join(part for part in parts if part.startswith(FROM_SOURCE) is chosen)
            (root.path / f"srv/{name}.{kind}").write_text(text)
    pip = ".venv/bin/python -m pip --quiet --quiet --disable-pip-version-check"
    root.run("cd /srv/edgeblock && python3 -m venv .venv && "
             f"{pip} install --require-hashes --only-binary :all: -r packaging/locks/build.txt && "
             f"{pip} install --require-hashes {FOREIGN} --target /srv/site -r /srv/core.wheels && "
             f"{pip} install --require-hashes {FOREIGN} --target /srv/site --upgrade -r /srv/test.wheels && "
             f"env {CROSS} {pip} wheel --require-hashes --no-build-isolation --no-deps -w /srv/made "
             "-r /srv/core.source && "
             "for one in /srv/made/*.whl; do .venv/bin/python -m zipfile -e $one /srv/site; done && "
             # What our modules are compiled against of another's is text, the same for every machine.
             "for one in /srv/made/netfilterqueue*.whl; do .venv/bin/python -m zipfile -e $one /srv/beside; done && "
             f"env PYTHONPATH=/srv/beside {CROSS} .venv/bin/python setup.py --quiet build_ext --inplace")


def emulated(root: Path, *words: str) -> str:
    """What pytest says there; AssertionError with its last lines where it fails."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LC_ALL": "C.UTF-8", "HYPOTHESIS_PROFILE": "few",
                   "PYTHONPATH": "/srv/site:/srv/edgeblock", "PYTHONDONTWRITEBYTECODE": "1"}
    inside = (f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
              f"exec chroot {root} /usr/bin/qemu-aarch64-static /usr/bin/python{PYTHON} \"$@\"")
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", inside, "sh", "-c", START, "-q",
                           "--timeout=1200", "-p", "no:cacheprovider", *words],
                          env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"arm64: {' '.join(words)}\n{(done.stdout + done.stderr)[-3000:]}"
    return done.stdout
