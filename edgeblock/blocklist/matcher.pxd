# The matcher that the engine asks: names and addresses against a snapshot.
#
# In: a host, target or address as on the wire. Out: the rule that precedence puts in force. Immutable; never raises,
# never allocates, and never takes longer than the bounds in the snapshot allow, whatever is asked.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.blocklist.bitmap cimport Bitmap
from edgeblock.blocklist.canonical cimport HOST_MAX, URL_MAX, Host, Target
from edgeblock.blocklist.holding cimport Holder, Moment
from edgeblock.blocklist.leads cimport KEY_MAX, Lead
from edgeblock.core.matcher cimport Around, Match

cdef enum:
    LEADS_MAX = 20          # addresses.TRANSLATED, and config.NAT64_MAX
    TRIES_MAX = 512         # two tries of a destination per prefix length: 258; names: 127 labels and 2 * 35 URLs
    HITS_MAX = 1024

cdef enum Where:            # where the text of a try lies
    IN_HOST = 0
    IN_URL = 1
    IN_BARE_URL = 2
    IN_KEYS = 3
    IN_HOST_AND_KEYS = 4

cdef enum Mode:             # whom a list applies to
    FOR_ALL = 0
    FOR_THESE = 1
    FOR_OTHERS = 2
    FOR_NOBODY = 3

cdef struct Whom:           # a list's clients, as ranges (prefixes.pxd)
    uint8_t mode            # a Mode
    const uint8_t* ipv4
    size_t ipv4_count
    const uint8_t* ipv6
    size_t ipv6_count

cdef struct Ask:            # text[start : start + size] is to be looked up
    uint8_t print[16]       # its fingerprint
    size_t start
    size_t size
    size_t host_size        # of IN_HOST_AND_KEYS: what of it is the host
    uint32_t kinds          # bit k: a row of Kind k applies
    uint32_t weight         # how specific such a row is among those of its kind
    bint lifts              # only exceptions apply

cdef struct Hit:            # a row that was found
    uint32_t tried          # index of the try
    uint32_t value
    uint32_t rule
    uint32_t rank           # 0: does not apply here
    uint8_t holds           # its terms do
    bint not_for            # it would, to other clients

cdef struct Try:            # a fingerprint that was looked up
    uint8_t where           # a Where
    uint8_t in_bitmap
    uint16_t start
    uint16_t size
    uint8_t key             # bytes in Trace.keys
    uint8_t places          # the host has entries with an address

cdef struct Layer:          # the rows of a snapshot, or of what lies over one
    Bitmap bitmap
    const uint8_t* rows
    size_t count
    const uint16_t* lists   # for each list index in these rows: the index it has here, or NO_LIST; NULL: the same

cdef struct Trace:          # everything a look-up did; only kept for people who ask
    uint32_t tries
    uint32_t hits
    Try tried[TRIES_MAX]
    Hit hit[HITS_MAX]
    uint8_t keys[TRIES_MAX][KEY_MAX]

cdef enum:
    BLOCKED_SOMEWHERE = 1
    LIFTED_SOMEWHERE = 2

cdef struct Walk:           # one look-up under way
    Host host
    uint8_t url[2][HOST_MAX + URL_MAX]
    bint hidden             # the path is invisible: TLS or QUIC
    bint has_urls           # the host has URL entries
    uint8_t has_places      # the host that was looked up last has entries with an address: bits, as below
    const Around* around
    const uint8_t* to       # where the connection leads, or NULL
    size_t to_size
    uint32_t rank           # of the rule in `best`; 0: none
    Match best
    Moment moment
    bint of_some            # a row is of a list for some clients
    uint32_t spent          # look-ups of where it leads
    Trace* trace            # NULL on the packet path

cdef class ListMatcher(Holder):
    cdef readonly object snapshot
    cdef const uint8_t* key
    cdef Layer base                 # nearly everything
    cdef Layer over                 # what has changed since that was made; `count` is 0 where nothing has
    cdef Bitmap ipv4
    cdef uint64_t labels, depths, ipv4_lengths
    cdef uint64_t ipv6_lengths[3]
    cdef uint64_t at_ipv4
    cdef uint64_t at_ipv6[3]
    cdef Lead[LEADS_MAX] leads
    cdef uint32_t lead_count
    cdef size_t url_max, directory_max
    cdef uint16_t* base_lists       # base.lists
    cdef uint8_t* list_action       # for each list: its Action
    cdef uint8_t* list_rank         # for each list: the class of its blocks
    cdef Whom* list_whom            # for each list
    cdef public bytes client

    cdef int open_base(self, snapshot) except -1

    cdef void look(self, Walk* walk, Where where, const uint8_t* text, size_t start, size_t size,
                   uint32_t kinds, uint32_t weight) noexcept nogil
    cdef void look_print(self, Walk* walk, Where where, const uint8_t* text, Ask* ask) noexcept nogil
    cdef void look_rows(self, Walk* walk, const Layer* layer, Ask* ask, uint32_t tried) noexcept nogil
    cdef void look_hosts(self, Walk* walk, Ask* asks, uint32_t count) noexcept nogil
    cdef void look_places(self, Walk* walk, const Ask* host, const uint8_t* address, size_t size) noexcept nogil
    cdef void walk_places(self, Walk* walk, const Ask* host) noexcept nogil
    cdef void walk_host(self, Walk* walk) noexcept nogil
    cdef bint walk_target(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil
    cdef size_t room(self, Walk* walk) noexcept nogil
    cdef void walk_urls(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil
    cdef void walk_url(self, Walk* walk, Where where, const Target* sizes) noexcept nogil
    cdef bint walk_reading(self, Walk* walk, const uint8_t* target, size_t size) noexcept nogil
    cdef void walk_readings(self, Walk* walk, const uint8_t* host, size_t host_size, const uint8_t* target,
                            size_t target_size) noexcept nogil
    cdef bint walk_name(self, Walk* walk, uint8_t proto, const uint8_t* host, size_t host_size, const uint8_t* target,
                        size_t target_size, const Around* around) noexcept nogil
    cdef bint walk_address(self, Walk* walk, const Around* around, uint16_t port) noexcept nogil
    cdef void walk_prefixes(self, Walk* walk, const uint8_t* address, size_t size, uint16_t port) noexcept nogil
    cdef object told(self, const Match* found)
    cdef list candidates(self, Walk* walk)
