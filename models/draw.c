/* One draw of models/policies.py, where the same is written with numpy: the first number of `numpy.random.default_rng(seed)`, which is a SeedSequence, PCG64
   (XSL-RR of 128 bits) and 53 bits of its output, and the index that it falls to. numpy promises that neither of the two changes.

   Sources: O'Neill (2014), "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number Generation"; O'Neill (2015), "Developing a
   seed_seq Alternative". */

#include <stdint.h>

enum { POOL = 4, HALF = 16 };
typedef unsigned __int128 Wide;

static uint32_t mixed(uint32_t value, uint32_t *constant, uint32_t factor) {
    value ^= *constant;
    *constant *= factor;
    value *= *constant;
    return value ^ value >> HALF;
}

static uint32_t joined(uint32_t x, uint32_t y) {
    const uint32_t found = 0xca01f9ddu * x - 0x4973f715u * y;
    return found ^ found >> HALF;
}

/* The first number in [0, 1) of a generator of that seed. */
double uniform(uint64_t seed) {
    const Wide factor = (Wide)0x2360ed051fc65da4u << 64 | 0x4385df649fccf645u;
    uint32_t pool[POOL] = {0}, constant = 0x43b0d7e5u;
    uint64_t words[POOL] = {0};
    for (int i = 0; i < POOL; i++) pool[i] = mixed(i == 0 ? (uint32_t)seed : i == 1 ? (uint32_t)(seed >> 32) : 0, &constant, 0x931e8875u);
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to) pool[to] = joined(pool[to], mixed(pool[from], &constant, 0x931e8875u));
    constant = 0x8b51f9ddu;
    for (int i = 0; i < 2 * POOL; i++) words[i / 2] |= (uint64_t)mixed(pool[i % POOL], &constant, 0x58f38dedu) << (i % 2 ? 32 : 0);
    const Wide increment = ((Wide)words[2] << 64 | words[3]) << 1 | 1;
    Wide state = increment + ((Wide)words[0] << 64 | words[1]);
    state = state * factor + increment; /* the seed is taken in */
    state = state * factor + increment;
    const uint64_t folded = (uint64_t)(state >> 64) ^ (uint64_t)state;
    const int turn = (int)(state >> 122);
    return (double)((folded >> turn | folded << (-turn & 63)) >> 11) * (1.0 / 9007199254740992.0);
}

int draw_format(void) { return 1; }

/* The index drawn with these probabilities; -1 where none is above 0. */
int64_t draw(const double *probabilities, int64_t n, uint64_t seed) {
    double total = 0, so_far = 0;
    int64_t last = -1;
    for (int64_t i = 0; i < n; i++) {
        total += probabilities[i];
        if (probabilities[i] > 0) last = i;
    }
    const double drawn = uniform(seed) * total;
    for (int64_t i = 0; i < last; i++)
        if ((so_far += probabilities[i]) > drawn) return i;
    return last;
}
