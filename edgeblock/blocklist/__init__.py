"""Lists in, one immutable matcher out.

    keys         the key of a deployment: what it is called
    canonical    the one form in which hosts and URLs are compared (compiled)
    fingerprint  canonical bytes -> keyed 128-bit fingerprint; the sorted rows of a snapshot (compiled)
    bitmap       a roaring bitmap, searched where it lies (compiled)
    formats      a list file of any format -> entries and problems, line by line
    settings     NAME.toml beside a list -> a frozen record
    clients      prefixes of clients -> whom a list is for
    signature    a list and its .minisig -> whose it is, and since when
    guard        what refuses a list although every line of it can be read
    compiler     entries -> the parts of a snapshot; parts of one list each -> those of one snapshot
    snapshot     those parts <-> one file with a version, a key id and digests
    matcher      a snapshot -> the matcher that the engine asks (compiled)
    directory    a rules directory -> its lists, opened with care
    intake       one list, its signature and its guard rails -> the parts of a snapshot, or why it is refused
    store        the last good version of every list, and the snapshot that is in force, on disk
    drop         a changed directory -> a new snapshot in the store
    rules        a directory -> a matcher in memory, and what people ask of it: check
    lint         a directory -> everything that is wrong with it, and what looks like a mistake
    hashing      a list -> a hashed list, without plain text

Calls go down this list from its end; nothing here knows a packet.
"""
