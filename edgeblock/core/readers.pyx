"""The table of protocol readers; readers.pxd says what it is."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from edgeblock.core.cursor cimport Cursor, cursor, left
from edgeblock.core.findings cimport FINDING_NAME, Finding, Findings, clear_findings, free_findings
from edgeblock.core.http cimport http_reader
from edgeblock.core.http2 cimport http2_reader
from edgeblock.core.prefix cimport prefix_reader
from edgeblock.core.reader cimport DONE, FOUND, NEED_MORE, STATE_SIZE, Outcome, Step
from edgeblock.core.tls cimport dtls_reader, hello_reader, tls_reader

# By ReadingKind, then whatever others there are. Of two that begin at one byte the later has it.
readers[READ_TEXT] = http_reader()
readers[READ_TEXT].successor = READ_HTTP2
readers[READ_HTTP2] = http2_reader()
readers[READ_HELLO] = hello_reader()
readers[READ_DTLS] = dtls_reader()
readers[READ_OTHERS] = tls_reader()
readers[READ_OTHERS + 1] = prefix_reader()


def _check() -> None:
    for kind in range(1, MAX_READERS):
        if readers[kind].size > STATE_SIZE:
            raise SystemError(f"the state of reader {kind} has {readers[kind].size} bytes: see STATE_SIZE")
    for first in range(256):
        reader_at[first] = READ_TEXT
        for kind in range(1, MAX_READERS):
            if readers[kind].begins != NULL and readers[kind].begins(<uint8_t>first):
                reader_at[first] = kind


_check()

# ---- for tests

# Kind of each, by its name.
KINDS = {(<bytes>readers[kind].name).decode(): kind for kind in range(1, MAX_READERS) if readers[kind].name != NULL}


def beginning(first: int) -> str:
    """The name of the reader that begins at this byte."""
    return (<bytes>readers[reader_at[<uint8_t>first]].name).decode()


def feed(name: str, pieces) -> tuple:
    """Feeds byte pieces to a reader, which begins anew where a message is over; the first of several ways is taken.

    Returns the last outcome and the names found, each as (host, target).
    """
    cdef Reader* reader = &readers[<int>KINDS[name]]
    cdef uint8_t[STATE_SIZE] state
    cdef const uint8_t[::1] piece
    cdef Findings out
    cdef Step step
    cdef Cursor c
    cdef Outcome outcome = NEED_MORE
    cdef Finding* f
    memset(state, 0, STATE_SIZE)
    memset(&out, 0, sizeof(Findings))
    found = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            memset(&step, 0, sizeof(Step))
            clear_findings(&out)
            outcome = reader.read(state, &c, &step, &out)
            for i in range(out.count):
                f = &out.items[i]
                if f.kind == FINDING_NAME:
                    found.append((<bytes>out.text.data[f.host_at:f.host_at + f.host_size],
                                  <bytes>out.text.data[f.target_at:f.target_at + f.target_size]))
            if step.ways:
                reader.choose(state, 0)
            if outcome == DONE and not step.succeeded:
                if reader.release != NULL:
                    reader.release(state)
                memset(state, 0, STATE_SIZE)
                if left(&c) == 0:
                    outcome = NEED_MORE
                    break
            elif outcome != FOUND:
                break
        if outcome != NEED_MORE:
            break
    if reader.release != NULL:
        reader.release(state)
    free_findings(&out)
    return ("need_more", "found", "done", "not_mine")[outcome], found
