"""What the rows of a snapshot say of a name or an address, read in plain Python: a second opinion on the matcher.

In: a Snapshot, a canonical host, a plain target, an address. Out: a Verdict. It shares with the matcher the
fingerprint and the form of the rows and terms, nothing else: it has no bitmap, no bounds, no readings of odd names,
and another way to tell what a clock shows. Slow;
for the trial of lists (daemon/selfcheck.py). Never here: a packet.
"""

from collections.abc import Iterator
from enum import IntEnum

from edgeblock.addresses import embedded
from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import network_key
from edgeblock.blocklist.parts import EXCEPTION, ROW_SIZE, TERMS, ListRecord
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.timetable import Table as Terms

PRINT_SIZE = 16
NO_LIST = 0xFFFF


class Verdict(IntEnum):
    """What is done with a name, by what counts most of what applies to it."""

    NOTHING = 0         # no list has it
    OBSERVE = 1
    BLOCK = 2
    EXCEPTION = 3
    MANDATORY = 4       # a block that no exception lifts

    @property
    def blocks(self) -> bool:
        return self in (Verdict.BLOCK, Verdict.MANDATORY)


class Table:
    """The rows of one layer; `lists` says which list of the snapshot each index in them stands for, -1 for none."""

    def __init__(self, rows: memoryview, lists: list[int]) -> None:
        self.rows, self.lists = rows, lists
        self.count = len(rows) // ROW_SIZE

    def find(self, print: bytes) -> Iterator[tuple[int, int]]:
        """List and value of each row of that fingerprint that counts."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            at = middle * ROW_SIZE
            if bytes(self.rows[at:at + PRINT_SIZE]) < print:
                low = middle + 1
            else:
                high = middle
        for row in range(low, self.count):
            at = row * ROW_SIZE
            if bytes(self.rows[at:at + PRINT_SIZE]) != print:
                return
            value = int.from_bytes(self.rows[at + PRINT_SIZE:at + ROW_SIZE], "little")
            index = value >> 16
            if index < len(self.lists) and self.lists[index] >= 0:
                yield self.lists[index], value & 0xFFFF


class Rows:
    """The rows of a snapshot, and of the one below it.

    `at` is the moment that is asked about, in Unix seconds; None: terms hold always. `ech`: every hello has an
    Encrypted ClientHello.
    """

    def __init__(self, snapshot: Snapshot, at: float | None = None, ech: bool = False) -> None:
        parts = snapshot.parts
        self.at, self.ech = at, ech
        self.terms = {index: Terms(blob) for index, blob in snapshot.terms.items()}
        self.key = snapshot.key
        self.lists: list[ListRecord] = parts.lists
        self.nat64 = parts.nat64
        self.sets = {one.sum: one for one in parts.client_sets}
        self.lengths = {4: parts.ipv4_lengths, 16: parts.ipv6_lengths}
        self.at_lengths = {4: parts.at_ipv4, 16: parts.at_ipv6}
        self.tables = [Table(memoryview(parts.rows), list(range(len(parts.lists))))]    # type: ignore[arg-type]
        if snapshot.base is not None:
            places = [-1] * len(snapshot.base.parts.lists)
            for index, below in enumerate(parts.below):
                if below >= 0:
                    places[below] = index
            self.tables.append(Table(memoryview(snapshot.base.parts.rows), places))     # type: ignore[arg-type]

    def find(self, key: bytes) -> list[tuple[int, int, bool]]:
        """(list, kind, whether it is an exception) of each row of a key."""
        print = fingerprint(self.key, key)
        return [(index, value & 0xFF, value & EXCEPTION != 0) for table in self.tables
                for index, value in table.find(print) if self._holds(print, index, value)]

    def _holds(self, print: bytes, index: int, value: int) -> bool:
        if self.at is None:
            return True
        if not self.lists[index].window.holds(self.at):
            return False
        return not value & TERMS or index in self.terms and any(
            one.window.holds(self.at) and (self.ech or not one.ech) for one in self.terms[index].find(print, value))

    def has(self, name: str, kind: Kind, key: bytes, exception: bool) -> bool:
        """Whether that entry of that list is there."""
        return any(self.lists[index].name == name and (found, excepted) == (kind, exception)
                   for index, found, excepted in self.find(key))

    def name(self, proto: str, host: bytes, target: bytes = b"/", destination: bytes = b"",
             client: bytes | None = None) -> Verdict:
        """Of a host over "tls" or "quic", or of what is asked of it over "http", at an address of 4 or 16 bytes; by
        the client with such an address, b"" one of whom nothing is known, None one that every list applies to."""
        asked: list[tuple[bytes, tuple[Kind, ...]]] = []
        if host_address(host) is None:      # entries for hosts are not about addresses
            labels = host.split(b".")
            asked = [(b".".join(labels[i:]), (Kind.HOST, Kind.SUBDOMAINS)) for i in range(1, len(labels))]
            asked.append((host, (Kind.HOST, Kind.HOST_ONLY) + (() if proto == "http" else (Kind.HOST_OF_URL,))))
            for key in self._places(destination) if destination else ():
                asked += [(b".".join(labels[i:]) + key, (Kind.HOST_AT, Kind.SUBDOMAINS_AT))
                          for i in range(1, len(labels))]
                asked.append((host + key, (Kind.HOST_AT, Kind.HOST_ONLY_AT)))
        if proto == "http":
            path = target.partition(b"?")[0]
            asked += [(host + target, (Kind.URL_WITH_QUERY,)), (host + path, (Kind.URL, Kind.DIRECTORY))]
            asked += [(host + (path[:i] or b"/"), (Kind.DIRECTORY,))
                      for i, byte in enumerate(path[:-1]) if byte == 47]
        return self._strongest(asked, client)

    def _places(self, address: bytes) -> Iterator[bytes]:
        """The keys of the prefixes that an address is in, of lengths that stand behind some host; and of the IPv4
        addresses that it leads to."""
        yield from prefixes(address, self.at_lengths[len(address)])
        for inner in embedded(address, self.nat64) if len(address) == 16 else ():
            yield from self._places(inner)

    def address(self, address: bytes, *ports: int) -> Verdict:
        """Of a destination of 4 or 16 bytes with any of these ports, and of the IPv4 addresses that one of 16 leads
        to."""
        inner = [self.address(one, *ports) for one in embedded(address, self.nat64)] if len(address) == 16 else []
        asked: list[tuple[bytes, tuple[Kind, ...]]] = [
            (key, (Kind.NETWORK,)) for key in prefixes(address, self.lengths[len(address)])]
        asked += [(network_key(address, 8 * len(address), port), (Kind.ENDPOINT,)) for port in ports]
        return max([self._strongest(asked), *inner])

    def is_for(self, client: bytes | None, record: ListRecord) -> bool:
        """Whether a list applies to a client."""
        if not record.clients or client is None:
            return True
        one = self.sets.get(record.clients_sum)
        if one is None or not client:
            return False
        size, ranges = len(client), one.ipv4 if len(client) == 4 else one.ipv6
        inside = any(bytes(ranges[at:at + size]) <= client <= bytes(ranges[at + size:at + 2 * size])
                     for at in range(0, len(ranges), 2 * size))
        return inside == (record.clients == "only")

    def _strongest(self, asked: list[tuple[bytes, tuple[Kind, ...]]], client: bytes | None = None) -> Verdict:
        best = Verdict.NOTHING
        for key, kinds in asked:
            for index, kind, exception in self.find(key):
                if kind in kinds and self.is_for(client, self.lists[index]):
                    best = max(best, Verdict.EXCEPTION if exception else weight(self.lists[index]))
        return best


def prefixes(address: bytes, lengths: int) -> Iterator[bytes]:
    """The keys of the prefixes of these lengths (a bit each) that an address is in."""
    bits, whole = 8 * len(address), int.from_bytes(address)
    for length in range(bits + 1):
        if lengths >> length & 1:
            yield network_key((whole >> bits - length << bits - length).to_bytes(len(address)), length)


def weight(record: ListRecord) -> Verdict:
    if record.action == "observe":
        return Verdict.OBSERVE
    return Verdict.MANDATORY if record.mandatory else Verdict.BLOCK
