"""What is sealed is what another library opens: any text, any size."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.enforce.seal import one_block, seal

KEYS = st.binary(min_size=16, max_size=16)


@given(KEYS, st.binary(min_size=12, max_size=12), st.binary(max_size=2000), st.binary(max_size=100))
def test_sealed_bytes_are_those_of_another_library(key, nonce, plain, beside):
    assert seal(key, nonce, plain, beside) == AESGCM(key).encrypt(nonce, plain, beside)


@given(KEYS, KEYS)
def test_a_block_is_that_of_another_library(key, block):
    assert one_block(key, block) == Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


@pytest.mark.parametrize(("key", "nonce", "plain", "beside"), [
    (15, 12, 1, 1), (17, 12, 1, 1), (16, 11, 1, 1), (16, 13, 1, 1), (16, 12, 65536, 1), (16, 12, 1, 65536)])
def test_sizes_that_nothing_has_are_refused(key, nonce, plain, beside):
    with pytest.raises(ValueError, match="of 16"):
        seal(bytes(key), bytes(nonce), bytes(plain), bytes(beside))


@pytest.mark.parametrize(("key", "block"), [(15, 16), (16, 15), (16, 17)])
def test_a_block_of_another_size_is_refused(key, block):
    with pytest.raises(ValueError, match="of 16"):
        one_block(bytes(key), bytes(block))
