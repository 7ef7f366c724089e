"""A crafted file costs every reader linear time: its smallest and its oddest units, at n and at 4 n."""

import io
import time
import zlib

import pytest

from edgeblock.blocklist.formats import READERS, reader_of
from edgeblock.blocklist.settings import ListSettings

N = 2000
UNITS = [b"\n", b"a\n", b" ", b"(", b'"', b"a.b\n", b"||a.b^$badfilter\n", b"a=b ", b"[", b"{", b'{"a":', b"[1,",
         b'"\n', b"a:", b"|", b";", b"*.", b"@@", b"$ORIGIN a.\n", b"@@||a.b^$x=y\n", b"a CNAME rpz-passthru.\n",
         b"\\", b".", b"/", b'"list":[', b"'", b"a.b/%2e%2e", b"\xd0", b'zone "', b"domain:", b"0.0.0.0 "]


def seconds(name, data):
    best = 9.9
    for _ in range(2):
        began = time.process_time()
        for _ in reader_of(name, ListSettings(attributes=("a",) if name == "domains" else ()))(io.BytesIO(data)):
            pass
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("unit", UNITS)
def test_four_times_as_much_takes_four_times_as_long(name, unit):
    short, long = (seconds(name, b"a.example\n" + unit * count) for count in (N, 4 * N))
    # A quadratic reader takes 16 times as long; below some milliseconds nothing can be said, and nothing matters.
    assert long < max(9 * short, 0.05), (short, long)


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("unit", [b":", b"1:", b"::", b"1.", b"1-", b"a:1.", b"[:", b"/1:"])
@pytest.mark.parametrize("end", [b"g", b"-", b"%", b"/"])
def test_what_is_no_address_at_its_very_end_is_linear_too(name, unit, end):
    # A pattern for addresses tried every place for the last colon again: 4.6 s for a line of 16 kB.
    line = unit * (16_000 // len(unit)) + end + b"\n"
    assert seconds(name, b"a.example\n" + line) < 0.1


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("unit", [b" ", b"\t", b"1", b"1h", b" @", b"@ ", b" @a", b"# ", b"/", b"%2", b". ", b"{ ",
                                  b'" '])
def test_one_long_line_is_linear_too(name, unit):
    for front, end in ((b"a", b"b"), (b"a ", b"b"), (b"a.example ", b"!"), (b"- ", b"\\")):
        line = front + unit * (16_000 // len(unit)) + end + b"\n"
        assert seconds(name, b"a.example\n" + line) < 0.1, (front, end)


@pytest.mark.parametrize("name", sorted(READERS))
def test_many_small_packs_are_linear_too(name):
    pack = zlib.compress(b"", wbits=31)
    short, long = (seconds(name, pack * count) for count in (1000, 4000))
    assert long < max(9 * short, 0.3), (short, long)
