"""Sketches of what is behind destination addresses: names, connections, subscribers, as numbers.

In: names that clients have asked for, with the packet that completed them. Out: memory from which tally.pyx tells,
for an address or a range of them, how many different names that were, how many of these more than one subscriber has
asked for, how many connections, how many subscribers. Never here: a name, a subscriber's address, a clock, a file. An
address of a destination is stored.

Names. The first few are 30 bits of a keyed hash each (SipHash-2-4), in the slot, then in a set of 48; behind that
there are the registers of a HyperLogLog. Beside each stands which half of the subscribers has asked, so a name that
stands in both was asked for by two. Who makes up a million names from one line adds none to those.

The key is handed in as a view and copied nowhere. Without it a hash says nothing: it stands for no name that somebody
could try. Who has both the key and the memory can try names; so the key is nowhere but in the memory of processes,
and another one comes with each day (docs/impact.md).

Room is bounded. An address has one of eight slots; where all are taken each newcomer takes one from the credit of the
least used, and its place when that is spent. Sets and registers go to those that are asked for more.
"""

from string import ascii_letters as _letters
from string import digits as _digits

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from edgeblock.core.packet cimport PACKET_TCP, Packet, view_packet

cdef extern from "sodium.h" nogil:
    int sodium_init()
    int crypto_shorthash(unsigned char* out, const unsigned char* data, unsigned long long size,
                         const unsigned char* key)

cdef enum:
    NO_NAME = 0xFFFFFFFF
    NAME_MAX = 253             # bytes of a name (RFC 1035)
    FLOWS_MAX = 0xFFFFFFFF
    CREDIT_MAX = 255
    LOOKS = 4                  # at addresses, for one that has to give up its set
    NAME_BITS = 30             # of a hash; the two below say which halves of the subscribers asked
    INDEX_BITS = 13            # of these choose a register
    KEY_SIZE = 16

cdef extern from *:
    void fetch "__builtin_prefetch"(const void* at) noexcept nogil
    int clz "__builtin_clz"(unsigned int bits) noexcept nogil

cdef uint64_t MIX = 0x9E3779B97F4A7C15ULL
cdef uint8_t[256] PLAIN        # byte of a name -> lower case; 0: names in the DNS have none
for _byte in range(256):
    PLAIN[_byte] = ord(chr(_byte).lower()) if chr(_byte) in f"{_letters}{_digits}-_." else 0
ALL = 0xFFFFFFFF               # a sample of everything


# ---- memory

def size_of(uint64_t slots) -> int:
    """Bytes of a part with so many slots, a power of two."""
    return (sizeof(Head) + slots * sizeof(Slot) + slots // SLOTS_A_SET * SET_SIZE
            + slots // SLOTS_REGISTERS * REGISTERS)


cdef void lay_out(Part* part, uint8_t* memory) noexcept nogil:
    part.head = <Head*>memory
    part.slots = <Slot*>(memory + sizeof(Head))
    part.sets = <uint8_t*>(part.slots + part.head.slots)
    part.registers = part.sets + part.head.sets * SET_SIZE


cdef uint64_t bytes_of(const Head* head) noexcept nogil:
    return (sizeof(Head) + head.slots * sizeof(Slot) + head.sets * SET_SIZE + head.registers * REGISTERS)


# A writer that is killed between two steps loses the room of one address, and nothing else: what is given back leaves
# its slot first, what is taken leaves the list first.

cdef uint32_t take_set(Part* part, uint8_t credit) noexcept nogil:
    cdef Head* head = part.head
    cdef uint32_t at
    if not head.free_set and head.next_set == head.sets:
        reclaim(part, credit, False)
    at = head.free_set
    if 0 < at <= head.next_set:
        head.free_set = (<uint32_t*>set_at(part, at))[0]
    elif head.next_set < head.sets:
        head.next_set += 1
        at = head.next_set
    else:
        head.lacking += 1
        return 0
    memset(set_at(part, at), 0, SET_SIZE)
    return at


cdef uint32_t take_registers(Part* part, uint8_t credit) noexcept nogil:
    cdef Head* head = part.head
    cdef uint32_t at
    if not head.free_registers and head.next_registers == head.registers:
        reclaim(part, credit, True)
    at = head.free_registers
    if 0 < at <= head.next_registers:
        head.free_registers = (<uint32_t*>registers_at(part, at))[0]
    elif head.next_registers < head.registers:
        head.next_registers += 1
        at = head.next_registers
    else:
        head.lacking += 1
        return 0
    memset(registers_at(part, at), 0, REGISTERS)
    return at


cdef void give_back_set(Part* part, uint32_t at) noexcept nogil:
    if 0 < at <= part.head.next_set:
        (<uint32_t*>set_at(part, at))[0] = part.head.free_set
        part.head.free_set = at


cdef void give_back_names(Part* part, uint32_t names) noexcept nogil:
    cdef uint32_t at = names & ~<uint32_t>DENSE
    if not names & DENSE:
        give_back_set(part, names)
    elif 0 < at <= part.head.next_registers:
        (<uint32_t*>registers_at(part, at))[0] = part.head.free_registers
        part.head.free_registers = at


cdef void reclaim(Part* part, uint8_t credit, bint registers) noexcept nogil:
    # What nobody has left is taken from one of the next few addresses that is asked for less: of its names and
    # subscribers the first few stay, and the figure says that there were more.
    cdef Slot* slot
    cdef uint32_t names, subscribers
    cdef int i
    for i in range(<int>LOOKS):
        slot = &part.slots[part.head.hand % part.head.slots]
        part.head.hand += 1
        names, subscribers = slot.names_at, slot.subscribers_at
        if slot.credit >= credit or slot.family == 0:
            continue
        if names and registers == (names & DENSE != 0):
            slot.names_at = 0
            slot.count = 0
            slot.lost |= LOST_NAMES
            give_back_names(part, names)
            return
        if subscribers and not registers:
            slot.subscribers_at = 0
            slot.lost |= LOST_SUBSCRIBERS
            give_back_set(part, subscribers)
            return


cdef void empty(Part* part, Slot* slot) noexcept nogil:
    cdef uint32_t names = slot.names_at, subscribers = slot.subscribers_at
    memset(slot, 0, sizeof(Slot))
    give_back_set(part, subscribers)
    give_back_names(part, names)


# ---- names and subscribers of an address

cdef inline int leading_zeros(uint32_t bits, int size) noexcept nogil:
    # Of the `size` highest bits, fewer than 32.
    return min(clz(bits | 1), size)


cdef inline void note_register(uint8_t* registers, uint32_t entry) noexcept nogil:
    cdef uint8_t* place = registers + (entry >> (32 - INDEX_BITS))
    cdef int rank = min(1 + leading_zeros(entry << INDEX_BITS, NAME_BITS - INDEX_BITS), <int>RANK_MAX)
    if entry & 1 and (place[0] & 15) < rank:
        place[0] = <uint8_t>(place[0] & 0xF0 | rank)
    if entry & 2 and (place[0] >> 4) < rank:
        place[0] = <uint8_t>(place[0] & 15 | rank << 4)


cdef bint put(uint32_t* places, uint32_t room, uint32_t begin, uint32_t entry) noexcept nogil:
    # Into the first free place, or joined with the same name; whether it is new.
    cdef uint32_t i, at
    for i in range(room):
        at = (begin + i) & (room - 1)
        if places[at] == 0:
            places[at] = entry
            return True
        if (places[at] ^ entry) < 4:
            places[at] |= entry
            return False
    return False


cdef bint is_full(const uint32_t* places, uint32_t entry) noexcept nogil:
    cdef int i
    for i in range(<int>IN_SLOT):
        if places[i] == 0 or (places[i] ^ entry) < 4:
            return False
    return True


cdef bint make_set(Part* part, Slot* slot) noexcept nogil:
    cdef uint32_t at = take_set(part, slot.credit)
    cdef uint32_t* places
    cdef int i
    if at == 0:
        slot.lost |= LOST_NAMES
        return False
    places = <uint32_t*>set_at(part, at)
    for i in range(<int>IN_SLOT):
        put(places, IN_SET, slot.names[i] >> 26, slot.names[i])
    slot.count = IN_SLOT
    slot.names_at = at
    return True


cdef bint make_registers(Part* part, Slot* slot) noexcept nogil:
    cdef uint32_t at = take_registers(part, slot.credit), before = slot.names_at
    cdef uint32_t* places
    cdef int i
    if at == 0:
        slot.lost |= LOST_NAMES
        return False
    if before:
        places = <uint32_t*>set_at(part, before)
        for i in range(<int>IN_SET):
            if places[i]:
                note_register(registers_at(part, at), places[i])
    else:
        for i in range(<int>IN_SLOT):
            if slot.names[i]:
                note_register(registers_at(part, at), slot.names[i])
    slot.names_at = at | DENSE
    give_back_set(part, before)
    return True


cdef bint holds(const uint32_t* places, uint32_t entry) noexcept nogil:
    cdef uint32_t i, at
    for i in range(<uint32_t>IN_SET):
        at = ((entry >> 26) + i) & (IN_SET - 1)
        if places[at] == 0:
            return False
        if (places[at] ^ entry) < 4:
            return True
    return False


cdef void add_name(Part* part, Slot* slot, uint32_t entry) noexcept nogil:
    cdef uint32_t* places
    if slot.names_at == 0:
        if not is_full(slot.names, entry):
            put(slot.names, IN_SLOT, 0, entry)
            return
        if not make_set(part, slot):
            return
    if not slot.names_at & DENSE:
        places = <uint32_t*>set_at(part, slot.names_at)
        if slot.count < SET_MOST or holds(places, entry):
            slot.count += put(places, IN_SET, entry >> 26, entry)
            return
        if not make_registers(part, slot):
            return
    note_register(registers_at(part, slot.names_at), entry)


cdef inline bint note_subscriber(uint8_t* registers, uint32_t hash) noexcept nogil:
    cdef int rank = 1 + leading_zeros(hash << 8, 24)
    if registers[hash >> 24] >= rank:
        return False
    registers[hash >> 24] = <uint8_t>rank
    return True


cdef bint move_subscribers(Part* part, Slot* slot) noexcept nogil:
    cdef uint32_t at = take_set(part, slot.credit)
    cdef int i
    if at == 0:
        slot.lost |= LOST_SUBSCRIBERS
        return False
    for i in range(<int>IN_SLOT):
        if slot.subscribers[i]:
            note_subscriber(set_at(part, at), slot.subscribers[i])
    slot.subscribers_at = at
    return True


cdef bint add_subscriber(Part* part, Slot* slot, uint32_t hash) noexcept nogil:
    # Whether it is heard of for the first time.
    cdef int i
    if slot.subscribers_at == 0:
        for i in range(<int>IN_SLOT):
            if slot.subscribers[i] == hash:
                return False
            if slot.subscribers[i] == 0:
                slot.subscribers[i] = hash
                return True
        if not move_subscribers(part, slot):
            return False
    return note_subscriber(set_at(part, slot.subscribers_at), hash)


# ---- the writer

cdef class Sketches:
    """The sketches of one writer.

    Args:
        memory: of `size_of(slots)` bytes, all zero, or what another writer with this key has left.
        slots: destination addresses that are remembered; a power of two, 256 at least.
        key: 16 bytes.
        sample: of TCP connections whose name might have passed elsewhere, those are counted of which `in_sample` is
            less; each counts for all that it stands for. ALL: nothing passes elsewhere.
        secret: for `in_sample`.

    Raises:
        ValueError: a size does not fit.
    """

    def __init__(self, uint8_t[::1] memory not None, uint64_t slots, const uint8_t[::1] key not None,
                 uint32_t sample=0xFFFFFFFF, uint64_t secret=0):
        cdef Head* head
        cdef uint8_t[16] made
        cdef uint64_t all_there_are
        if key.shape[0] != KEY_SIZE or slots & (slots - 1) or slots < SLOTS_REGISTERS:
            raise ValueError("a key has 16 bytes, and slots are a power of two from 256 on")
        if <uint64_t>memory.shape[0] < <uint64_t>size_of(slots):
            raise ValueError(f"{slots} slots need {size_of(slots)} bytes")
        if sodium_init() < 0:
            raise RuntimeError("libsodium cannot be initialised")
        head = <Head*>&memory[0]
        head.slots, head.sets, head.registers = slots, slots // SLOTS_A_SET, slots // SLOTS_REGISTERS
        self.memory, self.key_view = memory, key
        self.key = &key[0]
        lay_out(&self.part, &memory[0])
        # The places of addresses are as secret as the key, and tell nothing of it.
        crypto_shorthash(made, b"place 0", 7, self.key)
        crypto_shorthash(made + 8, b"place 1", 7, self.key)
        memcpy(self.place_key, made, sizeof(self.place_key))
        self.sample, self.secret = sample, secret
        all_there_are = <uint64_t>1 << 32
        self.weight = <uint32_t>min((all_there_are + sample // 2) // (<uint64_t>sample + 1), <uint64_t>1_000_000)

    cdef uint32_t hash_name(self, const uint8_t* host, size_t size) noexcept nogil:
        # As clients write it, without port and final dot, in lower case. What is an address, has no dot, or has other
        # bytes than names in the DNS, is none.
        cdef uint8_t[256] text
        cdef uint8_t[8] hash
        cdef uint64_t word
        cdef const uint8_t* colon = <const uint8_t*>memchr(host, c':', size) if size else NULL
        cdef size_t i, label = 0
        cdef uint32_t odd = 0
        cdef uint8_t c
        if colon != NULL:
            size = colon - host
        if size and host[size - 1] == c'.':
            size -= 1
        if size == 0 or size > NAME_MAX:
            return NO_NAME
        for i in range(size):
            c = PLAIN[host[i]]
            odd |= <uint32_t>c - 1
            label = i + 1 if c == c'.' else label
            text[i] = c
        if odd >> 31 or label == 0 or label == size or c'0' <= text[label] <= c'9':
            return NO_NAME
        crypto_shorthash(hash, text, size, self.key)
        memcpy(&word, hash, 8)
        return <uint32_t>(word >> (64 - NAME_BITS))

    cdef uint32_t hash_subscriber(self, const Packet* p, uint32_t* of_day) noexcept nogil:
        # Of an IPv6 address 56 bits: the others change as one line pleases. No name is so short, or has such bytes.
        cdef uint64_t[2] text
        cdef uint64_t word
        memcpy(text, p.source, 8)
        if p.family == 6:
            (<uint8_t*>text)[7] = 0
        text[1] = p.family
        crypto_shorthash(<unsigned char*>&word, <unsigned char*>text, 9, self.key)
        of_day[0] = <uint32_t>(word >> 32)
        return <uint32_t>word

    cdef uint32_t half_of(self, const Packet* p) noexcept nogil:
        cdef uint64_t word
        memcpy(&word, p.source, 8)
        if p.family == 6:
            (<uint8_t*>&word)[7] = 0
        word = (word ^ self.place_key[1]) * MIX
        word = (word ^ word >> 32 ^ self.place_key[0]) * MIX
        return 1 + <uint32_t>(word >> 63)

    cdef Slot* bucket_of(self, const Packet* p) noexcept nogil:
        cdef uint64_t[2] words
        cdef uint64_t place
        memcpy(words, p.destination, 16)
        place = (words[0] ^ self.place_key[0]) * MIX
        place = (place ^ place >> 32 ^ words[1] ^ self.place_key[1]) * MIX
        place ^= place >> 29
        place *= MIX
        return self.part.slots + ((place >> 32) & (self.part.head.slots - 1) & ~<uint64_t>(BUCKET - 1))

    cdef void foresee(self, const Packet* p) noexcept nogil:
        fetch(self.bucket_of(p))

    cdef Slot* find(self, const Packet* p, bint first) noexcept nogil:
        cdef uint64_t[2] words
        cdef uint64_t[2] there
        cdef Slot* bucket = self.bucket_of(p)
        cdef Slot* least = NULL
        cdef int i
        memcpy(words, p.destination, 16)
        for i in range(<int>BUCKET):
            memcpy(there, bucket[i].address, 16)
            if there[0] == words[0] and there[1] == words[1] and bucket[i].family == p.family:
                return &bucket[i]
            if bucket[i].family == 0:
                least = &bucket[i]
                break
            if least == NULL or bucket[i].credit < least.credit:
                least = &bucket[i]
        if least.family:
            if not first:
                return NULL
            if least.credit > 1:
                least.credit -= 1
                self.part.head.refused += 1
                return NULL
            empty(&self.part, least)
            self.part.head.replaced += 1
        memcpy(least.address, p.destination, 16)
        least.family = p.family
        return least

    cdef void learn(self, const Packet* p, const uint8_t* host, size_t size, bint first) noexcept nogil:
        cdef Slot* slot = self.find(p, first)
        cdef uint32_t who, of_day, name, weight = 1
        cdef int rank
        if slot == NULL:
            return
        if first:
            if p.kind == PACKET_TCP and self.sample != ALL_FLOWS:
                weight = self.weight if in_sample(p, self.secret) <= self.sample else 0
            slot.flows = FLOWS_MAX if FLOWS_MAX - slot.flows < weight else slot.flows + weight
            self.part.head.flows += weight
            who = self.hash_subscriber(p, &of_day)
            # Each subscriber once: nobody makes an address weigh more by asking more often.
            if add_subscriber(&self.part, slot, who if who else 1) and slot.credit < CREDIT_MAX:
                slot.credit += 1
            rank = 1 + leading_zeros(of_day << DAY_BITS, 32 - DAY_BITS)
            if self.part.head.day[of_day >> (32 - DAY_BITS)] < rank:
                self.part.head.day[of_day >> (32 - DAY_BITS)] = <uint8_t>rank
        name = self.hash_name(host, size)
        if name != NO_NAME:
            add_name(&self.part, slot, name << 2 | self.half_of(p))

    def see(self, const uint8_t[::1] packet not None, const uint8_t[::1] host not None, bint first=True) -> None:
        """What the engine does with a name that an IP packet has completed."""
        cdef Packet p
        view_packet(&packet[0], packet.shape[0], &p)
        self.learn(&p, &host[0] if host.shape[0] else NULL, host.shape[0], first)

    def see_all(self, const uint8_t[::1] packet not None, list hosts not None, bint first=True) -> None:
        """The same of many names (bytes), in a compiled loop: for tests and benchmarks."""
        cdef Packet p
        cdef bytes host
        view_packet(&packet[0], packet.shape[0], &p)
        for host in hosts:
            self.learn(&p, <const uint8_t*><const char*>host, len(host), first)

    def see_others(self, const uint8_t[::1] packet not None, uint32_t count, bytes host not None) -> None:
        """The same of one name at so many IPv4 destinations, from 0.0.0.1 on."""
        cdef Packet p
        cdef uint32_t i
        view_packet(&packet[0], packet.shape[0], &p)
        p.family = 4
        memset(p.destination, 0, 16)
        for i in range(1, count + 1):
            p.destination[0], p.destination[1] = <uint8_t>(i >> 24), <uint8_t>(i >> 16)
            p.destination[2], p.destination[3] = <uint8_t>(i >> 8), <uint8_t>i
            self.learn(&p, <const uint8_t*><const char*>host, len(host), True)


cdef uint32_t ALL_FLOWS = 0xFFFFFFFF


cdef uint32_t in_sample(const Packet* p, uint64_t secret) noexcept nogil:
    # The same as in netfilter/stage1/program.c: both choose the same connections.
    cdef uint64_t[4] words
    cdef uint64_t hash = secret
    cdef int i
    memcpy(words, p.source, 16)
    memcpy(words + 2, p.destination, 16)
    for i in range(4):
        hash = (hash ^ words[i]) * MIX
        hash ^= hash >> 32
    hash = (hash ^ (<uint64_t>p.source_port << 16 | p.destination_port)) * MIX
    return <uint32_t>(hash >> 32)


def place_in_sample(const uint8_t[::1] packet not None, uint64_t secret) -> int:
    """The number, of 32 bits, by which a TCP connection is in the sample or not."""
    cdef Packet p
    view_packet(&packet[0], packet.shape[0], &p)
    return in_sample(&p, secret)
