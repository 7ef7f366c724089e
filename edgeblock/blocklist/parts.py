"""What a snapshot has in it: its parts, and what it says of each list, as records.

In: what the compiler has made, or a snapshot's file says. Out: the same under names. Never here: how it is made or
read; so who only asks a snapshot, as a worker does, imports no reader of lists.
"""

import math
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeblock.blocklist.fingerprint import Kind, Merge
from edgeblock.blocklist.terms import ALWAYS, NEVER, Window
from edgeblock.blocklist.timetable import Blob, known_weekly

LISTS_MAX = 0xFFFF      # a row's value has 16 bits for the list, and one value is "no list"
EXCEPTION, TERMS = 0x100, 0x200
ROW_SIZE = 20
# An address entry: address (IPv4 takes the first four bytes), prefix length, flags, port (0: none), list index.
ADDRESS = struct.Struct("<16sBBHHxx")
FLAGS_AT, INDEX_AT = 17, 20             # where its flags are in it, and its list index
IS_IPV6, IS_EXCEPTION, HAS_TERMS = 1, 2, 4      # its flags

Notice = dict[str, Any]     # {"pages": {language: HTML}, "reason": {language: text}, "contact", "status", "redirect"}


class ClientSet(NamedTuple):
    """Addresses of clients, as ranges that are sorted and apart (prefixes.pyx). `sum` tells sets apart, `prefixes`
    is how many they were written as."""

    sum: str
    prefixes: int
    ipv4: bytes | memoryview
    ipv6: bytes | memoryview


@dataclass
class ListRecord:
    """What a snapshot says of a list. Index in Compiled.lists = list index.

    `entries` are distinct ones, `duplicates` the others, `unusable` the lines left out, `guarded` the entries that a
    guard rail left out, `exceptions_lost` the exceptions that could not be taken; `expires` is Unix seconds, `signed`
    the time that the signature has, `sha256` that of the file; `origin` stands for the files and settings it was made
    of, `part` is the digest of the part that it came from; `uid` and `settings_uid` own the list and its settings.
    `address_entries` are those for addresses that block; what follows is what the box had seen behind them when the
    list was taken (impact.Figures), None where nobody knew. From `begins` on, before `ends` (Unix seconds) and within
    `weekly` it holds; `order` are its order data. `timed` entries hold in windows of their own only, and `past` were
    left out as theirs ended long ago; their weekly windows are `sets` different ones. `clients` is "only" or "except"
    where the list applies to the clients alone that are in the set with the sum `clients_sum`, or to all but these;
    "" for all. The set is of `clients_file`, or of the settings where that is "", and of `clients_count` prefixes.
    `notice` is what it tells those whom it blocks, where that is not what [reply] says (notice.py). `root` is what
    its entries are committed to and `leaves` how many these are (committed.py); "" where they are not. Of a list
    that was compiled elsewhere `made_of` stands for what it was made of there, and `compiled_by` is the key that has
    signed it; `doubt` is what stood against taking that (precompiled.py).
    """

    name: str
    action: str
    mandatory: bool = False
    category: str = ""
    entries: int = 0
    file: str = ""
    https: str = "ignore"
    max_shrink: float = 0.5
    expires: float | None = None
    expired: bool = False
    duplicates: int = 0
    unusable: int = 0
    guarded: int = 0
    exceptions_lost: int = 0
    signed: int | None = None
    sha256: str = ""
    origin: str = ""
    part: str = ""
    uid: int | None = None
    settings_uid: int | None = None
    address_entries: int = 0
    names_behind: int | None = None
    names_shared: int | None = None
    flows_behind: int | None = None
    subscribers_share: float | None = None
    begins: int | None = None
    ends: int | None = None
    weekly: list[str] = field(default_factory=list)
    order: dict[str, str] = field(default_factory=dict)
    timed: int = 0
    past: int = 0
    sets: int = 0
    clients: str = ""
    clients_file: str = ""
    clients_sum: str = ""
    clients_count: int = 0
    notice: dict[str, Any] = field(default_factory=dict)
    root: str = ""
    leaves: int = 0
    made_of: str = ""
    compiled_by: str = ""
    doubt: str = ""

    @property
    def window(self) -> Window:
        """When the whole list holds."""
        return Window(ALWAYS if self.begins is None else self.begins, NEVER if self.ends is None else self.ends,
                      tuple(map(known_weekly, self.weekly)))

    @property
    def life(self) -> Window:
        """The same, until it expires."""
        window = self.window
        return window if self.expires is None else window._replace(ends=min(window.ends, math.ceil(self.expires)))

    @property
    def redirect(self) -> str:
        """Where it sends those whom it blocks, if that is not where [reply] does."""
        return str(self.notice.get("redirect", ""))


@dataclass
class Compiled:
    """The parts of a snapshot.

    Bit n of `labels`: some listed host has n labels (63: or more; 0: is an address). Bit n of `depths`: some
    directory entry has n path segments. Bit n of `ipv4_lengths` and `ipv6_lengths`: some address prefix has n bits.
    `url_max` and `directory_max` are the sizes of the longest keys of these kinds.

    Where `base` is the digest of a snapshot, these parts lie over it: `below` has the index there of each list whose
    rows are there and not here, -1 for the others. The rows there of lists that are not named count no more. `rows`
    and `bitmap` are then of the others alone, everything else is of both together.

    `addresses` has an ADDRESS for each address entry, in no order, some perhaps twice. Bit n of `at_ipv4` and
    `at_ipv6`: some host has an entry with an address prefix of n bits. `nat64` are the prefixes behind which IPv4
    addresses are, besides those that every box knows (addresses.TRANSLATED).

    `terms` are those of the entries of each list whose rows are here, `windows` those of its address entries, of all
    lists (timetable.py). `commitments` are those to the entries of the one list, sorted (commitments.pyx); a snapshot
    has none. `client_sets` has each set that a list of `lists` names; in the part of a list the one of its settings
    alone: a file is kept by itself, as it may change without the list.
    """

    lists: list[ListRecord]
    bitmap: bytes | memoryview
    rows: bytes | memoryview | Merge
    ipv4: bytes | memoryview
    labels: int = 0
    depths: int = 0
    ipv4_lengths: int = 0
    ipv6_lengths: int = 0
    url_max: int = 0
    directory_max: int = 0
    base: str = ""
    below: list[int] = field(default_factory=list)
    addresses: bytes | bytearray | memoryview = b""
    nat64: tuple[str, ...] = ()
    at_ipv4: int = 0
    at_ipv6: int = 0
    terms: dict[int, Blob] = field(default_factory=dict)
    windows: dict[int, Blob] = field(default_factory=dict)
    client_sets: list[ClientSet] = field(default_factory=list)
    commitments: bytes | memoryview = b""


def rule_number(mark: bytes, kind: Kind) -> int:
    """The id of a rule as the matcher makes it (`rule_id` in fingerprint.pxd)."""
    return int.from_bytes(mark[12:16], "big") ^ kind * 0x9E3779B1 & 0xFFFFFFFF
