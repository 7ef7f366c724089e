"""The flow table.

Comes in: packet views and the caller's clock. Goes out: flows. Never here: what a flow's bytes mean, a clock.
A flow's place is a keyed hash (SipHash from libsodium), so that nobody outside can aim at one place. Every flow
hangs in one lane, ordered by its last packet; the oldest of the lowest lane goes first when a limit is reached, which
costs the same however many flows there are. A flow that has not been touched for long is in no cache: so a search
compares hashes in the slots and touches a flow only when they agree, and whoever is next to go is fetched ahead.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.blocked cimport free_ranges, room_of
from edgeblock.core.window cimport close_window, memory_of

cdef extern from "sodium.h" nogil:
    int sodium_init()
    int crypto_shorthash(unsigned char* out, const unsigned char* data, unsigned long long size,
                         const unsigned char* key)
    void randombytes_buf(void* buffer, size_t size)

cdef extern from *:
    void fetch "__builtin_prefetch"(const void* at) noexcept nogil

cdef enum:
    MAX_SPARES = 1024          # removed flows whose memory is kept for the next; one that goes makes room for one
    LINE = 64                  # bytes of a cache line


cdef void _key_of(const Packet* p, bint reverse, uint8_t* key) noexcept nogil:
    cdef size_t client = 16 if reverse else 0
    cdef size_t server = 16 - client
    memcpy(key + client, p.source, 16)
    memcpy(key + server, p.destination, 16)
    memcpy(key + 32 + client // 8, &p.source_port, 2)
    memcpy(key + 32 + server // 8, &p.destination_port, 2)
    key[36] = p.family
    key[37] = p.protocol


cdef inline uint64_t _number_at(const uint8_t* at) noexcept nogil:
    # In the order of its bytes.
    return (<uint64_t>at[0] << 56 | <uint64_t>at[1] << 48 | <uint64_t>at[2] << 40 | <uint64_t>at[3] << 32
            | <uint64_t>at[4] << 24 | <uint64_t>at[5] << 16 | <uint64_t>at[6] << 8 | at[7])


cdef bint is_turned(const uint8_t* key) noexcept nogil:
    cdef uint64_t one = _number_at(key), other = _number_at(key + 16)
    if one == other:
        one, other = _number_at(key + 8), _number_at(key + 24)
    return one > other or one == other and memcmp(key + 32, key + 34, 2) > 0


cdef inline void _fetch_all(const void* start, size_t size) noexcept nogil:
    cdef size_t at = 0
    while at < size:
        fetch(<const uint8_t*>start + at)
        at += LINE


cdef void unlink_peer(Peer* peer) noexcept nogil:
    if peer.link != NULL:
        peer.link[0] = peer.next
        if peer.next != NULL:
            peer.next.link = peer.link
        peer.link = NULL


cdef void _free_quic(Flow* flow) noexcept nogil:
    cdef int i
    if flow.quic != NULL:
        for i in range(<int>SHARES):
            unlink_peer(&flow.quic.peers[i])
        free(flow.quic)
        flow.quic = NULL


cdef class FlowTable:
    """FlowTable(max_flows, max_memory in bytes, idle and hold in seconds); those with part of a message are held"""

    def __cinit__(self, uint64_t max_flows, uint64_t max_memory, double idle, double hold=0.0):
        cdef int lane
        cdef uint64_t size = 2048
        while size < 2 * max_flows:
            size *= 2
        if sodium_init() < 0:
            raise RuntimeError("libsodium cannot be initialised")
        self.slots = <Slot*>calloc(size, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.mask = size - 1
        self.max_flows = max_flows
        self.max_memory = max_memory
        for lane in range(<int>LANES):
            self.idle[lane] = max(idle, hold) if lane == LANE_PART or lane == LANE_KEPT_PART else idle
        randombytes_buf(self.secret, 16)
        crypto_shorthash(<unsigned char*>&self.hash, self.hashed, KEY_SIZE, self.secret)

    def __dealloc__(self):
        cdef int lane
        cdef Flow* flow
        for lane in range(<int>LANES):
            while self.lanes[lane].oldest != NULL:
                self.remove(self.lanes[lane].oldest)
        while self.spare != NULL:
            flow = self.spare
            self.spare = flow.newer
            free(flow)
        free(self.slots)

    cdef uint64_t _hash(self, const uint8_t* key) noexcept nogil:
        # The same for both directions, so that looking for either costs one hash and one place in memory; and the
        # last one is remembered, because a new flow is looked for both ways and then created.
        cdef uint8_t both[KEY_SIZE]
        cdef size_t first = 16 if is_turned(key) else 0
        memcpy(both, key + first, 16)
        memcpy(both + 16, key + 16 - first, 16)
        memcpy(both + 32, key + 32 + first // 8, 2)
        memcpy(both + 34, key + 34 - first // 8, 2)
        memcpy(both + 36, key + 36, 2)
        if memcmp(both, self.hashed, KEY_SIZE) != 0:
            memcpy(self.hashed, both, KEY_SIZE)
            crypto_shorthash(<unsigned char*>&self.hash, both, KEY_SIZE, self.secret)
        return self.hash

    cdef uint64_t _hash_of(self, const Packet* packet) noexcept nogil:
        cdef uint8_t key[KEY_SIZE]
        if packet.hashed:
            return packet.hash
        _key_of(packet, False, key)
        return self._hash(key)

    cdef uint64_t directed(self, const Packet* packet) noexcept nogil:
        cdef uint8_t key[KEY_SIZE]
        _key_of(packet, False, key)
        return self._hash_of(packet) ^ <uint64_t>is_turned(key) << 63

    cdef void share_secret(self, const uint8_t* secret) noexcept nogil:
        memcpy(self.secret, secret, 16)
        crypto_shorthash(<unsigned char*>&self.hash, self.hashed, KEY_SIZE, self.secret)

    cdef Flow* find(self, const Packet* packet, bint reverse) noexcept nogil:
        cdef uint8_t key[KEY_SIZE]
        cdef uint64_t hash, place
        if packet.protocol == PROTOCOL_UDP and self.datagrams == 0:
            return NULL
        _key_of(packet, reverse, key)
        hash = self._hash_of(packet)
        place = hash & self.mask
        while self.slots[place].flow != NULL:
            if self.slots[place].hash == hash and memcmp(self.slots[place].flow.key, key, KEY_SIZE) == 0:
                return self.slots[place].flow
            place = (place + 1) & self.mask
        return NULL

    cdef uint64_t foresee(self, Packet* packet) noexcept nogil:
        packet.hash = self._hash_of(packet)
        packet.hashed = 1
        fetch(&self.slots[packet.hash & self.mask])
        return packet.hash

    cdef void foresee_flow(self, uint64_t hash) noexcept nogil:
        cdef const Slot* slot = &self.slots[hash & self.mask]
        if slot.flow != NULL and slot.hash == hash:
            _fetch_all(slot.flow, sizeof(Flow))

    cdef Flow* create(self, const Packet* packet, double now) noexcept nogil:
        cdef Flow* flow
        cdef uint64_t place
        while self.flows >= self.max_flows:
            if not self._evict(NULL):
                return NULL
        if self.spare != NULL:
            flow = self.spare
            self.spare = flow.newer
            self.spares -= 1
        else:
            flow = <Flow*>malloc(sizeof(Flow))
            if flow == NULL:
                return NULL
        memset(flow, 0, sizeof(Flow))
        _key_of(packet, False, flow.key)
        flow.hash = self._hash_of(packet)
        place = flow.hash & self.mask
        while self.slots[place].flow != NULL:
            place = (place + 1) & self.mask
        self.slots[place].hash = flow.hash
        self.slots[place].flow = flow
        flow.lane = LANE_UNDECIDED
        flow.touched = now
        self._append(flow)
        self.flows += 1
        self.datagrams += packet.protocol == PROTOCOL_UDP
        self.memory += sizeof(Flow) + FLOW_COST
        return flow

    cdef void _append(self, Flow* flow) noexcept nogil:
        cdef LaneList* lane = &self.lanes[flow.lane]
        flow.older = lane.newest
        flow.newer = NULL
        if lane.newest != NULL:
            lane.newest.newer = flow
        else:
            lane.oldest = flow
        lane.newest = flow
        self.lane_flows[flow.lane] += 1
        self.lane_memory[flow.lane] += sizeof(Flow) + FLOW_COST + flow.held

    cdef void _unhook(self, Flow* flow) noexcept nogil:
        cdef LaneList* lane = &self.lanes[flow.lane]
        if flow.older != NULL:
            flow.older.newer = flow.newer
        else:
            lane.oldest = flow.newer
        if flow.newer != NULL:
            flow.newer.older = flow.older
        else:
            lane.newest = flow.older
        self.lane_flows[flow.lane] -= 1
        self.lane_memory[flow.lane] -= sizeof(Flow) + FLOW_COST + flow.held

    cdef void touch(self, Flow* flow, uint8_t lane, double now) noexcept nogil:
        self._unhook(flow)
        flow.lane = lane
        flow.touched = now
        self.memory -= flow.held
        flow.held = memory_of(&flow.window) + room_of(&flow.blocked)
        if flow.quic != NULL:
            flow.held += <uint32_t>sizeof(Quic)
        self.memory += flow.held
        self._append(flow)
        while self.memory > self.max_memory:
            if not self._evict(flow):
                break

    cdef bint _evict(self, Flow* spared) noexcept nogil:
        # Kept flows that have more than half of everything give way to undecided ones: whoever opens many of them
        # would otherwise have all others forgotten. Of the two kinds of kept flows the one with more goes first.
        cdef int turn, lane
        cdef Flow* flow
        cdef uint64_t kept = self.lane_memory[<int>LANE_KEPT], part = self.lane_memory[<int>LANE_KEPT_PART]
        cdef bint crowded = (kept + part > self.max_memory // 2
                             or self.lane_flows[<int>LANE_KEPT] + self.lane_flows[<int>LANE_KEPT_PART]
                             > self.max_flows // 2)
        for turn in range(<int>LANES):
            lane = turn
            if crowded and turn > 0:
                lane = <int>LANES - turn
                if turn <= 2 and kept > part:
                    lane = <int>LANE_KEPT + turn - 1
            flow = self.lanes[lane].oldest
            if flow == spared and flow != NULL:
                flow = flow.newer
            if flow != NULL:
                self.evicted[lane] += 1
                self._fetch_next(flow.newer)
                self.remove(flow)
                return True
        return False

    cdef void _fetch_next(self, const Flow* flow) noexcept nogil:
        # Of the next to go the slot is fetched and what it holds, of the one after it the flow; each has been fetched
        # one step ago.
        if flow != NULL:
            fetch(&self.slots[flow.hash & self.mask])
            fetch(flow.window.segments.runs)
            if flow.quic != NULL:
                _fetch_all(flow.quic, sizeof(Quic))
            if flow.newer != NULL:
                _fetch_all(flow.newer, sizeof(Flow))

    cdef void remove(self, Flow* flow) noexcept nogil:
        self._take_out(flow)
        self._unhook(flow)
        self.flows -= 1
        self.datagrams -= flow.key[KEY_SIZE - 1] == PROTOCOL_UDP
        self.memory -= sizeof(Flow) + FLOW_COST + flow.held
        close_window(&flow.window)
        free_ranges(&flow.blocked)
        _free_quic(flow)
        if self.spares < MAX_SPARES:
            flow.newer = self.spare
            self.spare = flow
            self.spares += 1
        else:
            free(flow)

    cdef void _take_out(self, const Flow* flow) noexcept nogil:
        # Free its slot, and let those behind it that had to go past it move up.
        cdef uint64_t hole = flow.hash & self.mask
        cdef uint64_t place
        while self.slots[hole].flow != flow:
            hole = (hole + 1) & self.mask
        place = hole
        while True:
            place = (place + 1) & self.mask
            if self.slots[place].flow == NULL:
                break
            if ((place - self.slots[place].hash) & self.mask) >= ((place - hole) & self.mask):
                self.slots[hole] = self.slots[place]
                hole = place
        self.slots[hole].flow = NULL

    cdef void expire(self, double now) noexcept nogil:
        # At most two of each lane for one packet: time is paid for as it goes.
        cdef int lane, turn
        cdef Flow* flow
        for lane in range(<int>LANES):
            for turn in range(2):
                flow = self.lanes[lane].oldest
                if flow == NULL or now - flow.touched < self.idle[lane]:
                    break
                self.expired += 1
                self.remove(flow)
