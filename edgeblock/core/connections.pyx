"""Whose QUIC packet is it?

Comes in: the payload of one UDP datagram from the client, its addresses, and the caller's clock. Goes out: the
connection of each Initial that opens, as a flow of the table, with the frames. Never here: what the frames say, a
verdict, a clock, work without a bound.

A server knows a connection by its id, not by addresses (RFC 9000, 5.2), and finds the keys of an Initial by the
destination connection id of the client's first one. So what could open at a server opens here: by the id in the
packet (first flight, Retry, another port or address), and by the keys of connections that are known, since the client
goes over to an id that its server chose and keeps the keys (or changes to those of another version, RFC 9368).

What somebody sends with another's addresses, without seeing the other's packets, is a connection of its own: the id
of the other's has eight bytes or more that nobody guesses. It takes nothing from the other: a packet whose own id
opens it is always read, whatever else has come from these addresses.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.cursor cimport cursor, left
from edgeblock.core.findings cimport FINDING_NAME, Findings, clear_findings
from edgeblock.core.flow cimport (QUIC_ADDRESSES, SHARE_ADDRESSES, SHARE_ENDS, SHARE_SOURCE, SHARES, Quic,
                                  unlink_peer)
from edgeblock.core.quic cimport (MAX_CONNECTION_ID, MAX_DATAGRAM, QUIC_FAMILIES, SEEN_DAMAGED, SEEN_INITIAL,
                                  SEEN_JUMPED, SEEN_OVERLOAD, SEEN_REFUSED, SEEN_UNKNOWN, SEEN_UNOPENED, WALK_DAMAGED,
                                  WALK_END, WALK_INITIAL, WALK_UNKNOWN, Connection, Piece, Walk, are_compatible,
                                  derive_keys, free_reader, make_reader, open_initial, read_frames, take_packet)
from edgeblock.core.readers cimport READ_HELLO
from edgeblock.core.starts cimport START_SYN
from edgeblock.core.window cimport add_bytes, add_start, close_window, is_open, open_window, read_on

cdef extern from "sodium.h" nogil:
    int sodium_init()
    int crypto_shorthash(unsigned char* out, const unsigned char* data, unsigned long long size,
                         const unsigned char* key)
    void randombytes_buf(void* buffer, size_t size)

cdef extern from *:
    void fetch "__builtin_prefetch"(const void* at) noexcept nogil

cdef enum:
    KEY_PROTOCOL = 254         # of a connection's key in the table: no packet has it there, only TCP and UDP do
    SURE_ID = 8                # RFC 9000, 7.2: a client's first id has that many bytes of chance at least
    FINISHED = 1               # added to the hash of a list: of those that wait for no more of their hello

cdef double WORKER_PERIOD = 1.0    # seconds over which the budgets of a worker are counted


cdef inline bint _spend(Budget* budget, uint32_t limit, double now) noexcept nogil:
    if now - budget.since >= WORKER_PERIOD or now < budget.since:
        budget.since = now
        budget.spent = 0
    if budget.spent >= limit:
        return False
    budget.spent += 1
    return True


cdef struct Gathering:
    Flow* flow
    uint32_t cap


cdef void _gather(void* context, const Piece* pieces, size_t count) noexcept nogil:
    cdef Gathering* gathering = <Gathering*>context
    cdef size_t i
    for i in range(count):
        add_bytes(&gathering.flow.window, pieces[i].offset, pieces[i].data, pieces[i].size, gathering.cap)


cdef class Connections:
    """Connections(table, connections, derivations, failures, worker_derivations): limits as in QuicLimits.

    MemoryError: libcrypto offers no AES-128-GCM, or there is no memory.
    """

    def __cinit__(self, FlowTable table not None, uint32_t connections, uint32_t derivations, uint32_t failures,
                  uint32_t worker_derivations):
        cdef uint64_t size = 1024
        while size < 4 * table.max_flows:   # each has three places: most lists have one, and nobody else's is touched
            size *= 2
        if sodium_init() < 0:
            raise RuntimeError("libsodium cannot be initialised")
        randombytes_buf(self.secret, 16)
        self.table = table
        self.limits.connections = connections
        self.limits.derivations = derivations
        self.limits.failures = failures
        self.limits.worker_derivations = worker_derivations
        self.mask = size - 1
        self.heads = <Peer**>calloc(size, sizeof(Peer*))
        self.reader = make_reader()
        if self.reader == NULL or self.heads == NULL:
            raise MemoryError("libcrypto offers no AES-128-GCM, or there is no memory")

    def __dealloc__(self):
        cdef uint64_t i
        if self.heads != NULL and self.turn:    # there was a packet
            for i in range(self.mask + 1):      # the table may outlive us
                while self.heads[i] != NULL:
                    unlink_peer(self.heads[i])
        free(self.heads)
        free_reader(self.reader)

    cdef void begin(self, Datagram* d, const uint8_t* data, size_t size, double now) noexcept nogil:
        memset(d, 0, sizeof(Datagram))
        d.derivations = self.limits.derivations
        d.tries = MAX_TRIES
        d.rest = cursor(data, size)
        self.now = now
        if size > MAX_DATAGRAM:
            self.reader.counters.damaged += 1
            d.seen = SEEN_DAMAGED
            d.rest = cursor(data, 0)

    cdef Flow* next_opened(self, const Packet* p, Datagram* d, Cursor* frames) noexcept nogil:
        cdef Initial packet
        cdef Walk walk
        cdef Flow* flow
        while left(&d.rest):            # each turn consumes a header, so a datagram has few
            walk = take_packet(&d.rest, &packet)
            if walk == WALK_INITIAL:
                if d.tries == 0:        # of this datagram nothing more is opened
                    self.reader.counters.refused_flow += 1
                    d.seen |= SEEN_REFUSED
                    return NULL
                flow = self._find(p, d, &packet, frames)
                if flow != NULL:
                    d.seen |= SEEN_INITIAL
                    return flow
            elif walk == WALK_UNKNOWN:
                self.reader.counters.unknown_version += 1
                d.seen |= SEEN_UNKNOWN
                return NULL
            elif walk == WALK_DAMAGED:
                self.reader.counters.damaged += 1
                d.seen |= SEEN_DAMAGED
                return NULL
            elif walk == WALK_END:
                return NULL
        return NULL

    cdef void begin_anew(self, Flow* flow) noexcept nogil:
        """Forgets what the stream said; the connection stays, and what its keys open."""
        close_window(&flow.window)
        open_window(&flow.window, READ_HELLO, 0)
        add_start(&flow.window, START_SYN, 0)

    cdef void settle(self, Flow* flow, bint waits) noexcept nogil:
        # Of connections between two addresses those are asked first, and all of them, that wait for more of a hello.
        cdef Peer* peer
        cdef int i
        for i in range(<int>SHARE_ADDRESSES, <int>SHARES):
            peer = &flow.quic.peers[i]
            if peer.link != NULL and (peer.hash & FINISHED == 0) != waits:
                self._link(peer, flow, peer.hash ^ FINISHED)

    # ---- whose keys open it

    cdef Flow* _find(self, const Packet* p, Datagram* d, const Initial* packet, Cursor* frames) noexcept nogil:
        cdef uint64_t[3] hashes
        cdef uint32_t refused = 0
        cdef Packet key
        cdef Peer* peer
        cdef Flow* flow
        cdef Flow* known
        self.turn += 1
        self._key_of(p, packet, &key)
        self.table.foresee(&key)
        self._share(p, packet, hashes)      # meanwhile

        # 1. The keys of its own id.
        known = self.table.find(&key, False)
        if known != NULL and self._try(known, True, d, packet, frames, &refused):
            if memcmp(known.quic.home, p.source, 16) != 0:
                self._heard(known, hashes, True, packet, &refused)
            d.seen |= refused
            return known

        # 2. Those of the connection that this client used last, where that has got an id from its server, or waits.
        if known == NULL:
            peer = self._first(hashes[SHARE_SOURCE])
            if peer != NULL:
                flow = peer.flow
                if flow.quic.server_size == 0 or (
                        flow.quic.server_size == packet.id_size
                        and memcmp(flow.quic.server, packet.id, packet.id_size) == 0):
                    if self._try(flow, False, d, packet, frames, &refused):
                        self._heard(flow, hashes, False, packet, &refused)
                        d.seen |= refused
                        return flow

        # 3. The keys of its own id, for the first time: a first flight, or the answer to a Retry (RFC 9001, 5.2).
            flow = self._open_new(p, d, packet, &key, hashes, frames, &refused)
            if flow != NULL:
                d.seen |= refused
                return flow

        # 4. Those of the others: of the same client, by its own id, by its port, by its address.
        flow = self._search(hashes[SHARE_SOURCE], True, d, packet, frames, &refused)
        if flow == NULL:
            flow = self._search(hashes[SHARE_ENDS], True, d, packet, frames, &refused)
        if flow == NULL:
            flow = self._search(hashes[SHARE_ADDRESSES], True, d, packet, frames, &refused)
        if flow == NULL:
            flow = self._search(hashes[SHARE_ADDRESSES] ^ FINISHED, False, d, packet, frames, &refused)
        if flow != NULL:
            # What other keys were refused does not matter, now that one has opened it; how its number jumps does.
            refused = SEEN_REFUSED if refused & SEEN_JUMPED else 0
            self._heard(flow, hashes, False, packet, &refused)
            d.seen |= refused
            return flow
        if refused & SEEN_OVERLOAD:
            self.reader.counters.refused_worker += 1
        elif refused & SEEN_REFUSED:
            self.reader.counters.refused_flow += 1
        else:
            self.reader.counters.unopened += 1
            refused = SEEN_UNOPENED
        d.seen |= refused
        return NULL

    cdef Flow* _open_new(self, const Packet* p, Datagram* d, const Initial* packet, const Packet* key,
                         const uint64_t* hashes, Cursor* frames, uint32_t* refused) noexcept nogil:
        cdef Connection fresh
        cdef Flow* flow
        cdef int i
        if not self._may_derive(d, refused):
            return NULL
        memset(&fresh, 0, sizeof(Connection))
        fresh.id_size = packet.id_size
        memcpy(fresh.id, packet.id, packet.id_size)
        derive_keys(self.reader, &fresh, packet.family)
        if not open_initial(self.reader, &fresh, packet, frames, &d.tries, refused):
            return NULL
        flow = self.table.create(key, self.now)
        if flow != NULL:
            flow.quic = <Quic*>malloc(sizeof(Quic))
            if flow.quic == NULL:
                self.table.remove(flow)
                flow = NULL
        if flow == NULL:
            refused[0] |= SEEN_OVERLOAD
            return NULL
        d.created += 1
        flow.unmarked = 1
        memset(flow.quic.peers, 0, sizeof(Quic) - sizeof(Connection))       # all that follows the connection
        flow.quic.connection = fresh
        memcpy(flow.quic.home, p.source, 16)
        memcpy(flow.quic.first, p.source, 16)
        flow.quic.family = p.family
        open_window(&flow.window, READ_HELLO, 0)
        add_start(&flow.window, START_SYN, 0)
        for i in range(3):
            self._link(&flow.quic.peers[i], flow, hashes[i])
        return flow

    cdef Flow* _search(self, uint64_t hash, bint strict, Datagram* d, const Initial* packet, Cursor* frames,
                       uint32_t* refused) noexcept nogil:
        # `strict`: the packet is refused where there are more than are tried. Some are tried in any case, so that
        # nobody's flood takes them from others; more while the worker's budget lasts.
        cdef Peer* peer = self.heads[hash & self.mask]
        cdef uint32_t tried = 0
        cdef int visits
        for visits in range(<int>MAX_VISITS):
            if peer == NULL:
                return NULL
            if peer.hash == hash and peer.flow.quic.turn != self.turn:
                if tried >= self.limits.connections and not (strict and _spend(&self.failures, self.limits.failures,
                                                                               self.now)):
                    break
                tried += 1
                if self._try(peer.flow, False, d, packet, frames, refused):
                    return peer.flow
            peer = peer.next
        if strict:
            refused[0] |= SEEN_REFUSED
        return NULL

    cdef bint _try(self, Flow* flow, bint own, Datagram* d, const Initial* packet, Cursor* frames,
                   uint32_t* refused) noexcept nogil:
        cdef Connection* connection = &flow.quic.connection
        cdef bint may = own
        cdef bint news = not connection.derived >> packet.family & 1
        cdef int family
        flow.quic.turn = self.turn
        if news:
            for family in range(<int>QUIC_FAMILIES):
                if connection.derived >> family & 1 and are_compatible(<uint8_t>family, packet.family):
                    may = True
            if not may or not self._may_derive(d, refused):
                return False
            derive_keys(self.reader, connection, packet.family)
        if open_initial(self.reader, connection, packet, frames, &d.tries, refused):
            return True
        if news:
            connection.derived ^= <uint8_t>(1 << packet.family)
        return False

    cdef bint _may_derive(self, Datagram* d, uint32_t* refused) noexcept nogil:
        if d.derivations == 0:
            refused[0] |= SEEN_REFUSED
            return False
        if not _spend(&self.derivations, self.limits.worker_derivations, self.now):
            refused[0] |= SEEN_OVERLOAD
            return False
        d.derivations -= 1
        return True

    cdef void _heard(self, Flow* flow, const uint64_t* hashes, bint own, const Initial* packet,
                     uint32_t* refused) noexcept nogil:
        # A packet of this connection came from these ends: it comes first in its lists, and is found by this address.
        cdef uint64_t addresses = hashes[SHARE_ADDRESSES] | flow.quic.peers[<int>SHARE_ADDRESSES].hash & FINISHED
        cdef Peer* peer
        cdef int i
        if not own:
            flow.quic.server_size = packet.id_size
            memcpy(flow.quic.server, packet.id, packet.id_size)
        for i in range(2):
            peer = &flow.quic.peers[i]
            if self.heads[peer.hash & self.mask] != peer:
                self._link(peer, flow, peer.hash)
        for i in range(<int>SHARE_ADDRESSES, <int>SHARES):
            peer = &flow.quic.peers[i]
            if peer.link == NULL:
                self._link(peer, flow, addresses)
                return
            if peer.hash == addresses:
                if self.heads[peer.hash & self.mask] != peer:
                    self._link(peer, flow, peer.hash)
                return
        refused[0] |= SEEN_REFUSED

    # ---- keys of the table, and lists

    cdef void _key_of(self, const Packet* p, const Initial* packet, Packet* key) noexcept nogil:
        memset(key, 0, sizeof(Packet))
        key.family = p.family
        key.protocol = KEY_PROTOCOL
        memcpy(key.destination, p.destination, 16)
        key.destination_port = p.destination_port
        key.source_port = packet.id_size
        if packet.id_size <= 16:
            memcpy(key.source, packet.id, packet.id_size)
        else:
            memcpy(key.source, packet.id, 8)
            crypto_shorthash(key.source + 8, packet.id, packet.id_size, self.secret)
        if packet.id_size < SURE_ID:
            # No server should take it, some do, and somebody else may have guessed it: it is of this address only.
            crypto_shorthash(key.source + 8, p.source, 16, self.secret)

    cdef void _share(self, const Packet* p, const Initial* packet, uint64_t* hashes) noexcept nogil:
        cdef uint8_t[64] ends
        cdef int i
        memset(ends, 0, sizeof(ends))
        memcpy(ends, p.source, 16)
        memcpy(ends + 16, p.destination, 16)
        memcpy(ends + 32, &p.destination_port, 2)
        ends[34] = p.family
        hashes[SHARE_ADDRESSES] = self._hash(ends, 35) & ~<uint64_t>FINISHED
        memcpy(ends + 35, &p.source_port, 2)
        hashes[SHARE_ENDS] = self._hash(ends, 37)
        ends[37] = packet.source_size
        memcpy(ends + 38, packet.source, packet.source_size)
        hashes[SHARE_SOURCE] = self._hash(ends, <size_t>38 + packet.source_size)
        for i in range(3):              # of a new connection they are all needed, and in no cache
            fetch(&self.heads[hashes[i] & self.mask])

    cdef uint64_t _hash(self, const uint8_t* data, size_t size) noexcept nogil:
        cdef uint64_t hash
        crypto_shorthash(<unsigned char*>&hash, data, size, self.secret)
        return hash

    cdef void _link(self, Peer* peer, Flow* flow, uint64_t hash) noexcept nogil:
        cdef Peer** head = &self.heads[hash & self.mask]
        unlink_peer(peer)
        peer.flow = flow
        peer.hash = hash
        peer.next = head[0]
        peer.link = head
        if peer.next != NULL:
            peer.next.link = &peer.next
        head[0] = peer

    cdef Peer* _first(self, uint64_t hash) noexcept nogil:
        cdef Peer* peer = self.heads[hash & self.mask]
        cdef int visits
        for visits in range(<int>MAX_VISITS):
            if peer == NULL or peer.hash == hash:
                return peer
            peer = peer.next
        return NULL

    cdef bint take_frames(self, Flow* flow, Cursor* frames, uint32_t cap, uint32_t* seen) noexcept nogil:
        cdef Gathering gathering
        gathering.flow = flow
        gathering.cap = cap
        return read_frames(self.reader, frames, _gather, &gathering, seen)


# ---- for tests and tools


cdef class Reader:
    """Reads datagrams of one client for one server, for tests: limits as in QuicLimits.

    read(datagram, now, port) returns (seen, pieces): the names of the bits of Seen as a set, and a list of
    (original destination connection id, offset, bytes), those of one packet by offset.
    """

    cdef Connections all
    cdef Findings findings
    cdef Packet packet
    cdef bytes id
    cdef list pieces

    def __cinit__(self, uint32_t connections=8, uint32_t derivations=64, uint32_t failures=100_000,
                  uint32_t worker_derivations=1_000_000, uint64_t flows=4096):
        self.all = Connections(FlowTable(flows, 1 << 30, 120.0), connections, derivations, failures,
                               worker_derivations)
        memset(&self.findings, 0, sizeof(Findings))
        memset(&self.packet, 0, sizeof(Packet))
        self.packet.family = 4
        self.packet.protocol = 17
        self.packet.destination_port = 443

    def __dealloc__(self):
        free(self.findings.items)
        free(self.findings.text.data)

    cdef uint32_t _read_names(self, const uint8_t* data, size_t size, double now, uint32_t cap) noexcept nogil:
        cdef Datagram d
        cdef Cursor frames
        cdef Flow* flow
        cdef uint32_t work = 0xFFFFFFFF
        clear_findings(&self.findings)
        self.all.begin(&d, data, size, now)
        while True:
            flow = self.all.next_opened(&self.packet, &d, &frames)
            if flow == NULL:
                return d.seen
            if not self.all.take_frames(flow, &frames, cap, &d.seen):
                d.seen |= SEEN_DAMAGED
            read_on(&flow.window, &self.findings, cap, &work)
            self.all.settle(flow, is_open(&flow.window))
            self.all.table.touch(flow, flow.lane, now)

    def names(self, const uint8_t[::1] datagram, double now=0.0, uint16_t port=50_000,
              uint32_t cap=160 * 1024) -> tuple:
        """As read, with the names the datagram completes instead of pieces."""
        cdef size_t size = datagram.shape[0]
        cdef uint32_t seen, i, at
        self.packet.source_port = port
        seen = self._read_names(&datagram[0] if size else NULL, size, now, cap)
        found = []
        for i in range(self.findings.count):
            if self.findings.items[i].kind == FINDING_NAME:
                at = self.findings.items[i].host_at
                found.append(<bytes>self.findings.text.data[at:at + self.findings.items[i].host_size])
        return _names_of(seen), found

    def read(self, const uint8_t[::1] datagram, double now=0.0, uint16_t port=50_000) -> tuple:
        cdef size_t size = datagram.shape[0]
        cdef Datagram d
        cdef Cursor frames
        cdef Flow* flow
        self.packet.source_port = port
        self.pieces = []
        self.all.begin(&d, &datagram[0] if size else NULL, size, now)
        while True:
            flow = self.all.next_opened(&self.packet, &d, &frames)
            if flow == NULL:
                return _names_of(d.seen), self.pieces
            self.id = <bytes>flow.quic.connection.id[:flow.quic.connection.id_size]
            if not read_frames(self.all.reader, &frames, _collect, <void*>self, &d.seen):
                d.seen |= SEEN_DAMAGED

    def read_many(self, const uint8_t[::1] datagram, int times, bint forget=True) -> int:
        """Reads one datagram many times without Python in between, for benchmarks; returns how many opened.

        `forget` makes each the first of its connection, with keys of its own to derive."""
        cdef int opened = 0
        cdef int i
        cdef const uint8_t* data = &datagram[0]
        cdef size_t size = datagram.shape[0]
        with nogil:
            for i in range(times):
                if forget:
                    self.all.table.expire(1e9 + i)
                opened += self._read_names(data, size, 1e-6 * i, 160 * 1024) & SEEN_INITIAL
        return opened

    def counters(self) -> dict:
        return dict(self.all.reader.counters)

    @property
    def connections(self) -> int:
        return self.all.table.flows

    @property
    def bytes(self) -> int:
        """Memory that the connections hold."""
        return self.all.table.memory


cdef void _collect(void* context, const Piece* pieces, size_t count) noexcept with gil:
    cdef size_t i
    for i in range(count):
        (<Reader>context).pieces.append(((<Reader>context).id, pieces[i].offset,
                                         <bytes>pieces[i].data[:pieces[i].size]))


def _names_of(seen: int) -> set[str]:
    names = ("initial", "unopened", "unknown", "damaged", "refused", "overload")
    return {name for bit, name in enumerate(names) if seen >> bit & 1}
