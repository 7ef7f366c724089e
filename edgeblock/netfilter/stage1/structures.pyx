"""What user space has made of structures.h.

In: nothing. Out: the numbers that a program's own have to be equal to, and sizes of keys and values. Never here: a
map, a program.
"""

from edgeblock.netfilter.stage1.structures cimport FlowMark, Hello, Key, Remembered

cdef extern from *:
    """
    static const __u32 edgeblock_layout[] = {LAYOUT};
    enum { LAYOUT_COUNT = sizeof(edgeblock_layout) / sizeof(edgeblock_layout[0]) };
    """
    const unsigned int edgeblock_layout[1]
    enum:
        LAYOUT_COUNT

LAYOUT = tuple([edgeblock_layout[i] for i in range(<int>LAYOUT_COUNT)])

# Of each map's key and value.
SIZES = {"flows": (sizeof(Key), sizeof(Remembered)), "hellos": (4, sizeof(Hello)),
         "marks": (sizeof(Key), sizeof(FlowMark))}
