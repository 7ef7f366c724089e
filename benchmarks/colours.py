"""One colour and one hatch for each thing that is drawn, and its name in words: the same in every plot.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which differ for colour-blind people, too: a test
looks at them as they do. Only what never stands in one plot shares one.
"""

from typing import NamedTuple


class Look(NamedTuple):
    """`name` is what the legend says."""

    name: str
    colour: str
    hatch: str = ""
    marker: str = "o"


GREY, BLACK, SKY, BLUE = "#8c8c8c", "#000000", "#56b4e9", "#0072b2"
GREEN, ORANGE, VERMILION, PURPLE = "#009e73", "#e69f00", "#d55e00", "#cc79a7"

READERS = {     # of nfqueue.py
    "one": Look("loop in C, a packet a call", SKY, "", "s"),
    "many": Look("loop in C, 32 packets a call", BLUE, "//", "^"),
    "stock": Look("netfilterqueue's loop in Python", GREY, "..", "D"),
    "ours": Look("edgeblock, whole engine", VERMILION),
}
WAYS = {        # of box.py
    "no filter": Look("forwarding alone", GREY),
    "no filter, again": Look("forwarding alone, once more", GREY, "||"),
    "tracking": Look("connection tracking alone", SKY, ".."),
    "queue": Look("edgeblock, queue alone", VERMILION),
    "both stages": Look("edgeblock, with the first stage", ORANGE, "//"),
    "untracked": Look("edgeblock, without connection tracking", GREEN, "\\\\"),
    "shortcut": Look("edgeblock, with the shortcut", BLUE, "xx"),
    "iptables -m string, one name": Look("iptables -m string, one name", PURPLE, "--"),
    "Suricata, dataset": Look("Suricata, dataset", BLACK, "++"),
    "Suricata, a rule a name": Look("Suricata, a rule a name", BLACK, "**"),
    "OpenGFW": Look("OpenGFW", BLACK, "oo"),
}
OURS, GOAL = VERMILION, BLACK
