"""List files into entries, whatever they are written in.

In: a file opened for reading bytes. Out: an Entry for each thing listed, a Problem for each line that cannot be used,
a Passed for each that is nothing for this filter, in file order; a reader never raises for what a file says and holds
one line at a time. International names come in, A-labels go out.

    lines       what every reader shares: items, limits, messages
    scan        lines out of bytes, and host names out of lines (compiled)
    entries     one entry: a host, a URL, an address
    plain       .list, .txt and .urls
    hosts       .hosts, the hosts file of an operating system
    zone        .rpz, a response policy zone
    table       .csv, a named column
    adblock     .adblock, the part of a filter list that names hosts and URLs
    nfqfilter   domains, urls, ssl_host, hosts, ssl_ips: the five files for nfqfilter and extFilter
    resolvers   .dnsmasq, .unbound, .domains: configurations of resolvers, domain sets of proxies
    dataset     .dataset, a base64 text a line, of an intrusion detection system
    hashed      .hashed, fingerprints in place of names
    told        what a file is, whatever it is called

A new format is a reader, a line in READERS, and its extension in EXTENSIONS or file name in NAMES.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import BinaryIO

from edgeblock.blocklist.formats.adblock import read_adblock
from edgeblock.blocklist.formats.dataset import read_dataset
from edgeblock.blocklist.formats.entries import DIRECTORY_DEPTH_MAX, network_key, network_text
from edgeblock.blocklist.formats.hashed import HashedEntry, read_hashed
from edgeblock.blocklist.formats.hosts import read_hosts
from edgeblock.blocklist.formats.lines import HOPELESS, LINE_MAX, Entry, Item, Passed, Problem, Remark
from edgeblock.blocklist.formats.nfqfilter import (
    read_nfqfilter_addresses,
    read_nfqfilter_domains,
    read_nfqfilter_urls,
)
from edgeblock.blocklist.formats.plain import read_domains, read_urls
from edgeblock.blocklist.formats.resolvers import read_dnsmasq, read_domain_set, read_unbound
from edgeblock.blocklist.formats.table import read_table
from edgeblock.blocklist.formats.told import told
from edgeblock.blocklist.formats.zone import read_zone
from edgeblock.blocklist.settings import ListSettings

__all__ = [
    "DIRECTORY_DEPTH_MAX", "EXTENSIONS", "HOPELESS", "LINE_MAX", "NAMES", "PACKED", "READERS", "Entry",
    "HashedEntry", "Item", "Passed", "Problem", "Reader", "Remark", "find_format", "network_key", "network_text",
    "read_domains", "read_hashed", "reader_of",
]

Reader = Callable[[BinaryIO], Iterable[Item | HashedEntry]]

# Every format by the name that settings use for it.
READERS: dict[str, Reader] = {
    "domains": read_domains, "urls": read_urls, "hosts": read_hosts, "rpz": read_zone, "csv": read_table,
    "adblock": read_adblock, "nfqfilter-domains": read_nfqfilter_domains, "nfqfilter-urls": read_nfqfilter_urls,
    "nfqfilter-addresses": read_nfqfilter_addresses, "dnsmasq": read_dnsmasq, "unbound": read_unbound,
    "domain-set": read_domain_set, "dataset": read_dataset, "hashed": read_hashed,
}
# The file name extensions that have a format when no settings say.
EXTENSIONS: dict[str, str] = {
    ".list": "domains", ".txt": "domains", ".urls": "urls", ".hosts": "hosts", ".rpz": "rpz", ".csv": "csv",
    ".adblock": "adblock", ".dnsmasq": "dnsmasq", ".unbound": "unbound", ".domains": "domain-set",
    ".ipset": "domains", ".netset": "domains", ".dataset": "dataset", ".hashed": "hashed",
}
# The whole file names that have one: those of the samples and the list makers, and the words of the configuration.
NAMES: dict[str, str] = {
    "domains": "nfqfilter-domains", "domainlist": "nfqfilter-domains",
    "ssl_host": "nfqfilter-domains", "ssl_hosts": "nfqfilter-domains", "ssllist": "nfqfilter-domains",
    "urls": "nfqfilter-urls", "urllist": "nfqfilter-urls",
    "hosts": "nfqfilter-addresses", "hostlist": "nfqfilter-addresses",
    "ssl_ips": "nfqfilter-addresses", "sslips": "nfqfilter-addresses",
}
# Extensions of packed files: refused before they are opened.
PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")


def find_format(file_name: str, extension: str) -> str | None:
    """The format of a file by its whole name or its extension; None where neither has one."""
    return NAMES.get(file_name) or EXTENSIONS.get(extension)


def reader_of(name: str, settings: ListSettings) -> Reader:
    """The reader of a format, with what the settings of a list say about it; it refuses a file of another format."""
    return READERS[name] if name == "hashed" else told(plain_reader_of(name, settings), name)


def plain_reader_of(name: str, settings: ListSettings) -> Reader:
    if name == "csv":
        return partial(read_table, column=settings.column, delimiter=settings.delimiter)
    if name == "rpz":
        return partial(read_zone, zone=settings.zone)
    wide = settings.subdomains
    if wide is not None and name == "hosts":
        return partial(read_hosts, subdomains=wide)
    if wide is not None and name == "nfqfilter-domains":
        return partial(read_nfqfilter_domains, subdomains=wide)
    if wide is not None and name == "nfqfilter-addresses":
        return partial(read_nfqfilter_addresses, subdomains=wide)
    return READERS[name]
