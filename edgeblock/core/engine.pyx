"""The one door into the core (skeleton: accepts everything; being written)."""

from edgeblock.core.decision import Decision as _Decision


cdef class Engine:
    """Engine(matcher, **limits)"""

    def __init__(self, Matcher matcher not None, **limits):
        self.matcher = matcher

    cdef int judge_packet(self, const uint8_t* data, size_t size, double now, uint32_t flags,
                          Decision* out) noexcept nogil:
        out.accept = 1
        out.mark = MARK_KEEP
        out.action = 0
        out.proto = 0
        out.names = 0
        out.reply = 0
        out.head = 0
        out.reset_seqs = 0
        return 0

    cdef object decision(self, const Decision* made):
        return _Decision(accept=bool(made.accept))

    def judge(self, const uint8_t[::1] packet, double now, uint32_t flags=0):
        cdef Decision made
        if packet.shape[0] == 0:
            return _Decision(accept=True)
        self.judge_packet(&packet[0], packet.shape[0], now, flags, &made)
        return self.decision(&made)

    def counters(self):
        """All counters since the start, by name."""
        return {}
