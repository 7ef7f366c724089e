"""The kernel rules: which packets are queued (policy), and which addresses are stopped in the kernel (addresses).

`ruleset` is the door: text, apply, remove, counters. docs/architecture.md has every file, docs/ruleset.md the reason
for every rule. Nothing here reads a packet.
"""
