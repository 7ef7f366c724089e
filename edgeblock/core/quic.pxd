# UDP payloads in, the names inside the client's Initial packets out; per 4-tuple state in plain C.
#
# One `QuicReader` serves an engine, one `Quic` a 4-tuple, one `Connection` each original destination connection
# id on it. Nothing here judges: every Initial that opens is read, decoys too. The engine calls `may_hold_initial`
# and, where it says so, `read_quic`; `read_datagram` is what lies beneath, for readers of other things than names.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeblock.core.crypto cimport EVP_CIPHER_CTX, SHA256_CTX
from edgeblock.core.window cimport Findings, Window

cdef enum:
    QUIC_FAMILIES = 4          # groups of versions that share a salt
    QUIC_BASES = 8             # packet numbers a later one may be relative to: real clients need one
    MAX_CONNECTION_ID = 20     # RFC 9000, 17.2
    MAX_CRYPTO = 64 * 1024     # bytes of CRYPTO stream; the largest hello seen was 40 kB, RFC 9000 7.5 asks for 4 kB
    MAX_DATAGRAM = 65535
    MAX_PIECES = 512           # CRYPTO frames handed on together: more than a datagram of 1500 bytes can hold

cdef enum Seen:                # what a datagram held, one bit each
    SEEN_INITIAL = 1           # an Initial was opened
    SEEN_UNOPENED = 2          # an Initial that no key known here opens
    SEEN_UNKNOWN = 4           # a version that is not known here: undecided
    SEEN_DAMAGED = 8           # bytes at which every server stops
    SEEN_REFUSED = 16          # a budget of the 4-tuple was spent: an Initial was not opened, or not kept
    SEEN_OVERLOAD = 32         # the budget of the worker was spent, or memory: an Initial was not opened
    SEEN_CONFLICT = 64         # bytes of a CRYPTO stream conflict in more ways than are read
    SEEN_FULL = 128            # bytes of a CRYPTO stream were not kept: no room

cdef struct QuicLimits:
    uint32_t connections       # remembered on a 4-tuple; one that is idle for QUIC_IDLE makes room
    uint32_t derivations       # of keys, on a 4-tuple in one period
    uint32_t failures          # tries with other keys or numbers than the packet's own, on a 4-tuple in one period
    uint32_t worker_derivations    # of keys, of all 4-tuples of this reader in one second

cdef struct QuicCounters:
    uint64_t initials          # opened
    uint64_t unopened
    uint64_t unknown_version
    uint64_t damaged
    uint64_t derivations
    uint64_t refused_flow      # Initials not opened: the budget of the 4-tuple was spent
    uint64_t refused_worker    # Initials not opened: the budget of the worker was spent
    uint64_t refused_connections   # Initials opened but not kept: too many connections on the 4-tuple
    uint64_t beyond            # CRYPTO frames that reach beyond MAX_CRYPTO

cdef struct Budget:
    double since
    uint32_t spent

cdef struct HmacKey:           # SHA-256 after the inner and after the outer key block (RFC 2104)
    SHA256_CTX inner
    SHA256_CTX outer

cdef struct Keys:              # of the client's Initial packets (RFC 9001, 5.2)
    uint8_t key[16]
    uint8_t iv[12]
    uint8_t hp[16]

cdef struct Connection:        # what the keys of one original destination connection id open
    Connection* next
    double last                # when a packet was last opened
    uint32_t versions[2]       # the second is 0 until compatible version negotiation (RFC 9368)
    Keys keys[2]
    uint8_t id_size
    uint8_t id[MAX_CONNECTION_ID]
    uint8_t bases_used
    uint8_t fresh              # the datagram in hand brought bytes
    uint64_t bases[QUIC_BASES] # packet numbers opened, far from each other
    Window window              # its CRYPTO stream

cdef struct Quic:              # all zero is the start
    Connection* connections    # the one used last comes first
    uint32_t connection_count
    uint32_t bytes             # memory held by the connections
    Budget derivations
    Budget failures

cdef struct Piece:             # of a CRYPTO stream; it lies within MAX_CRYPTO
    uint32_t offset
    uint32_t size
    const uint8_t* data

cdef struct QuicReader:
    EVP_CIPHER_CTX* header_cipher
    EVP_CIPHER_CTX* packet_cipher
    QuicLimits limits
    QuicCounters counters
    double now                 # the caller's clock, for the datagram in hand
    Budget derivations
    HmacKey salts[QUIC_FAMILIES]
    uint8_t opened[MAX_DATAGRAM + 1]
    Piece pieces[MAX_PIECES]

# Pieces of one packet, by offset: what stores them by offset too needs one walk for all of them, however a client
# that wants us to work shuffles its frames.
ctypedef void (*OnCrypto)(void* context, Connection* connection, const Piece* pieces, size_t count) noexcept nogil

cdef QuicReader* make_reader(const QuicLimits* limits) noexcept nogil       # NULL: no memory, no libcrypto
cdef void free_reader(QuicReader* reader) noexcept nogil
cdef void free_connections(Quic* quic) noexcept nogil

cdef bint may_hold_initial(const uint8_t* data, size_t size) noexcept nogil     # of a version known here
cdef uint32_t read_quic(QuicReader* reader, Quic* quic, const uint8_t* data, size_t size, double now,
                        uint32_t cap, uint32_t* work, Findings* out) noexcept nogil    # -> bits of Seen
cdef uint32_t read_datagram(QuicReader* reader, Quic* quic, const uint8_t* data, size_t size, double now,
                            OnCrypto on_crypto, void* context) noexcept nogil   # -> bits of Seen
