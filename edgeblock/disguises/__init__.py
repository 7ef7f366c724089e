"""Every disguise that this project knows: for tests, fuzzers, and the lists that are tried before they are in force.

    packets     bytes of clients, and IP packets around them
    streams     ways to send a message over TCP
    messages    messages that are misread
    table       each of them as one row: what a client asks for in, its packets out

A new disguise is a function in streams, or a line in messages or table. Never here: what a filter makes of it.
"""
