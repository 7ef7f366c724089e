"""What the first stage let by in the kernel, found again when a packet of the same flow comes to user space.

In: the first stage's maps, and a packet that was queued. Out: an engine that has judged, before that packet, what
passed of its flow unseen. Never here: a decision, an exception because of a packet.

netfilter/stage1/program.c has the argument why this is enough; the structures are those of structures.h beside it.
"""

import mmap

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.engine cimport Engine, Passed
from edgeblock.core.packet cimport PACKET_TCP, TCP_SYN, TCP_URG, Packet, view_packet

from edgeblock.netfilter.stage1.structures cimport (CLAIMED, HELLO_MAX, NEAR, PIECES, SYNS, Hello, Key, PassedSyn,
                                                    Remembered, place_of_part)

from edgeblock.netfilter.stage1 import bpf
from edgeblock.netfilter.stage1.structures import SIZES

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef enum:
    PATIENCE = 10_000       # looks at a flow that another CPU is writing; it takes less than a microsecond
    MAP_LOOKUP = 1


cdef class Recall:
    """One reader of the maps.

    Args:
        flows, hellos: the open maps, which stay the caller's.
        places: how many hellos there is room for.
        secret: the stage's, with which the places of pieces are computed.

    Attributes:
        recalled: packets before which something was found.
        forgotten: hellos that were found to be overwritten.

    Raises:
        SystemProblem: a map is another program's, or of another edgeblock.
    """

    def __init__(self, int flows, int hellos, uint32_t places, uint64_t secret):
        cdef size_t size = places * sizeof(Hello)
        cdef const uint8_t[::1] view
        bpf.check_map(flows, "flows", SIZES["flows"])
        bpf.check_map(hellos, "hellos", SIZES["hellos"])
        self.flows = flows
        self.places = places
        self.secret = secret
        self.number = bpf.call_number()
        self.memory = mmap.mmap(hellos, (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE,
                                prot=mmap.PROT_READ)
        view = self.memory
        self.hellos = &view[0]

    cdef void before(self, Engine engine, const uint8_t* data, size_t size, double now) noexcept nogil:
        """To be called before that packet is judged."""
        cdef Packet p
        cdef Remembered r
        cdef Passed passed[SYNS]
        cdef uint32_t count
        cdef uint64_t past, untold
        view_packet(data, size, &p)
        if p.kind != PACKET_TCP:
            return
        if p.payload_size == 0 and not p.flags & (TCP_SYN | TCP_URG):
            return         # says nothing, and does not make the flow the engine's
        if not self.look_up(&p, &r):
            return
        count = self.gather(&r, p.seq, passed, &past)
        if count:
            self.recalled += 1
            untold = engine.untold(&p, past)
            if untold:
                count = self.pick(&r, past, untold, passed)
                engine.catch_up(data, size, past, passed, count, now)

    cdef uint32_t gather(self, const Remembered* r, uint32_t seq, Passed* passed, uint64_t* past) noexcept nogil:
        """What is still known for a packet with that sequence number: how many SYNs, and Engine.catch_up's `past`.

        Of a hello that is overwritten the SYN and the size are left, where the packet may belong to that stream: so
        the engine knows where it begins and goes on. Elsewhere it is forgotten as well, as the engine forgets flows
        that were read to their end. `hello` is NULL for these, and points into the map for the others.
        """
        cdef const PassedSyn* one
        cdef uint32_t i, count = 0, known = min(r.count, <uint32_t>SYNS)
        cdef uint32_t[SYNS + 1] kept        # of the SYNs before each
        cdef uint64_t number = 0xCBF29CE484222325ULL, which = 0
        kept[0] = 0
        for i in range(known):
            one = &r.passed[i]
            number = (number ^ one.isn) * <uint64_t>0x100000001B3
            number = (number ^ one.serial) * <uint64_t>0x100000001B3
            number = (number ^ one.place) * <uint64_t>0x100000001B3
            number = (number ^ one.size) * <uint64_t>0x100000001B3
            kept[i + 1] = count
            passed[count].isn = one.isn
            passed[count].size = one.size
            passed[count].after = one.after
            passed[count].hello = self.bytes_of(one)
            memset(passed[count].cuts, 0, sizeof(passed[count].cuts))
            if one.size and passed[count].hello == NULL:
                self.forgotten += 1
                if one.isn - seq >= <uint32_t>NEAR and seq - one.isn >= <uint32_t>NEAR:
                    continue
            which |= <uint64_t>1 << i
            count += 1
            kept[i + 1] = count
        for i in range(count):
            passed[i].after = max(kept[min(<uint32_t>passed[i].after, known)], i + 1)
        past[0] = number << SYNS | which
        return count

    cdef bint look_up(self, const Packet* p, Remembered* out) noexcept nogil:
        cdef Key key
        cdef Attributes what
        cdef int turn
        memset(&key, 0, sizeof(key))
        memcpy(key.source, p.source, 16)
        memcpy(key.destination, p.destination, 16)
        key.source_port = <uint16_t>(p.source_port >> 8 | p.source_port << 8)
        key.destination_port = <uint16_t>(p.destination_port >> 8 | p.destination_port << 8)
        key.family = p.family
        memset(&what, 0, sizeof(what))
        what.map_fd = <uint32_t>self.flows
        what.key = <uint64_t><size_t>&key
        what.value = <uint64_t><size_t>out
        for turn in range(PATIENCE):
            if syscall(self.number, MAP_LOOKUP, &what, sizeof(what)) != 0:
                return self.look_up_part(&key, out)
            if not out.head & 1 and out.head == out.tail:
                return True
        return True     # what there is of it

    cdef bint look_up_part(self, const Key* key, Remembered* out) noexcept nogil:
        """Of a flow that was pushed out of its map: the hello of which only the first pieces have passed."""
        cdef PassedSyn* one = &out.passed[0]
        cdef const Hello* at
        cdef int turn
        cdef bint is_it
        memset(out, 0, sizeof(Remembered))
        out.count = one.after = 1
        one.place = place_of_part(key, self.secret, self.places)
        at = <const Hello*>(self.hellos + <size_t>one.place * sizeof(Hello))
        for turn in range(PATIENCE):
            one.serial = (<const volatile uint32_t*>&at.serial)[0]
            is_it = at.size != 0 and memcmp(&at.key, key, sizeof(Key)) == 0
            one.isn = at.isn
            one.size = at.size
            if one.serial != CLAIMED and (<const volatile uint32_t*>&at.serial)[0] == one.serial:
                return is_it
        return False

    cdef uint32_t pick(self, const Remembered* r, uint64_t past, uint64_t untold, Passed* passed) noexcept nogil:
        """Leaves of `passed`, which `past` names, those in `untold`, with copies of their hellos; how many they are.

        All, or only such whose hello is lost: so `after` stays true.
        """
        cdef uint32_t i, k = 0, count = 0
        for i in range(<uint32_t>SYNS):
            if not past >> i & 1:
                continue
            if untold >> i & 1:
                passed[count] = passed[k]
                if passed[k].hello != NULL:
                    # The place may be written anew meanwhile: whole only if it says the same before and after.
                    memcpy(self.found[count], passed[k].hello, passed[k].size)
                    self.cuts_of(&r.passed[i], &passed[count])
                    passed[count].hello = self.found[count] if self.bytes_of(&r.passed[i]) != NULL else NULL
                count += 1
            k += 1
        return count

    cdef const uint8_t* bytes_of(self, const PassedSyn* one) noexcept nogil:
        cdef const Hello* at
        if one.size == 0 or one.size > HELLO_MAX or one.place >= self.places:
            return NULL
        at = <const Hello*>(self.hellos + <size_t>one.place * sizeof(Hello))
        if (<const volatile uint32_t*>&at.serial)[0] != one.serial:
            return NULL
        return <const uint8_t*>at + (<const uint8_t*>at.data - <const uint8_t*>at)

    cdef void cuts_of(self, const PassedSyn* one, Passed* passed) noexcept nogil:
        cdef const Hello* at = <const Hello*>(self.hellos + <size_t>one.place * sizeof(Hello))
        cdef int i
        for i in range(<int>PIECES - 1):
            passed.cuts[i] = at.cuts[i]

    def prepare(self, Engine engine not None, bytes packet not None, double now):
        """`before` for tests."""
        self.before(engine, packet, len(packet), now)
