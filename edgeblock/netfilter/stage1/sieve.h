/* The filter of listed names and addresses: blocked Bloom, six bits of a block of 512 for each fingerprint.
 *
 * Comes in: a fingerprint. Goes out: 0, it is certainly in no list; 1, it may be. sieve.pyx fills it, and says the
 * same.
 */

INLINE __u64 turn(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

#define ROUND                                                                                     \
	do {                                                                                      \
		v0 += v1; v1 = turn(v1, 13); v1 ^= v0; v0 = turn(v0, 32);                         \
		v2 += v3; v3 = turn(v3, 16); v3 ^= v2;                                            \
		v0 += v3; v3 = turn(v3, 21); v3 ^= v0;                                            \
		v2 += v1; v1 = turn(v1, 17); v1 ^= v2; v2 = turn(v2, 32);                         \
	} while (0)

#define SIPHASH_AGAIN(secret)                                                                     \
	do {                                                                                      \
		v0 = (secret)[0] ^ 0x736f6d6570736575ULL;                                         \
		v1 = (secret)[1] ^ 0x646f72616e646f83ULL;                                         \
		v2 = (secret)[0] ^ 0x6c7967656e657261ULL;                                         \
		v3 = (secret)[1] ^ 0x7465646279746573ULL;                                         \
	} while (0)

#define SIPHASH_BEGIN(secret)                                                                     \
	__u64 v0, v1, v2, v3;                                                                     \
	SIPHASH_AGAIN(secret)

#define SIPHASH_WORD(word)                                                                        \
	do {                                                                                      \
		__u64 w_ = (word);                                                                \
		v3 ^= w_;                                                                         \
		ROUND; ROUND;                                                                     \
		v0 ^= w_;                                                                         \
	} while (0)

// The first eight bytes of the 128-bit output: all that the filter needs of a fingerprint.
#define SIPHASH_END                                                                               \
	({                                                                                        \
		v2 ^= 0xee;                                                                       \
		ROUND; ROUND; ROUND; ROUND;                                                       \
		v0 ^ v1 ^ v2 ^ v3;                                                                \
	})

INLINE int holds(void *filter, const struct header *header, __u64 hash)
{
	__u32 at = 1 + PREFIXES + (__u32)((hash >> 32) * header->blocks >> 32);
	const struct block *block = look_up(filter, &at);
	__u64 all = 1;

	if (!block)
		return 1;
#pragma unroll
	for (int i = 0; i < 5; i++)
		all &= block->words[hash >> (9 * i + 6) & 7] >> (hash >> 9 * i & 63);
	hash = hash * 0x9E3779B97F4A7C15ULL >> 55;
	all &= block->words[hash >> 6 & 7] >> (hash & 63);
	return all & 1;
}

struct filters {                         // in force, and another while rules change: a name passes that is in neither
	void *map[2];
	const struct header *header[2];
};

INLINE int open_filters(struct filters *out, __u64 now)
{
	__u32 at = 0;
	const struct settings *set = look_up(&settings, &at);

	if (!set || (set->until && now > set->until))
		return 0;
	// The coming one first: it is put in force before it leaves this place, so it is seen in one or the other.
	at = 1;
	out->map[1] = look_up(&filters, &at);
	at = 0;
	out->map[0] = look_up(&filters, &at);
	if (!out->map[0])
		return 0;
	out->header[0] = look_up(out->map[0], &at);
	if (!out->header[0])
		return 0;
	out->header[1] = 0;
	if (!out->map[1])
		return 1;
	out->header[1] = look_up(out->map[1], &at);
	return out->header[1] && out->header[1]->secret[0] == out->header[0]->secret[0] &&
	       out->header[1]->secret[1] == out->header[0]->secret[1];
}

// The same of a host that has URLs in the lists: only a request shows which, so hellos are not asked about for it.
INLINE __u64 of_urls(__u64 hash)
{
	return (hash ^ hash >> 29) * MIX;
}

INLINE int may_hold(const struct filters *f, __u64 hash)
{
	if (holds(f->map[0], f->header[0], hash))
		return 1;
	return f->map[1] && f->header[1] && holds(f->map[1], f->header[1], hash);
}
