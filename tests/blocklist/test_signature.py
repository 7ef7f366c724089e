"""Signatures: the files that minisign 0.11 itself wrote, files made here with PyNaCl, and damage to both."""

import base64
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from edgeblock.blocklist import signature
from edgeblock.blocklist.signature import (
    Hashed,
    PublicKey,
    Signed,
    keys_for,
    parse_key,
    parse_minisig,
    refuses_replay,
    verify,
)
from edgeblock.errors import ListError

# What `minisign -S` and `minisign -S -l` (legacy) of version 0.11 wrote, and its -t.
LIST = b"listed.example.com\n=only.example.org\n"
REAL_KEY = "RWQIYZhjRAdK1tTZS7zr5w78f2dbYEU7HkLlldiGzR4b+QSfet34MHfo"
REAL = b"""untrusted comment: signature from minisign secret key
RUQIYZhjRAdK1h6uHnwCuXFu1nmbM7eOsmwqJNYp4xorvLm4/wImSkFxSZf2nF4fi+7dWGJUoDOM2W4MBKLV+P3lxFKUcgtUFwc=
trusted comment: timestamp:1795519699\tfile:court.list\thashed
OGJPhoX3Tc7QIyNBWybIdTHA5w/9sRWXU/kgAEiFnvn048jv4ydXOoQA1XDvMh3QDrI8LA8iKiSzxAkJVHLmAg==
"""
LEGACY = b"""untrusted comment: signature from minisign secret key
RWQIYZhjRAdK1tibuCiEp3N/TzwJCJDP5OGa/mC7/ZTV2pRkSq6rbH2s+nPah0Yb/7gg9RpOdQkpwxlTQOArszqOlxKQ+kmxmAo=
trusted comment: timestamp:1795519699\tfile:court.list
hq8UNlgQnu+7w/K1X3db6fwqpbVv4c7uoj7wCcx4N3DnYXzKv4WLYm+gz7G7DZwBPB+DVzEsIydBimySNJGhBA==
"""
UNDATED = b"""untrusted comment: signature from minisign secret key
RUQIYZhjRAdK1h6uHnwCuXFu1nmbM7eOsmwqJNYp4xorvLm4/wImSkFxSZf2nF4fi+7dWGJUoDOM2W4MBKLV+P3lxFKUcgtUFwc=
trusted comment: hello
5mRvX6POS+//cTgLiCrIC/usIH1Fc86i/wjm+p37PY3YUmtAE9PMxpPdSkGZsAm1nwW9SPDykr4N3iGnokdVAw==
"""
KEYS = (parse_key(REAL_KEY, "key"),)


class Signer:
    """A minisign key pair of our own."""

    def __init__(self, seed):
        self.secret = SigningKey(bytes([seed]) * 32)
        self.id = bytes([seed]) * 8
        self.public = base64.b64encode(b"Ed" + self.id + bytes(self.secret.verify_key)).decode()
        self.key = parse_key(self.public, "key")

    def sign(self, text, comment="timestamp:1000\tfile:court.list\thashed", hashed=True):
        made = self.secret.sign(hashlib.blake2b(text).digest() if hashed else text).signature
        over = self.secret.sign(made + comment.encode()).signature
        head = (b"ED" if hashed else b"Ed") + self.id + made
        return (b"untrusted comment: x\n" + base64.b64encode(head) + b"\ntrusted comment: " + comment.encode() + b"\n"
                + base64.b64encode(over) + b"\n")


ONE, TWO = Signer(1), Signer(2)


def refusal(text, minisig, keys=KEYS, name="court.list"):
    with pytest.raises(ListError) as refused:
        verify(io.BytesIO(text), minisig, keys, name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("minisig", "comment"), [
    (REAL, "timestamp:1795519699\tfile:court.list\thashed"), (LEGACY, "timestamp:1795519699\tfile:court.list")])
def test_what_minisign_signed_holds(minisig, comment):
    assert verify(io.BytesIO(LIST), minisig, KEYS, "court.list") == Signed(1795519699, comment, "D64A074463986108")
    assert verify(io.BytesIO(LIST), minisig.replace(b"\n", b"\r\n"), (ONE.key, *KEYS), "court.list").timestamp


@pytest.mark.parametrize("minisig", [REAL, LEGACY])
def test_anything_else_does_not(minisig):
    assert "does not fit the list" in refusal(LIST + b"\n", minisig)
    assert "does not fit the list" in refusal(b"", minisig)
    assert "not pinned for this list (0101010101010101 would be)" in refusal(LIST, minisig, (ONE.key,))
    assert "is of a file 'court.list', not of this one" in refusal(LIST, minisig, name="other.list")
    assert "comment of the signature was altered" in refusal(LIST, minisig.replace(b":1795519699", b":1795519698"))
    assert "does not fit the list" in refusal(LIST, minisig, (PublicKey(KEYS[0].id, ONE.key.key),))
    assert "has no timestamp" in refusal(LIST, UNDATED)


@pytest.mark.parametrize("hashed", [True, False])
def test_what_we_sign_holds(hashed):
    for size in (0, 1, 64, 1024 * 1024 + 1):
        text = b"x" * size
        minisig = ONE.sign(text, hashed=hashed)
        assert verify(io.BytesIO(text), minisig, (TWO.key, ONE.key), "court.list").key_id == "01" * 8


@pytest.mark.parametrize(("comment", "why"), [
    ("timestamp:5", None), ("made by hand timestamp:5", None), ("timestamp:5\tfile:court.list", None),
    ("timestamp:5 file:other.list", "not of this one"), ("file:court.list\ttimestamp:5", None), ("", "no timestamp"),
    ("timestamp:", "no timestamp"), ("timestamp:5x", "no timestamp"), ("xtimestamp:5", "no timestamp"),
    ("timestamp:9999999999999", "no timestamp"), ("timestamp:5\tfile:", "not of this one"),
    ("timestamp:5\tfile:court.list.old", "not of this one")])
def test_the_trusted_comment(comment, why):
    if why is None:
        assert verify(io.BytesIO(LIST), ONE.sign(LIST, comment), (ONE.key,), "court.list").timestamp == 5
    else:
        assert why in refusal(LIST, ONE.sign(LIST, comment), (ONE.key,))


def test_what_is_read_is_what_is_verified():
    text = b"".join(b"name%d.example\n" % number for number in range(20_000))

    class Changing(io.BytesIO):     # a file that somebody writes to while it is read
        def readinto(self, buffer):
            if self.tell() > 100_000:
                self.getbuffer()[150_000:150_001] = b"X"
            return super().readinto(buffer)

    hashed = Hashed(io.BytesIO(text), ONE.sign(text), (ONE.key,), "court.list")
    assert [*io.BufferedReader(hashed)] == text.splitlines(keepends=True)
    assert hashed.signed().timestamp == 1000
    hashed = Hashed(Changing(text), ONE.sign(text), (ONE.key,), "court.list")
    assert b"".join(io.BufferedReader(hashed)) != text
    with pytest.raises(ListError, match="does not fit"):
        hashed.signed()
    hashed = Hashed(io.BytesIO(text), ONE.sign(text), (ONE.key,), "court.list")
    assert io.BufferedReader(hashed).readline() == b"name0.example\n"      # a reader that stops early
    assert hashed.signed().timestamp == 1000


def test_a_legacy_signature_needs_memory_and_has_a_bound(monkeypatch):
    monkeypatch.setattr(signature, "LEGACY_MAX", 100)
    text = b"x" * 101
    assert "legacy signature and more than 100 bytes" in refusal(text, ONE.sign(text, hashed=False), (ONE.key,))
    assert verify(io.BytesIO(text), ONE.sign(text), (ONE.key,), "court.list")


@pytest.mark.parametrize("minisig", [
    b"", b"\n\n\n\n", REAL[:-40], REAL.replace(b"untrusted", b"distrusted"), REAL + b"more\n", b"\xff" * 300,
    REAL.replace(b"RUQ", b"RVQ"), REAL.replace(b"RUQI", b"RUQ\xff"), REAL.replace(b"Ag==", b"Ag"), b"x" * 20_000])
def test_a_damaged_signature_is_refused_before_the_list_is_read(minisig):
    with pytest.raises(ListError, match="sign the list again"):
        Hashed(io.BytesIO(LIST), minisig, KEYS, "court.list")


@pytest.mark.parametrize("text", ["", "RW", REAL_KEY[:-1], REAL_KEY + "AAAA", "x" * 56, "RU" + REAL_KEY[2:], "ü" * 9])
def test_no_key(text):
    with pytest.raises(ListError, match="^court.toml: signer = .* is no minisign public key; take the line"):
        parse_key(text, "court.toml: signer")


def test_a_key_prints_as_minisign_prints_it():
    assert str(parse_key(REAL_KEY, "key")) == "D64A074463986108"


A, B, PIN = ONE.public, TWO.public, f"court={TWO.public}"
NONE_FOR = "has no key for this list"


@pytest.mark.parametrize(("signer", "signers", "required", "answer"), [
    ("", (), False, None),                          # nobody asks
    (A, (), False, (ONE.key,)),                     # NAME.toml asks
    ("", (A, B), False, None),                      # keys alone require nothing
    ("", (A, B), True, (ONE.key, TWO.key)),
    ("", (A, PIN), False, (TWO.key,)),              # a pinned list always needs its own key, and no other
    ("", (A, PIN), True, (TWO.key,)),
    (B, (A, B), True, (TWO.key,)),                  # NAME.toml narrows ...
    (B, (A,), True, "not among the [rules] signers"),      # ... and never widens
    (A, (A, PIN), False, "not among the [rules] signers"),
    (B, (A,), False, (TWO.key,)),
    ("", (), True, NONE_FOR),
    ("", (f"other={A}",), True, NONE_FOR),
    (A, (f"other={A}",), True, NONE_FOR),           # not even with a signer of its own
    ("", (f"other={A}",), False, None),
])
def test_whose_signature_counts(signer, signers, required, answer):
    if isinstance(answer, str):
        with pytest.raises(ListError) as refused:
            keys_for("court", signer, signers, required)
        assert answer in str(refused.value)
    else:
        assert keys_for("court", signer, signers, required) == answer


@pytest.mark.parametrize(("stamp", "accepted", "why"), [
    (1000, None, None), (1000, 1000, None), (1001, 1000, None), (999, 1000, "is older than the version in force"),
    (0, 1000, "older"), (2000 + 86_400, None, None), (2001 + 86_400, None, "24 hours in the future"),
    (2001 + 86_400, 5, "future")])
def test_an_older_list_is_not_taken_again(stamp, accepted, why):
    refused = refuses_replay(Signed(stamp, "", ""), accepted, 2000.0)
    assert refused is None if why is None else why in refused


# For any change of any byte, and for any bytes at all, the answer is a refusal and nothing else is raised.

@given(st.data())
def test_no_altered_byte_passes(data):
    minisig = data.draw(st.sampled_from([REAL, LEGACY]))
    first = minisig.index(b"\n") + 1        # the untrusted comment is just that
    which = data.draw(st.booleans())
    text = bytearray(LIST if which else minisig)
    place = data.draw(st.integers(0 if which else first, len(text) - (1 if which else 2)))
    text[place] ^= data.draw(st.integers(1, 255))
    list_, minisig = (bytes(text), minisig) if which else (LIST, bytes(text))
    with pytest.raises(ListError):
        verify(io.BytesIO(list_), minisig, KEYS, "court.list")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_signature_or_refused(minisig):
    with pytest.raises(ListError):
        parse_minisig(minisig)
