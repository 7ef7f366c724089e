"""Plain lines read in compiled code, against the readers of whole formats: the same list, whatever is in it."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import adblock, entries, hosts, nfqfilter, plain, plain_reader_of, resolvers, zone
from edgeblock.blocklist.formats.scan import Shapes
from edgeblock.blocklist.settings import ListSettings

MODULES = (adblock, entries, hosts, nfqfilter, plain, resolvers, zone)
NAMES = ("domains", "urls", "hosts", "rpz", "adblock", "dnsmasq", "unbound", "domain-set", "nfqfilter-domains",
         "nfqfilter-urls", "nfqfilter-addresses", "csv", "maltrail")
HOSTS = ("example.com", "Example.COM", "example.com.", "example.com..", ".example.com", "a..b", "localhost", "com",
         "localhost.localdomain", "a_b.example", "-a.example", "xn--bcher-kva.example", "bücher.example", "0x7f.1",
         "a.0x7f", "a.1", "1.a", "http", "https.x", "a.rpz-ip", "24.0.2.0.192.rpz-ip", "a.rpz-client-ip", "*.a.b",
         "=a.b", "a" * 63 + ".b", "a" * 64 + ".b", ".".join(["abcdefg"] * 31) + ".abcde", ".".join(["abcdefg"] * 32),
         "192.0.2.1", "192.0.2.0/24", "192.0.2.1/24", "192.0.2.1/024", "192.0.2.1/33", "0.0.0.0/0", "192.0.2.1:443",
         "192.0.2.1:0", "192.0.2.1:080", "192.0.2.1:65536", "192.0.2.01", "192.0.2.256", "192.0.2", "192.0.2.1.",
         "192.0.2.1-192.0.2.9", "2001:db8::1", "2001:DB8:0:0:00:f::/96", "2001:db8::/32", "2001:db8::1/32", "::",
         "::1/128", "::/0", "1::/129", "1::/096", "1::2::3", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
         "1:2:3:4::5:6:7:8", "1:2:3:4:5:6:7", "::ffff:192.0.2.1", "fe80::1%eth0", "12345::", "a::b", "a:", ":",
         "1:2:3:4:5:6:7:8:9", "[2001:db8::1]:443", "u@a.example", "a.example:80", "a b", "a.b c.d", "a%2eb.c", "@",
         "")
FRONTS = ("", "0.0.0.0 ", "127.0.0.1\t", "::1 ", "0.0.0.0  ", "||", "@@||", "@@", "address=/", "local=/", "server=/",
          'local-zone: "', 'local-data: "', "domain:", "full:", "DOMAIN-SUFFIX,", "DOMAIN,", "+.", ".", "- '", "*.",
          "=", "http://", "https://", "HTTP://", "http:/", "//", "#", " ", "$ORIGIN ")
ENDS = ("", "^", "^$important", "^$badfilter", "|", "/", "/0.0.0.0", "/#", "/x", '" always_nxdomain', '" transparent',
        ' A 0.0.0.0"', " CNAME .", " CNAME rpz-passthru.", " CNAME *.", " @ads", " # x", "'", " A 0.0.0.0", " x=y",
        " ", "\t", "\r", "##.x")
PATHS = st.text(alphabet="/.?aA=&%;*+,:@!()'$~_-#\\ 2f|^\t", max_size=12)
line = st.builds("".join, st.tuples(st.sampled_from(FRONTS), st.sampled_from(HOSTS),
                                    st.one_of(st.just(""), st.builds("/{}".format, PATHS), PATHS),
                                    st.sampled_from(ENDS)))


def read(name, text, **stated):
    if name == "csv":
        stated["column"] = 1
    return list(plain_reader_of(name, ListSettings(**stated))(io.BytesIO(text)))


def read_slowly(name, text, **stated):
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            for word, value in vars(module).items():
                if isinstance(value, Shapes):
                    patch.setattr(module, word, Shapes(()))
        return read(name, text, **stated)


@pytest.mark.parametrize("name", NAMES)
@given(lines=st.lists(line, min_size=1, max_size=12))
@settings(max_examples=200)
def test_plain_lines_are_what_their_reader_makes_of_them(name, lines):
    text = "\n".join(lines).encode()
    assert read(name, text) == read_slowly(name, text)


@pytest.mark.parametrize("name", NAMES)
def test_each_odd_host_in_each_place(name):
    # A few at a time: in one file a line may change what the next one means.
    every = [f"{front}{host}{end}".encode() for front in FRONTS for host in HOSTS for end in ENDS]
    for at in range(0, len(every), 40):
        text = b"\n".join(every[at:at + 40])
        assert read(name, text) == read_slowly(name, text)


@pytest.mark.parametrize("name", ["hosts", "nfqfilter-domains"])
def test_names_that_the_settings_widen(name):
    text = "\n".join(f"{front}{host}" for front in FRONTS[:5] for host in HOSTS).encode()
    assert read(name, text, subdomains=True) == read_slowly(name, text, subdomains=True)
    assert read(name, text, subdomains=False) == read_slowly(name, text, subdomains=False)


@pytest.mark.parametrize(("text", "kind", "key"), [
    (b"http://a.example", Kind.URL, b"a.example/"), (b"a.example/b/", Kind.URL, b"a.example/b"),
    (b"https://A.example/b?c=/d", Kind.URL_WITH_QUERY, b"a.example/b?c=/d"),
    (b"192.0.2.0/24", Kind.NETWORK, b"\0\x18\xc0\0\2\0"),
    (b"192.0.2.1:443", Kind.ENDPOINT, b"\0\x20\xc0\0\2\1\1\xbb"),
])
def test_what_is_plain_is_read_here(text, kind, key):
    assert plain.SHAPES.entry(7, text) == (7, kind, key, False, 0, ())


@pytest.mark.parametrize("text", [b"a.example/b//c", b"a.example/..", b"a.example/b%41", b"a.example/b;c", b"com/a",
                                  b"a.example/" + b"b" * 3000, b"192.0.2.1/24", b"1.2.3.4.5", b"a.example:80/b"])
def test_what_is_not_is_left_alone(text):
    assert plain.SHAPES.entry(7, text) is None
