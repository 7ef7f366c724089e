"""The matcher that the engine asks: names and addresses against a snapshot (see the .pxd).

A look-up makes one fingerprint for each thing that could be listed (every parent domain, the URL, its directories)
and asks the bitmap for its first 32 bits; only where those are in it does it search the rows. What has to be tried
is cut down by the bounds in the snapshot: no parent domain with a number of labels that no listed host has, no URL
of a host without URL entries.

Precedence is one number, the rank: the class (mandatory block, exception, block, observation), then how specific
the entry is (URL with query, URL, directory, exact host, parent domain), then how long. Of equal ranks the list
that comes first has it. An observation is below every block: a list that is only being tried cannot unblock.

An entry for a host where it leads to an address is one more fingerprint, of the host and the prefix together; it is
only made for hosts that are marked to have such entries.

A row may have terms (holding.pyx), and so may its list, which may also be for some clients (prefixes.pyx): they are
asked for only where it would become the rule in force.

What has changed since a snapshot was made may lie over it (`snapshot.stack`). Then there are two tables of rows: one
of nearly everything, in which some lists count no more, and a small one of what counts instead. The bounds and the
list table are those of both together, so what is found, and what is tried, is what one snapshot of all would give.

One idea, though long: each step of a look-up changes the same walk, which never allocates, and one that people
ask for goes the same way as that of a packet.
"""

from typing import NamedTuple

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.blocklist.bitmap cimport contains, load_u32, open_bitmap, warm_container, warm_header
from edgeblock.blocklist.canonical cimport (
    WAYS, WAYS_TARGET_MAX, Readings, Ways, find_readings, find_relative, is_ambiguous, open_ways, put_way,
    read_plain_host, read_reading, read_target, read_way,
)
from edgeblock.blocklist.fingerprint cimport (
    AT, AT_MARK, DIRECTORY, ENDPOINT, EXCEPTION, HOST, HOST_AT, HOST_OF_URL, HOST_ONLY, HOST_ONLY_AT, KEY_SIZE,
    NETWORK, NO_LIST, PRINT_SIZE, ROW_SIZE, SUBDOMAINS, TERMS, URL, URL_MARK, URL_WITH_QUERY,
    crypto_shorthash_siphashx24,
    rule_id,
)
from edgeblock.addresses import translated
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.holding cimport STEPS_MAX, STEPS_SHIFT
from edgeblock.blocklist.leads cimport KEY_MAX, Lead, put_prefix, read_inner
from edgeblock.blocklist.prefixes cimport is_within
from edgeblock.blocklist.siphash cimport Hashing, sip_begin, sip_print
from edgeblock.core.matcher cimport (
    ACTION_DROP, ACTION_OBSERVE, ACTION_PAGE, ACTION_PASS, ACTION_REDIRECT, ACTION_RESET, PROTO_HTTP, PROTO_QUIC,
    NO_ORDER, PROTO_TLS, Around,
)
from edgeblock.core.decision import ACTIONS
from edgeblock.errors import ListError

cdef enum:
    CLASS_OBSERVE = 1
    CLASS_BLOCK = 2
    CLASS_EXCEPTION = 3
    CLASS_MANDATORY = 4
    CLASS_SHIFT = 28
    KIND_SHIFT = 20
    PLACE_LABELS = 8        # formats.entries.AT_LABELS_MAX
    ASKS = 8                # hosts have at most this many labels, nearly all of them
    DEPTH_MAX = 32          # formats.DIRECTORY_DEPTH_MAX

PROTOCOLS = {"tls": PROTO_TLS, "http": PROTO_HTTP, "quic": PROTO_QUIC}


class Found(NamedTuple):
    """The rule in force: `action` is "accept" for an exception; `rule` is eight hex digits; `order` is the number of
    the order that it has, "" where it has none."""

    action: str
    list: str
    rule: str
    order: str = ""


class Row(NamedTuple):
    """A row that a look-up came across. `applies` is false for, say, subdomains of the host itself; `holds` is false
    where it is not in force at this time, or wants a hello with an Encrypted ClientHello; `not_for`: it would apply,
    if another client asked."""

    list: str
    kind: Kind
    exception: bool
    applies: bool
    in_force: bool
    rule: str
    holds: bool = True
    not_for: bool = False


class Candidate(NamedTuple):
    """One thing that a look-up tried: its canonical form, whether the bitmap had it, the rows it led to; `places`: it
    is a host that has entries with an address."""

    text: bytes
    in_bitmap: bool
    rows: tuple[Row, ...]
    places: bool = False


cdef inline uint64_t load_high(const uint8_t* print) noexcept nogil:
    # The first 32 bits of a fingerprint.
    return <uint64_t>print[0] << 24 | <uint64_t>print[1] << 16 | <uint64_t>print[2] << 8 | print[3]


cdef inline uint32_t specific(uint32_t kind) noexcept nogil:
    if kind == URL_WITH_QUERY:
        return 6
    if kind == URL:
        return 5
    if kind == DIRECTORY:
        return 4
    if kind == HOST_ONLY or kind == HOST_OF_URL or kind == ENDPOINT or kind == HOST_ONLY_AT:
        return 3
    return 2


cdef inline int strength(const Match* match) noexcept nogil:
    # Of several readings of one name, the one that is blocked counts: an exception for what one server reads says
    # nothing about what another serves.
    if match.action == ACTION_PASS:
        return 0
    return 1 if match.action == ACTION_OBSERVE else 2


cdef inline void put_ask(Ask* ask, size_t start, size_t size, uint32_t kinds, uint32_t weight) noexcept nogil:
    ask.start = start
    ask.size = size
    ask.kinds = kinds
    ask.weight = weight
    ask.lifts = False


cdef size_t first_row(const Layer* layer, const uint8_t* print) noexcept nogil:
    # The first row that is not below `print`. Fingerprints are spread evenly, so three looks at where the row
    # ought to be, each between what the last ones found, end a few rows away; the rest widens from there and
    # then halves. However the rows lie, it is never longer than a few binary searches.
    cdef size_t low = 0, high = layer.count, step = 8, at
    cdef uint64_t wanted = load_high(print), least = 0, most = <uint64_t>1 << 32, seen
    cdef int turn
    cdef bint below = False
    for turn in range(3):
        if high - low <= step:
            break
        at = low + <size_t>((wanted - least) * (high - low) // (most - least))
        if at >= high:
            at = high - 1
        below = memcmp(layer.rows + at * ROW_SIZE, print, PRINT_SIZE) < 0
        seen = load_high(layer.rows + at * ROW_SIZE)
        if below:
            low = at + 1
            least = seen
        else:
            high = at
            most = seen + 1
    if below:
        while high - low > step:
            if memcmp(layer.rows + (low + step) * ROW_SIZE, print, PRINT_SIZE) >= 0:
                high = low + step
                break
            low += step + 1
            step <<= 1
    else:
        while high - low > step:
            if memcmp(layer.rows + (high - step) * ROW_SIZE, print, PRINT_SIZE) < 0:
                low = high - step + 1
                break
            high -= step
            step <<= 1
    while low < high:
        at = (low + high) >> 1
        if memcmp(layer.rows + at * ROW_SIZE, print, PRINT_SIZE) < 0:
            low = at + 1
        else:
            high = at
    return low


cdef inline uint32_t list_of(const Layer* layer, uint32_t value) noexcept nogil:
    # The list that a row belongs to; NO_LIST where it counts no more, or is of none.
    cdef uint32_t index = value >> 16
    return index if layer.lists == NULL or index == NO_LIST else layer.lists[index]


cdef bint is_listed(const Layer* layer, const uint8_t* print) noexcept nogil:
    # Whether a row that counts has the same first 32 bits: what a bitmap of such rows alone would say.
    cdef uint8_t least[PRINT_SIZE]
    cdef size_t i
    if layer.lists == NULL:
        return True
    memset(least, 0, PRINT_SIZE)
    memcpy(least, print, 4)
    for i in range(first_row(layer, least), layer.count):
        if memcmp(layer.rows + i * ROW_SIZE, print, 4) != 0:
            return False
        if list_of(layer, load_u32(layer.rows + i * ROW_SIZE + PRINT_SIZE)) != NO_LIST:
            return True
    return False


cdef void put_around(Around* around, bytes to, bytes client, bint ech):
    # For as long as somebody holds the two.
    around.to = to
    around.to_size = len(to)
    around.client = client
    around.client_size = len(client)
    around.ech = ech


cdef const uint8_t* start_of(const uint8_t[::1] section):
    return &section[0] if section.shape[0] else NULL


cdef int open_layer(parts, Layer* layer) except -1:
    if not open_bitmap(start_of(parts.bitmap), len(parts.bitmap), &layer.bitmap):
        raise ListError("snapshot: has a damaged bitmap; build it again")
    layer.rows = start_of(parts.rows)
    layer.count = len(parts.rows) // ROW_SIZE
    return 0


cdef int open_clients(parts, Whom* each) except -1:
    # Whom each list applies to. One whose set is not there applies to nobody: never to more than it should.
    cdef Whom* whom
    cdef size_t i
    sets = {one.sum: one for one in parts.client_sets}
    for i, record in enumerate(parts.lists):
        if not record.clients:
            continue
        whom = each + i
        one = sets.get(record.clients_sum)
        whom.mode = FOR_NOBODY if one is None else FOR_THESE if record.clients == "only" else FOR_OTHERS
        if one is not None:         # the snapshot keeps them
            whom.ipv4, whom.ipv4_count = start_of(one.ipv4), len(one.ipv4) // 8
            whom.ipv6, whom.ipv6_count = start_of(one.ipv6), len(one.ipv6) // 32
    return 0


cdef bint is_for(const Whom* whom, const Around* around) noexcept nogil:
    # Whether a list for some clients applies to whoever asks.
    cdef bint listed
    if around.client == NULL or whom.mode == FOR_NOBODY:
        return False
    if around.client_size == 4:
        listed = is_within(whom.ipv4, whom.ipv4_count, around.client, 4)
    elif around.client_size == 16:
        listed = is_within(whom.ipv6, whom.ipv6_count, around.client, 16)
    else:
        return False
    return listed == (whom.mode == FOR_THESE)


cdef class ListMatcher(Holder):
    """Answers from one opened snapshot (`snapshot.open_snapshot`), which it keeps alive, and from the one below it.

    Attributes:
        list_names: the names of the lists, in the order of the list indexes a match gives.
        snapshot: the Snapshot it answers from.
        client: for whom people and tests ask where they do not say it, 4 or 16 bytes in network order; b"": of whom
            nothing is known. Lists for some clients do not apply to those.
        anyhow: every list applies to whoever asks.

    Raises:
        ListError: a bitmap of the snapshot is damaged, or what it lies over is not there.
    """

    def __cinit__(self):
        self.list_action = NULL
        self.list_rank = NULL
        self.base_lists = NULL
        self.list_whom = NULL
        self.client = b""

    def __init__(self, snapshot not None):
        parts = snapshot.parts
        cdef const uint8_t[::1] key = snapshot.key
        cdef size_t i
        if key.shape[0] != KEY_SIZE or self.list_action != NULL:
            raise ValueError("a matcher is made once, with a key of 16 bytes")
        self.snapshot = snapshot
        self.key = &key[0]          # the snapshot keeps it
        if not open_bitmap(start_of(parts.ipv4), len(parts.ipv4), &self.ipv4):
            raise ListError("snapshot: has a damaged bitmap; build it again")
        if not parts.base:
            open_layer(parts, &self.base)
        else:
            open_layer(parts, &self.over)
            self.open_base(snapshot)
        self.labels, self.depths, self.ipv4_lengths = parts.labels, parts.depths, parts.ipv4_lengths
        for i in range(3):
            self.ipv6_lengths[i] = parts.ipv6_lengths >> 64 * i & 0xFFFFFFFFFFFFFFFF
            self.at_ipv6[i] = parts.at_ipv6 >> 64 * i & 0xFFFFFFFFFFFFFFFF
        self.at_ipv4 = parts.at_ipv4
        self.url_max, self.directory_max = parts.url_max, parts.directory_max
        self.list_names = tuple(record.name for record in parts.lists)
        self.list_count = <uint32_t>len(self.list_names)
        self.list_action = <uint8_t*>malloc(self.list_count + 1)
        self.list_rank = <uint8_t*>malloc(self.list_count + 1)
        self.list_whom = <Whom*>calloc(self.list_count + 1, sizeof(Whom))
        if self.list_action == NULL or self.list_rank == NULL or self.list_whom == NULL:
            raise MemoryError
        for one in translated(parts.nat64)[:LEADS_MAX]:
            prefix = one.prefix.network_address.packed
            memcpy(self.leads[self.lead_count].prefix, <const uint8_t*><const char*>prefix, 16)
            self.leads[self.lead_count].length = one.prefix.prefixlen
            self.leads[self.lead_count].at = one.at
            self.leads[self.lead_count].flip = 0xFF if one.flipped else 0
            self.lead_count += 1
        for i, record in enumerate(parts.lists):
            self.list_action[i] = ACTIONS.index(record.action)
            self.list_rank[i] = (CLASS_OBSERVE if record.action == "observe"
                                 else CLASS_MANDATORY if record.mandatory else CLASS_BLOCK)
        self.open_terms(snapshot)
        open_clients(parts, self.list_whom)

    def __dealloc__(self):
        free(self.list_action)
        free(self.list_rank)
        free(self.base_lists)
        free(self.list_whom)

    cdef int open_base(self, snapshot) except -1:
        """What the snapshot lies over, in which the lists have other indexes, or none."""
        cdef size_t i
        if snapshot.base is None or snapshot.base.digest != snapshot.parts.base:
            raise ListError("snapshot: lies over another one that is not there; build it again")
        open_layer(snapshot.base.parts, &self.base)
        self.base_lists = <uint16_t*>malloc((NO_LIST + 1) * sizeof(uint16_t))
        if self.base_lists == NULL:
            raise MemoryError
        memset(self.base_lists, 0xFF, (NO_LIST + 1) * sizeof(uint16_t))
        for i, below in enumerate(snapshot.parts.below):
            if 0 <= below < NO_LIST:
                self.base_lists[below] = <uint16_t>i
        self.base.lists = self.base_lists
        return 0

    # Searching -------------------------------------------------------------------------------------------------

    cdef void look(self, Walk* walk, Where where, const uint8_t* text, size_t start, size_t size,
                   uint32_t kinds, uint32_t weight) noexcept nogil:
        cdef Ask ask
        put_ask(&ask, start, size, kinds, weight)
        crypto_shorthash_siphashx24(ask.print, text + start, size, self.key)
        self.look_print(walk, where, text, &ask)

    cdef void look_hosts(self, Walk* walk, Ask* asks, uint32_t count) noexcept nogil:
        # Several at once: while one fingerprint is made, the memory that the one before needs is on its way.
        cdef uint32_t i
        for i in range(count):
            crypto_shorthash_siphashx24(asks[i].print, walk.host.text + asks[i].start, asks[i].size, self.key)
            warm_header(&self.base.bitmap, <uint32_t>load_high(asks[i].print))
        for i in range(count):
            warm_container(&self.base.bitmap, <uint32_t>load_high(asks[i].print))
        for i in range(count):
            self.look_print(walk, IN_HOST, walk.host.text, &asks[i])
            if walk.has_places:
                self.walk_places(walk, &asks[i])

    cdef void look_print(self, Walk* walk, Where where, const uint8_t* text, Ask* ask) noexcept nogil:
        # Every row of the fingerprint, in both tables.
        cdef uint32_t prefix = <uint32_t>load_high(ask.print), tried = TRIES_MAX
        cdef bint possible = contains(&self.base.bitmap, prefix)
        cdef bint changed = self.over.count != 0 and contains(&self.over.bitmap, prefix)
        cdef Trace* trace = walk.trace
        if trace != NULL and trace.tries < TRIES_MAX:
            tried = trace.tries
            trace.tries += 1
            trace.tried[tried].where = where
            trace.tried[tried].in_bitmap = (possible and is_listed(&self.base, ask.print)) or changed
            trace.tried[tried].start = <uint16_t>ask.start
            trace.tried[tried].size = <uint16_t>ask.size
            trace.tried[tried].key = trace.tried[tried].places = 0
            if where == IN_KEYS:
                memcpy(trace.keys[tried], text, ask.size)
            elif where == IN_HOST_AND_KEYS:
                trace.tried[tried].key = <uint8_t>(ask.size - ask.host_size)
                trace.tried[tried].size = <uint16_t>ask.host_size
                memcpy(trace.keys[tried], text + ask.host_size, ask.size - ask.host_size)
        if possible:
            self.look_rows(walk, &self.base, ask, tried)
        if changed:
            self.look_rows(walk, &self.over, ask, tried)

    cdef void look_rows(self, Walk* walk, const Layer* layer, Ask* ask, uint32_t tried) noexcept nogil:
        # Every row of the fingerprint; one whose kind is a bit of `kinds` applies, and may become best.
        cdef const uint8_t* print = ask.print
        cdef size_t i
        cdef uint32_t value, kind, index, rank, kinds = ask.kinds
        cdef bint better, holds, not_for
        cdef Match said
        cdef Trace* trace = walk.trace
        for i in range(first_row(layer, print), layer.count):
            if memcmp(layer.rows + i * ROW_SIZE, print, PRINT_SIZE) != 0:
                break
            value = load_u32(layer.rows + i * ROW_SIZE + PRINT_SIZE)
            kind = value & 0xFF
            index = list_of(layer, value)
            if kind == URL_MARK and (index != NO_LIST or value >> 16 == NO_LIST):   # of none: of an older version
                walk.has_urls = walk.has_urls or kinds >> URL_MARK & 1
                continue
            if index >= self.list_count or kind >= AT_MARK or kind == URL_MARK:
                if kind == AT_MARK and kinds >> AT_MARK & 1 and index < self.list_count:
                    walk.has_places |= LIFTED_SOMEWHERE if value & EXCEPTION else BLOCKED_SOMEWHERE
                    if trace != NULL and tried < TRIES_MAX:
                        trace.tried[tried].places = 1
                continue
            rank = 0
            not_for = False
            if kinds >> kind & 1 and (value & EXCEPTION or not ask.lifts):
                rank = CLASS_EXCEPTION if value & EXCEPTION else self.list_rank[index]
                rank = rank << CLASS_SHIFT | specific(kind) << KIND_SHIFT | ask.weight
                if self.list_whom[index].mode:
                    walk.of_some = True
                    not_for = not (self.anyhow or is_for(&self.list_whom[index], walk.around))
                    if not_for:
                        rank = 0
            better = rank > walk.rank or (rank and rank == walk.rank and index < walk.best.list_index)
            holds = True
            said.of_ech = 0
            said.order = NO_ORDER
            if (better or trace != NULL) and (value & TERMS or self.tables[index].bounded):
                holds = ((walk.moment.steps < STEPS_MAX or trace != NULL or self.list_rank[index] == CLASS_MANDATORY)
                         and self.holds(&walk.moment, print, value, index, &said))
            if trace != NULL and tried < TRIES_MAX and trace.hits < HITS_MAX:
                trace.hit[trace.hits].tried = tried
                trace.hit[trace.hits].value = (value & 0xFFFF) | index << 16
                trace.hit[trace.hits].rule = rule_id(print, kind)
                trace.hit[trace.hits].rank = rank
                trace.hit[trace.hits].holds = holds
                trace.hit[trace.hits].not_for = not_for
                trace.hits += 1
            if better and holds:
                walk.rank = rank
                walk.best.action = ACTION_PASS if value & EXCEPTION else self.list_action[index]
                walk.best.list_index = <uint16_t>index
                walk.best.rule = rule_id(print, kind)
                walk.best.of_ech = said.of_ech
                walk.best.order = said.order

    cdef void walk_places(self, Walk* walk, const Ask* host) noexcept nogil:
        # A host that has entries with an address, where this connection leads to.
        cdef uint8_t inner[4]
        cdef size_t i
        cdef Ask ask = host[0]
        # Guard rails look at whom a block's mark names, so nothing else opens blocks.
        ask.lifts = not walk.has_places & BLOCKED_SOMEWHERE
        walk.has_places = 0
        if walk.to == NULL:
            return
        self.look_places(walk, &ask, walk.to, walk.to_size)
        if walk.to_size == 16 and self.at_ipv4:
            for i in range(self.lead_count):
                if read_inner(&self.leads[i], walk.to, inner):
                    self.look_places(walk, &ask, inner, 4)

    cdef void look_places(self, Walk* walk, const Ask* host, const uint8_t* address, size_t size) noexcept nogil:
        cdef uint8_t text[HOST_MAX + KEY_MAX]
        cdef uint32_t length
        cdef uint64_t lengths
        cdef Ask ask = host[0]
        memcpy(text, walk.host.text + host.start, host.size)
        ask.host_size = host.size
        ask.size = host.size + 2 + size
        ask.kinds = (host.kinds & (1 << HOST | 1 << HOST_ONLY | 1 << SUBDOMAINS)) << AT
        ask.weight = host.weight + 1        # before the same without an address
        for length in range(8 * <uint32_t>size + 1):
            lengths = self.at_ipv4 if size == 4 else self.at_ipv6[length >> 6]
            if lengths >> (length & 63) & 1:
                put_prefix(text + host.size, address, size, length)
                crypto_shorthash_siphashx24(ask.print, text, ask.size, self.key)
                self.look_print(walk, IN_HOST_AND_KEYS, text, &ask)
                walk.spent += 1

    cdef void walk_host(self, Walk* walk) noexcept nogil:
        # The host and each of its parents, as far as a listed host has that many labels.
        cdef Host* host = &walk.host
        cdef Ask asks[ASKS]
        cdef size_t start = host.size, size
        cdef uint32_t labels = 0, kinds, count = 0
        if host.address:
            if self.labels & 1:
                self.look(walk, IN_HOST, host.text, 0, host.size, 1 << URL_MARK, 0)
            return
        while start:
            start -= 1
            if start and host.text[start - 1] != 46:
                continue
            size = host.size - start
            if size > HOST_MAX:
                break
            if labels < 63:     # compiler.LABELS_COUNTED
                labels += 1
                if self.labels >> labels == 0:
                    break
            if not self.labels >> labels & 1:
                continue
            kinds = 1 << HOST
            if start == 0 and host.whole:
                kinds |= 1 << HOST_ONLY | 1 << URL_MARK
                if walk.hidden:
                    kinds |= 1 << HOST_OF_URL
            else:
                kinds |= 1 << SUBDOMAINS
            if labels <= PLACE_LABELS:
                kinds |= 1 << AT_MARK
            put_ask(&asks[count], start, size, kinds, <uint32_t>size)
            count += 1
            if count == ASKS:
                self.look_hosts(walk, asks, count)
                count = 0
        self.look_hosts(walk, asks, count)

    cdef bint walk_target(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil:
        # The URL as it is and, where a segment has ";parameters", without them: servers differ. Whether it has "..".
        cdef Target sizes
        cdef size_t host = walk.host.size
        cdef bint climbs
        memcpy(walk.url[0], walk.host.text, host)
        read_target(target, size, False, walk.url[0] + host, self.room(walk), &sizes)
        climbs = sizes.climbs
        self.walk_url(walk, IN_URL, &sizes)
        if sizes.params:
            memcpy(walk.url[1], walk.host.text, host)
            read_target(target, size, True, walk.url[1] + host, self.room(walk), &sizes)
            climbs = climbs or sizes.climbs
            self.walk_url(walk, IN_BARE_URL, &sizes)
        return climbs

    cdef inline size_t room(self, Walk* walk) noexcept nogil:
        # Of what is longer than everything that is listed no more is written than shows that it is.
        cdef size_t most = max(self.url_max, self.directory_max) + 8, host = walk.host.size
        if walk.trace != NULL or most > URL_MAX:
            most = URL_MAX
        return most - host if most > host else 0

    cdef void walk_urls(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil:
        # Servers agree on what ".." takes away only where they agree on what a segment is. No browser sends such.
        cdef Ways ways
        cdef Target sizes
        cdef uint8_t* path = walk.url[0] + walk.host.size
        cdef uint32_t way
        if (not self.walk_target(walk, target, size) or size > WAYS_TARGET_MAX or walk.trace != NULL
                or not is_ambiguous(target, size)):
            return
        open_ways(&ways, target, size)
        for way in range(WAYS):
            if put_way(&ways, way):
                read_way(&ways, False, path, self.room(walk), &sizes)
                self.walk_url(walk, IN_URL, &sizes)
                if sizes.params:
                    read_way(&ways, True, path, self.room(walk), &sizes)
                    self.walk_url(walk, IN_URL, &sizes)

    cdef void walk_url(self, Walk* walk, Where where, const Target* sizes) noexcept nogil:
        # The directories above it ("host/", then up to each further slash), the path, the URL; the longest first.
        cdef const uint8_t* url = walk.url[where - IN_URL]
        cdef size_t host = walk.host.size
        cdef size_t size = host + sizes.size, path = host + sizes.path, end
        cdef uint32_t depth = 0, count = 0, urls, i
        cdef Ask asks[DEPTH_MAX + 3]
        cdef Hashing hashing
        for end in range(host + 1, min(path, self.directory_max + 1)):
            if end > host + 1 and url[end] != 47:
                continue
            if self.depths >> depth == 0:
                break
            if self.depths >> depth & 1:
                put_ask(&asks[count], 0, end, 1 << DIRECTORY, <uint32_t>end)
                count += 1
            depth += 1
            if depth > DEPTH_MAX:
                break
        urls = count
        if sizes.path_whole and (path <= self.url_max or path <= self.directory_max):
            put_ask(&asks[count], 0, path, 1 << URL | 1 << DIRECTORY, <uint32_t>path)
            count += 1
        if sizes.whole and size > path and size <= self.url_max:
            put_ask(&asks[count], 0, size, 1 << URL_WITH_QUERY, <uint32_t>size)
            count += 1
        sip_begin(&hashing, self.key)
        for i in range(count):
            sip_print(&hashing, url, asks[i].size, asks[i].print)
        for i in range(count - urls):
            self.look_print(walk, where, url, &asks[count - 1 - i])
        for i in range(urls):
            self.look_print(walk, where, url, &asks[i])

    cdef bint walk_reading(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil:
        # The host in `walk`, as one server reads it.
        walk.rank = 0
        walk.has_urls = False
        walk.has_places = 0
        self.walk_host(walk)
        if walk.has_urls and target != NULL and not walk.hidden:
            self.walk_urls(walk, target, size)
        return walk.rank != 0

    cdef void walk_readings(self, Walk* walk, const uint8_t* host, size_t host_size, const uint8_t* target,
                            size_t target_size) noexcept nogil:
        # Each way that a server may read the name; `walk` keeps the strongest rule of them and of those before.
        cdef Readings readings
        cdef Match best = walk.best
        cdef uint32_t i = 0, rank = walk.rank
        readings.count = 0
        if not read_plain_host(host, host_size, &walk.host):
            find_readings(host, host_size, &readings)
            if walk.trace != NULL and readings.count:
                i = readings.count - 1  # who asks for reasons asks with a canonical host: all of it, the last reading
            if readings.count == 0:
                return
        while True:
            if readings.count:
                read_reading(&readings, i, &walk.host)
            if self.walk_reading(walk, target, target_size) and (
                    rank == 0 or strength(&walk.best) > strength(&best)
                    or (strength(&walk.best) == strength(&best) and walk.rank > rank)):
                best = walk.best
                rank = walk.rank
            i += 1
            if i >= readings.count:
                break
        walk.best = best
        walk.rank = rank

    cdef bint walk_name(self, Walk* walk, uint8_t proto, const uint8_t* host, size_t host_size, const uint8_t* target,
                        size_t target_size, const Around* around) noexcept nogil:
        cdef size_t start = 0, path = 0
        walk.around = around
        walk.to = around.to if around.to_size == 4 or around.to_size == 16 else NULL
        walk.to_size = around.to_size
        walk.spent = 0
        walk.of_some = walk.moment.of_ech = walk.moment.has_now = False
        walk.moment.steps = 0
        walk.moment.ech = around.ech
        walk.hidden = proto == PROTO_TLS or proto == PROTO_QUIC
        walk.rank = 0
        walk.has_urls = False
        walk.best.action = ACTION_PASS
        if self.labels == 0:
            return False
        self.walk_readings(walk, host, host_size, target, target_size)
        if (target != NULL and not walk.hidden and walk.trace == NULL
                and find_relative(target, target_size, &start, &path)):
            self.walk_readings(walk, target + start, path - start, target + path, target_size - path)
        return walk.rank != 0

    cdef bint walk_address(self, Walk* walk, const Around* around, uint16_t port) noexcept nogil:
        # The address, and each IPv4 address that it leads to: of all that is found the strongest counts.
        cdef uint8_t inner[4]
        cdef const uint8_t* address = around.to
        cdef size_t i, size = around.to_size
        walk.around = around
        walk.rank = 0
        walk.of_some = walk.moment.of_ech = walk.moment.has_now = False
        walk.moment.steps = 0
        walk.moment.ech = around.ech
        if address == NULL or size != 4 and size != 16:
            return False
        self.walk_prefixes(walk, address, size, port)
        if size == 16 and self.ipv4_lengths:
            for i in range(self.lead_count):
                if read_inner(&self.leads[i], address, inner):
                    self.walk_prefixes(walk, inner, 4, port)
        return walk.rank != 0

    cdef void walk_prefixes(self, Walk* walk, const uint8_t* address, size_t size, uint16_t port) noexcept nogil:
        # Each prefix of the address that is as long as some listed one, alone and with the port.
        cdef uint8_t key[KEY_MAX]
        cdef uint32_t length
        cdef uint64_t lengths
        if size == 4 and not contains(&self.ipv4, <uint32_t>load_high(address)):
            return
        for length in range(8 * <uint32_t>size + 1):
            lengths = self.ipv4_lengths if size == 4 else self.ipv6_lengths[length >> 6]
            if not lengths >> (length & 63) & 1:
                continue
            put_prefix(key, address, size, length)
            self.look(walk, IN_KEYS, key, 0, 2 + size, 1 << NETWORK, length)
            if port and length == 8 * size:
                key[2 + size] = <uint8_t>(port >> 8)
                key[3 + size] = <uint8_t>port
                self.look(walk, IN_KEYS, key, 0, 4 + size, 1 << ENDPOINT, length)

    # What the engine calls -------------------------------------------------------------------------------------

    cdef bint match_name(self, uint8_t proto, const uint8_t* host, size_t host_size,
                         const uint8_t* target, size_t target_size, const Around* around,
                         Match* found) noexcept nogil:
        cdef Walk walk
        cdef bint listed
        walk.trace = NULL
        listed = self.walk_name(&walk, proto, host, host_size, target, target_size, around)
        if listed:
            found[0] = walk.best
        if not around.ech:
            found.of_ech = walk.moment.of_ech
        found.of_some = walk.of_some
        found.spent = walk.spent + (walk.moment.steps >> STEPS_SHIFT)
        return listed

    cdef bint match_address(self, const Around* around, uint16_t port, Match* found) noexcept nogil:
        cdef Walk walk
        walk.trace = NULL
        if not self.walk_address(&walk, around, port):
            return False
        found[0] = walk.best
        return True

    # What people and tests call --------------------------------------------------------------------------------

    def look_up(self, str proto, bytes host not None, bytes target=None, bytes to not None=b"",
                bytes client not None=b"", bint ech=False):
        """The Found rule for a name of protocol "tls", "http" or "quic", as on the wire, or None. `to` is the address
        where the connection leads, `client` whose it is, 4 or 16 bytes in network order, where that is known; `ech`:
        the hello has an Encrypted ClientHello."""
        cdef Match found
        cdef Around around
        cdef const uint8_t* path = NULL
        cdef size_t size = 0
        if target is not None:
            path = target
            size = len(target)
        put_around(&around, to, client or self.client, ech)
        if not self.match_name(PROTOCOLS[proto], host, len(host), path, size, &around, &found):
            return None
        return self.told(&found)

    def look_up_address(self, bytes address not None, uint16_t port=0, bytes client not None=b""):
        """The Found rule for a destination of 4 or 16 bytes in network order, or None; port 0 is "no port"."""
        cdef Match found
        cdef Around around
        put_around(&around, address, client or self.client, False)
        if not self.match_address(&around, port, &found):
            return None
        return self.told(&found)

    def trace_name(self, str proto, bytes host not None, bytes target=None, bytes to not None=b"",
                   bytes client not None=b"", bint ech=False):
        """`look_up`, and what it tried, in order: (Found or None, list of Candidate, has the host URL entries)."""
        cdef Walk walk
        cdef Trace trace
        cdef Around around
        cdef const uint8_t* path = NULL
        cdef size_t size = 0
        if target is not None:
            path = target
            size = len(target)
        trace.tries = trace.hits = 0
        walk.trace = &trace
        found = None
        put_around(&around, to, client or self.client, ech)
        if self.walk_name(&walk, PROTOCOLS[proto], host, len(host), path, size, &around):
            found = self.told(&walk.best)
        return found, self.candidates(&walk), walk.has_urls

    def trace_address(self, bytes address not None, uint16_t port=0, bytes client not None=b""):
        """As `trace_name` for `look_up_address`; the text of a Candidate is a key (`formats.network_text`)."""
        cdef Walk walk
        cdef Trace trace
        cdef Around around
        trace.tries = trace.hits = 0
        walk.trace = &trace
        found = None
        put_around(&around, address, client or self.client, False)
        if self.walk_address(&walk, &around, port):
            found = self.told(&walk.best)
        return found, self.candidates(&walk), False

    cdef object told(self, const Match* found):
        return Found(ACTIONS[found.action], self.list_names[found.list_index], f"{found.rule:08x}",
                     self.order_of(found.list_index, found.order))

    cdef list candidates(self, Walk* walk):
        cdef Trace* trace = walk.trace
        cdef const uint8_t* text
        cdef uint32_t i, k, value
        out = []
        for i in range(trace.tries):
            if trace.tried[i].where == IN_HOST or trace.tried[i].where == IN_HOST_AND_KEYS:
                text = walk.host.text
            elif trace.tried[i].where == IN_KEYS:
                text = trace.keys[i]
            else:
                text = walk.url[trace.tried[i].where - IN_URL]
            text += trace.tried[i].start
            rows = []
            for k in range(trace.hits):
                if trace.hit[k].tried == i:
                    value = trace.hit[k].value
                    rows.append((value, Row(
                        self.list_names[value >> 16], Kind(value & 0xFF), (value & EXCEPTION) != 0,
                        trace.hit[k].rank != 0,
                        trace.hit[k].rank != 0 and trace.hit[k].holds != 0 and trace.hit[k].rank == walk.rank
                        and value >> 16 == walk.best.list_index and trace.hit[k].rule == walk.best.rule,
                        f"{trace.hit[k].rule:08x}", trace.hit[k].holds != 0, trace.hit[k].not_for != 0)))
            rows.sort()         # by list, of both tables
            out.append(Candidate(text[:trace.tried[i].size] + trace.keys[i][:trace.tried[i].key],
                                 trace.tried[i].in_bitmap != 0, tuple([row for _, row in rows]),
                                 trace.tried[i].places != 0))
        return out
