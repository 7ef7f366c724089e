# TLS client bytes in, server names out: the record layer, and the ClientHello inside it (also QUIC's CRYPTO bytes).
#
# Both readers take any number of bytes at a time and keep their place in a small struct that can be copied, so
# that a stream with conflicting bytes can be read several ways at once. Lengths are never trusted for memory.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.reader cimport Outcome, Reader

cdef enum:
    MAX_NAME = 256         # RFC 6066 allows 65535 bytes, DNS no more than 255 with a final dot
    # Names of one hello that are handed out. RFC 6066, 3 forbids a second one: OpenSSL, BoringSSL and Go refuse it,
    # GnuTLS and mbedTLS take the first. No client that was seen sends two.
    MAX_NAMES = 4

cdef struct Hello:         # all zero is the start; `name` is left out of comparisons beyond name_size
    uint8_t phase
    uint8_t need           # bytes still to be gathered into `value`
    uint8_t kind           # type of the current extension, or of the current name
    uint8_t ech            # an encrypted_client_hello extension was seen
    uint8_t names          # names found so far
    uint8_t crowded        # there are more than MAX_NAMES
    uint8_t name_too_long
    uint8_t has_cookie     # DTLS: a cookie stands behind the session id (RFC 6347, 4.2.1)
    uint16_t name_size
    uint16_t kept          # bytes of the last name that was handed out, while it is in `name`; not compared
    uint32_t value
    uint32_t gap           # bytes to pass over before the next field
    uint32_t body          # left in the handshake message; each of these is clamped to the one before
    uint32_t extensions    # left in the extension block
    uint32_t extension     # left in the current extension
    uint32_t names_left    # left in the list of names
    uint32_t name_left     # left in the current name
    uint8_t name[MAX_NAME]

cdef struct Tls:
    uint8_t header_size    # bytes of the record header gathered so far
    uint8_t kind           # content type of the current record
    uint16_t record        # bytes left in the current record; the length while the header is gathered
    uint8_t again          # behind a whole hello: early data may stand before the next one (RFC 8446, 4.2.10)
    Hello hello

cdef Outcome read_hello(Hello* hello, Cursor* c) noexcept nogil       # FOUND: a name; DONE: the message is over
cdef Outcome read_tls(Tls* tls, Cursor* c) noexcept nogil             # the same
cdef Reader tls_reader() noexcept nogil
cdef Reader hello_reader() noexcept nogil                              # of handshake bytes without records: QUIC's
cdef Reader dtls_reader() noexcept nogil                               # of those with a cookie
