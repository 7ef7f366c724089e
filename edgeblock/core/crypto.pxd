# The whole of what edgeblock asks of OpenSSL's libcrypto: SHA-256, AES-128 of one block, AES-128-GCM.
#
# In: keys and bytes. Out: bytes, or a failure code; never a Python object. SHA256_* are the low-level calls:
# deprecated since OpenSSL 3.0 but public, and a key derivation made of them takes half the time that EVP_MAC
# takes (docs/decisions.md), which is what a flood of Initials would have us pay.

from libc.stdint cimport uint8_t

cdef extern from * nogil:
    """
    #define OPENSSL_SUPPRESS_DEPRECATED
    #include <openssl/err.h>
    #include <openssl/evp.h>
    #include <openssl/sha.h>
    """

    ctypedef struct SHA256_CTX:
        pass

    int SHA256_Init(SHA256_CTX* context)
    int SHA256_Update(SHA256_CTX* context, const void* data, size_t size)
    int SHA256_Final(uint8_t* digest, SHA256_CTX* context)

    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct ENGINE:
        pass
    enum:
        EVP_CTRL_AEAD_SET_TAG

    const EVP_CIPHER* EVP_aes_128_ecb()
    const EVP_CIPHER* EVP_aes_128_gcm()
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* context)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX* context, int type, int argument, void* pointer)
    int EVP_EncryptInit_ex(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, ENGINE* none,
                           const uint8_t* key, const uint8_t* iv)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size, const uint8_t* data, int size)
    int EVP_DecryptInit_ex(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, ENGINE* none,
                           const uint8_t* key, const uint8_t* iv)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size, const uint8_t* data, int size)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size)
    void ERR_clear_error()
