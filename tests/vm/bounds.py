"""The lowest and the newest versions of every Python package that setup.cfg and pyproject.toml ask for: the core is
built with them, and the tests that need no network run. `make test-bounds`: a quarter of an hour each, and an index
of packages.

In: this checkout as committed. Out: a line for each step; status 1 at the first that fails. Nothing of this checkout
is changed, and the locks are not asked: they have one version of each between the two.
"""

import configparser
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TESTS = ("tests/core", "tests/blocklist", "tests/enforce", "tests/source", "tests/commands", "tests/packaging",
         "tests/daemon/test_metrics.py", "tests/daemon/test_monitoring.py", "tests/test_config.py",
         "tests/test_cli.py", "tests/test_wire.py", "tests/test_engine.py")


def wanted() -> list[str]:
    """Everything that is asked for to build, to run and to test."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    needed, tested = settings["options"]["install_requires"], settings["options.extras_require"]["test"]
    return [*needed.split(), *tested.split(), *build]


def run(*command: object, place: Path, **environment: str) -> str:
    """What a command says; SystemExit with its last lines where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=place, env={**os.environ, **environment},
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def attempt(name: str, folder: Path) -> None:
    since = time.monotonic()

    def said(what: str) -> None:
        print(f"{name:9} {time.monotonic() - since:6.0f} s  {what}", flush=True)

    place, tools = folder / name, folder / "tools"
    python = place / ".venv/bin/python"
    run("git", "clone", "--quiet", ROOT, place, place=folder)
    run(sys.executable, "-m", "venv", place / ".venv", place=folder)
    asked = folder / f"{name}.in"
    asked.write_text("\n".join(wanted()) + "\n")
    uv = tools / "bin/uv"
    run(uv, "pip", "compile", "--quiet", "--resolution", RESOLUTIONS[name], asked, "-o", folder / f"{name}.txt",
        place=folder)
    # What builds the others is there first: they are built with these versions, and not with what they ask for.
    run(uv, "pip", "install", "--quiet", "--python", python, "-r", folder / f"{name}.txt", place=place)
    versions = run(uv, "pip", "freeze", "--python", python, place=place).split()
    direct = {word.partition(">")[0].partition("=")[0].lower().replace("_", "-") for word in wanted()}
    said(" ".join(one for one in versions if one.partition("==")[0].lower().replace("_", "-") in direct))
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
        "-e", ".", place=place)
    said("built")
    tested = run(python, "-m", "pytest", "-q", "-m", "not live and not alone", *TESTS, place=place)
    said(tested.strip().splitlines()[-1])


def main(names: list[str]) -> None:
    if unknown := set(names) - RESOLUTIONS.keys():
        raise SystemExit(f"tests/vm/bounds.py: {', '.join(unknown)}: choose of {', '.join(RESOLUTIONS)}")
    with tempfile.TemporaryDirectory(prefix="edgeblock-bounds-") as made:
        folder = Path(made)
        folder.chmod(0o755)         # some tests become nobody
        run(sys.executable, "-m", "venv", folder / "tools", place=folder)
        run(folder / "tools/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv",
            place=folder)
        for name in names or RESOLUTIONS:
            attempt(name, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
