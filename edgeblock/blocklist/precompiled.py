"""A list that was compiled elsewhere: what stands beside it as NAME.compiled, taken in place of reading the list.

In: that file with its signature, the list, and everything that a list is judged by here. Out: what `intake.take`
would have made of the list; or a Doubt, and whoever asked reads the list as if the file were not there. It is the
part of the list as a state directory with the same key keeps it (snapshot.py). It is copied before it is looked at,
as who may write it may change it meanwhile, and only rows, bounds and counts of it are used. What can be found out
here is found out here: that it is of this very list, by its SHA-256, that its rows are in order and have all that the
list's first lines say, every guard rail that holds for fingerprints and addresses. What is left is believed of the
signer: docs/compiled.md. Never here: a list refused, or one in force that is not there.
"""

import io
import mmap
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from publicsuffixlist import PSLFILE
from pyroaring import BitMap

import edgeblock
from edgeblock.blocklist import snapshot
from edgeblock.blocklist.commitments import SIZE
from edgeblock.blocklist.committed import root_of
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.directory import COMMITMENTS, COMPILED, ListFile, open_regular
from edgeblock.blocklist.fingerprint import Kind, has_all, look_through, prefixes_of, values_of
from edgeblock.blocklist.formats import Entry, HashedEntry, network_key
from edgeblock.blocklist.formats.hashed import HashedHead
from edgeblock.blocklist.formats.packed import SUFFIXES
from edgeblock.blocklist.guard import Guard, Seen
from edgeblock.blocklist.intake import (
    BUFFER,
    LIST_BYTES_MAX,
    Gathering,
    Read,
    Refused,
    Terms,
    Unsettled,
    Watched,
    origin_of,
    settle,
    signature_of,
    signed_reader,
)
from edgeblock.blocklist.notice import read_notice
from edgeblock.blocklist.parts import ADDRESS, EXCEPTION, HAS_TERMS, IS_EXCEPTION, IS_IPV6, Compiled, ListRecord
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.signature import MINISIG_MAX, Hashed, PublicKey, keys_for, refuses_replay
from edgeblock.errors import ListError, printable

FORMAT = 1              # of what stands in such a file besides what snapshot.VERSION says
BYTES_MAX = 4 << 30     # of one, and
RATIO = 64              # so many times the list's own, and MORE: the shortest URL makes three rows of its six bytes;
PACKED_RATIO = 1280     # that of a list that may be packed, as names are by ten to twenty times
MORE = 1 << 20
FIRST = 4096            # items of the list that are read here, and of which every row has to be there
COUNT_MAX = 1 << 40
ROOT = re.compile("[0-9a-f]{64}")
COUNTS = ("duplicates", "unusable", "guarded", "exceptions_lost", "leaves")


class Doubt(Exception):
    """It is not taken; why, in words that quote nothing of the list."""


@dataclass(frozen=True)
class Part:
    """What has been verified of the file, and whose signature it has."""

    parts: Compiled
    record: ListRecord
    signer: str


# Making one ------------------------------------------------------------------------------------------------------

def why_none(settings: ListSettings) -> str | None:
    """Why there is none of a list with these settings."""
    if settings.format == "order":
        return "an order is read, as each of its items is answered"
    if settings.drop_past_days is not None:
        return "with drop_past_days it depends on the day what is in a list"
    return None


def part_of(compiled: Compiled, source: ListFile, terms: Terms) -> Compiled:
    """What NAME.compiled has, of a list as `intake.take` has made it.

    Raises:
        Doubt: there is none of such a list.
    """
    if why := why_none(source.settings):
        raise Doubt(why)
    if compiled.terms or compiled.windows:
        raise Doubt("it has entries with windows or orders of their own, which are read on each box")
    [record] = compiled.lists
    told = ListRecord(record.name, record.action, entries=record.entries, sha256=record.sha256, root=record.root,
                      made_of=made_of(source, terms, record.sha256))
    for name in COUNTS:
        setattr(told, name, getattr(record, name))
    return replace(compiled, lists=[told], client_sets=[], commitments=b"")


def made_of(source: ListFile, terms: Terms, digest: str) -> str:
    """Stands for everything that decides which rows a list has, the same on every box: the bytes of the list, its
    settings with the defaults of the configuration, the guard rails, and what reads them."""
    seen = (FORMAT, edgeblock.__version__, snapshot.VERSION, sys.version_info[:2], unicodedata.unidata_version,
            shipped(), terms.own, terms.rules.nat64, source.name, source.path.name, repr(source.settings), digest)
    return blake2b(repr(seen).encode(), digest_size=32).hexdigest()


@cache
def shipped() -> str:
    """Of the guard rails that come with edgeblock."""
    summed = sha256()
    here = Path(__file__)
    for path in (here.with_name("protected.names"), here.with_name("shared.networks"), Path(PSLFILE)):
        summed.update(sha256(path.read_bytes()).digest())
    return summed.hexdigest()


# Taking one ------------------------------------------------------------------------------------------------------

def take(source: ListFile, terms: Terms, previous: ListRecord | None, now: float, aside: Callable[[], BinaryIO],
         signed_before: int | None = None) -> Compiled | None:
    """As `intake.take`; None where nothing that was compiled stands beside the list.

    Args:
        aside: gives a file without a name, for what is not believed yet.

    Raises:
        Doubt: the list has to be read.
        Unsettled: it was changed meanwhile.
    """
    path = source.path.with_name(f"{source.name}{COMPILED}")
    if not os.path.lexists(path):
        return None
    if why := why_none(source.settings):
        raise Doubt(why)
    try:
        part = read_part(path, source, terms, now, aside)
        compiler, entries = rows_of(part.parts, source, terms)
        guard = Guard(source.settings, terms.protected, terms.key)
        bitmap = BitMap(prefixes_of(part.parts.rows))       # type: ignore[arg-type]
        judge_entries(guard, part.parts, bitmap, compiler)
    except ListError as error:
        raise Doubt(printable(str(error).removeprefix(f"{path.name}: "))) from None
    except OSError as error:
        raise Doubt(f"cannot be read or copied: {error.strerror}") from None
    bitmap.run_optimize()
    made = complete(part, compiler, bitmap, entries, terms)
    read, first = read_list(source, terms, made)
    if part.record.made_of != made_of(source, terms, read.sha256):
        raise Doubt("is not of this list, these settings, these guard rails and this version of edgeblock")
    judge_first(first, made)
    record = made.lists[0]
    read = replace(read, guard=guard, guarded=record.guarded, total=entries + record.duplicates)
    # That no more lines than allowed cannot be used was judged where it was compiled, by the same settings.
    if settle(made, source, terms, read, Seen(0, entries, 0), previous, signed_before, now):
        raise Doubt("a guard rail against its version before refuses the list")
    record.compiled_by = part.signer
    if record.root and (beside := commitments_of(source, record, aside)) is not None:
        made.commitments = beside
    return made


def may_stay(record: ListRecord, terms: Terms) -> bool:
    """Whether who has signed what was taken instead of the list, if anybody, is still believed."""
    return not record.compiled_by or record.compiled_by in map(str, keys_of(record.name, terms))


def keys_of(name: str, terms: Terms) -> tuple[PublicKey, ...]:
    """Of which one has to sign what was compiled of that list; none where none is believed."""
    signers = [word for word in terms.rules.compiled_signers if word.rpartition("=")[0] in ("", name)]
    return keys_for(name, "", signers, True) or () if signers else ()


def commitments_of(source: ListFile, record: ListRecord, aside: Callable[[], BinaryIO]) -> memoryview | None:
    """What proves entries of the list, where it stands beside as NAME.commitments and comes to the root that is
    signed. Without it the list is in force all the same; what is wrong with one that is there is told."""
    path = source.path.with_name(f"{source.name}{COMMITMENTS}")
    if not os.path.lexists(path):
        return None
    size = record.leaves * SIZE
    try:
        with open_regular(path) as file, aside() as copy:
            left = size + 1
            while piece := file.read(min(left, BUFFER)):
                copy.write(piece)
                left -= len(piece)
            copy.flush()
            view = memoryview(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ))
        if len(view) == size and root_of(view) == record.root:
            return view
        why = "is not what the list is committed to"
    except (ListError, OSError, ValueError) as error:       # ValueError: it is empty
        why = f"cannot be used: {error}"
    record.doubt = printable(f"{path.name}: {why}; what proves entries of {source.path.name} is not kept here")
    return None


def read_part(path: Path, source: ListFile, terms: Terms, now: float, aside: Callable[[], BinaryIO]) -> Part:
    """The file, copied, signed by who may, and verified as a whole.

    Raises:
        ListError, Doubt: it is not.
        OSError: it cannot be copied.
    """
    keys = keys_of(source.name, terms)
    if not keys:
        raise Doubt("[rules] compiled_signers names no key for this list")
    beside = signature_of(path)
    if not os.path.lexists(beside):
        raise Doubt(f"has no signature, and there is no {beside.name}; drop that first")
    with open_regular(beside) as file:
        minisig = file.read(MINISIG_MAX + 1)
    packed = source.path.suffix in SUFFIXES
    size = source.state.st_size if source.state else 0
    most = min(BYTES_MAX, size * (PACKED_RATIO if packed else RATIO) + MORE)
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise Doubt(f"has more than {most} bytes, which is more than this list can come to")
        copy = aside()
        hashed = Hashed(file.raw, minisig, keys, path.name)     # type: ignore[attr-defined]
        buffer, left = memoryview(bytearray(BUFFER)), most
        while count := hashed.readinto(buffer):
            left -= count
            if left < 0:
                raise Doubt("has grown while it was read")
            copy.write(buffer[:count])
        signed = hashed.signed()
    copy.flush()
    if why := refuses_replay(signed, None, now):
        raise Doubt(why)
    with copy:
        if not os.fstat(copy.fileno()).st_size:
            raise Doubt("is empty")
        view = memoryview(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ))
    parts = snapshot.open_snapshot(view, terms.key, path.name).parts
    if len(parts.lists) != 1 or parts.base:
        raise Doubt("is not the part of one list")
    record = parts.lists[0]
    if record.name != source.name:
        raise Doubt("is of another list")
    if not isinstance(record.made_of, str) or not isinstance(record.root, str) or any(
            type(count) is not int or not 0 <= count < COUNT_MAX
            for count in (getattr(record, name) for name in COUNTS)):
        raise Doubt("has counts that are none")
    return Part(parts, record, signed.key_id)


def rows_of(parts: Compiled, source: ListFile, terms: Terms) -> tuple[Compiler, int]:
    """What compiles the addresses of the part anew, done with that, and how many entries the part has.

    Raises:
        Doubt: rows or addresses are not what a compiler makes, or do not fit each other.
    """
    compiler = Compiler(terms.key)
    compiler.add_list(source.name, source.settings)
    try:
        entries, addresses = look_through(parts.rows)       # type: ignore[arg-type]
        for entry in address_entries(parts):
            compiler.add(0, entry)
    except ValueError:
        raise Doubt("has rows or addresses that edgeblock does not make, or entries with windows or orders") from None
    made = compiler.finish()
    mine = memoryview(made.rows)                            # type: ignore[arg-type]
    if len(compiler.rows) != addresses or not has_all(parts.rows, mine) or (       # type: ignore[arg-type]
            made.ipv4_lengths, made.ipv6_lengths) != (parts.ipv4_lengths, parts.ipv6_lengths):
        raise Doubt("has other addresses than rows for addresses")
    return compiler, entries


def address_entries(parts: Compiled) -> list[Entry]:
    """The address entries of a part. ValueError where one is none."""
    made = []
    for address, length, flags, port, index in ADDRESS.iter_unpack(parts.addresses):
        size = 16 if flags & IS_IPV6 else 4
        if index or flags & HAS_TERMS or flags & ~(IS_IPV6 | IS_EXCEPTION) or length > 8 * size or any(
                address[size:]) or int.from_bytes(address[:size]) & (1 << 8 * size - length) - 1 or (
                port and length != 8 * size):
            raise ValueError
        key = network_key(address[:size], length, port or None)
        made.append(Entry(0, Kind.ENDPOINT if port else Kind.NETWORK, key, bool(flags & IS_EXCEPTION)))
    return made


def judge_entries(guard: Guard, parts: Compiled, bitmap: BitMap, compiler: Compiler) -> None:
    """The guard rails of this box, as for a list of fingerprints (guard.py), and in full for addresses.

    Raises:
        Doubt: one refuses an entry.
    """
    for entry in address_entries(parts):
        if guard.refuses(entry) is not None:
            raise Doubt("a guard rail of this box refuses one of its addresses")
    head = HashedHead(compiler.key_id, 0, 0, 0, 0)
    for mark in guard.known_prints:
        if int.from_bytes(mark[:4]) in bitmap:
            for value in values_of(parts.rows, mark):       # type: ignore[arg-type]
                kind = Kind(value & 0xFF)
                if kind != Kind.HOST_OF_URL and guard.refuses(
                        HashedEntry(0, kind, mark, bool(value & EXCEPTION), head)) is not None:
                    raise Doubt("a guard rail of this box refuses one of its entries")


def complete(part: Part, compiler: Compiler, bitmap: BitMap, entries: int, terms: Terms) -> Compiled:
    """What `intake.take` would have compiled: of the file are the rows, the bounds and the counts alone.

    Raises:
        Doubt: it has no commitments, and the ledger here has them of every list.
    """
    made, told, parts = compiler.compiled, part.record, part.parts
    [record] = made.lists
    made.bitmap, made.rows = bitmap.serialize(), parts.rows
    for name in ("labels", "depths", "url_max", "directory_max", "at_ipv4", "at_ipv6"):
        setattr(made, name, getattr(parts, name))
    record.entries = entries
    for name in COUNTS:
        setattr(record, name, getattr(told, name))
    record.leaves = 0
    if terms.commit:
        if not ROOT.fullmatch(told.root) or told.leaves != entries:
            raise Doubt("is not committed to, and [ledger] is on here: have it on where it is compiled")
        record.root, record.leaves = told.root, told.leaves
    return made


def read_list(source: ListFile, terms: Terms, made: Compiled) -> tuple[Read, Compiled]:
    """All bytes of the list, hashed, with its signature where it needs one; and its first items, compiled here.

    Raises:
        Doubt: there is something wrong with it, which is for `intake.take` to say.
        Unsettled: it was changed meanwhile.
    """
    name = source.path.name
    try:
        gathering = Gathering(source, replace(terms, commit=False), 0)
        with open_regular(source.path) as file:
            before = os.fstat(file.fileno())
            origin = origin_of(source, terms, before)
            if before.st_size > LIST_BYTES_MAX:
                raise Doubt("the list is too long")
            watched = Watched(file.raw, None)       # type: ignore[attr-defined]
            notice = read_notice(source)
            hashed = signed_reader(source, terms, watched)
            whole = io.BufferedReader(hashed or watched, BUFFER)        # type: ignore[type-var]
            items = source.reader(whole)
            gathering.gather(islice(items, FIRST))
            rest = bytearray(BUFFER)
            while (hashed or watched).readinto(rest):
                pass
            signed = hashed.signed() if hashed else None
            after = os.fstat(file.fileno())
            del items
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Unsettled(f"{name}: was changed while it was read")
        if gathering.refusals:
            raise Doubt("a guard rail refuses the list")
        first = gathering.compiler.finish()
    except Unsettled:
        raise
    except (Refused, ListError, OSError):
        raise Doubt("the list itself is not to be taken") from None
    return Read(before, origin, notice, signed, watched.hash.hexdigest(), gathering.guard), first


def judge_first(first: Compiled, made: Compiled) -> None:
    """Raises Doubt where what the first items of the list come to is not all there."""
    bits = all(getattr(first, name) & ~getattr(made, name) == 0
               for name in ("labels", "depths", "at_ipv4", "at_ipv6"))
    if not bits or first.url_max > made.url_max or first.directory_max > made.directory_max or not has_all(
            made.rows, memoryview(first.rows)):             # type: ignore[arg-type]
        raise Doubt("lacks what the first lines of the list say")
