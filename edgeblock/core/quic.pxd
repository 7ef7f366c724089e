# A client's Initial packets: their headers, their keys, and the CRYPTO pieces inside; in plain C, without memory.
#
# One `QuicReader` serves an engine. Whose packet it is, and so which keys to try, is decided in core.connections.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeblock.core.crypto cimport EVP_CIPHER_CTX, SHA256_CTX
from edgeblock.core.cursor cimport Cursor

cdef enum:
    QUIC_FAMILIES = 4          # groups of versions that share a salt
    QUIC_BASES = 8             # packet numbers a later one may be relative to: real clients need one
    MAX_CONNECTION_ID = 20     # RFC 9000, 17.2
    MAX_CRYPTO = 64 * 1024     # bytes of CRYPTO stream; the largest hello seen was 40 kB, RFC 9000 7.5 asks for 4 kB
    MAX_DATAGRAM = 65535
    MAX_PIECES = 320           # CRYPTO frames of a packet: a datagram of 1500 bytes has fewer
    MAX_FRAMES = 2048          # of any kind but PADDING: the same

cdef enum Seen:                # what a datagram held, one bit each
    SEEN_INITIAL = 1           # an Initial was opened
    SEEN_UNOPENED = 2          # an Initial that no key known here opens
    SEEN_UNKNOWN = 4           # a version that is not known here: undecided
    SEEN_DAMAGED = 8           # bytes at which every server stops
    SEEN_REFUSED = 16          # more keys or numbers would have to be tried for the datagram than are
    SEEN_OVERLOAD = 32         # the budget of the worker was spent, or memory: an Initial was not opened
    SEEN_JUMPED = 64           # beside SEEN_REFUSED: one opened, and its number is one place too many to remember

cdef enum Walk:                # what stood at the cursor
    WALK_INITIAL = 0
    WALK_OTHER = 1             # a packet that is passed over
    WALK_UNKNOWN = 2           # a version that is not known here; its length cannot be told
    WALK_END = 3               # a short header, or a Retry: it takes the rest of the datagram
    WALK_DAMAGED = 4

cdef struct QuicCounters:
    uint64_t initials          # opened
    uint64_t unopened
    uint64_t unknown_version
    uint64_t damaged
    uint64_t derivations
    uint64_t refused_flow      # datagrams of which an Initial was not opened: a bound of the datagram was reached
    uint64_t refused_worker    # the same: the budget of the worker was spent, or there was no memory
    uint64_t beyond            # CRYPTO frames that reach beyond MAX_CRYPTO

cdef struct HmacKey:           # SHA-256 after the inner and after the outer key block (RFC 2104)
    SHA256_CTX inner
    SHA256_CTX outer

cdef struct Keys:              # of the client's Initial packets (RFC 9001, 5.2)
    uint8_t key[16]
    uint8_t iv[12]
    uint8_t hp[16]

cdef struct Connection:        # what the keys of one original destination connection id open
    uint8_t id_size
    uint8_t id[MAX_CONNECTION_ID]
    uint8_t derived            # a bit for each family whose keys are there
    uint8_t bases_used
    uint64_t bases[QUIC_BASES] # packet numbers opened, far from each other
    Keys keys[QUIC_FAMILIES]

cdef struct Initial:
    uint32_t version
    uint8_t family
    uint8_t id_size
    uint8_t source_size
    const uint8_t* id          # destination connection id
    const uint8_t* source      # the client's own
    const uint8_t* start       # first byte of the packet
    size_t number_at           # offset of the packet number: up to here the header is readable
    size_t size                # of the whole packet

cdef struct Piece:             # of a CRYPTO stream; it lies within MAX_CRYPTO
    uint32_t offset
    uint32_t size
    const uint8_t* data

cdef struct QuicReader:
    EVP_CIPHER_CTX* header_cipher
    EVP_CIPHER_CTX* packet_cipher
    QuicCounters counters
    HmacKey salts[QUIC_FAMILIES]
    uint8_t opened[MAX_DATAGRAM + 1]
    Piece pieces[MAX_PIECES]

# Pieces of one packet, by offset: what stores them by offset too needs one walk for all of them, however a client
# that wants us to work shuffles its frames.
ctypedef void (*OnCrypto)(void* context, const Piece* pieces, size_t count) noexcept nogil

cdef QuicReader* make_reader() noexcept nogil       # NULL: no memory, no libcrypto
cdef void free_reader(QuicReader* reader) noexcept nogil

cdef bint may_hold_initial(const uint8_t* data, size_t size) noexcept nogil     # of a version known here
cdef Walk take_packet(Cursor* c, Initial* out) noexcept nogil
cdef bint are_compatible(uint8_t family, uint8_t other) noexcept nogil          # a server may change one to the other
cdef void derive_keys(QuicReader* reader, Connection* connection, uint8_t family) noexcept nogil
cdef bint open_initial(QuicReader* reader, Connection* connection, const Initial* packet, Cursor* frames,
                       uint32_t* tries, uint32_t* seen) noexcept nogil
# False: a frame at which a server closes the connection. Of more frames than a datagram holds on any network the rest
# is left unread: SEEN_REFUSED.
cdef bint read_frames(QuicReader* reader, Cursor* c, OnCrypto on_crypto, void* context, uint32_t* seen) noexcept nogil
