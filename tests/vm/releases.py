"""The package on other Debians, each in a root of its own: built there, tested there, installed, removed, installed,
upgraded, downgraded, purged, and carried over release upgrades; and the core on arm64, cross-compiled (arm64.py).
`make test-releases` runs it: an hour, and an index of packages. Words choose: suites, `upgrades`, `arm64`.

In: this checkout as committed. Out: a line for each step, status 1 at the first that fails. Nothing of this host is
changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import arm64
from roots import ROOT, Root, said, sources

SUITES = ("bookworm", "trixie", "forky")        # Debian 12, 13 and the next
INTERPRETER = "/usr/lib/edgeblock/bin/python3"
TESTS = "tests/core tests/blocklist tests/enforce tests/source tests/packaging tests/test_config.py tests/test_cli.py"


def life(root: Root, deb: Path) -> None:
    """Installed, upgraded, downgraded, removed, installed, disabled and the same again, purged: the state after
    each."""
    root.install(deb)
    assert root.enabled() == "enabled"
    mine = root.path / "etc/edgeblock/edgeblock.toml"
    mine.write_text(mine.read_text() + "# of this box\n")
    for other in (newer(root, deb), deb):
        root.install(other)
        assert root.enabled() == "enabled" and mine.read_text().endswith("# of this box\n")
    root.run("apt-get remove -y -q edgeblock")
    assert not (root.path / "usr/lib/edgeblock").exists() and (root.path / "etc/edgeblock/edgeblock.toml").exists()
    root.install(deb)
    assert root.enabled() == "enabled"
    root.run("systemctl disable edgeblock && apt-get remove -y -q edgeblock")
    root.install(deb)
    assert root.enabled() == "disabled"
    root.run("apt-get purge -y -q edgeblock && ! getent passwd edgeblock && ! getent group edgeblock-lists")
    assert not list(root.path.glob("etc/**/*edgeblock*"))


def newer(root: Root, deb: Path) -> Path:
    """The same package with a higher version."""
    shutil.copy(deb, root.path / "root/old.deb")
    root.run("cd /root && rm -rf tree && dpkg-deb -R old.deb tree && "
             "sed -i 's/^Version: .*/&+later/' tree/DEBIAN/control && dpkg-deb -b tree newer.deb")
    kept = deb.with_suffix(".newer.deb")
    shutil.copy(root.path / "root/newer.deb", kept)
    return kept


def build(root: Root, folder: Path) -> Path:
    """The package as it is made there, and the tests that need no network."""
    # Not below /root: some tests become nobody.
    subprocess.run(["git", "clone", "--quiet", ROOT, root.path / "srv/edgeblock"], check=True)
    root.run("apt-get update -q && apt-get install -y -q --no-install-recommends git make")
    root.run("cd /srv/edgeblock && .ci/setup lab test && packaging/build-deb")
    [made] = (root.path / "srv/edgeblock/build").glob("edgeblock_*.deb")
    kept = folder / f"{root.suite}.deb"
    shutil.copy(made, kept)
    return kept


def one_suite(suite: str, folder: Path) -> None:
    since = time.monotonic()
    root = Root(suite, folder)
    deb = build(root, folder)
    said(suite, since, "built there")
    tested = root.run("cd /srv/edgeblock && "
                      f".venv/bin/python -m pytest -q -m 'not live and not alone' {TESTS}")
    said(suite, since, f"{root.run('python3 --version').strip()}: {tested.strip().splitlines()[-1]}")
    life(root, deb)
    said(suite, since, "installed, upgraded, downgraded, removed, installed, disabled, purged")
    shutil.rmtree(root.path)


def upgrades(debs: list[str], folder: Path) -> None:
    """One box from the first release to the last, with the package that was built for the first."""
    since = time.monotonic()
    first = debs[0]
    root = Root(first, folder, name="box")
    root.install(folder / f"{first}.deb")
    for old, new in zip(debs, debs[1:], strict=False):
        for one in root.path.glob("etc/apt/sources.list*"):
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        (root.path / "etc/apt/sources.list.d").mkdir()
        shutil.copy(sources(new, folder), root.path / "etc/apt/sources.list.d/debian.sources")
        root.run("apt-get update -q && apt-get dist-upgrade -y -q && apt-get autoremove -y -q")
        assert root.run("edgeblock --version").startswith("edgeblock ") and root.enabled() == "enabled"
        said(new, since, f"upgraded from {old}: the package of {first} is still there and runs")
    before = root.run(f"{INTERPRETER} --version")
    root.install(folder / f"{debs[-1]}.deb")
    after = root.run(f"{INTERPRETER} --version")
    assert root.enabled() == "enabled" and after != before
    said(debs[-1], since, f"the package of {debs[-1]} over it: {after.strip()} in place of {before.strip()}")


def main(words: list[str]) -> None:
    if os.geteuid() != 0:
        raise SystemExit("tests/vm/releases.py: needs root to make root file systems: run it with sudo")
    if unknown := set(words) - {*SUITES, "upgrades", "arm64"}:
        raise SystemExit(f"tests/vm/releases.py: {', '.join(unknown)}: "
                         f"choose of {', '.join(SUITES)}, upgrades, arm64")
    suites = [suite for suite in SUITES if suite in words] if words else list(SUITES)
    with tempfile.TemporaryDirectory(prefix="edgeblock-releases-") as place:
        folder = Path(place)
        folder.chmod(0o755)
        for suite in suites:
            one_suite(suite, folder)
        if "upgrades" in words and not suites:      # the first and the last package, without the tests
            suites = list(SUITES)
            for suite in (suites[0], suites[-1]):
                root = Root(suite, folder)
                build(root, folder)
                shutil.rmtree(root.path)
        if len(suites) > 1:
            upgrades(suites, folder)
        if not words or "arm64" in words:
            arm64.tested(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
