"""Packed lists: read as what is inside, within bounds, by their first bytes."""

import gzip
import io
import time
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgeblock import config
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, Problem, packed, reader_of
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.settings import ListSettings

PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


def read(data, name="domains"):
    return list(reader_of(name, ListSettings())(io.BytesIO(data)))


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@given(text=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_what_is_packed_comes_out(pack, text, cut):
    """In one piece or in several, one after the other, as both programs unpack them."""
    data = pack(text[:cut]) + pack(text[cut:])
    assert packed.unpacked(io.BytesIO(data), data[:4]).read() == text


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("name", ["court.list.gz", "court.list.zst", "court.list"])
def test_a_packed_list_is_a_list_whatever_its_name_is(tmp_path, pack, name):
    (tmp_path / name).write_bytes(pack(b"bad.example\n"))
    (tmp_path / "court.toml").write_text("action = 'drop'")
    assert lint(tmp_path).findings == []
    info, = load(tmp_path, config.Rules()).lists
    assert (info.name, info.file, info.entries, info.action) == ("court", name, 1, "drop")


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@given(data=st.data())
def test_any_bytes_are_packed_or_said_not_to_be(pack, data):
    whole = bytearray(pack(b"bad.example\n" * 50))
    at = data.draw(st.integers(4, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    items = read(bytes(whole))
    assert all(isinstance(item, Problem) and item.whole for item in items[-1:]) or \
        items == [Entry(line, Kind.HOST, b"bad.example") for line in range(1, 51)]


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_file_that_is_cut_short_is_refused(pack):
    whole = pack(b"".join(b"a%d.example\n" % number for number in range(5000)))
    last = read(whole[:-20])[-1]
    assert last == Problem(1, "the file ends in the middle of what is packed in it; copy it again", whole=True)


def bomb_of(pack):
    if pack == "gzip":
        made = zlib.compressobj(9, wbits=31)
        return b"".join([*(made.compress(b"a.example\n" * 100_000) for _ in range(300)), made.flush()])
    return zstandard.compress(b"a.example\n" * 30_000_000)


@pytest.mark.parametrize("pack", PACK)
def test_a_bomb_is_refused_early(pack):
    data = bomb_of(pack)                    # of 300 MB
    assert len(data) < 1_000_000
    tracemalloc.start()
    began = time.process_time()
    size, why = 0, ""
    file = packed.unpacked(io.BytesIO(data), data[:4])
    try:
        while piece := file.read1(1 << 16):
            size += len(piece)
    except packed.BadFile as error:
        why = str(error)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert why == ("unpacks to more than 200 times its size, which no list does; if it is one, drop it unpacked")
    assert size <= max(packed.FREE, packed.RATIO_MAX * len(data)) + packed.PIECE_MAX
    assert held < 3 * packed.PIECE_MAX and time.process_time() - began < 20


def test_a_short_list_may_be_as_dense_as_it_likes():
    assert len(read(gzip.compress(b"a.example\n" * 100_000))) == 100_000


@pytest.mark.parametrize("name", ["a.list.xz", "a.list.br", "a.zip"])
def test_another_way_of_packing_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert [str(one) for one in lint(tmp_path).errors] == [
        f"{name}: is packed in a way that is not read; pack it with gzip or zstd, or unpack it and drop what "
        "is inside"]
