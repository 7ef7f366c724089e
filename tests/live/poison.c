/* Stands for a fault in a worker that a packet sets off: the hash of a flow with one of these client ports never
 * returns. Loaded before libsodium (LD_PRELOAD) by a test's daemon; the product has no such door. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* edgeblock/core/flow.pyx has the key: addresses, ports, family, protocol. */
enum { FIRST = 2000, LAST = 2999, KEY_SIZE = 38, PORTS = 32 };

int crypto_shorthash(unsigned char *out, const unsigned char *in, unsigned long long size, const unsigned char *key)
{
    static int (*hash)(unsigned char *, const unsigned char *, unsigned long long, const unsigned char *);
    uint16_t port[2];
    if (!hash) {        /* it is there already, for the extension modules only */
        void *library = dlopen("libsodium.so", RTLD_NOW);
        hash = (int (*)(unsigned char *, const unsigned char *, unsigned long long, const unsigned char *))
            dlsym(library, "crypto_shorthash");
    }
    if (size == KEY_SIZE && (in[36] == 4 || in[36] == 6) && (in[37] == 6 || in[37] == 17)) {
        memcpy(port, in + PORTS, sizeof(port));
        for (int i = 0; i < 2; i++) {
            if (port[i] < FIRST || port[i] > LAST)
                continue;
            if (port[i] % 4 == 0)
                *(volatile int *)0 = 1;
            else if (port[i] % 4 == 1)
                abort();
            else if (port[i] % 4 == 2)
                for (;;)
                    __asm__ volatile("");
            else
                for (;;)
                    pause();
        }
    }
    return hash(out, in, size, key);
}
