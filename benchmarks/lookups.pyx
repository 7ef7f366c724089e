"""Look-ups in a loop of compiled code, as the engine makes them: what is timed holds no Python object."""

import time

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from edgeblock.core.matcher cimport Around, Match, Matcher


def time_names(Matcher matcher not None, int proto, list names, bytes target, int rounds, list clients=None):
    """(seconds of processor time, matches) of `rounds` times a look-up of each of `names` (bytes as on the wire).

    `clients`: who asks for each of them, in as many addresses of 4 or 16 bytes; None: nobody knows.
    The names lie one behind the other: in a box they are in a packet that was just read, so they are in the cache.
    """
    cdef bytes joined = b"".join(names)
    cdef const uint8_t* text = joined
    cdef const uint8_t* path = NULL
    cdef const uint8_t* at
    cdef bytes whose = b"".join([one.ljust(16) for one in clients or ()])
    cdef const uint8_t* client = whose
    cdef size_t count = len(names), i, path_size = 0, matches = 0
    cdef size_t* size = <size_t*>malloc(count * sizeof(size_t) + 1)
    cdef size_t* family = <size_t*>calloc(count + 1, sizeof(size_t))
    cdef Match found
    cdef Around around
    cdef int turn
    if size == NULL or family == NULL:
        raise MemoryError
    memset(&around, 0, sizeof(Around))
    for i in range(count):
        size[i] = len(<bytes>names[i])
        if clients is not None:
            family[i] = len(<bytes>clients[i])
    if target is not None:
        path = target
        path_size = len(target)
    start = time.thread_time()
    with nogil:
        for turn in range(rounds):
            at = text
            for i in range(count):
                if family[i]:
                    around.client, around.client_size = client + 16 * i, family[i]
                matches += matcher.match_name(proto, at, size[i], path, path_size, &around, &found)
                at += size[i]
    seconds = time.thread_time() - start
    free(size)
    free(family)
    return seconds, matches
