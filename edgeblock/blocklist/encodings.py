"""The encodings that a list may be in.

In: a name as people write it. Out: Python's name of the encoding, or None. Never here: an encoding that unpacks or
runs anything, or takes more than linear time.
"""

import codecs

# What lists are written in. Not every codec of Python: some of them unpack, and some take more than linear time.
ENCODINGS = frozenset((
    "ascii", "utf-8", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le",
    "big5", "big5hkscs", "cp932", "cp949", "cp950", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "johab",
    "koi8-r", "koi8-t", "koi8-u", "kz1048", "mac-cyrillic", "mac-greek", "mac-latin2", "mac-roman", "mac-turkish",
    "ptcp154", "shift_jis", "tis-620",
    *(f"cp{number}" for number in (437, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 864, 865, 866,
                                   869, 874, 1125, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)),
    *(f"iso8859-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16))))


def find_encoding(name: str) -> str | None:
    """The encoding of that name, in any of its spellings; None where there is none."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        return None
    found = found.removesuffix("-sig")
    return found if found in ENCODINGS else None
