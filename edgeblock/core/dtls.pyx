"""DTLS: the pieces of ClientHellos in one datagram.

Comes in: the payload of one UDP datagram from the client. Goes out: each fragment of a ClientHello that stands in it
in the clear. Never here: a stream, a name, a verdict, memory; a length is not trusted beyond the record around it.

Any version is taken, 1.0 to 1.3, and those that do not exist: servers look at it in the hello. A datagram holds
several records, a record several messages (RFC 6347, 4.1.1 and 4.2.3). What is encrypted (another epoch than 0, or
the unified header of DTLS 1.3) holds no first hello; the second one, after a HelloVerifyRequest or a
HelloRetryRequest, is in the clear as well.
"""

from edgeblock.core.cursor cimport Cursor, cursor, left, nested, skip, take, take_u8, take_u16, take_u24

cdef enum:
    RECORD_CHANGE_CIPHER_SPEC = 20
    RECORD_ALERT = 21
    RECORD_HANDSHAKE = 22
    MAJOR = 0xFE               # the first byte of every version
    SEQUENCE = 6               # bytes
    CLIENT_HELLO = 1


cdef bint may_hold_hello(const uint8_t* data, size_t size) noexcept nogil:
    """Whether a record in the clear stands first, behind which a hello may come."""
    return (size >= 13 and RECORD_CHANGE_CIPHER_SPEC <= data[0] <= RECORD_HANDSHAKE and data[1] == MAJOR
            and data[3] == 0 and data[4] == 0)


cdef bint next_fragment(Cursor* rest, Cursor* record, Fragment* out) noexcept nogil:
    cdef uint8_t kind, major, minor, message
    cdef uint16_t epoch, size
    while True:
        while left(record):
            if (not take_u8(record, &message) or not take_u24(record, &out.total)
                    or not take_u16(record, &out.message) or not take_u24(record, &out.offset)
                    or not take_u24(record, &out.size) or not take(record, out.size, &out.data)):
                skip(record, left(record))
            elif message == CLIENT_HELLO and out.offset + out.size <= out.total:
                return True
        if (not take_u8(rest, &kind) or not take_u8(rest, &major) or major != MAJOR or not take_u8(rest, &minor)
                or not take_u16(rest, &epoch) or not skip(rest, SEQUENCE) or not take_u16(rest, &size)
                or not nested(rest, size, record)):
            return False
        if kind != RECORD_HANDSHAKE or epoch != 0:
            skip(record, left(record))


# ---- for tests and fuzzing


def fragments(const uint8_t[::1] datagram) -> list:
    """The pieces as (message, total, offset, bytes)."""
    cdef size_t size = datagram.shape[0]
    cdef Cursor rest = cursor(&datagram[0] if size else NULL, size)
    cdef Cursor record = cursor(NULL, 0)
    cdef Fragment piece
    found = []
    while next_fragment(&rest, &record, &piece):
        found.append((piece.message, piece.total, piece.offset, <bytes>piece.data[:piece.size]))
    return found
