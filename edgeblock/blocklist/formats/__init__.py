"""List files into entries, whatever they are written in.

In: a file opened for reading bytes. Out: an Entry for each thing listed, a Problem for each line that cannot be used,
a Passed for each that is nothing for this filter, in file order; a reader never raises for what a file says and holds
one line at a time. International names come in, A-labels go out.

    lines       what every reader shares: items, limits, messages
    scan        lines out of bytes, and entries out of the plainest lines (compiled)
    entries     one entry: a host, a URL, an address
    attributes  what is said about an entry beside it
    plain       .list, .txt and .urls
    hosts       .hosts, the hosts file of an operating system
    zone        .rpz, a response policy zone
    table       .csv, a named column
    adblock     .adblock, the part of a filter list that names hosts and URLs
    nfqfilter   domains, urls, ssl_host, hosts, ssl_ips: the five files for nfqfilter and extFilter
    resolvers   .dnsmasq, .unbound, .bind, .domains: configurations of resolvers, domain sets of proxies
    dataset     .dataset, a base64 text a line, of an intrusion detection system
    orders      .order.json, what somebody asks to have blocked, each item with an id
    feeds       .json, indicators as MISP and STIX have them; stix: what a pattern of STIX names
    register    the dump of the Russian register
    trails      what maltrail looks for
    hashed      .hashed, fingerprints in place of names
    packed      what gzip and zstd made of a list
    encoded     lists that are not UTF-8
    told        what a file is, whatever it is called

A new format is a reader, a line in READERS, and its extension in EXTENSIONS or file name in NAMES.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO

from edgeblock.blocklist.formats.attributes import attributes_text
from edgeblock.blocklist.formats.encoded import decoded
from edgeblock.blocklist.formats.entries import DIRECTORY_DEPTH_MAX, key_text, network_key, network_text
from edgeblock.blocklist.formats.hashed import MARKS, HashedEntry, read_hashed
from edgeblock.blocklist.formats.lines import (
    HOPELESS,
    LINE_MAX,
    Asked,
    BadFile,
    Entry,
    Item,
    Passed,
    Problem,
    Remark,
)
from edgeblock.blocklist.formats.packed import SUFFIXES, unpacked
from edgeblock.blocklist.formats.plain import read_domains, read_urls
from edgeblock.blocklist.formats.told import head_of, is_register, told, what_it_is, why_never
from edgeblock.blocklist.settings import ListSettings

__all__ = [
    "DIRECTORY_DEPTH_MAX", "EXTENSIONS", "HOPELESS", "LINE_MAX", "MARKS", "NAMES", "ORDER", "OUTCOME", "PACKED",
    "READERS", "Asked", "Entry", "HashedEntry", "Item", "Passed", "Problem", "Reader", "Remark", "attributes_text",
    "count_lines", "find_format", "key_text", "list_name", "network_key", "network_text", "never_a_list",
    "read_domains", "read_hashed_list",
    "reader_of", "settled", "sniffed", "stem_and_suffix",
]

Reader = Callable[[BinaryIO], Iterable[Item | HashedEntry]]

def reader_in(module: str, name: str) -> Callable[..., Iterable[Item | HashedEntry]]:
    """A reader whose file is imported when it reads for the first time: a process needs few of them."""
    def read(file: BinaryIO, **more: Any) -> Iterable[Item | HashedEntry]:
        reader: Iterable[Item | HashedEntry] = getattr(import_module(f"{__name__}.{module}"), name)(file, **more)
        return reader
    return read


# Every format by the name that settings use for it.
READERS: dict[str, Callable[..., Iterable[Item | HashedEntry]]] = {
    "domains": read_domains, "urls": read_urls, "hosts": reader_in("hosts", "read_hosts"),
    "rpz": reader_in("zone", "read_zone"), "csv": reader_in("table", "read_table"),
    "adblock": reader_in("adblock", "read_adblock"),
    "nfqfilter-domains": reader_in("nfqfilter", "read_nfqfilter_domains"),
    "nfqfilter-urls": reader_in("nfqfilter", "read_nfqfilter_urls"),
    "nfqfilter-addresses": reader_in("nfqfilter", "read_nfqfilter_addresses"),
    "dnsmasq": reader_in("resolvers", "read_dnsmasq"), "unbound": reader_in("resolvers", "read_unbound"),
    "bind": reader_in("resolvers", "read_bind"), "domain-set": reader_in("resolvers", "read_domain_set"),
    "dataset": reader_in("dataset", "read_dataset"), "json": reader_in("feeds", "read_feed"),
    "order": reader_in("orders", "read_order"), "register": reader_in("register", "read_register"),
    "maltrail": reader_in("trails", "read_trails"), "hashed": read_hashed,
}
ORDER = ".order.json"
# The file name extensions that have a format when no settings say.
EXTENSIONS: dict[str, str] = {
    ".list": "domains", ".txt": "domains", ".urls": "urls", ".hosts": "hosts", ".rpz": "rpz", ".csv": "csv",
    ".adblock": "adblock", ".dnsmasq": "dnsmasq", ".unbound": "unbound", ".bind": "bind",
    ".domains": "domain-set", ".lst": "domains", ".ip": "domains", ".ipset": "domains", ".netset": "domains",
    ".dataset": "dataset", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".stix": "json", ".stix2": "json",
    ".hashed": "hashed", ORDER: "order",
}
# The whole file names that have one: those of the samples and the list makers, and the words of the configuration.
NAMES: dict[str, str] = {
    "domains": "nfqfilter-domains", "domainlist": "nfqfilter-domains",
    "ssl_host": "nfqfilter-domains", "ssl_hosts": "nfqfilter-domains", "ssllist": "nfqfilter-domains",
    "urls": "nfqfilter-urls", "urllist": "nfqfilter-urls",
    "hosts": "nfqfilter-addresses", "hostlist": "nfqfilter-addresses",
    "ssl_ips": "nfqfilter-addresses", "sslips": "nfqfilter-addresses",
}
# Those in which a name may be that name alone or all below it too, as the settings of a list say.
WIDENED = ("hosts", "nfqfilter-domains", "nfqfilter-addresses", "register")
OUTCOME = ".outcome.json"       # how a file ends that answers an order, and is no list
# Extensions of files that are packed in another way than is read: refused before they are opened.
PACKED = (".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz")


def list_name(file_name: str) -> str:
    """The name of the list that a file is: without its extension, and that of packing before it."""
    return split_name(file_name)[0]


def split_name(file_name: str) -> tuple[str, str]:
    """Name and extension of a list file, without the extension that says that it is packed."""
    name, extension = stem_and_suffix(file_name)
    if extension in SUFFIXES:
        name, extension = stem_and_suffix(name)
    before, more = stem_and_suffix(name)
    return (before, ORDER) if more + extension == ORDER else (name, extension)


def stem_and_suffix(name: str) -> tuple[str, str]:
    """As a Path says it, of whom a million take a second and half a gigabyte."""
    at = name.rfind(".")
    return (name[:at], name[at:]) if 0 < at < len(name) - 1 else (name, "")


def find_format(file_name: str) -> str | None:
    """The format of a file by its whole name or its extension; None where neither has one."""
    name, extension = split_name(file_name)
    return NAMES.get(name + extension) or EXTENSIONS.get(extension)


def reader_of(name: str, settings: ListSettings) -> Reader:
    """The reader of a format, with what the settings of a list say about it; it unpacks and decodes what it reads,
    and refuses a file of another format."""
    if name == "hashed":
        return read_hashed_list
    reader = told(plain_reader_of(name, settings), name)

    def read(file: BinaryIO) -> Iterator[Item | HashedEntry]:
        try:
            text = text_of(file, settings)
            if name == "csv" and settings.column is None and is_register(head_of(text)):
                yield Remark(1, "the file is the dump of the Russian register, and read as format = \"register\"")
                yield from READERS["register"](text, subdomains=bool(settings.subdomains))
            else:
                yield from reader(text)
        except BadFile as error:
            yield Problem(1, f"the file {error}", True, error.plain and f"the file {error.plain}")
    return read


def settled(name: str, settings: ListSettings) -> ListSettings:
    """The settings of a list of that format. Of an order every item is answered for itself, so none that cannot be
    used, or that a guard rail refuses, takes the others with it."""
    if name != "order":
        return settings
    return replace(settings, format=name, max_unparsable=1.0, guarded="skip", max_guarded=1.0)


def text_of(file: BinaryIO, settings: ListSettings) -> BinaryIO:
    """What is in a list file: unpacked, in UTF-8. Reading it may raise BadFile."""
    return decoded(unpacked(file, head_of(file)), settings.encoding)


def count_lines(file: BinaryIO, settings: ListSettings, word: bytes, without: Container[int] = ()) -> int:
    """How many lines of a list file have a word in them, in any case; not those with a number in `without`."""
    count = number = 0
    try:
        text = text_of(file, settings)
        while line := text.readline(LINE_MAX):
            number += 1
            count += word in line.lower() and number not in without
    except BadFile:
        pass                    # its reader has said so
    return count


def read_hashed_list(file: BinaryIO) -> Iterator[Item | HashedEntry]:
    """The reader of a hashed list, packed or not."""
    try:
        yield from read_hashed(unpacked(file, head_of(file)))
    except BadFile as error:
        yield Problem(1, f"the file {error}", whole=True)


def sniffed(file: BinaryIO, settings: ListSettings) -> str | None:
    """What a file is whose name says nothing, as the end of a sentence; None where its content says nothing."""
    try:
        return what_it_is(head_of(text_of(file, settings)))
    except BadFile:
        return None


def never_a_list(file: BinaryIO) -> str | None:
    """What a file is that no settings make a list of, packed or not, as the end of a sentence; None where it may be
    one."""
    try:
        return why_never(head_of(unpacked(file, head_of(file))))
    except BadFile as error:
        return f"it {error}"


def plain_reader_of(name: str, settings: ListSettings) -> Reader:
    if name == "csv":
        return partial(READERS[name], column=settings.column, delimiter=settings.delimiter,
                       attributes=settings.attributes)
    if name == "domains" and settings.attributes:
        return partial(read_domains, attributes=settings.attributes)
    if name == "urls" and settings.attributes:
        return partial(read_urls, attributes=settings.attributes)
    if name == "json":
        return partial(READERS[name], subdomains=bool(settings.subdomains), attributes=settings.attributes)
    if name == "rpz":
        return partial(READERS[name], zone=settings.zone)
    if name == "nfqfilter-urls" and settings.encoding:
        return partial(READERS[name], raw=False)
    reader = READERS[name]
    if settings.subdomains is not None and name in WIDENED:
        return partial(reader, subdomains=settings.subdomains)
    return reader
