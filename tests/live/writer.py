"""What somebody does to a rules directory who may write there and nothing else. Run by such an account, with nothing
but Python's own library, as `writer.py DIRECTORY ATTACK [ARGUMENT]`.

In: a directory. Out: files in it that are meant to do harm. Never: anything that needs a right of the daemon's.
"""

import ctypes
import os
import random
import shutil
import sys
import time
from pathlib import Path

RENAME_EXCHANGE = 2
AT_FDCWD = -100
KINDS = ("text", "toml", "bytes", "pipe", "hole", "directory", "link", "out", "socket", "gone")
WORDS = ("a.example", "co.uk", "@@com", "0.0.0.0-255.255.255.255", "::/0", "x..y", "192.0.2.1", "*.b.example",
         "c.example/x/*", "\x1b[2J", "\u202e", "\udcff", "[" * 500, "9" * 5000)
OUT = ("/etc/passwd", "/dev/zero", "/proc/self/mem", "/etc/shadow")
KEYS = ("action = 'drop'", "mandatory = true", "max_shrink = 1", "format = 'csv'", "widest_ipv4 = 0", "a = [",
        "x = 9e999", "max_growth = " + "9" * 5000, "expires = 1979-05-27", "allow_protected = true", "column = 'x'",
        "category = 'x'")


def exchange(one: Path, other: Path) -> None:
    ctypes.CDLL(None).renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def drop(folder: Path, name: str, text: bytes) -> None:
    new = folder / f".{os.getpid()}.new"
    new.write_bytes(text)
    new.rename(folder / name)


def settings(folder: Path) -> None:
    for number, text in enumerate((b"[" * 60_000, b"max_growth = " + b"9" * 5000, b"a=" + b"{a=" * 20_000,
                                   b"widest_ipv4 = 0x" + b"f" * 60_000, b".".join([b"a"] * 30_000) + b"=1")):
        drop(folder, f"bad{number}.toml", text)
        drop(folder, f"bad{number}.list", b"fine.example\n")


def kinds(folder: Path) -> None:
    for number, kind in enumerate(("pipe", "hole", "directory", "out", "link")):
        for name in (f"odd{number}.rejected", f"odd{number}.toml", f"kind{number}.list"):
            make(folder / name, kind, random.Random(number))
        drop(folder, f"odd{number}.list", b"co.uk\n")


def names(folder: Path) -> None:
    for name in (b"a\nb.list", b"\xff\xfe.list", b"\x1b[2Jx.list", "\u202etsil.list".encode(), b"x\nrules loaded.zz",
                 b"\xff.toml", b"\n.toml", b"%s%n.list", b"a" * 246 + b".list"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"co.uk\n")


def many(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"many{number}.list").write_text(f"many{number}.example\n")


def wide(folder: Path) -> None:
    drop(folder, "wide.toml", b"action = 'drop'\n")
    lines = (f"0.0.{number & 255}.{number >> 8}-255.255.{255 - (number & 127)}.254\n" for number in range(15_000))
    drop(folder, "wide.list", "".join(lines).encode())


def slow(folder: Path, count: int) -> None:
    for number in range(count):
        lines = (f"1.{number}.{line & 127}.1-1.{number}.{255 - (line & 63)}.254\n" for line in range(15_000))
        drop(folder, f"slow{number}.list", "".join(lines).encode())


def override(folder: Path) -> None:
    for number, key in enumerate(("allow_public_suffixes = true", "allow_protected = true", "mandatory = true",
                                  "widest_ipv4 = 0", "max_unparsable = 1.0")):
        drop(folder, f"mine{number}.toml", key.encode())
        drop(folder, f"mine{number}.list", b"co.uk\n")


def race(folder: Path, seconds: float, secret: Path) -> None:
    """Exchanges files and links out, all the time."""
    end = time.monotonic() + seconds
    pairs = []
    for number, name in enumerate(("race.list", "race.toml", "race.rejected", "race.list.minisig")):
        link = folder / f".{os.getpid()}.{number}"
        link.symlink_to(secret)
        if not (folder / name).exists():
            drop(folder, name, b"co.uk\n" if name == "race.list" else b"category = 5\n")
        pairs.append((folder / name, link))
    while time.monotonic() < end:
        for one, other in pairs:
            for _ in range(50):
                exchange(one, other)


def flood(folder: Path, seconds: float) -> None:
    """Renames, as many as there can be."""
    end = time.monotonic() + seconds
    one, other = (os.fspath(folder / f"flood{os.getpid()}{side}.list") for side in "ab")
    Path(one).write_text("flood.example\n")
    while time.monotonic() < end:
        for _ in range(500):
            os.rename(one, other)
            os.rename(other, one)


def make(path: Path, kind: str, chance: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if kind == "text":
        path.write_bytes("\n".join(chance.choices(WORDS, k=chance.randrange(40))).encode("utf-8", "surrogateescape"))
    elif kind == "toml":
        path.write_text("\n".join(chance.choices(KEYS, k=chance.randrange(4))))
    elif kind == "bytes":
        path.write_bytes(chance.randbytes(chance.randrange(5000)))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hole":
        with open(path, "wb") as file:
            file.truncate(6 << 40 if chance.random() < 0.5 else 3 << 20)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("link", "out"):
        path.symlink_to("nowhere" if kind == "link" else chance.choice(OUT))


def chaos(folder: Path, seconds: float, seed: int) -> None:
    """Random bytes, settings, kinds of files and renames."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    endings = (".list", ".toml", ".rejected", ".list.minisig", ".csv", ".rpz", ".hosts", ".adblock", ".hashed", ".zz",
               ".txt")
    names = [stem + ending for stem in "pqrs" for ending in endings]
    while time.monotonic() < end:
        path = folder / chance.choice(names)
        try:
            if chance.random() < 0.3:
                exchange(path, folder / chance.choice(names))
            elif chance.random() < 0.2:
                path.rename(folder / chance.choice(names))
            else:
                make(path, chance.choice(KINDS), chance)
        except OSError:
            continue


if __name__ == "__main__":
    os.umask(0o027)
    words = sys.argv[3:]
    attacks = {"settings": settings, "kinds": kinds, "names": names, "wide": wide, "override": override}
    attack = attacks.get(sys.argv[2])
    if attack is not None:
        attack(Path(sys.argv[1]))
    elif sys.argv[2] == "many":
        many(Path(sys.argv[1]), int(words[0]))
    elif sys.argv[2] == "slow":
        slow(Path(sys.argv[1]), int(words[0]))
    elif sys.argv[2] == "flood":
        flood(Path(sys.argv[1]), float(words[0]))
    elif sys.argv[2] == "race":
        race(Path(sys.argv[1]), float(words[0]), Path(words[1]))
    else:
        chaos(Path(sys.argv[1]), float(words[0]), int(words[1]))
