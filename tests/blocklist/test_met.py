"""Which rules a snapshot still has: as the matcher and the lists' files say, in one layer and in two."""

from edgeblock.blocklist.explain import find_rule
from edgeblock.blocklist.load import load
from edgeblock.blocklist.met import still_listed
from edgeblock.blocklist.parts import Compiled

TEXT = {"a.list": "one.example\n=two.example\n*.three.example\n192.0.2.7\n192.0.2.0/28\n@@fine.one.example\n",
        "b.list": "one.example\nfour.example/page\nfive.example/dir/*\n", "b.toml": 'https = "host"\n'}
ASKED = ("http://one.example/", "http://two.example/", "http://x.three.example/", "http://four.example/page",
         "http://five.example/dir/x", "https://four.example/")


def directory(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_rule_that_the_matcher_reports_is_there_and_no_other(tmp_path):
    rules = load(directory(tmp_path, TEXT))
    met = {"a": {7, 9}, "b": {7}, "gone": {7}}
    for url in ASKED:
        proto, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        found = rules.matcher.look_up("tls" if proto == "https" else "http", host.encode(), f"/{path}".encode())
        met[found.list].add(int(found.rule, 16))
    assert sum(map(len, met.values())) == 4 + len(ASKED)
    there = still_listed(rules.matcher.snapshot, met)
    assert there == {"a": met["a"] - {7, 9}, "b": met["b"] - {7}, "gone": set()}
    for name, found in there.items():
        for rule in found:
            assert name in {place.list for place in find_rule(rules, f"{rule:08x}")}
    # The same rule of another list is not there.
    assert still_listed(rules.matcher.snapshot, {"b": there["a"]})["b"] <= there["b"] | there["a"]
    assert still_listed(rules.matcher.snapshot, {}) == {}


def test_of_many_chunks_all_are_found(tmp_path):
    count = 150_000
    (tmp_path / "long.list").write_text("".join(f"www{number}.example\n" for number in range(count)))
    rules = load(tmp_path)
    names = range(0, count, 9973)
    met = {int(rules.matcher.look_up("tls", f"www{number}.example".encode()).rule, 16) for number in names}
    assert still_listed(rules.matcher.snapshot, {"long": met | {1, 2, 3}})["long"] >= met
    assert isinstance(rules.matcher.snapshot.parts, Compiled)
