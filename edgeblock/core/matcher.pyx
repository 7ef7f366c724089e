"""The matcher that matches nothing: the base of every other, and what an engine without rules uses."""


cdef uint64_t made = 0


cdef class Matcher:
    """Matches no name and no address. `blocklist.matcher` holds the one that looks names up.

    Attributes:
        list_names: the names of the lists, in the order of the list indexes a match gives.
    """

    def __cinit__(self):
        global made
        made += 1
        self.serial = made
        self.list_names = ()

    cdef bint match_name(self, uint8_t proto, const uint8_t* host, size_t host_size,
                         const uint8_t* target, size_t target_size, const Around* around,
                         Match* found) noexcept nogil:
        found.spent = found.of_ech = found.of_some = 0
        return False

    cpdef str order_of(self, uint32_t list_index, uint32_t order):
        return ""

    cdef bint match_address(self, const Around* around, uint16_t port, Match* found) noexcept nogil:
        return False
