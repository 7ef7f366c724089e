# Canonical bytes -> the keyed 128-bit fingerprint that stands for them, and the rows that a snapshot is made of.
#
# The hash is SipHash-2-4 with 128 bits of output, from libsodium: keyed per deployment, so that nobody outside can
# make names collide or recognise a name by its fingerprint.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "sodium.h" nogil:
    int crypto_shorthash_siphashx24(unsigned char* out, const unsigned char* data, unsigned long long size,
                                    const unsigned char* key)

cdef enum:
    KEY_SIZE = 16
    PRINT_SIZE = 16
    ROW_SIZE = 20           # fingerprint, then the value as 32 bits little-endian

cpdef enum Kind:            # what an entry matches: the low byte of a row's value
    HOST = 1                # the host and every subdomain
    HOST_ONLY = 2           # the host itself
    SUBDOMAINS = 3          # subdomains only
    URL_WITH_QUERY = 4      # that URL with that query
    URL = 5                 # that URL with any query
    DIRECTORY = 6           # every URL below
    NETWORK = 7             # a destination address or prefix
    ENDPOINT = 8            # a destination address and port
    HOST_OF_URL = 9         # the host of a URL entry of a list with https = "host": on TLS and QUIC
    URL_MARK = 10           # no rule: the host has URL entries, so its URLs are worth looking up
    HOST_AT = 11            # as HOST, where it leads to an address or prefix; the key has both
    HOST_ONLY_AT = 12       # as HOST_ONLY
    SUBDOMAINS_AT = 13      # as SUBDOMAINS
    AT_MARK = 14            # no rule: the host has such entries, so where it leads is worth looking up

cdef enum:
    EXCEPTION = 0x100       # value: list index << 16 | TERMS or 0 | EXCEPTION or 0 | Kind
    TERMS = 0x200           # the row holds only where its terms say so (timetable.py)
    AT = HOST_AT - HOST     # from a kind of host to the same at an address
    NO_LIST = 0xFFFF        # the index of a list that counts no more; older versions wrote it into every URL_MARK


cdef inline uint32_t rule_id(const uint8_t* fingerprint, uint32_t kind) noexcept nogil:
    # Opaque, and the same for as long as the key is. Not from the first 32 bits, which the bitmap shows.
    return (<uint32_t>fingerprint[12] << 24 | <uint32_t>fingerprint[13] << 16 | <uint32_t>fingerprint[14] << 8
            | fingerprint[15]) ^ (kind * <uint32_t>0x9E3779B1)
