# The table of protocol readers: one row each.
#
# In: nothing. Out: rows, by ReadingKind, and which of them begins at a byte. Never here: a reading.

from libc.stdint cimport uint8_t

from edgeblock.core.reader cimport Reader

cdef enum:                     # a ReadingKind is a row; these are the rows that others name
    READ_ANY = 0               # at the start of a message of any protocol
    READ_TEXT = 1              # what no other begins with: HTTP/1, and whatever is lost
    READ_HTTP2 = 2
    READ_HELLO = 3             # bare handshake bytes: QUIC's CRYPTO stream
    READ_DTLS = 4              # the same of DTLS, where a hello has a cookie
    READ_OTHERS = 5

cdef enum:
    MAX_READERS = 16

cdef Reader[MAX_READERS] readers
cdef uint8_t[256] reader_at        # ReadingKind that begins at this byte
