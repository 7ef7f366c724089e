"""edgeblock: an inline blocklist filter for internet providers.

The path of a packet, one way, no turning back:

    source/     a packet arrives from NFQUEUE (live) or from a capture file (replay)
    core/       compiled and sans-I/O: headers, flow, name, match; `engine.judge(packet, now)` is the one door
    blocklist/  lists in, one immutable matcher out; the engine is given it and calls it for every name
    enforce/    the bytes of resets, alerts and pages for what was blocked
    netfilter/  the kernel rules that decide which packets reach the queue at all
    daemon/     the process that holds these together on a live box

Calls go down and values come back. Nothing beneath source/ and daemon/ reads a clock, a socket or a file.
"""

__version__ = "0.2.0"
