"""The map of docs/architecture.md has a row for each file and folder of the package, and names none that is gone."""

import re
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# What belongs to a module of the same name, or says only what its folder is.
BESIDE = (".py", ".pyx", ".pxd", ".pyi")
MIRRORED = {"blocklist", "commands", "core", "daemon", "disguises", "enforce", "netfilter", "source"}


def tracked() -> list[PurePosixPath]:
    """The files that git has, or would have; they must be there."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    return [PurePosixPath(line) for line in listed.splitlines() if (ROOT / line).exists()]


def mapped() -> list[str]:
    """The rows: files with their folder in front, a module without its suffix."""
    found = []
    for section in PAGE.split("## The map\n")[1].split("\n### ")[1:]:
        heading = section.split("\n", 1)[0]
        folder = heading if heading.endswith("/") else ""
        found += [folder + name for name in re.findall(r"^\| `([^`]+)` \| \S.*\|$", section, re.MULTILINE)]
    return found


def there() -> set[str]:
    package, folders = set(), set()
    for path in tracked():
        if path.parts[0] == "edgeblock":
            name = path.with_suffix("") if path.suffix in BESIDE else path
            if name.name != "__init__":
                package.add(name.as_posix())
        else:
            inner = path.parts[1] if path.parts[0] == "tests" and len(path.parts) > 2 else None
            if len(path.parts) > 1:
                folders.add(f"{path.parts[0]}/")
            if inner and inner not in MIRRORED:
                folders.add(f"tests/{inner}/")
    return package | folders


def test_each_row_stands_once():
    rows = mapped()
    assert len(rows) > 100 and len(rows) == len(set(rows))


def test_every_file_and_folder_has_a_row():
    assert sorted(there() - set(mapped())) == []


def test_every_row_is_there():
    assert sorted(set(mapped()) - there()) == []


def test_modules_that_are_declarations_alone_are_named():
    files = {path for path in tracked() if path.parts[0] == "edgeblock"}
    alone = {path.relative_to("edgeblock").with_suffix("").as_posix() for path in files
             if path.suffix == ".pxd" and path.stem != "__init__" and path.with_suffix(".pyx") not in files}
    said = PAGE.split("A `.pxd` alone")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+/\w+)`", said)) == alone


def test_a_folder_of_tests_mirrors_one_of_the_package():
    assert all((ROOT / "edgeblock" / name).is_dir() for name in MIRRORED)
