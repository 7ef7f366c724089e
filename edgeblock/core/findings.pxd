# What readings have come upon: names, for the engine to look up.
#
# In: what a reader has found. Out: findings, and what it costs to look them up. Never here: a lookup, more findings
# than a packet may have, a protocol.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from edgeblock.core.text cimport Text

cdef enum:
    NAME_COST = 192            # work of a name that is found, for it is looked up
    MAX_PAIRED = 16 * 1024     # bytes of targets that are looked up with hosts of the same head: more is an overflow

cdef enum FindingKind:
    FINDING_NAME = 0
    FINDING_NO_NAME = 1        # a whole ClientHello without one
    FINDING_HELLO_END = 2      # a whole ClientHello; `ech` is final, and where it is set the host is the last name

cdef struct Finding:
    uint8_t kind               # a FindingKind
    uint8_t reading            # ReadingKind it comes from
    uint8_t ech
    uint8_t head               # the method is HEAD
    uint8_t connect            # the target is a tunnel's authority, not a path
    uint8_t unsure             # a lone HTTP/0.9 line, where a tunnel leads: not reported where nothing is listed
    int64_t began              # offset of the message
    uint32_t host_at           # all of these index Findings.text
    uint32_t host_size
    uint32_t target_at
    uint32_t target_size
    uint32_t path_at           # where the path begins in the target

cdef struct Findings:
    Text text
    Finding* items
    uint32_t count
    uint32_t room
    uint8_t full               # more were found than can be kept: treat as overflow

cdef void clear_findings(Findings* f) noexcept nogil
cdef void free_findings(Findings* f) noexcept nogil
# One more, all zero; NULL: there is no room, and `full` says so.
cdef Finding* add_finding(Findings* f) noexcept nogil
# Keeps a text, and says where. False: there is no room, its size is 0, and `full` says so.
cdef bint add_text(Findings* f, const uint8_t* data, size_t size, uint32_t* at, uint32_t* length) noexcept nogil
# Of what was found since there were so many `names` with so many bytes of `text`.
cdef int32_t cost_of(const Findings* out, uint32_t names, uint32_t text, int32_t most) noexcept nogil
