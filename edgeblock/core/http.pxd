# HTTP/1.x client bytes in, one request head at a time out, bodies passed over.
#
# Like the TLS reader it takes any number of bytes at a time and keeps its place in a struct that can be copied
# (copy_http), so that a stream with conflicting bytes can be read several ways at once. It never gives up: behind
# what it cannot follow it looks for the next line that ends like a request line, and for a ClientHello.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.framing cimport Framings
from edgeblock.core.prefix cimport Sign
from edgeblock.core.reader cimport Outcome, Reader
from edgeblock.core.text cimport Text

cdef enum:
    # Of what is kept. A head may be of any length: Apache takes 100 fields of 8 kB, Go and Python take 1 MB and more.
    MAX_LINE = 32 * 1024   # request line; nginx and Apache take 8 kB, Python 64. Of a longer one the end is missed
    MAX_SEEKING = 8 * 1024 # the same while no request is certain: other protocols have long lines, or none
    MAX_VALUE = 16 * 1024  # Host, Content-Length and the like; blanks in a row count once. A longer one: an overflow
    MAX_HOSTS = 16         # Host lines of one head; servers refuse the second, lenient ones take the first or last
    MAX_HOSTS_TEXT = 8192  # of all of them: nginx and Apache take no longer line. More is an overflow

cdef enum HttpEvent:       # what was FOUND
    EVENT_HEAD = 0         # a head is complete: hosts, target, path_at, framings
    EVENT_FORK = 1         # in the middle of a body there is more than one way to go on: framings
    EVENT_HELLO = 2        # `sign` has the first bytes of what may be a ClientHello; these are read on here, too

cdef struct Http:          # all zero is the start of a request
    uint8_t phase
    uint8_t event          # an HttpEvent
    uint8_t field_size     # bytes of the field name gathered so far
    uint8_t special        # which field the current line is
    uint8_t unsure         # some servers may not see that field: it is folded, or has blanks in its name
    uint8_t get            # the method is GET
    uint8_t head           # it is HEAD
    uint8_t connect        # it is CONNECT
    uint8_t old            # the version is not HTTP/1.1
    uint8_t preface        # "PRI * HTTP/2.0" and no field: 1; "SM" behind it too: 2, what follows is HTTP/2
    uint8_t host_count     # hosts in `hosts`
    uint8_t authority      # hosts begins with the one of an absolute-form or authority-form target
    uint8_t simple         # handed out as a whole head, and it goes on: 1; behind a line without version (HTTP/0.9):
                           # 2; behind an empty line that only Node's lenient reader takes for one: 3
    uint8_t cut            # the request line is longer than what is kept
    uint8_t holed          # of the line its beginning and its end are kept: it is cut, or no path of a file (NUL)
    uint8_t crowded        # a field was longer than what is kept, or there were too many ways to frame the body
    uint8_t is_http        # the request line is complete, or too much like one to be anything else
    uint8_t seeking        # a line before was no request
    uint8_t binary         # control bytes before any request: no text
    uint8_t odd            # before any request something that no method begins with
    uint8_t text           # bytes before any request, at most 255
    uint8_t digits         # of a chunk's size: 0 before them, 1 among them, 2 behind them
    uint8_t twofold        # that size can be read in two ways
    uint16_t word          # bytes of the method that were looked at,
    uint16_t blanks        # and of white space behind it
    uint32_t spent         # what its lines cost besides their bytes: the reader's work, cleared by it
    uint32_t path_at       # where in `target` the path begins
    uint64_t body          # left of the body or of the chunk
    uint64_t first_size    # the other way to read a chunk's size
    Framings framings      # ways a server may go on behind the head: the first is followed, the others are for forks
    Sign sign
    uint8_t field[24]
    Text line              # the request line, then the value of the current special field
    Text target            # the request target as sent
    Text hosts             # for each host two bytes of size, big-endian, and the bytes, white space trimmed

# FOUND: see HttpEvent; the next call goes on with the body. DONE: the request is complete, body and all (or a line of
# the PROXY protocol is), and the cursor stands at the next message, whatever protocol that is. Never NOT_MINE.
cdef Outcome read_http(Http* http, Cursor* c) noexcept nogil
cdef Reader http_reader() noexcept nogil
