"""Counts on their way: nothing is lost unless it is said, whatever is asked for; what is no piece is refused."""

import json

import pytest

from edgeblock.report.pending import OTHER, Pending

KEY = ("court", "No. 1", "tls", "reset")


def test_pieces_put_together_are_the_whole():
    one, other = Pending(1000, 1000), Pending(1000, 1000)
    for number in range(900):
        one.add((f"list{number % 30}", f"Nr. {number} \u00e9", "tls", "reset"), 3, 1)
        one.hit("court", f"{number:08x}", 2)
    one.lost, one.unknown = 5, 7
    whole = dict(one.blocks), dict(one.rules)
    sizes = []
    while one:
        piece = one.piece(4000)
        sizes.append(len(json.dumps(piece)))
        other.put(json.loads(json.dumps(piece)))
    assert (other.blocks, other.rules) == whole and (other.lost, other.unknown) == (5, 7)
    assert len(sizes) > 5 and max(sizes) <= 4096 + 300
    merged = Pending(1000, 1000)
    merged.merge(other)
    merged.merge(other)
    assert merged.blocks[next(iter(whole[0]))] == [6, 2] and merged.lost == 10


def test_a_million_rules_and_orders_take_the_room_of_a_few_and_all_is_accounted_for():
    one = Pending(50, 100)
    for number in range(20_000):
        one.add((f"list{number % 10}", f"order {number}", "tls", "reset"), 1, 1)
        one.hit("court", f"{number:08x}")
    assert len(one.blocks) <= 100 and len(one.rules) == 100
    assert sum(tries for tries, _ in one.blocks.values()) + one.lost == 20_000 and one.lost == 0
    assert sum(one.rules.values()) + one.unknown == 20_000
    assert one.blocks["list3", OTHER, "tls", "reset"][0] > 1000
    for number in range(1000):
        one.add((f"another {number}", "", "tls", "reset"), 1, 1)
    assert len(one.blocks) == 100 and one.lost == 960


@pytest.mark.parametrize("told", [
    None, [], {}, {"blocks": [], "rules": [], "lost": 0}, {"blocks": [["a"]], "rules": [], "lost": 0, "unknown": 0},
    {"blocks": [[*KEY, -1, 0]], "rules": [], "lost": 0, "unknown": 0},
    {"blocks": [[*KEY, 1 << 63, 0]], "rules": [], "lost": 0, "unknown": 0},
    {"blocks": [[*KEY, True, 0]], "rules": [], "lost": 0, "unknown": 0},
    {"blocks": [["court", 7, "tls", "reset", 1, 1]], "rules": [], "lost": 0, "unknown": 0},
    {"blocks": [], "rules": [["court", "no rule", 1]], "lost": 0, "unknown": 0},
    {"blocks": [[*KEY, 1, 1]], "rules": [], "lost": 0.5, "unknown": 0}])
def test_what_is_no_piece_changes_nothing(told):
    one = Pending(10, 10)
    with pytest.raises(ValueError):
        one.put(told)
    assert not one


def test_a_long_text_is_cut():
    one = Pending(10, 10)
    one.put({"blocks": [["x" * 5000, "", "", "", 1, 1]], "rules": [], "lost": 0, "unknown": 0})
    assert [len(key[0]) for key in one.blocks] == [256]
