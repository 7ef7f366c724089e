"""The hot part of reading lists: lines out of bytes, and plain host names out of lines.

In: a file opened for reading bytes. Out: numbered lines, or Entries where a line is a host name and no more; what is
said about a file that is no list. One line at a time is held, and of an over-long one not even that.
"""

from libc.stdint cimport uint8_t

from edgeblock.blocklist.canonical cimport Host, read_plain_host
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import HOPELESS, LINE_MAX, PACKED, Entry, Problem, no_text


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == 32 or 9 <= c <= 13


def plain_host(bytes text not None):
    """The canonical form of a host of letters, digits, "-" and "_", as nearly all are; None for anything else."""
    cdef Host host
    cdef const uint8_t* start = text
    return host.text[:host.size] if read_plain_host(start, <size_t>len(text), &host) else None


def read_raw_lines(file):
    """Number and text of every line as it is, but for its end; a Problem in place of one that is too long."""
    cdef Py_ssize_t number = 0, size, line_max = LINE_MAX
    cdef bytes line
    cdef const uint8_t* text
    readline = file.readline
    ask = line_max + 1
    while True:
        line = readline(ask)
        size = len(line)
        if size == 0:
            return
        number += 1
        text = line
        if number == 1:
            if line[:2] == b"\xff\xfe" or line[:2] == b"\xfe\xff":
                yield 1, Problem(1, 'the file is UTF-16; save it as UTF-8, or put encoding = "utf-16" into '
                                 "the settings of this list", whole=True)
                return
            for magic, name in PACKED:
                if line.startswith(magic):
                    yield 1, Problem(1, f"the file is packed ({name}); unpack it, or pack it once, with "
                                     "gzip or zstd", whole=True)
                    return
            if line[:3] == b"\xef\xbb\xbf":
                line = line[3:]
                size -= 3
                text = line
        if size > line_max and text[size - 1] != 10:
            while line and line[-1:] != b"\n":
                if size > HOPELESS:
                    yield number, Problem(number, f"the line is longer than {HOPELESS} bytes; is this a list at all?",
                                          whole=True)
                    return
                line = readline(line_max)
                size += len(line)
            yield number, Problem(number, f"the line is longer than {line_max} bytes")
            continue
        while size and (text[size - 1] == 10 or text[size - 1] == 13):
            size -= 1
        yield number, line[:size]


def read_lines(file, bint raw=False, bytes comments=b"#;", bint hosts=False):
    """Number and text of every line that is neither empty nor begins with one of `comments`, blanks around it gone.

    A Problem in place of one that is no text; with `hosts` an Entry in place of one that is a host name and no more.
    """
    cdef Host host
    cdef Py_ssize_t number, start, end
    cdef const uint8_t* text
    cdef bytes line
    cdef object kind = Kind.HOST
    for number, found in read_raw_lines(file):
        if type(found) is not bytes:
            yield number, found
            continue
        line = found
        text = line
        start, end = 0, len(line)
        while end and is_blank(text[end - 1]):
            end -= 1
        while start < end and is_blank(text[start]):
            start += 1
        if start == end:
            continue
        if hosts and read_plain_host(text + start, <size_t>(end - start), &host):
            yield number, tuple.__new__(Entry, (number, kind, host.text[:host.size], False, 0, ()))
            continue
        if text[start] in comments:
            continue
        line = line[start:end]
        yield number, no_text(number, line, raw) or line
