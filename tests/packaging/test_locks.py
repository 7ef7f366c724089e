"""What may be installed, and what the package says that it has: in, packaging/locks and packaging/sbom.py."""

import configparser
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
LOCKS = ROOT / "packaging" / "locks"
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
GROUPS = {name: words.split() for name, words in SETTINGS["options.extras_require"].items()} | {
    "core": SETTINGS["options"]["install_requires"].split()}
GROUPS["build"] = [word for word in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
                   if word not in GROUPS["core"]]


@pytest.fixture(scope="module")
def sbom():
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "packaging" / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("group", GROUPS)
def test_a_lock_has_all_that_is_asked_for_by_hash(sbom, group):
    text = (LOCKS / f"{group}.txt").read_text()
    locked = sbom.locked(text)
    assert sum(map(len, locked.values())) == len(re.findall(r"(?m)^[a-z]\S*==", text))
    assert all(hashes for versions in locked.values() for hashes in versions.values())
    for wanted in map(Requirement, GROUPS[group]):
        versions = locked[sbom.normal(wanted.name)]
        assert all(map(wanted.specifier.contains, versions)), f"{wanted}: packaging/lock {wanted.name}"


def test_all_locks_have_one_version_of_each_and_name_no_place(sbom):
    seen = {}
    for path in LOCKS.iterdir():
        assert "://" not in path.read_text()
        for name, versions in sbom.locked(path.read_text()).items():
            assert seen.setdefault(name, {*versions}) == {*versions}, name
    assert {path.stem for path in LOCKS.iterdir()} == GROUPS.keys()


def site_of(folder, locked):
    for name, versions in locked.items():
        [version] = versions
        place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n")


def test_the_bill_has_every_part_with_its_version_and_hashes(sbom, tmp_path):
    text = (LOCKS / "core.txt").read_text()
    locked = sbom.locked(text)
    site_of(tmp_path, locked)
    depends = "python3 (>= 3.11), python3 (<< 3.12), nftables | x, libmnl0"
    made = sbom.bill(text, tmp_path, "1.2", 1_700_000_000, depends)
    assert made == sbom.bill(text, tmp_path, "1.2", 1_700_000_000, "python3, libmnl0, nftables")
    json.dumps(made)
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.5", 1)
    parts = {part["purl"]: part for part in made["components"]}
    assert len(parts) == len(locked) + 3 and "pkg:deb/debian/libmnl0" in parts
    for name, versions in locked.items():
        [(version, hashes)] = versions.items()
        part = parts[f"pkg:pypi/{name}@{version}"]
        assert part["licenses"] == [{"license": {"name": "MIT"}}]
        assert [one["hashes"][0]["content"] for one in part["externalReferences"]] == hashes
    assert {*made["dependencies"][0]["dependsOn"]} == parts.keys()
    (tmp_path / "mdurl-0.0.9.dist-info").mkdir()
    (tmp_path / "mdurl-0.0.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mdurl\nVersion: 0.0.9\n")
    with pytest.raises(SystemExit, match=r"mdurl 0\.0\.9 is installed, and the lock has"):
        sbom.bill(text, tmp_path, "1.2", 0, "")
