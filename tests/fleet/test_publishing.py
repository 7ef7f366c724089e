"""`edgeblock publish`: what it writes, what it refuses to, and that nothing can interrupt it badly."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time

import pytest

from edgeblock.cli import main
from edgeblock.commands import publish as command
from edgeblock.fleet.releases import TableError, owner_name, read_held, read_table
from edgeblock.fleet.signing import KeyProblem, open_key, read_public

from .repositories import DAY, Box, Place, serving


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()
    made.init()
    made.write("ads.list", "ads.example")
    return made


def everything(folder):
    """A digest of every file beneath a folder, by name."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def told(place, capsys):
    """What `status` says."""
    capsys.readouterr()
    assert place.run("status", place.site, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_new_repository_says_which_keys_go_into_the_safe(tmp_path, monkeypatch, capsys):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.init("--threshold", 2)
    said = capsys.readouterr().out
    safe = [line for line in said.splitlines() if line.startswith("into the safe (NOT encrypted; 2 of ")]
    assert len(safe) == 2 and "root-3.key" in safe[0] and "targets-2.key" in safe[1]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made.keys.glob("*.key"))
    assert made.run("init", made.site) == 2
    assert "is a repository already" in capsys.readouterr().err


def test_offline_keys_are_encrypted_where_there_is_a_passphrase(tmp_path, monkeypatch, capsys):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    made.init("--passphrase-file", secret)
    assert "into the safe (encrypted; 1 of 2 sign)" in capsys.readouterr().out
    assert b"ENCRYPTED" in (made.keys / "targets.key").read_bytes()
    assert b"ENCRYPTED" not in (made.keys / "timestamp.key").read_bytes()
    made.write("ads.list", "ads.example")
    assert made.publish() == 2
    assert "targets.key: is encrypted; give --passphrase-file" in capsys.readouterr().err
    monkeypatch.setenv("EDGEBLOCK_PASSPHRASE_FILE", str(secret))
    assert made.publish() == 0
    assert made.run("refresh", made.site) == 0
    secret.write_text("wrong\n")
    made.write("ads.list", "other.example")
    assert made.publish() == 2
    assert "the passphrase is another" in capsys.readouterr().err


def test_keys_are_never_beneath_what_is_served_and_never_for_others_to_read(place, capsys):
    assert place.run("refresh", place.site, "--keys", place.site / "keys") == 2
    assert "which everybody can read" in capsys.readouterr().err
    (place.keys / "timestamp.key").chmod(0o640)
    assert place.run("refresh", place.site) == 2
    assert "others may read it" in capsys.readouterr().err


def test_keys_may_be_named_by_the_environment(place, monkeypatch):
    monkeypatch.setenv("EDGEBLOCK_KEYS", str(place.keys))
    assert command.keys_of(place.site, command_line(place)).directory == place.keys


def command_line(place):
    from edgeblock.cli import make_parser

    return make_parser("publish").parse_args(["publish", str(place.site)])


def test_a_file_that_is_no_key_is_named(tmp_path):
    for name, text in (("a.pub", "nothing"), ("b.key", "nothing")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(KeyProblem, match=r"a\.pub: is no public key"):
        read_public(tmp_path / "a.pub")
    with pytest.raises(KeyProblem, match=r"b\.key: cannot be opened"):
        open_key(tmp_path / "b.key", lambda: None)


def test_a_dry_run_says_how_many_entries_come_and_go_and_changes_nothing(place, capsys):
    assert place.publish() == 0
    place.write("ads.list", "new.example", "=other.example", "ads.example/page")
    place.write("phish.list", "phish.example")
    before = everything(place.rules.parent)
    capsys.readouterr()
    assert place.publish("--dry-run") == 0
    said = capsys.readouterr().out
    assert said == "ads: +3 -1, 3 entries\nphish: +1 -0, 1 entries (new)\ndry run: nothing was written\n"
    assert place.publish("--dry-run", "--show") == 0
    assert {"  + new.example", "  + =other.example", "  + ads.example/page", "  - ads.example",
            "  + phish.example"} <= set(capsys.readouterr().out.splitlines())
    for words in (("refresh", place.site), ("hold", place.site, 2), ("rollback", place.site, 2),
                  ("delegate", place.site, "court"), ("rotate", place.site, "timestamp")):
        assert place.run(*words, "--dry-run") == 0, words
    assert everything(place.rules.parent) == before


def test_what_has_not_changed_is_no_release(place, capsys):
    assert place.publish() == 0
    assert place.publish() == 0
    assert "nothing has changed since release 2" in capsys.readouterr().out
    assert [one["version"] for one in told(place, capsys)["releases"]["targets"]] == [2]


def test_what_guard_rails_refuse_is_published_by_force_alone(place, capsys):
    place.write("ads.list", "ads.example", "google.com", "co.uk")
    before = everything(place.site)
    assert place.publish() == 1
    said = capsys.readouterr().err
    assert "ads.list:2: error" in said and "nothing is published" in said
    assert everything(place.site) == before
    assert place.publish("--force") == 0


def test_what_a_box_would_not_land_is_left_out_and_said(place, capsys):
    place.write("README", "about these lists")
    place.write("ads.rejected", "no")
    place.write(".ads.list.swp", "no")
    assert place.publish() == 0
    assert "README: is not published" in capsys.readouterr().err
    assert told(place, capsys)["releases"]["targets"][0]["files"] == ["ads.list"]


def test_versions_never_go_down_whatever_is_done(place, capsys):
    def versions():
        return {role: one["version"] for role, one in told(place, capsys)["roles"].items()}

    assert place.publish() == 0
    place.write("ads.list", "second.example")
    assert place.publish() == 0
    before = versions()
    for words in (("rollback", place.site, 2), ("hold", place.site, 2), ("refresh", place.site),
                  ("rotate", place.site, "targets")):
        assert place.run(*words) == 0, words
        after = versions()
        assert all(after[role] >= version for role, version in before.items())
        assert after["timestamp"] == before["timestamp"] + 1
        before = after
    releases = told(place, capsys)["releases"]["targets"]
    assert [(one["version"], bool(one["withdrawn"]), one["held"]) for one in releases] == [
        (3, True, ""), (2, False, "held")]


def test_nothing_is_withdrawn_that_would_leave_boxes_without_a_release(place, capsys):
    assert place.publish() == 0
    assert place.run("withdraw", place.site, 2) == 2
    assert "no release left to go back to" in capsys.readouterr().err
    place.write("ads.list", "second.example")
    assert place.publish() == 0
    assert place.run("withdraw", place.site, 9) == 2
    assert "9: is no release of targets that is still there; known are 3, 2" in capsys.readouterr().err
    assert place.run("withdraw", place.site, 3) == 0
    assert place.run("rollback", place.site, 3) == 2
    assert "is withdrawn; boxes can go back to 2" in capsys.readouterr().err


def test_old_metadata_and_files_that_nobody_asks_for_go(place, capsys):
    assert place.publish() == 0
    for number in range(30):
        place.write("ads.list", f"number-{number}.example")
        assert place.publish() == 0
        for path in (place.site / "targets").rglob("*"):
            os.utime(path, (time.time() - 2 * DAY,) * 2)
    versions = {int(path.name.split(".")[0]) for path in (place.site / "metadata").glob("*.targets.json")}
    assert versions == set(range(13, 33))
    assert len(list((place.site / "targets").glob("*.ads.list"))) <= 17
    with serving(place.site) as (url, _):
        box = Box(place.rules.parent / "box", url, place.root)
        box.now = time.time()
        box.once()
        assert box.has() == {"ads.list": "number-29.example\n"}


def test_what_is_about_to_expire_is_signed_anew_by_refresh(place, capsys):
    assert place.publish() == 0
    before = told(place, capsys)["roles"]
    place.now += 100 * DAY
    assert place.run("refresh", place.site) == 0
    after = told(place, capsys)["roles"]
    assert all(after[role]["expires"] > before[role]["expires"] for role in before if role != "root")
    assert after["targets"]["version"] == before["targets"]["version"] + 1
    assert [one["version"] for one in told(place, capsys)["releases"]["targets"]] == [2]


def test_keys_of_several_people_sign_one_after_the_other(tmp_path, monkeypatch, capsys):
    """Two of two sign targets, each at home; the online keys are on the server."""
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()
    made.init("--threshold", 2)
    homes = {}
    for name in ("targets-1", "targets-2", "server"):
        homes[name] = tmp_path / name
        homes[name].mkdir()
    for path in list(made.keys.iterdir()):
        home = homes.get(path.stem, homes["server"] if "root" not in path.stem else made.keys)
        (home / path.name).write_bytes(path.read_bytes())
        (home / path.name).chmod(path.stat().st_mode)
    made.write("ads.list", "ads.example")
    with serving(made.site) as (url, _):
        box = Box(tmp_path / "box", url, made.root)
        box.now = time.time()
        assert made.publish("--keys", homes["targets-1"]) == 1
        assert "signatures are missing: targets" in capsys.readouterr().err
        box.once()
        assert box.has() == {}
        assert made.run("refresh", made.site, "--keys", homes["server"]) == 1
        box.once()
        assert box.has() == {}
        assert made.run("sign", made.site, "--keys", homes["targets-2"]) == 1
        assert made.run("sign", made.site, "--keys", homes["server"]) == 0
        box.once()
        assert box.has() == {"ads.list": "ads.example\n"}


def test_an_authority_that_has_its_own_key_publishes_with_that_alone(place, tmp_path, capsys):
    """Its key is made elsewhere; the operator's online keys bring in what it has signed."""
    home = tmp_path / "court-keys"
    home.mkdir()
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", home / "court.key"], check=True)
    subprocess.run(["openssl", "pkey", "-in", home / "court.key", "-pubout", "-out", home / "court.pub"], check=True)
    (home / "court.key").chmod(0o600)
    assert place.publish() == 0
    assert place.run("delegate", place.site, "court", "--public", home / "court.pub") == 0
    rules = tmp_path / "court"
    rules.mkdir()
    (rules / "orders.list").write_text("seized.example\n")
    with serving(place.site) as (url, _):
        box = Box(tmp_path / "box", url, place.root)
        box.now = time.time()
        box.once()
        assert "court" in box.told["problems"]      # delegated, and nothing is there yet
        said = place.run(place.site, "--role", "court", "--from", rules, "--rings", "all=0", "--keys", home)
        lacking = capsys.readouterr().err.split("signatures are missing: ")[1].split("; boxes")[0]
        assert said == 1 and lacking.startswith("snapshot (0 of 1 keys") and ", timestamp (0 of 1" in lacking
        box.once()
        assert "orders.list" not in box.has()
        assert place.run("refresh", place.site) == 0
        box.once()
        assert box.has() == {"ads.list": "ads.example\n", "orders.list": "seized.example\n"}
    assert place.run("delegate", place.site, "court") == 2
    assert place.run("delegate", place.site, "No/Name") == 2


def killed_at(renames, *words):
    """The exit status of a command that is killed before so many of its files have their names."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left, rename, code = renames, os.rename, 99

    def killing(*paths):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*paths)

    try:
        os.rename = killing
        code = main([str(word) for word in words])
    finally:
        os._exit(code)


def test_what_is_killed_at_any_moment_leaves_a_repository_that_boxes_accept(place, tmp_path):
    assert place.publish() == 0
    with serving(place.site) as (url, _):
        box = Box(tmp_path / "box", url, place.root)
        box.now = time.time()
        box.once()
        before, killed = box.has(), 0
        place.write("ads.list", "new.example")
        place.write("more.list", "more.example")
        whole = tmp_path / "whole"
        shutil.copytree(place.site, whole)
        for writes in range(1, 20):
            code = killed_at(writes, "publish", place.site, "--from", place.rules, "--rings", "all=0", "--keys",
                             place.keys)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killed += 1
            box.once()
            assert box.has() == before
            if killed < 6:      # two lists, the table, targets, the snapshot, the timestamp
                shutil.rmtree(place.site)
                shutil.copytree(whole, place.site)
        assert killed == 6
        box.once()
        assert box.has() == {"ads.list": "new.example\n", "more.list": "more.example\n"}
    assert not list(place.site.glob(f"{command.STAGED}*"))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_rotation_that_is_killed_leaves_a_repository_that_boxes_accept(place, tmp_path, role):
    assert place.publish() == 0
    with serving(place.site) as (url, _):
        box = Box(tmp_path / "box", url, place.root)
        box.now = time.time()
        box.once()
        for writes in range(1, 20):
            code = killed_at(writes, "publish", "rotate", place.site, role, "--keys", place.keys)
            assert box.once().files is None
            if code == 0:
                break
            assert code == -signal.SIGKILL
        assert 2 < writes < 10


def test_two_at_a_time_do_not_mix(place, capsys):
    from edgeblock.fleet.publish import locked

    with locked(place.site):
        assert place.publish() == 2
    assert "another `edgeblock publish` is at work here" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (("refresh",), "names no directory"), (("hold", "SITE"), "needs a version"), (("withdraw", "SITE"), "a version"),
    (("rollback", "SITE", "x"), "x: is no version"), (("SITE",), "give --from RULES"),
    (("status", "SITE", "more"), "nothing more is known"), (("delegate", "SITE"), "one authority"),
    (("frob", "SITE"), "frob: is no action"),
    (("watch", "SITE"), "--prometheus URL or --metrics"), (("status", "RULES"), "is no repository"),
    (("status", "SITE/none"), "make a repository there"), (("rotate", "SITE", "moon"), "moon"),
    (("SITE", "--from", "KEYS", "--rings", "all"), "write such as"),
    (("SITE", "--from", "RULES", "--role", "moon"), "moon: there is no such authority")])
def test_mistakes_are_said_in_one_line(place, capsys, words, said):
    replaced = [word.replace("SITE", str(place.site)).replace("KEYS", str(place.keys)).replace("RULES", str(
        place.rules)) for word in words]
    assert place.run(*replaced) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize("name", ["metadata/timestamp.json", "metadata/2.targets.json", "metadata/2.snapshot.json"])
def test_a_repository_that_is_not_whole_is_said(place, capsys, name):
    assert place.publish() == 0
    (place.site / name).write_text("{}")
    assert place.run("status", place.site) == 2
    assert f"{name}: is no metadata" in capsys.readouterr().err
    (place.site / name).unlink()
    assert place.run("status", place.site) == 2
    assert f"{name}: cannot be read" in capsys.readouterr().err


GOOD = {"version": 2, "made": 0, "rings": {"all": [0, 0]}, "files": {"a.list": {"length": 1, "sha256": "0" * 64}}}


@pytest.mark.parametrize(("change", "said"), [
    ({"version": -1}, "version"), ({"version": True}, "version"), ({"rings": {}}, "no rings"),
    ({"rings": {"all": [1]}}, "no two times"), ({"rings": {"all": [2, 1]}}, "ends before"),
    ({"files": {"../a.list": {"length": 1, "sha256": "0" * 64}}}, "no file name"),
    ({"files": {"a/b.list": {"length": 1, "sha256": "0" * 64}}}, "no file name"),
    ({"files": {"a.list": {"length": 1, "sha256": "0"}}}, "no sha256"), ({"files": []}, "no files"),
    ({"withdrawn": 1}, "withdrawn")])
def test_tables_that_are_none_are_said(change, said):
    assert read_table(json.dumps({"releases": [GOOD]}).encode()).releases[0].version == 2
    with pytest.raises(TableError, match=said):
        read_table(json.dumps({"releases": [GOOD | change]}).encode())


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"releases": [1]}',
                                  json.dumps({"releases": [GOOD, GOOD]}), json.dumps({"releases": [GOOD] * 17}),
                                  json.dumps({"releases": [], "authorities": ["../up"]})])
def test_texts_that_are_no_table_are_said(text):
    with pytest.raises(TableError):
        read_table(text.encode())


@pytest.mark.parametrize("text", ["[]", '{"targets": 1}', '{"targets": {"x": "y"}}', '{"targets": {"1": 2}}'])
def test_texts_that_hold_nothing_are_said(text):
    with pytest.raises(TableError):
        read_held(text.encode())


def test_all_beside_a_list_belongs_to_it():
    assert {owner_name(name) for name in ("a.list", "a.toml", "a.list.minisig", "a.list.gz", "a.list.gz.minisig",
                                          "a.clients")} == {"a"}


# Watching ------------------------------------------------------------------------------------------------------

def answer(**told):
    def say(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json.dumps(told).encode())
    return say


def test_what_a_box_says_is_bad_is_held_once(place, tmp_path, capsys):
    assert place.publish() == 0
    place.write("ads.list", "second.example")
    assert place.publish() == 0
    with serving(tmp_path) as (url, server):
        result = [{"metric": {"authority": "targets", "version": "3", "instance": f"box-{number}"},
                   "value": [0, "1"]} for number in range(7)]
        result += [{"metric": {"authority": "targets", "version": "99"}, "value": [0, "1"]},
                   {"metric": {"authority": "moon", "version": "3"}, "value": [0, "1"]},
                   {"metric": {"version": "x"}, "value": [0, "1"]}]
        server.instead["1"] = answer(status="success", data={"resultType": "vector", "result": result})
        capsys.readouterr()
        assert place.run("watch", place.site, "--prometheus", url, "--dry-run") == 0
        line = "targets: release 3 is held: bad on box-0, box-1, box-2, box-3, box-4 and 2 more\n"
        assert capsys.readouterr().out == line
        before = told(place, capsys)["roles"]["timestamp"]["version"]
        assert place.run("watch", place.site, "--prometheus", url) == 0
        assert place.run("watch", place.site, "--prometheus", url) == 0
        after = told(place, capsys)
        assert after["roles"]["timestamp"]["version"] == before + 1
        assert after["releases"]["targets"][0]["held"].startswith("bad on box-0")
        server.instead["1"] = answer(status="error", error="no such thing")
        assert place.run("watch", place.site, "--prometheus", url) == 2
        assert "no such thing; nothing is held" in capsys.readouterr().err
    assert place.run("watch", place.site, "--prometheus", url) == 2


def test_a_watch_needs_no_key_of_the_safe(place, tmp_path):
    assert place.publish() == 0
    for name in ("root-1", "root-2", "targets"):
        (place.keys / f"{name}.key").unlink()
    metrics = tmp_path / "metrics"
    metrics.write_text('edgeblock_fetch_release_bad{authority="targets",version="2"} 1\nup 1\n')
    assert place.run("watch", place.site, "--metrics", metrics) == 0
    assert place.publish("--force") == 0        # nothing has changed
    place.write("ads.list", "other.example")
    assert place.publish() == 1
