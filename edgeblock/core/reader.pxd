# The seam between the window and the protocols: what a reader of one protocol is.
#
# A reader keeps its place in a small struct of its own, its state; all zero is the start of a message. It takes any
# number of bytes at a time, trusts no length for memory, and says what it found and what that cost. Its row in
# core/readers is all that others know of it. Never here: a protocol.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.findings cimport Findings

cdef enum:
    FEED_COST = 64             # work of a call apart from its bytes
    STATE_WORDS = 38           # of the largest state, of eight bytes each; core/readers checks it
    STATE_SIZE = 8 * STATE_WORDS

cdef enum Outcome:
    NEED_MORE = 0              # every byte was consumed; the message goes on
    FOUND = 1                  # something is complete; call again with the rest of the cursor
    DONE = 2                   # the message is complete; what is left in the cursor is not part of it
    NOT_MINE = 3               # no server that speaks this protocol would go on reading

cdef struct Step:              # what came of one call besides its outcome; all zero before it
    int32_t cost               # work, in bytes that were looked at
    uint8_t message            # this is certain to be of a protocol we know
    uint8_t text               # it is text at least: a message may follow at any time
    uint8_t overflow           # there was more than is kept
    uint8_t cut                # FOUND: of what is reported a part was not kept
    uint8_t head               # FOUND: a head is complete, or a line that may be one
    uint8_t again              # FOUND: the message is over, and the server may ask for another like it
    uint8_t ways               # FOUND: so many ways for a server to go on, of which each reading chooses one
    uint8_t aside              # FOUND: here, in the midst of this, another message may have begun with `taken`
    uint8_t succeeded          # DONE: the reader's successor goes on, behind `taken`
    uint8_t taken_size         # NOT_MINE: these were taken, and are for whoever reads on
    const uint8_t* taken

cdef enum:
    LOST = 1                   # answers of `lost`: it looks for the next message, or may never find one;
    ASTRAY = 2                 # and what stands here begins like none

# Of the functions `read`, `same` and `digest` are for every reader. NULL stands for what a reader has not.
cdef struct Reader:
    const char* name
    uint16_t size              # of its state
    uint8_t proto              # the Proto (core/matcher) it reports as
    uint8_t shows              # a page or a redirect can be shown inside it
    uint8_t nameless           # messages without a name are the rule
    uint8_t short_lived        # its messages are short, and never have two ways: all bytes are kept until one is over
    uint8_t successor          # ReadingKind that goes on where it has `succeeded`
    bint (*begins)(uint8_t first) noexcept nogil
    # Reports into `out`, each with `began` counted from the message's beginning; `reading` is set by others.
    Outcome (*read)(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil
    bint (*same)(const void* a, const void* b) noexcept nogil            # both would answer every further byte alike
    uint64_t (*digest)(const void* state) noexcept nogil                 # equal where they are the same
    # Of a state that owns memory. `copy` finds a bytewise copy and gives it memory of its own; False: there is none,
    # and the copy is safe to release.
    bint (*copy)(void* copy, const void* state) noexcept nogil
    void (*release)(void* state) noexcept nogil                          # all zero behind it
    uint32_t (*weigh)(const void* state) noexcept nogil                  # bytes of that memory
    uint32_t (*comparing)(const void* state) noexcept nogil              # what `same` costs more than usual
    void (*choose)(void* state, uint8_t way) noexcept nogil              # of `ways`; 0: the one that found them
    void (*begin_again)(void* state) noexcept nogil                      # of a zero state: behind `again`
    bint (*fresh)(const void* state) noexcept nogil                      # there, and nothing of what follows has come
    # Bodies, which are passed over.
    uint64_t (*body_left)(const void* state) noexcept nogil              # bytes certain to be passed over
    bint (*within_body)(const void* state) noexcept nogil                # behind the head, before the next message
    bint (*pass_over)(void* state, uint64_t size) noexcept nogil         # True: they were body bytes, unseen
    # Of the one that reads on behind what no other can.
    uint8_t (*lost)(const void* state) noexcept nogil
    void (*lose)(void* state) noexcept nogil                             # of a zero state: begins there
