"""The table of protocol readers: each says the same of its samples in any pieces, and no disguise hides a name."""

import pytest

from edgeblock.core import readers
from edgeblock.disguises.streams import MIDWAY, STRATEGIES, Path
from edgeblock.disguises.table import EACH_BYTE, EACH_BYTE_MAX, OVERFLOWING
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play
from tests.core.protocols import READERS

SAMPLES = [(reader, sample) for reader, row in READERS.items() for sample in row.samples]
IN_STREAMS = [(reader, sample) for reader, sample in SAMPLES if READERS[reader].before is not None]


def test_each_has_a_row_of_samples():
    assert sorted(readers.KINDS) == sorted(READERS)


@pytest.mark.parametrize("reader, sample", SAMPLES)
def test_whole_and_in_pieces(reader, sample):
    data = READERS[reader].samples[sample](OTHER)
    whole = readers.feed(reader, [data])
    for pieces in s.ways(data):
        assert readers.feed(reader, pieces) == whole
    for trail in (b"\0", b"\r\n", b"\x16\x03\x01", b"GET", bytes(300)):
        assert readers.feed(reader, [data, trail]) == readers.feed(reader, [data + trail])


@pytest.mark.parametrize("units", [(reader, units) for reader, row in READERS.items() for units in row.units])
def test_smallest_units_in_pieces(units):
    data = READERS[units[0]].units[units[1]](1000)
    whole = readers.feed(units[0], [data])
    for size in (1, 2, 7, 100):
        assert readers.feed(units[0], [data[at:at + size] for at in range(0, len(data), size)]) == whole


@pytest.mark.parametrize("reader, sample", [each for each in IN_STREAMS if READERS[each[0]].before == b""])
def test_the_first_byte_says_whose_it_is(reader, sample):
    assert readers.beginning(READERS[reader].samples[sample](OTHER)[0]) in (reader, "prefix")


@pytest.mark.parametrize("way", STRATEGIES | MIDWAY)
@pytest.mark.parametrize("reader, sample", IN_STREAMS)
def test_disguises(reader, sample, way):
    row = READERS[reader]
    for name, listed in ((LISTED, True), (OTHER, False)):
        data = row.before + row.samples[sample](name)
        if len(data) > EACH_BYTE_MAX and way in EACH_BYTE or not listed and way in OVERFLOWING:
            continue
        path = Path(dport=80, decoy=b"qwertyuiop")
        packets = list((STRATEGIES | MIDWAY)[way](path, data, data.rfind(name), len(name)) if name in data
                       else (STRATEGIES | MIDWAY)[way](path, data, len(data) // 2, 16))
        played = play(engine(LISTED.decode()), packets)
        assert any(not one.accept for one in played.decisions) or not listed
        if not listed:
            assert not played.blocked and (not row.told or name.decode() in played.hosts)
