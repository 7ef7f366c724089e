"""How far each flow has come that a reader has begun to read, in memory that outlives the reader.

In: how the engine stands with the flows of a batch, just before the verdicts leave. Out, for the next reader: an
engine that knows where a flow begins of which only a SYN has passed, and that lets nothing go on whose beginning has
passed and went down with the reader before. Never here: a name, a payload, an address: a flow is a keyed hash.

A table of fixed size, four places a bucket: a flow that finds its bucket full takes the oldest's place. There are as
many places as flows that an engine remembers, so that what is forgotten here is forgotten there, too.
"""

import mmap
import os

from libc.string cimport memcpy, memset

from edgeblock.core.engine cimport STANDS_BEGUN, STANDS_MANY, STANDS_SYN, STANDS_WHOLE, Decision
from edgeblock.core.packet cimport PACKET_TCP, PACKET_UDP, Packet, view_packet

cdef extern from *:
    void fetch "__builtin_prefetch"(const void* at) noexcept nogil

cdef enum:
    STEP = 2                   # seconds
    NEAR = 1 << 20             # as core.starts' MAX_AHEAD


def size_of(uint64_t flows) -> int:
    """Bytes for one queue whose engine remembers so many flows."""
    cdef uint64_t buckets = 1
    while buckets * IN_BUCKET < flows:
        buckets *= 2
    size = sizeof(Header) + buckets * sizeof(Bucket)
    return (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE


def create(rows: int, flows: int) -> int:
    """A file in memory for so many queues, open. Pages that nobody writes cost nothing."""
    fd = os.memfd_create("edgeblock-begun")
    os.ftruncate(fd, rows * size_of(flows))
    secret = os.urandom(16)
    for row in range(rows):
        os.pwrite(fd, secret, row * size_of(flows))
    return fd


cdef class Begun:
    """One queue's part of the file, for a reader that takes the queue now.

    Args:
        fd, row, flows: the file, the queue's place in it, and limits.flows.
        idle: seconds after which a flow is forgotten.
        now: CLOCK_MONOTONIC seconds.
    """

    def __init__(self, int fd, int row, uint64_t flows, double idle, double now):
        cdef uint8_t[::1] view
        size = size_of(flows)
        self.memory = mmap.mmap(fd, size, offset=row * size)
        view = self.memory
        self.header = <Header*>&view[0]
        self.buckets = <Bucket*>(self.header + 1)
        self.mask = 1
        while self.mask * IN_BUCKET < flows:
            self.mask *= 2
        self.mask -= 1
        self.idle = idle
        self.until = now + idle if self.header.generation else 0.0
        self.header.generation += 1
        self.generation = <uint8_t>self.header.generation

    @property
    def secret(self) -> bytes:
        """For Engine.share_secret."""
        return <bytes>self.header.secret[:16]

    cdef void foresee(self, uint64_t hash) noexcept nogil:
        fetch(&self.buckets[hash & self.mask])

    cdef void note(self, const Standing* s, double now) noexcept nogil:
        cdef Entry* e = self.place(&self.buckets[s.hash & self.mask], <uint32_t>(s.hash >> 32) | 1,
                                   <uint16_t>(<uint64_t>now // STEP))
        cdef bint far = not s.datagrams and s.at - e.at > <uint32_t>NEAR and e.at - s.at > <uint32_t>NEAR
        e.generation = self.generation
        if s.state == STANDS_SYN and e.state == STANDS_SYN and s.at != e.at and (
                not e.before_state or e.before_state == STANDS_SYN and e.before == s.at):
            e.before = e.at             # two places where it may begin
            e.before_state = STANDS_SYN
        elif e.state and (far or s.state == STANDS_SYN and s.at != e.at and (
                e.state == STANDS_SYN or s.at - e.at <= <uint32_t>NEAR)):
            # Another connection on the same ports. Of those before it the one is kept that is not over.
            if e.before_state == STANDS_MANY:
                pass
            elif e.state != STANDS_WHOLE and (e.before_state == STANDS_BEGUN or e.before_state == STANDS_SYN):
                e.before_state = STANDS_MANY
            elif e.state != STANDS_WHOLE or not e.before_state or e.before_state == STANDS_WHOLE:
                e.before = e.at
                e.before_state = e.state
        elif e.state and s.state == STANDS_SYN:
            return                      # the same once more
        elif e.state and s.at - e.at >= <uint32_t>0x80000000:
            e.state = s.state           # earlier bytes
            return
        e.at = s.at
        e.state = s.state

    cdef Entry* place(self, Bucket* bucket, uint32_t tag, uint16_t when) noexcept nogil:
        # The flow that was touched last stands first. A new one takes the last place, whosever it was.
        cdef Entry moved
        cdef int at = 0, i
        while at < IN_BUCKET - 1 and bucket.entries[at].tag != tag:
            at += 1
        if bucket.entries[at].tag == tag:
            if bucket.entries[at].when == when:
                return &bucket.entries[at]
            moved = bucket.entries[at]
        else:
            memset(&moved, 0, sizeof(Entry))
            moved.tag = tag
        moved.when = when
        for i in range(at, 0, -1):
            bucket.entries[i] = bucket.entries[i - 1]
        bucket.entries[0] = moved
        return &bucket.entries[0]

    cdef void restore(self, Engine engine, const uint8_t* data, size_t size, double now) noexcept nogil:
        cdef Packet p, back
        cdef const Entry* e
        view_packet(data, size, &p)
        if p.kind != PACKET_TCP and p.kind != PACKET_UDP or engine.knows(&p):
            return
        e = self.find(engine.hash_of(&p), now)
        if e != NULL:
            engine.take_over(&p, e.state, e.at, e.before_state, e.before, now)
            return
        # What comes from the server says nothing of the flow; but it must not be taken for the client's.
        back = p
        memcpy(back.source, p.destination, sizeof(p.source))
        memcpy(back.destination, p.source, sizeof(p.source))
        back.source_port = p.destination_port
        back.destination_port = p.source_port
        if not engine.knows(&back):
            e = self.find(engine.hash_of(&back), now)
            if e != NULL:
                engine.take_over(&back, e.state, e.at, e.before_state, e.before, now)

    cdef const Entry* find(self, uint64_t hash, double now) noexcept nogil:
        cdef const Bucket* bucket = &self.buckets[hash & self.mask]
        cdef const Entry* e
        cdef uint16_t age
        cdef int i
        for i in range(IN_BUCKET):
            e = &bucket.entries[i]
            if e.tag == (<uint32_t>(hash >> 32) | 1) and e.generation != self.generation:
                age = <uint16_t>(<uint64_t>now // STEP) - e.when
                return e if age <= <uint16_t>(self.idle / STEP) + 1 else NULL
        return NULL

    def judge(self, Engine engine not None, bytes packet not None, double now, uint32_t flags=0):
        """What a reader does with a packet and its batch, for tests: a `core.decision.Decision`."""
        cdef Decision made
        cdef Standing standing
        if self.until > now:
            self.restore(engine, packet, len(packet), now)
        engine.judge_packet(packet, len(packet), now, flags, &made)
        if engine.standing(&made, &standing):
            self.note(&standing, now)
        return engine.decision(&made)
