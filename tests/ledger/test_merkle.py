"""Merkle trees: against RFC 6962's own words, and paths that prove what is there and nothing else."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.ledger.merkle import EMPTY, Paths, Tree, climb, leaf_hash

LEAVES = [bytes([n]) * n for n in range(40)]
# The roots of the first 0 to 8 of these leaves, as the tests of Certificate Transparency have them.
KNOWN = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                        "606162636465666768696a6b6c6d6e6f")]
ROOTS = ("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
         "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
         "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
         "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
         "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
         "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
         "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
         "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")


def slow(leaves: list[bytes]) -> bytes:
    """As RFC 6962, 2.1, says it."""
    if len(leaves) < 2:
        return sha256(b"\0" + leaves[0]).digest() if leaves else sha256().digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + slow(leaves[:k]) + slow(leaves[k:])).digest()


def test_the_roots_are_those_of_certificate_transparency():
    assert [Tree(KNOWN[:size]).root().hex() for size in range(1, 9)] == list(ROOTS)
    assert Tree().root() == EMPTY == slow([])


@pytest.mark.parametrize("size", range(1, 40))
def test_every_path_proves_its_leaf_and_no_other(size):
    leaves = LEAVES[:size]
    tree, paths = Tree(leaves), Paths(leaves)
    assert tree.root() == slow(leaves)
    for index, leaf in enumerate(leaves):
        steps = paths.of(index)
        assert climb(leaf, index, size, steps) == tree.root()
        assert climb(leaf + b"!", index, size, steps) != tree.root()
        for other in range(size):
            if other != index:
                assert climb(leaf, other, size, steps) != tree.root()
        assert climb(leaf, index, size, [*steps, EMPTY]) is None
        if steps:
            assert climb(leaf, index, size, steps[:-1]) is None


def test_no_index_outside():
    assert climb(b"", 1, 1, []) is None and climb(b"", -1, 1, []) is None
    with pytest.raises(IndexError):
        Paths(LEAVES[:3]).of(3)


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_a_tree_that_grows_is_the_tree(leaves):
    assert Tree(leaves).root() == slow(leaves)


def test_a_leaf_is_no_node():
    left, right = map(leaf_hash, (b"a", b"b"))
    assert Tree([left + right]).root() != Tree([b"a", b"b"]).root()
