"""AES as an answer over QUIC needs it, by the libcrypto that the core has in every worker anyway.

In: keys and bytes. Out: bytes sealed with AES-128-GCM (RFC 5116), one block of AES-128. Never here: what is sealed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from edgeblock.core.crypto cimport (
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_EncryptInit_ex,
    EVP_EncryptUpdate, EVP_aes_128_ecb, EVP_aes_128_gcm,
)

cdef extern from "<openssl/evp.h>" nogil:
    enum:
        EVP_CTRL_AEAD_GET_TAG
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size)

cdef enum:
    KEY_SIZE = 16
    NONCE_SIZE = 12            # what a context of GCM has where nobody says another
    TAG_SIZE = 16
    SIZE_MAX = 65535           # bytes of a datagram: no size is more than libcrypto's int holds


def seal(bytes key not None, bytes nonce not None, bytes plain not None, bytes beside not None):
    """`plain` encrypted, with the tag of it and of what is sent in the clear beside it behind.

    Raises:
        ValueError: a size that no key, nonce or datagram has.
        MemoryError: libcrypto has none, or does not know the cipher.
    """
    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE or len(plain) > SIZE_MAX or len(beside) > SIZE_MAX:
        raise ValueError("a key of 16 bytes, a nonce of 12, texts up to 65535")
    cdef bytes sealed = PyBytes_FromStringAndSize(NULL, len(plain) + TAG_SIZE)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(sealed)
    cdef int size = 0
    cdef EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new()
    try:
        if (context == NULL
                or EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, key, nonce) != 1
                or EVP_EncryptUpdate(context, NULL, &size, beside, <int>len(beside)) != 1
                or EVP_EncryptUpdate(context, out, &size, plain, <int>len(plain)) != 1
                or EVP_EncryptFinal_ex(context, out + len(plain), &size) != 1
                or EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out + len(plain)) != 1):
            raise MemoryError("libcrypto")
    finally:
        EVP_CIPHER_CTX_free(context)
    return sealed


def one_block(bytes key not None, bytes block not None):
    """These 16 bytes encrypted.

    Raises:
        ValueError: they are not 16, or the key is not.
        MemoryError: libcrypto has none, or does not know the cipher.
    """
    if len(key) != KEY_SIZE or len(block) != KEY_SIZE:
        raise ValueError("a key of 16 bytes and a block of 16")
    cdef uint8_t out[2 * KEY_SIZE]
    cdef int size = 0
    cdef EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new()
    try:
        if (context == NULL or EVP_EncryptInit_ex(context, EVP_aes_128_ecb(), NULL, key, NULL) != 1
                or EVP_EncryptUpdate(context, out, &size, block, KEY_SIZE) != 1):
            raise MemoryError("libcrypto")
    finally:
        EVP_CIPHER_CTX_free(context)
    return out[:KEY_SIZE]
