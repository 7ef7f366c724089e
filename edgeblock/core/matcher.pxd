# What the engine asks of a blocklist: the interface only. `blocklist.matcher` implements it; core imports none.
#
# In: a name or an address as it stood on the wire. Out: the rule in force, if any. Never raises, never blocks,
# never changes: a matcher is immutable, and new rules are a new matcher.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum Proto:
    PROTO_NONE = 0
    PROTO_TLS = 1
    PROTO_HTTP = 2
    PROTO_QUIC = 3
    PROTO_IP = 4

cdef enum Action:
    ACTION_PASS = 0        # nothing matched, or an exception did
    ACTION_DROP = 1
    ACTION_RESET = 2
    ACTION_PAGE = 3
    ACTION_REDIRECT = 4
    ACTION_OBSERVE = 5     # pass, but report

cdef enum:
    NO_LIST = 0xFFFF       # list_index of a name that no rule matched
    NO_ORDER = 0xFFFFFFFF

cdef struct Around:        # what is known of the connection; an address has 4 or 16 bytes in network order
    const uint8_t* to      # where it leads; NULL: not known
    size_t to_size
    const uint8_t* client  # whose it is; NULL: not known
    size_t client_size
    bint ech               # the whole ClientHello is there, and has an Encrypted ClientHello

cdef struct Match:
    uint8_t action         # an Action
    uint8_t of_ech         # asked without `ech`: a rule would apply with it; asked with it: this is such a rule
    uint8_t of_some        # of this name something else may hold for another client
    uint16_t list_index    # index into Matcher.list_names
    uint32_t rule          # opaque rule id, printed as eight hex digits
    uint32_t order         # the number of its order data among those of its list, or NO_ORDER
    uint32_t spent         # look-ups of where the name leads, whether a rule applies or not


cdef class Matcher:
    cdef readonly tuple list_names
    cdef uint64_t serial   # no other matcher of this process has it: a Match is of use only with the one that made it

    # `host` as on the wire (any case, final dot, port, brackets, even non-ASCII); `target` is the origin-form
    # request target ("/path?query") for HTTP and NULL for TLS and QUIC, whose path is invisible.
    # Returns whether any rule applies; `found` is then the rule that precedence puts in force. `spent`, `of_ech`
    # and `of_some` are set in any case.
    cdef bint match_name(self, uint8_t proto, const uint8_t* host, size_t host_size,
                         const uint8_t* target, size_t target_size, const Around* around,
                         Match* found) noexcept nogil

    # The number of the order by which an entry is listed; "" where none is known.
    cpdef str order_of(self, uint32_t list_index, uint32_t order)

    # A destination, which is `around.to`, and a port in host order.
    cdef bint match_address(self, const Around* around, uint16_t port, Match* found) noexcept nogil
