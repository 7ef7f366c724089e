# What is behind each destination address: how many names, connections and subscribers of a day, and nothing of who or
# what they were. sketch.pyx says how.
#
# A part is memory of one writer: Head, slots, sets, registers, each in an array of a fixed size. A closed one is the
# same with its slots in order and no room left.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeblock.core.packet cimport Packet

cdef enum:
    IN_SLOT = 4                # names and subscribers that stand in the slot itself; nearly all addresses have fewer
    IN_SET = 64                # places of a set of names,
    SET_MOST = 48              # and names in it, before it is made registers
    SET_SIZE = 256             # bytes of a set: names, or registers of subscribers
    REGISTERS = 8192           # of names: a standard error of 1.15 %; a byte each, four bits for each half
    DAY_REGISTERS = 16384      # of all subscribers: 0.8 %
    BUCKET = 8                 # slots where an address may stand
    DENSE = 0x80000000         # of names_at
    RANK_MAX = 15              # what four bits of a register hold
    DAY_BITS = 14              # of a hash, which choose one of the day's registers
    LOST_NAMES = 1             # there were more, and no room
    LOST_SUBSCRIBERS = 2
    SLOTS_A_SET = 4            # so many slots share one set,
    SLOTS_REGISTERS = 256      # and so many the registers of one address

cdef struct Slot:
    uint8_t address[16]        # IPv4 takes the first four bytes, the rest are zero
    uint32_t flows
    uint8_t family             # 4 or 6; 0: nobody's
    uint8_t count              # of names in the set
    uint8_t credit             # what newcomers have to spend to get this place
    uint8_t lost               # bits: LOST_...
    uint32_t names_at          # 0: in `names`; a set, or with DENSE registers; from 1 on
    uint32_t subscribers_at    # 0: in `subscribers`; a set
    uint32_t names[IN_SLOT]
    uint32_t subscribers[IN_SLOT]

cdef struct Head:
    uint64_t slots             # how many there are: a power of two where addresses are looked for,
    uint64_t sets
    uint64_t registers
    uint64_t flows             # of all addresses
    uint64_t refused           # connections to addresses for which there was no slot
    uint64_t replaced          # addresses that have gone for others
    uint64_t hand              # the next slot that may have to give up what another needs more
    uint64_t lacking           # times that names or subscribers were not kept for want of a set or registers
    uint32_t next_set          # used so far
    uint32_t next_registers
    uint32_t free_set          # the first of those given back, which names the next; 0: none
    uint32_t free_registers
    uint8_t day[DAY_REGISTERS]

cdef struct Part:
    Head* head
    Slot* slots
    uint8_t* sets
    uint8_t* registers


cdef inline uint8_t* set_at(const Part* part, uint32_t at) noexcept nogil:
    return part.sets + <uint64_t>(at - 1) * SET_SIZE


cdef inline uint8_t* registers_at(const Part* part, uint32_t at) noexcept nogil:
    return part.registers + <uint64_t>((at & ~<uint32_t>DENSE) - 1) * REGISTERS


cdef void lay_out(Part* part, uint8_t* memory) noexcept nogil               # whose head says how large it is
cdef uint64_t bytes_of(const Head* head) noexcept nogil
cdef void add_name(Part* part, Slot* slot, uint32_t entry) noexcept nogil
cdef bint add_subscriber(Part* part, Slot* slot, uint32_t hash) noexcept nogil
# What is there from now on in registers; False: there is no room for them.
cdef bint make_registers(Part* part, Slot* slot) noexcept nogil
cdef bint move_subscribers(Part* part, Slot* slot) noexcept nogil


cdef class Sketches:
    cdef Part part
    cdef object memory         # keeps what `part` points to
    cdef const uint8_t* key
    cdef object key_view
    cdef uint64_t place_key[2]     # for places and halves, which say nothing of a name
    cdef uint64_t secret
    cdef uint32_t sample
    cdef uint32_t weight
    # A name that a client of a connection has asked for at its destination; `first` of that connection.
    cdef void learn(self, const Packet* p, const uint8_t* host, size_t size, bint first) noexcept nogil
    cdef void foresee(self, const Packet* p) noexcept nogil         # before that, while something else is looked up
    cdef Slot* bucket_of(self, const Packet* p) noexcept nogil
    cdef uint32_t hash_name(self, const uint8_t* host, size_t size) noexcept nogil      # 30 bits; NO_NAME
    cdef uint32_t hash_subscriber(self, const Packet* p, uint32_t* of_day) noexcept nogil
    cdef uint32_t half_of(self, const Packet* p) noexcept nogil                         # 1 or 2
    cdef Slot* find(self, const Packet* p, bint first) noexcept nogil                   # NULL: there is no place
