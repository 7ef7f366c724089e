"""Lists in, one immutable matcher out.

    canonical    the one form in which hosts and URLs are compared (compiled)
    fingerprint  canonical bytes -> keyed 128-bit fingerprint; the sorted rows of a snapshot (compiled)
    bitmap       a roaring bitmap, searched where it lies (compiled)
    formats      a list file of any format -> entries and problems, line by line
    settings     NAME.toml beside a list -> a frozen record
    compiler     entries -> the parts of a snapshot
    snapshot     those parts <-> one bytes object with a version, a key id and a digest
    matcher      a snapshot -> the matcher that the engine asks (compiled)
    rules        a directory -> all of that, and what people ask about it: check and lint

Calls go down this list from its end; nothing here knows a packet.
"""
