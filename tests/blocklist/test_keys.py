"""The key: once in the memory of a process whatever it does, in a page that is never written to a disk."""

import mmap
import os
import subprocess
import sys

import pytest

from edgeblock.blocklist.keys import KEY_SIZE, ROOM, held, hold, key_file, random_key
from edgeblock.blocklist.store import read_key
from edgeblock.errors import ListError
from tests.memory import flags_of, places_of

# All that is done with a key: lists hashed, written, opened, asked, handed on. Then it waits to be looked at.
WORK = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from edgeblock.blocklist.compiler import Compiler, merge
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.guard import Guard, shipped_protected
from edgeblock.blocklist.keys import held, key_file, key_id
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.store import Store, open_file, read_key
from edgeblock.config import Rules
home = Path(sys.argv[1])
rules = Rules(directory=home / "rules", key=home / "state" / "key")
handed = key_file()
key = read_key(rules.key, create=True, file=handed if sys.argv[2] == "handed" else -1)
beside = ThreadPoolExecutor(1)          # its stack is not written over by what comes after
if sys.argv[2] == "beside":             # before anybody has asked for such a sum
    beside.submit(key_id, key).result()
store = Store(rules.key.parent, key)
refresh(rules, store, time.time())
matcher = ListMatcher(beside.submit(open_file, store.snapshot, key).result())
assert matcher.look_up("tls", b"listed.example").list == "court"
assert Guard(ListSettings(), shipped_protected(), key).known_prints
print(len(key_id(key)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "court.list").write_text("listed.example\nother.example/page\n192.0.2.7\n")
    return tmp_path


@pytest.mark.parametrize("how", ["read", "handed", "beside"])
def test_a_key_is_once_in_a_process_and_never_on_a_disk(home, how):
    with subprocess.Popen([sys.executable, "-c", WORK, home, how], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"8\n"
        key = (home / "state" / "key").read_bytes()
        [place] = places_of(process.pid, key)
        assert {"lo", "dd"} <= flags_of(process.pid, place)         # locked, not dumped
        assert not places_of(process.pid, key.hex().encode())
        process.stdin.close()
    assert process.returncode == 0


def test_a_key_is_handed_on_as_a_file_that_nobody_changes():
    file = key_file()
    with pytest.raises(ValueError):
        held(file)                                  # there is none in it yet
    key = random_key(file)
    assert len(key) == KEY_SIZE and held(file) == key and key.readonly and any(key)
    assert random_key() != random_key()
    for change in (lambda: os.pwrite(file, b"x", 0), lambda: os.ftruncate(file, 5),
                   lambda: mmap.mmap(file, ROOM, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)):
        with pytest.raises(PermissionError):
            change()
    os.close(file)


def test_what_can_be_changed_is_no_key():
    file = key_file()
    os.write(file, bytes(ROOM))
    with pytest.raises(ValueError, match="there is no key in the file"):
        held(file)
    with pytest.raises(ValueError, match="a key is 16 bytes"):
        hold(lambda room: 15)
    os.close(file)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601])
def test_a_key_that_others_may_read_is_refused(home, mode):
    path = home / "key"
    path.write_bytes(bytes(16))
    path.chmod(mode)
    with pytest.raises(ListError, match=rf"may be read by others \(mode 0{mode:o}\); chmod 600 "):
        read_key(path)
    path.chmod(0o600)
    assert read_key(path) == bytes(16)
    for size in (0, 15, 17):
        path.write_bytes(bytes(size))
        with pytest.raises(ListError, match="is no key of 16 bytes"):
            read_key(path)
    os.remove(path)
    os.mkfifo(path, 0o600)
    with pytest.raises(ListError):
        read_key(path)                              # and does not wait
