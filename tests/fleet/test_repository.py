"""A box and a repository: what it takes, and every attack that it refuses, with the files as they were."""

import asyncio
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeblock.errors import ConfigError
from edgeblock.fleet import download, repository, sources
from edgeblock.fleet.source import SourceError

from .repositories import DAY, Box, Place, serving


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()          # python-tuf has the machine's clock
    made.init()
    made.write("ads.list", "ads.example", "=one.example")
    made.write("ads.toml", 'action = "drop"')
    assert made.publish() == 0
    return made


@pytest.fixture
def site(place):
    with serving(place.site) as (url, server):
        place.url, place.server = url, server
        yield place


@pytest.fixture
def box(site, tmp_path):
    made = Box(tmp_path / "box", site.url, site.root)
    made.now = time.time()
    return made


def test_a_box_has_what_is_published_and_what_has_not_changed_costs_nothing(site, box):
    first = box.once()
    assert box.has() == {"ads.list": "ads.example\n=one.example\n", "ads.toml": 'action = "drop"\n'}
    assert box.taken == 2 and first.version == "targets 2" and first.size > 1000
    site.server.asked.clear()
    again = box.once()
    assert again.files is None and again.size < 1000
    assert site.server.asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    site.write("ads.list", "ads.example")
    (site.rules / "ads.toml").unlink()
    assert site.publish() == 0
    site.server.asked.clear()
    box.once()
    assert box.has() == {"ads.list": "ads.example\n"}
    assert not any("ads.toml" in path for path in site.server.asked)


def test_a_process_that_begins_anew_goes_on_where_it_was(site, box):
    box.once()
    site.server.asked.clear()
    box.start()
    assert box.once().files is None and len(site.server.asked) == 2


def refused(box, *words):
    """The next fetch is refused in these words, gravely, and the files stay."""
    before = box.has()
    with pytest.raises(SourceError) as raised:
        box.once()
    assert raised.value.grave
    assert all(word in str(raised.value) for word in words), raised.value
    assert box.has() == before


def test_an_old_repository_that_is_put_back_is_refused(site, box, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(site.site, old)
    site.write("ads.list", "ads.example", "more.example")
    assert site.publish() == 0
    box.once()
    shutil.rmtree(site.site)
    shutil.copytree(old, site.site)
    refused(box, "older than what this box has seen")


def test_a_month_old_timestamp_is_refused_and_the_files_stay(site, box):
    box.once()
    old = time.time() - 31 * DAY
    site.now = old
    assert site.run("refresh", site.site) == 0
    refused(box, "too old to be fresh", "edgeblock publish refresh")
    site.now = time.time()
    assert site.run("refresh", site.site) == 0
    assert box.once().files is None


def test_a_box_that_begins_with_a_month_old_timestamp_takes_nothing(site, box):
    site.now = time.time() - 31 * DAY
    assert site.run("refresh", site.site) == 0
    refused(box, "too old to be fresh")
    assert box.has() == {}


def test_files_of_two_versions_are_refused(site, box):
    box.once()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    shutil.copyfile(site.site / "metadata" / "2.targets.json", site.site / "metadata" / "3.targets.json")
    refused(box, "not the file that is signed for")


def test_a_snapshot_of_another_version_is_refused(site, box):
    box.once()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    shutil.copyfile(site.site / "metadata" / "2.snapshot.json", site.site / "metadata" / "3.snapshot.json")
    refused(box, "not the file that is signed for")


def test_another_file_in_place_of_a_list_is_refused(site, box):
    for path in (site.site / "targets").glob("*.ads.list"):
        path.write_text("ads.example\n=eve.example\n")
    refused(box, "ads.list", "not the file that is signed for")


def edited(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_a_timestamp_that_somebody_else_has_signed_is_refused(site, box, tmp_path, monkeypatch):
    box.once()
    other = Place(tmp_path / "other", monkeypatch)
    other.now = time.time()
    other.init()
    for _ in range(3):
        assert other.run("refresh", other.site) == 0
    shutil.copyfile(other.site / "metadata" / "timestamp.json", site.site / "metadata" / "timestamp.json")
    refused(box, "not signed by as many keys")


def test_a_changed_timestamp_is_refused(site, box):
    box.once()

    def later(told):
        told["signed"]["version"] += 7

    edited(site.site / "metadata" / "timestamp.json", later)
    refused(box, "not signed by as many keys")


def test_fewer_signatures_than_the_threshold_are_refused(tmp_path, monkeypatch):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()
    made.init("--threshold", 2)
    made.write("ads.list", "ads.example")
    assert made.publish() == 0
    with serving(made.site) as (url, _):
        box = Box(tmp_path / "box", url, made.root)
        box.once()
        assert box.has()
        made.write("ads.list", "other.example")
        assert made.publish() == 0
        # As if whoever has one of the keys had signed: the snapshot vouches for it, the threshold does not.
        path = made.site / "metadata" / "3.targets.json"
        edited(path, lambda told: told["signatures"].pop())
        vouch(made, path)
        refused(box, "not signed by as many keys", "targets")


def vouch(place, path):
    """Has the online keys sign for a file of metadata as it is, whatever it is."""
    from tuf.api.metadata import MetaFile

    from edgeblock.fleet.publish import Publisher
    from edgeblock.fleet.signing import Keys

    version, role, _ = path.name.split(".", 2)
    publisher = Publisher(place.site, Keys(place.keys), lambda: place.now)
    publisher.snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(int(version), path.read_bytes(), ["sha256"])
    done = {role: publisher.roles[role]}
    heads = publisher._heads({}, {"snapshot": ("none",)})
    assert done
    for write in heads:
        write.path.write_bytes(write.content)


def test_a_root_that_is_rotated_is_followed_and_the_old_keys_are_worth_nothing(site, box):
    box.once()
    for role in ("timestamp", "snapshot", "targets", "held", "root"):
        assert site.run("rotate", site.site, role) == 0
        assert box.once().files is None, role
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    box.once()
    assert box.has()["ads.list"] == "other.example\n"
    assert sorted(path.name for path in (site.site / "metadata").glob("*.root.json")) == [
        f"{number}.root.json" for number in range(1, 6)]
    keys = {path: path.read_bytes() for path in site.keys.iterdir()}
    for name in ("timestamp", "snapshot"):      # with the old keys alone
        (site.keys / f"{name}-2.key").unlink()
    assert site.run("refresh", site.site) == 1
    assert box.once().files is None
    for path, content in keys.items():
        path.write_bytes(content)


def test_a_key_that_is_lost_is_replaced(site, box):
    box.once()
    (site.keys / "timestamp.key").unlink()
    assert site.run("refresh", site.site) == 1
    assert site.run("rotate", site.site, "timestamp") == 0
    assert box.once().files is None
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    box.once()
    assert box.has()["ads.list"] == "other.example\n"


def test_a_box_without_a_root_of_trust_says_what_to_do(box):
    box.own_root.unlink()
    with pytest.raises(SourceError, match=r"root of trust cannot be read.*copy"):
        box.once()


def test_the_settings_are_read_from_the_file_of_sources_and_mistakes_are_said(tmp_path):
    base = '[[source]]\nname = "own"\nkind = "tuf"\n'
    one = sources.parse(base + 'metadata = ["http://a.example/lists/metadata"]\nroot = "root.json"\nsoak = 60\n'
                        'config = "edgeblock.toml"\ndaemon = false\n', "sources.toml", tmp_path).sources[0].own
    assert one.mirrors == [("http://a.example/lists/metadata/", "http://a.example/lists/targets/")]
    assert (one.root, one.config, one.soak, one.daemon) == (tmp_path / "root.json", tmp_path / "edgeblock.toml", 60,
                                                            False)
    with pytest.raises(ConfigError, match="has no metadata"):
        sources.parse(base, "sources.toml", tmp_path)
    for line, said in (("metadata = []", "names no URL"), ('metadata = ["ftp://a"]', "is no URL of HTTP"),
                       ('metadata = ["http://[a"]', "is no URL of HTTP"),
                       ('metadata = ["http://a:99999/"]', "is no URL of HTTP"),
                       ('metadata = ["https://me:secret@a/lists/"]', "metadata: https://a/lists/ has a user or a "),
                       ('metadata = ["https://a/?key=secret"]', "metadata: https://a/ has a query"),
                       ('metadata = ["http://a"]\nsoak = 1e9', "must be 0 to 604800 seconds"),
                       ('metadata = ["http://a"]\ntargets = ["http://a", "http://b"]', "each mirror has one")):
        with pytest.raises(ConfigError, match=said):
            sources.parse(base + line, "sources.toml", tmp_path)


def test_what_is_lost_of_the_state_is_found_again(site, box):
    box.once()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    for name in ("state.json", "metadata/targets.json"):
        (box.fetch.state / "own.tuf" / name).write_text("[")
    box.start()
    box.once()
    assert box.has()["ads.list"] == "other.example\n"


def test_what_nobody_knows_any_more_stays_while_no_release_of_it_is_due(site, box, tmp_path):
    assert site.run("delegate", site.site, "court") == 0
    court = tmp_path / "court"
    court.mkdir()
    (court / "orders.list").write_text("seized.example\n")
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    box.once()
    assert box.has().keys() == {"ads.list", "ads.toml", "orders.list"}
    assert site.run("hold", site.site, "2") == 0
    (box.fetch.state / "own.tuf" / "state.json").write_text("[")
    box.start()
    before = box.has()
    with pytest.raises(SourceError, match="what is here of targets is not known any more"):
        box.once()
    assert box.has() == before
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    box.once()
    assert box.has() == {"ads.list": "other.example\n", "ads.toml": before["ads.toml"],
                         "orders.list": before["orders.list"]}


@pytest.mark.parametrize("left", ["", "ads.example\n=two.example\n"])
def test_a_download_that_a_power_cut_has_left_in_part_is_brought_again(site, box, left):
    box.once()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    for path in (box.fetch.state / "own.tuf" / "content").iterdir():
        path.write_text(left)
    box.once()
    assert box.has()["ads.list"] == "other.example\n"
    site.write("ads.list", "ads.example", "=one.example")       # a file that is here already, by its digest
    assert site.publish() == 0
    box.once()
    assert box.has()["ads.list"] == "ads.example\n=one.example\n"


def test_a_repository_that_is_waited_for_keeps_no_other_work_waiting_nor_the_end(site, box):
    stop, asked = threading.Event(), threading.Event()

    def silent(handler):
        asked.set()
        stop.wait(30)

    site.server.instead["timestamp.json"] = silent

    async def run():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        task = asyncio.ensure_future(box.ask())
        async with asyncio.timeout(10):
            while not asked.is_set():
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "landed") == "landed"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    try:
        asyncio.run(run())
        assert time.monotonic() - began < 10
        for one in [one for one in threading.enumerate() if one.name == "ask own"]:
            one.join(10)
            assert not one.is_alive()
    finally:
        stop.set()


# Authorities ---------------------------------------------------------------------------------------------------

def test_an_authority_publishes_beside_the_operator(site, box, tmp_path):
    assert site.run("delegate", site.site, "court") == 0
    box.once()
    court = tmp_path / "court"
    court.mkdir()
    (court / "orders.list").write_text("seized.example\n")
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    fetched = box.once()
    assert fetched.version == "targets 2, court 2"
    assert box.has() == {"ads.list": "ads.example\n=one.example\n", "ads.toml": 'action = "drop"\n',
                         "orders.list": "seized.example\n"}


def test_an_authority_cannot_bring_a_list_of_the_operator_or_settings_for_one(site, box, tmp_path):
    assert site.run("delegate", site.site, "court") == 0
    court = tmp_path / "court"
    court.mkdir()
    (court / "orders.list").write_text("seized.example\n")
    (court / "ads.toml").write_text('action = "observe"\n')
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    box.once()
    assert box.has()["ads.toml"] == 'action = "drop"\n' and "orders.list" in box.has()
    assert "ads.toml: left out" in box.told["problems"]


def test_a_role_that_lists_what_is_not_in_its_paths_is_not_heard_about_it(site, box):
    """Whoever has the keys of court signs a table of the operator's releases and a hold of his own."""
    assert site.run("delegate", site.site, "court") == 0
    box.once()
    from edgeblock.fleet.publish import Publisher
    from edgeblock.fleet.releases import HELD, Table, table_text
    from edgeblock.fleet.signing import Keys

    publisher = Publisher(site.site, Keys(site.keys), lambda: site.now)
    publisher.put("court", "releases.json", table_text(Table()))
    publisher.put("court", HELD, b'{"targets": {"3": "because"}}')
    publisher.put("court", "court/deeper/releases.json", b"{}")
    publisher.commit()
    fetched = box.once()
    assert fetched.files is None and box.told["problems"] == ""
    assert not box.told["held"]
    assert "ads.list" in box.has()


def test_an_authority_s_fault_stops_no_other(site, box, tmp_path):
    assert site.run("delegate", site.site, "court") == 0
    court = tmp_path / "court"
    court.mkdir()
    (court / "orders.list").write_text("seized.example\n")
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    box.once()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    (court / "orders.list").write_text("other-seized.example\n")
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    (site.site / "metadata" / "3.court.json").write_text("<html>nothing here</html>")
    box.once()
    assert box.has()["ads.list"] == "other.example\n" and box.has()["orders.list"] == "seized.example\n"
    assert "not the file that is signed for" in box.told["problems"]


@pytest.mark.parametrize("slow", ["orders.list", "ads.list"])
def test_a_release_that_takes_too_long_to_be_tried_keeps_no_other_authority_waiting(site, box, tmp_path, monkeypatch,
                                                                                    slow):
    """Of two that are new at once, whichever it is."""
    assert site.run("delegate", site.site, "court") == 0
    court = tmp_path / "court"
    court.mkdir()

    def publish(number):
        (court / "orders.list").write_text(f"{number}.seized.example\n")
        assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
        site.write("ads.list", f"{number}.ads.example")
        assert site.publish() == 0

    async def tried(folder, configuration, seconds):
        if (folder / slow).read_text().startswith("2."):
            raise TimeoutError
        return []

    publish(1)
    box.settings = repository.Settings((f"{site.url}/metadata/",), root=box.own_root, trial=9.0)
    monkeypatch.setattr(repository.trial, "tried", tried)
    box.start()
    box.once()
    publish(2)
    box.once()
    has = {name: text[:2] for name, text in box.has().items() if name != "ads.toml"}
    assert has == {"orders.list": "2.", "ads.list": "2."} | {slow: "1."}
    assert "takes more than 9 s to be tried" in box.told["problems"]
    with pytest.raises(SourceError, match="takes more than 9 s to be tried"):
        box.once()
    publish(3)
    box.once()
    assert {text[:2] for name, text in box.has().items() if name != "ads.toml"} == {"3."}


def test_a_release_of_which_a_file_cannot_be_had_keeps_no_other_authority_waiting(site, box, tmp_path):
    assert site.run("delegate", site.site, "court") == 0
    court = tmp_path / "court"
    court.mkdir()
    (court / "orders.list").write_text("seized.example\n")
    assert site.run(site.site, "--role", "court", "--from", court, "--rings", "all=0") == 0
    for path in (site.site / "targets" / "court").glob("*.orders.list"):
        path.write_text("other.example\n")
    box.once()
    assert box.has().keys() == {"ads.list", "ads.toml"} and "orders.list" in box.told["problems"]
    refused(box, "orders.list", "not the file that is signed for")


# Servers -------------------------------------------------------------------------------------------------------

def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65_536)
    except OSError:
        pass


def test_an_endless_timestamp_is_cut_off(site, box):
    box.once()
    site.server.instead["timestamp.json"] = endless
    refused(box, "longer than it may be")


def test_an_endless_list_is_cut_off(site, box):
    site.server.instead["ads.list"] = endless
    refused(box, "longer than it may be")


@pytest.mark.parametrize("where", ["body", "head"])
def test_a_server_that_sends_a_byte_now_and_then_is_cut_off(site, box, monkeypatch, where):
    box.once()
    monkeypatch.setattr(download, "BASE", 0.5)
    site.server.asked.clear()

    def trickle(handler):
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        try:
            while not handler.server.ended.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        except OSError:
            pass

    site.server.ended = threading.Event()
    site.server.instead["timestamp.json"] = trickle
    before, began = box.has(), time.monotonic()
    try:
        with pytest.raises(SourceError, match=r"has not come within 0\.\d s"):
            box.once()
    finally:
        site.server.ended.set()
    assert time.monotonic() - began < 5 and box.has() == before


def test_a_server_that_is_down_for_a_day_changes_nothing_and_another_mirror_is_asked(site, box, tmp_path):
    box.once()
    before = box.has()
    box.settings = repository.Settings(("http://127.0.0.1:9/metadata/",), root=box.own_root, trial=0.0)
    box.start()
    for _ in range(6):
        with pytest.raises(SourceError, match=r"127\.0\.0\.1:9") as raised:
            box.once(4 * 3600)
        assert not raised.value.grave
    assert box.has() == before
    box.settings = repository.Settings(("http://127.0.0.1:9/metadata/", f"{site.url}/metadata/"), root=box.own_root,
                                       trial=0.0)
    box.start()
    site.write("ads.list", "other.example")
    assert site.publish() == 0
    box.once()
    assert box.has()["ads.list"] == "other.example\n"
    assert box.told["problems"].startswith("http://127.0.0.1:9/metadata/: ")


def test_an_error_page_in_place_of_metadata_is_no_metadata(site, box):
    def page(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>Please log in</html>")

    site.server.instead["timestamp.json"] = page
    with pytest.raises(SourceError, match="is no metadata"):
        box.once()


def test_redirects_are_few_and_never_lead_elsewhere_than_the_web(site, box):
    def to(where):
        def answer(handler):
            handler.send_response(302)
            handler.send_header("Location", where)
            handler.end_headers()
        return answer

    site.server.instead["timestamp.json"] = to("/metadata/timestamp.json")
    with pytest.raises(SourceError, match="redirected more than 5 times"):
        box.once()
    site.server.instead["timestamp.json"] = to("file:///etc/passwd")
    with pytest.raises(SourceError, match="not followed|no URL"):
        box.once()
    shutil.copyfile(site.site / "metadata" / "timestamp.json", site.site / "metadata" / "elsewhere")
    site.server.instead["timestamp.json"] = to("/metadata/elsewhere")
    box.once()
    assert box.has()
