"""How much sketches tell: parts of several writers made one table, and estimates of what is behind addresses.

In: parts (sketch.pxd). Out: closed tables, with addresses in order; of any range of addresses the names, those that
more than one subscriber has asked for, connections and subscribers. Never here: a key, a hash of anything.

Estimates: O. Ertl, New cardinality estimation algorithms for HyperLogLog sketches (2017), algorithm 6.
"""

from libc.math cimport log, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_FromStringAndSize

from edgeblock.core.sketch cimport (DAY_BITS, DAY_REGISTERS, DENSE, IN_SET, IN_SLOT, LOST_NAMES, RANK_MAX, REGISTERS,
                                    SET_SIZE, Head, Part, Slot, add_name, add_subscriber, bytes_of, lay_out,
                                    make_registers, move_subscribers, registers_at, set_at)

cdef uint32_t FLOWS_MAX = 0xFFFFFFFF


# ---- estimates

cdef double sigma(double x) noexcept nogil:
    cdef double y = 1.0, z = x, before = -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


cdef double tau(double x) noexcept nogil:
    cdef double y = 1.0, z = 1.0 - x, before = -1.0
    if x == 0.0 or x == 1.0:
        return 0.0
    while z != before:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1.0 - x) * (1.0 - x) * y
    return z / 3.0


cdef double estimate(const uint32_t* counts, int highest, double registers) noexcept nogil:
    # `counts` of registers with each rank from 0 to `highest`.
    cdef double z
    cdef int k
    if counts[0] == <uint32_t>registers:
        return 0.0
    z = registers * tau(1.0 - counts[highest] / registers)
    for k in range(highest - 1, 0, -1):
        z = 0.5 * (z + counts[k])
    z += registers * sigma(counts[0] / registers)
    if z <= 0:                  # every register is full: nothing that was ever counted is
        return 1e12
    return registers * registers / (2.0 * log(2.0) * z)


cdef double estimate_bytes(const uint8_t* registers, uint32_t size, int highest) noexcept nogil:
    cdef uint32_t[64] counts
    cdef uint32_t i
    memset(counts, 0, sizeof(counts))
    for i in range(size):
        counts[min(registers[i], <uint8_t>highest)] += 1
    return estimate(counts, highest, size)


cdef void estimate_names(const uint8_t* registers, double* every, double* common) noexcept nogil:
    # Of both halves together; and what the two have in common, by inclusion and exclusion.
    cdef uint32_t[RANK_MAX + 1] low, high, both
    cdef double one, other, shared
    cdef int a, b, i
    memset(low, 0, sizeof(low))
    memset(high, 0, sizeof(high))
    memset(both, 0, sizeof(both))
    for i in range(<int>REGISTERS):
        a, b = registers[i] & 15, registers[i] >> 4
        low[a] += 1
        high[b] += 1
        both[a if a > b else b] += 1
    one, other = estimate(low, RANK_MAX, REGISTERS), estimate(high, RANK_MAX, REGISTERS)
    every[0] = estimate(both, RANK_MAX, REGISTERS)
    shared = one + other - every[0]
    common[0] = min(max(shared, 0.0), min(one, other))


# ---- several into one

cdef void merge_names(Part* to, Slot* into, const Part* of, const Slot* slot) noexcept nogil:
    cdef const uint32_t* places
    cdef const uint8_t* theirs
    cdef uint8_t* ours
    cdef uint8_t a, b
    cdef int i
    if slot.names_at == 0:
        for i in range(<int>IN_SLOT):
            if slot.names[i]:
                add_name(to, into, slot.names[i])
    elif not slot.names_at & DENSE:
        if slot.names_at > of.head.next_set:
            return
        places = <const uint32_t*>set_at(of, slot.names_at)
        for i in range(<int>IN_SET):
            if places[i]:
                add_name(to, into, places[i])
    elif 0 < (slot.names_at & ~<uint32_t>DENSE) <= of.head.next_registers:
        if not into.names_at & DENSE and not make_registers(to, into):
            return
        ours, theirs = registers_at(to, into.names_at), registers_at(of, slot.names_at)
        for i in range(<int>REGISTERS):
            a = max(ours[i] & 15, theirs[i] & 15)
            b = max(ours[i] & 0xF0, theirs[i] & 0xF0)
            ours[i] = a | b


cdef void merge(Part* to, Slot* into, const Part* of, const Slot* slot) noexcept nogil:
    cdef const uint8_t* theirs
    cdef uint8_t* ours
    cdef int i
    into.flows = FLOWS_MAX if FLOWS_MAX - into.flows < slot.flows else into.flows + slot.flows
    into.credit = max(into.credit, slot.credit)
    into.lost |= slot.lost
    merge_names(to, into, of, slot)
    if slot.subscribers_at == 0:
        for i in range(<int>IN_SLOT):
            if slot.subscribers[i]:
                add_subscriber(to, into, slot.subscribers[i])
    elif slot.subscribers_at <= of.head.next_set:
        if into.subscribers_at == 0 and not move_subscribers(to, into):
            return
        ours, theirs = set_at(to, into.subscribers_at), set_at(of, slot.subscribers_at)
        for i in range(<int>SET_SIZE):
            ours[i] = max(ours[i], theirs[i])


cdef struct Found:
    Slot slot
    uint32_t part


cdef int open_part(Part* part, Head* head, uint8_t[::1] memory) except -1:
    # With a head of its own: whoever writes there may write anything, at any time.
    cdef uint64_t size = memory.shape[0]
    if size < sizeof(Head):
        raise ValueError("the memory is shorter than a head")
    head[0] = (<Head*>&memory[0])[0]
    if (head.slots > size // sizeof(Slot) or head.sets > size // SET_SIZE or head.registers > size // REGISTERS
            or bytes_of(head) > size):
        raise ValueError("the memory is shorter than it says")
    head.next_set = <uint32_t>min(<uint64_t>head.next_set, head.sets)
    head.next_registers = <uint32_t>min(<uint64_t>head.next_registers, head.registers)
    part.head = head
    part.slots = <Slot*>(&memory[0] + sizeof(Head))
    part.sets = <uint8_t*>(part.slots + head.slots)
    part.registers = part.sets + head.sets * SET_SIZE
    return 0


cdef int compare(const void* a, const void* b) noexcept nogil:
    cdef const Slot* one = <const Slot*>a
    cdef const Slot* other = <const Slot*>b
    if one.family != other.family:
        return one.family - other.family
    return memcmp(one.address, other.address, 16)


def close_parts(list memories not None) -> bytes:
    """Parts of several writers under one key as one table, with addresses in order; they may be writing meanwhile,
    so a figure may be off by what they do just then.

    Raises:
        MemoryError: there is none.
        ValueError: a head says what cannot be.
    """
    cdef Part* parts = <Part*>calloc(max(len(memories), 1), sizeof(Part))
    cdef Head* heads = <Head*>calloc(max(len(memories), 1), sizeof(Head))
    cdef Found* found = NULL
    cdef uint8_t* made = NULL
    cdef Part to
    cdef Head head
    cdef uint64_t count = 0, room = 0, i, k, groups = 0, several = 0
    cdef uint32_t number = len(memories), n
    memset(&head, 0, sizeof(head))
    try:
        if parts == NULL or heads == NULL:
            raise MemoryError
        for n in range(number):
            open_part(&parts[n], &heads[n], memories[n])
        with nogil:
            # Counted first: most slots are nobody's.
            for n in range(number):
                for i in range(parts[n].head.slots):
                    count += parts[n].slots[i].family != 0
            room = count + 4096                 # for what comes meanwhile
            count = 0
            found = <Found*>malloc(room * sizeof(Found))
        if found == NULL:
            raise MemoryError
        with nogil:
            for n in range(number):
                for i in range(parts[n].head.slots):
                    if parts[n].slots[i].family and count < room:
                        found[count].slot = parts[n].slots[i]
                        found[count].part = n
                        count += found[count].slot.family != 0
            qsort(found, count, sizeof(Found), compare)
            for i in range(count):
                k = i and compare(&found[i - 1], &found[i]) == 0
                groups += not k
                several += k
            for n in range(number):
                head.sets += parts[n].head.next_set
                head.registers += parts[n].head.next_registers
                head.flows += parts[n].head.flows
                head.refused += parts[n].head.refused
                head.replaced += parts[n].head.replaced
                head.lacking += parts[n].head.lacking
                for i in range(<uint64_t>DAY_REGISTERS):
                    head.day[i] = max(head.day[i], parts[n].head.day[i])
            head.slots = groups
            head.sets += 2 * several
            head.registers += several
            made = <uint8_t*>calloc(1, bytes_of(&head))
        if made == NULL:
            raise MemoryError
        with nogil:
            memcpy(made, &head, sizeof(head))
            lay_out(&to, made)
            k = 0
            for i in range(count):
                if i and compare(&found[i - 1], &found[i]) != 0:
                    k += 1
                memcpy(to.slots[k].address, found[i].slot.address, 16)
                to.slots[k].family = found[i].slot.family
                merge(&to, &to.slots[k], &parts[found[i].part], &found[i].slot)
        return packed(&to)
    finally:
        free(parts)
        free(heads)
        free(found)
        free(made)


cdef bytes packed(const Part* part):
    # With no room left.
    cdef Head head = part.head[0]
    cdef bytes made
    cdef uint8_t* at
    head.sets, head.registers = head.next_set, head.next_registers
    head.free_set = head.free_registers = 0
    made = PyBytes_FromStringAndSize(NULL, bytes_of(&head))
    at = <uint8_t*><char*>made
    with nogil:
        memcpy(at, &head, sizeof(head))
        at += sizeof(head)
        memcpy(at, part.slots, head.slots * sizeof(Slot))
        at += head.slots * sizeof(Slot)
        memcpy(at, part.sets, head.sets * SET_SIZE)
        at += head.sets * SET_SIZE
        memcpy(at, part.registers, head.registers * REGISTERS)
    return made


cdef int slot_of(bytes address, Slot* slot) except -1:
    cdef Py_ssize_t size = len(address)
    if size not in (4, 16):
        raise ValueError("an address has 4 or 16 bytes")
    memset(slot, 0, sizeof(Slot))
    slot.family = 4 if size == 4 else 6
    memcpy(slot.address, <const char*>address, size)
    return 0


cdef class Table:
    """A closed table, where it lies.

    Raises:
        ValueError: it is none.
    """

    cdef Part part
    cdef object memory

    def __init__(self, const uint8_t[::1] memory not None):
        cdef Part part
        if <uint64_t>memory.shape[0] < sizeof(Head):
            raise ValueError("is too short")
        lay_out(&part, <uint8_t*>&memory[0])
        if part.head.slots > 1 << 40 or part.head.sets > 1 << 32 or part.head.registers > 1 << 32 or \
                part.head.next_set != part.head.sets or part.head.next_registers != part.head.registers or \
                bytes_of(part.head) != <uint64_t>memory.shape[0]:
            raise ValueError("is not as long as it says")
        self.memory, self.part = memory, part

    @property
    def addresses(self) -> int:
        """Destinations in it."""
        return self.part.head.slots

    @property
    def counters(self) -> dict:
        """Of all destinations together."""
        cdef const Head* head = self.part.head
        return {"addresses": head.slots, "flows": head.flows, "refused": head.refused, "replaced": head.replaced,
                "lacking": head.lacking, "subscribers": self.subscribers}

    @property
    def subscribers(self) -> int:
        """Of all destinations together."""
        return round(estimate_bytes(self.part.head.day, DAY_REGISTERS, 33 - DAY_BITS))

    def holds(self, bytes first not None, bytes last not None) -> bool:
        """Whether there is a destination from the first to the last, of 4 bytes or of 16."""
        cdef Slot begin, end
        cdef uint64_t at
        slot_of(first, &begin)
        slot_of(last, &end)
        at = self.first_from(&begin)
        return at < self.part.head.slots and compare(&self.part.slots[at], &end) <= 0

    cdef uint64_t first_from(self, const Slot* wanted) noexcept nogil:
        cdef uint64_t low = 0, high = self.part.head.slots, middle
        while low < high:
            middle = (low + high) >> 1
            if compare(&self.part.slots[middle], wanted) < 0:
                low = middle + 1
            else:
                high = middle
        return low


cdef class Tally:
    """What is behind several addresses together: each name and each subscriber counts once."""

    cdef uint8_t* memory
    cdef Part part
    cdef readonly int addresses         # destinations that were added

    def __cinit__(self):
        cdef Head* head
        self.memory = <uint8_t*>calloc(1, sizeof(Head) + sizeof(Slot) + 3 * SET_SIZE + REGISTERS)
        if self.memory == NULL:
            raise MemoryError
        head = <Head*>self.memory
        head.slots, head.sets, head.registers = 1, 3, 1
        lay_out(&self.part, self.memory)

    def __dealloc__(self):
        free(self.memory)

    def clear(self) -> None:
        """Nothing is added yet."""
        cdef Head* head = self.part.head
        if self.addresses:
            memset(self.part.slots, 0, sizeof(Slot))
            head.next_set = head.next_registers = head.free_set = head.free_registers = 0
            self.addresses = 0

    def add(self, Table table not None, bytes first not None, bytes last not None) -> int:
        """The destinations from the first to the last, of 4 bytes or of 16; how many there were."""
        cdef Slot begin, end
        cdef uint64_t at, before
        slot_of(first, &begin)
        slot_of(last, &end)
        with nogil:
            at = before = table.first_from(&begin)
            while at < table.part.head.slots and compare(&table.part.slots[at], &end) <= 0:
                merge(&self.part, self.part.slots, &table.part, &table.part.slots[at])
                at += 1
        self.addresses += <int>(at - before)
        return at - before

    def figures(self) -> tuple:
        """Names, those that more than one subscriber has asked for, connections, subscribers, and whether there was
        room for all names."""
        cdef const Slot* slot = self.part.slots
        cdef const uint32_t* places = self.part.slots.names
        cdef double every = 0, common = 0, subscribers = 0
        cdef int i
        if slot.names_at & DENSE:
            estimate_names(registers_at(&self.part, slot.names_at), &every, &common)
        else:
            if slot.names_at:
                places = <const uint32_t*>set_at(&self.part, slot.names_at)
            for i in range(<int>(IN_SET if slot.names_at else IN_SLOT)):
                every += places[i] != 0
                common += places[i] & 3 == 3
        if slot.subscribers_at:
            subscribers = estimate_bytes(set_at(&self.part, slot.subscribers_at), SET_SIZE, 25)
        else:
            for i in range(<int>IN_SLOT):
                subscribers += slot.subscribers[i] != 0
        return (round(every), round(common), slot.flows, round(subscribers), not slot.lost & LOST_NAMES)
