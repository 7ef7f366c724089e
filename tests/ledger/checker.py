"""Checks a proof by docs/ledger.md alone, with nothing of edgeblock. In: the document, public key, heads that were
kept."""

import hashlib
import json

from nacl.encoding import Base64Encoder
from nacl.signing import VerifyKey

WORDS = {"exception", "hashed", "host", "host-only", "subdomains", "url-with-query", "url", "directory", "address",
         "endpoint", "host-at", "host-only-at", "subdomains-at"}

def digest(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def climb(leaf, index, size, path):     # RFC 9162, 2.1.3.2
    made, last = digest(b"\0", leaf), size - 1
    for step in map(bytes.fromhex, path):
        assert last
        made = digest(b"\1", step, made) if index & 1 or index == last else digest(b"\1", made, step)
        while index and index == last and not index & 1:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    assert last == 0
    return made.hex()

def heads_of(public, texts):            # signed by the box: (segment, records) -> root, of which there is one
    heads, key = {}, Base64Encoder.decode(public)
    for line, _, signature, _, _ in (text.encode().split(b"\n")[:5] for text in texts):
        made = Base64Encoder.decode(signature)
        assert made[:2] == b"ED" and made[2:10] == key[2:10]
        VerifyKey(key[10:]).verify(hashlib.blake2b(line + b"\n", digest_size=64).digest(), made[10:])
        head = json.loads(line)
        assert heads.setdefault((head["segment"], head["records"]), head["root"]) == head["root"]
    return heads

def check(proof, public, texts):        # an error of any kind where it is no proof
    """What the proof shows: (list, entry, from, to, (action, window, clients)) each."""
    said, heads, entries = json.loads(proof), heads_of(public, texts), {}
    for one in said["entries"]:
        leaf, at = bytes.fromhex(one["leaf"]), 20 * one["place"]
        assert len(salt := bytes.fromhex(one["salt"])) == 16 and 0 <= at < len(leaf)
        assert leaf[at:at + 20] == digest(salt, one["text"].encode())[:20] and one["text"].split(" ")[0] in WORDS
        assert climb(leaf, one["index"], one["size"], one["path"]) == one["root"]
        entries[one["root"]] = one["text"]
    for period in said["periods"]:
        for of in (period["begin"], period["end"]):
            root = heads[of["segment"], of["size"]]
            assert climb(of["record"].encode(), of["index"], of["size"], of["path"]) == root
        begin, end = (json.loads(period[which]["record"]) for which in ("begin", "end"))
        row = {name: period[name] for name in ("list", "root", "action", "window", "clients")}
        leaf = json.dumps(row, sort_keys=True, separators=(",", ":"))
        assert climb(leaf.encode(), **period["table"]) == begin["fields"]["table"] and begin["kind"] == "in force"
        assert begin["fields"]["workers"] is True and begin["fields"]["kernel"] is True
        after = end["fields"]["number"] - 1 if end["kind"] == "in force" else end["fields"]["in_force"]
        assert end["fields"]["run"] == begin["fields"]["run"] and after == begin["fields"]["number"]
        assert begin["time"] <= (until := end["fields"]["compiled"] if end["kind"] == "in force" else end["time"])
        terms = row["action"], row["window"], row["clients"]        # whether it blocks; when as a whole; whom
        yield row["list"], entries[row["root"]], begin["time"], until, terms
