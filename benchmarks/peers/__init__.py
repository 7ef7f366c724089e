"""Other programs in the same place, so that a figure can be compared: one adapter each.

In: a lab, the names to block, the ports on which servers listen. Out: the program running in the lab's box with the
best settings that its own documentation knows, and gone again at the end. Never: one installed here (peers/fetch
unpacks Suricata, when it is asked to); where a program is missing, its adapter says so in one line.
"""

from peers.base import Peer
from peers.iptables_string import IptablesString
from peers.opengfw import OpenGFW
from peers.suricata import Suricata, SuricataRules

PEERS: tuple[type[Peer], ...] = (IptablesString, Suricata, SuricataRules, OpenGFW)
__all__ = ["PEERS", "Peer"]
