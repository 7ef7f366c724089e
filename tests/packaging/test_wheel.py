"""The wheel by itself: built from this checkout, installed where nothing else of it is, and used."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# A build compiles the whole core, and this machine may be busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.alone]      # it compiles in the checkout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel in it. What it depends on comes from the environment of the tests."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, ROOT], check=True,
                   capture_output=True)
    [wheel] = place.glob("edgeblock-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "new"], check=True)
    subprocess.run([*pip, "--python", place / "new" / "bin" / "python", "install", "--no-deps", wheel], check=True,
                   capture_output=True)
    [site] = (place / "new").glob("lib/python*/site-packages")
    [here] = {path for path in sys.path if path.endswith("site-packages") and Path(path, "netfilterqueue").is_dir()}
    (site / "others.pth").write_text(f"{here}\n")
    return place / "new" / "bin", site / "edgeblock"


def run(installed, *words, cwd):
    return subprocess.run([installed[0] / "edgeblock", *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_it_is_the_wheel_that_runs(installed, tmp_path):
    done = subprocess.run([installed[0] / "python", "-c", "import edgeblock.core.engine as it; print(it.__file__)"],
                          cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(installed[1])


def test_commands_work(installed, tmp_path):
    assert "COMMAND" in run(installed, "--help", cwd=tmp_path).stdout
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "court.list").write_text("listed.example\n")
    settings = tmp_path / "edgeblock.toml"
    settings.write_text('[rules]\ndirectory = "rules"\nkey = "key"\n')
    for name, status in (("www.listed.example", 1), ("open.example", 0)):
        done = run(installed, "check", "--config", settings, name, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        assert not done.stderr or status == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith(
            "edgeblock: note: the log of this box shows other rule ids")        # there is no key yet
    assert run(installed, "lint", "--config", settings, "rules", cwd=tmp_path).returncode == 0
    for backend in ("nft", "iptables"):
        assert "tcp_syn" in run(installed, "ruleset", "print", "--backend", backend, cwd=tmp_path).stdout


def test_everything_that_is_no_code_is_in_it(installed):
    """Every file of the package but sources that are compiled, and what the compiler makes of them."""
    def names(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
                and path.suffix not in (".pyx", ".c", ".so", ".pyc")}
    tracked = subprocess.run(["git", "ls-files", "edgeblock"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name.removeprefix("edgeblock/") for name in tracked.stdout.split() if not name.endswith((".pyx", ".c"))}
    assert wanted | {"netfilter/stage1/program.o"} <= names(installed[1]), wanted - names(installed[1])
