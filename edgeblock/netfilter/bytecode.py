"""What iptables cannot ask, as classic BPF for its `bpf` match. In: nothing. Out: bytecode, a program a question.

The kernel runs a program on the packet from its IP header on; loading beyond the end makes the answer no. The IPv6
programs read no extension headers: behind one nothing is certain, and each says which answer that means.
"""

from edgeblock.netfilter.policy import (
    ANSWER_BYTES,
    ANSWER_OTHER_BYTES,
    DTLS_FIRST,
    DTLS_LAST,
    DTLS_MAJOR,
    NEITHER,
    QUIC_VERSIONS,
    RETRY_RANDOM,
    TLS_ANSWERS,
    TLS_HANDSHAKE,
    TLS_RANDOM_AT,
    TLS_SERVER_HELLO,
    TLS_TYPE_AT,
    UNMERGED_BYTES,
)

Instruction = tuple[int, int, int, int]   # operation, jump if true, jump if false, constant (linux/filter.h)

LD_LEN = 0x80        # A = length of the packet
LDB_ABS = 0x30       # A = byte at k
LDB_IND = 0x50       # A = byte at X + k
LDH_IND = 0x48       # A = big-endian half word at X + k
LDW_ABS = 0x20       # A = big-endian word at k
LDW_IND = 0x40
LDX_MSH = 0xB1       # X = 4 * (byte at k & 15): an IPv4 header's length
AND = 0x54
RSH = 0x74
ADD_K = 0x04
ADD_X = 0x0C
TAX = 0x07           # X = A
JEQ_K = 0x15
JEQ_X = 0x1D
JGE_K = 0x35
JA = 0x05            # k instructions on
JSET_K = 0x45        # A & k
RET = 0x06

IP6_NEXT, IP6_HEADER = 6, 40
TCP_OFFSET = 12      # the byte whose upper half is the TCP header's length in words
TCP_FLAGS, URGENT = 13, 0x20
UDP_PAYLOAD = 8
TCP, UDP = 6, 17

NO: Instruction = (RET, 0, 0, 0)
YES: Instruction = (RET, 0, 0, 1)
MERGED = ((LD_LEN, 0, 0, 0), (JGE_K, 0, 1, UNMERGED_BYTES + 1))    # what stands behind it: perhaps several datagrams


def bare(family: int) -> str:
    """TCP whose length is exactly that of its headers, not urgent. An IPv6 extension header: no."""
    words_to_bytes = [(AND, 0, 0, 0xF0), (RSH, 0, 0, 2)]
    equal = [(TAX, 0, 0, 0), (LD_LEN, 0, 0, 0), (JEQ_X, 0, 1, 0), YES, NO]
    if family == 4:
        return encode([(LDX_MSH, 0, 0, 0), (LDB_IND, 0, 0, TCP_FLAGS), (JSET_K, 0, 1, URGENT), NO,
                       (LDB_IND, 0, 0, TCP_OFFSET), *words_to_bytes, (ADD_X, 0, 0, 0), *equal])
    return encode([*plain(TCP), (LDB_ABS, 0, 0, IP6_HEADER + TCP_FLAGS), (JSET_K, 0, 1, URGENT), NO,
                   (LDB_ABS, 0, 0, IP6_HEADER + TCP_OFFSET), *words_to_bytes, (ADD_K, 0, 0, IP6_HEADER), *equal])


def answer(family: int) -> str:
    """TCP that is an answer, by its length and the beginning of its payload. An IPv6 extension header: no."""
    start = [] if family == 4 else plain(TCP)
    words_to_bytes = [(AND, 0, 0, 0xF0), (RSH, 0, 0, 2)]
    payload = [(LDX_MSH, 0, 0, 0), (LDB_IND, 0, 0, TCP_OFFSET), *words_to_bytes, (ADD_X, 0, 0, 0)] \
        if family == 4 else [(LDB_ABS, 0, 0, IP6_HEADER + TCP_OFFSET), *words_to_bytes, (ADD_K, 0, 0, IP6_HEADER)]
    handshake = [(LDB_IND, 0, 0, TLS_TYPE_AT), (JEQ_K, 1, 0, TLS_SERVER_HELLO), YES,
                 (LDW_IND, 0, 0, TLS_RANDOM_AT), (JEQ_K, 1, 0, RETRY_RANDOM), YES, NO]
    others = [one for first, last in NEITHER
              for one in ((JGE_K, 0, 2, first), (JGE_K, 1, 0, last + 1), (JA, 0, 0, 0))]
    # Each of these ends at the length if it holds, and goes on if it does not.
    for i in range(2, len(others), 3):
        others[i] = (JA, 0, 0, len(others) - i)
    return encode([*start, (LD_LEN, 0, 0, 0), (JGE_K, 1, 0, ANSWER_BYTES), NO, *payload, (TAX, 0, 0, 0),
                   (LDH_IND, 0, 0, 0), (JEQ_K, 0, len(handshake), TLS_HANDSHAKE), *handshake,
                   *(one for record in TLS_ANSWERS for one in ((JEQ_K, 0, 1, record), YES)),
                   (LDB_IND, 0, 0, 0), *others, NO, (LD_LEN, 0, 0, 0), (JGE_K, 1, 0, ANSWER_OTHER_BYTES), NO, YES])


def short(family: int) -> str:
    """UDP whose first payload byte is below 0x80, and not that of a DTLS handshake. An IPv6 extension header, or
    perhaps several datagrams in one: no.
    """
    load = [(LDX_MSH, 0, 0, 0), (LDB_IND, 0, 0, UDP_PAYLOAD)] if family == 4 else \
        [*plain(UDP), (LDB_ABS, 0, 0, IP6_HEADER + UDP_PAYLOAD)]
    return encode([*MERGED, NO, *load, (JGE_K, 0, 1, 0x80), NO, (JGE_K, 1, 0, DTLS_FIRST), YES,
                   (JGE_K, 0, 1, DTLS_LAST + 1), YES, NO])


def initial(family: int) -> str:
    """UDP with a QUIC long header of a version in QUIC_VERSIONS, or like a DTLS handshake. An IPv6 extension header,
    or several datagrams in one: perhaps, so yes.
    """
    if family == 4:
        at, byte, word = UDP_PAYLOAD, LDB_IND, LDW_IND
        load = [(LDX_MSH, 0, 0, 0)]
    else:
        at, byte, word = IP6_HEADER + UDP_PAYLOAD, LDB_ABS, LDW_ABS
        load = [(LDB_ABS, 0, 0, IP6_NEXT), (JEQ_K, 1, 0, UDP), YES]
    dtls = [(JGE_K, 1, 0, DTLS_FIRST), NO, (JGE_K, 0, 1, DTLS_LAST + 1), NO,
            (byte, 0, 0, at + 1), (JEQ_K, 0, 1, DTLS_MAJOR), YES, NO]
    known = [(JEQ_K, len(QUIC_VERSIONS) - i, 0, value) for i, value in enumerate(QUIC_VERSIONS)]
    return encode([*MERGED, YES, *load, (byte, 0, 0, at), (JSET_K, len(dtls), 0, 0x80), *dtls,
                   (word, 0, 0, at + 1), *known, NO, YES])


def plain(protocol: int) -> list[Instruction]:
    """Answers no unless that protocol follows the IPv6 header at once."""
    return [(LDB_ABS, 0, 0, IP6_NEXT), (JEQ_K, 1, 0, protocol), NO]


def encode(program: list[Instruction]) -> str:
    """The text that `-m bpf --bytecode` takes."""
    return ",".join([str(len(program)), *(" ".join(map(str, one)) for one in program)])
