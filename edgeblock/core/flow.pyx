"""The flow table.

Comes in: packet views and the caller's clock. Goes out: flows. Never here: what a flow's bytes mean, a clock.
A bucket's place is a keyed hash (SipHash from libsodium), so that nobody outside can aim at one bucket. Every flow
hangs in one lane, ordered by its last packet; the oldest of the lowest lane goes first when a limit is reached, which
costs the same however many flows there are.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.quic cimport free_connections
from edgeblock.core.window cimport close_window

cdef extern from "sodium.h" nogil:
    int sodium_init()
    int crypto_shorthash(unsigned char* out, const unsigned char* data, unsigned long long size,
                         const unsigned char* key)
    void randombytes_buf(void* buffer, size_t size)


cdef void _key_of(const Packet* p, bint reverse, uint8_t* key) noexcept nogil:
    cdef size_t client = 16 if reverse else 0
    cdef size_t server = 16 - client
    memcpy(key + client, p.source, 16)
    memcpy(key + server, p.destination, 16)
    memcpy(key + 32 + client // 8, &p.source_port, 2)
    memcpy(key + 32 + server // 8, &p.destination_port, 2)
    key[36] = p.family
    key[37] = p.protocol


cdef class FlowTable:
    """FlowTable(max_flows, max_memory in bytes, idle in seconds)"""

    def __cinit__(self, uint64_t max_flows, uint64_t max_memory, double idle):
        cdef uint64_t size = 1024
        while size < max_flows and size < (<uint64_t>1 << 26):
            size *= 2
        if sodium_init() < 0:
            raise RuntimeError("libsodium cannot be initialised")
        self.buckets = <Flow**>calloc(size, sizeof(Flow*))
        if self.buckets == NULL:
            raise MemoryError
        self.mask = size - 1
        self.max_flows = max_flows
        self.max_memory = max_memory
        self.idle = idle
        randombytes_buf(self.secret, 16)

    def __dealloc__(self):
        cdef int lane
        for lane in range(<int>LANES):
            while self.lanes[lane].oldest != NULL:
                self.remove(self.lanes[lane].oldest)
        free(self.buckets)

    cdef uint64_t _bucket(self, const uint8_t* key) noexcept nogil:
        cdef uint64_t place = 0
        crypto_shorthash(<unsigned char*>&place, key, KEY_SIZE, self.secret)
        return place & self.mask

    cdef Flow* find(self, const Packet* packet, bint reverse) noexcept nogil:
        cdef uint8_t key[KEY_SIZE]
        cdef uint64_t place
        cdef Flow* flow
        _key_of(packet, reverse, key)
        place = self._bucket(key)
        if not reverse:
            self.place = place
        flow = self.buckets[place]
        while flow != NULL and memcmp(flow.key, key, KEY_SIZE) != 0:
            flow = flow.chain
        return flow

    cdef Flow* create(self, const Packet* packet, double now) noexcept nogil:
        cdef Flow* flow
        while self.flows >= self.max_flows:
            if not self._evict(NULL):
                return NULL
        flow = <Flow*>malloc(sizeof(Flow))
        if flow == NULL:
            return NULL
        memset(flow, 0, sizeof(Flow))
        _key_of(packet, False, flow.key)
        flow.place = self.place
        flow.chain = self.buckets[flow.place]
        self.buckets[flow.place] = flow
        flow.lane = LANE_UNDECIDED
        flow.touched = now
        self._append(flow)
        self.flows += 1
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

    cdef void touch(self, Flow* flow, uint8_t lane, double now) noexcept nogil:
        self._unhook(flow)
        flow.lane = lane
        flow.touched = now
        self._append(flow)
        self.memory -= flow.held
        flow.held = flow.window.bytes + flow.quic.bytes
        self.memory += flow.held
        while self.memory > self.max_memory:
            if not self._evict(flow):
                break

    cdef bint _evict(self, Flow* spared) noexcept nogil:
        cdef int lane
        cdef Flow* flow
        for lane in range(<int>LANES):
            flow = self.lanes[lane].oldest
            if flow == spared and flow != NULL:
                flow = flow.newer
            if flow != NULL:
                self.evicted[lane] += 1
                self.remove(flow)
                return True
        return False

    cdef void remove(self, Flow* flow) noexcept nogil:
        cdef Flow** link = &self.buckets[flow.place]
        while link[0] != flow:
            link = &link[0].chain
        link[0] = flow.chain
        self._unhook(flow)
        self.flows -= 1
        self.memory -= sizeof(Flow) + FLOW_COST + flow.held
        close_window(&flow.window)
        free_connections(&flow.quic)
        free(flow)

    cdef void expire(self, double now) noexcept nogil:
        # At most two of each lane for one packet: time is paid for as it goes.
        cdef int lane, turn
        cdef Flow* flow
        for lane in range(<int>LANES):
            for turn in range(2):
                flow = self.lanes[lane].oldest
                if flow == NULL or now - flow.touched < self.idle:
                    break
                self.expired += 1
                self.remove(flow)
