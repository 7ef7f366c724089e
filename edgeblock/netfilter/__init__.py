"""The kernel rules that decide which packets reach the queue at all.

    marks      the two bits of a flow's conntrack mark
    rules      which packets are queued, dropped, passed: written once, as data
    nft        those rules as a native nftables table
    iptables   the same rules as chains of iptables and ip6tables
    ruleset    the door: text, apply, remove, counters

docs/ruleset.md gives the reason for every rule. Nothing here reads a packet.
"""
