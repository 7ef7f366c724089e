# A label with bytes above 0x7F -> the A-label that is compared (UTS 46, NFC, Punycode), in compiled tables.

from libc.stdint cimport uint8_t

cdef enum:
    LABEL_CODES = 256       # a label of 63 bytes has at most 59 characters, of up to four code points before NFC
    MARKS_MAX = 16          # marks in a row; no language puts more than a handful on a letter

cdef enum Flaw:             # what a list may not have in a label
    NO_FLAW = 0
    NOT_UTF8 = 1            # read as Latin-1
    DISALLOWED = 2          # a character that UTS 46 refuses, an xn-- label with more in it
    TOO_LONG = 3

# Returns the bytes written to `out` (room for LABEL_CODES), maybe with dots among them; -1: the label stays as it is.
cdef Py_ssize_t put_label(const uint8_t* text, size_t size, uint8_t* out, uint8_t* flaw) noexcept nogil
