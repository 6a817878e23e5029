/* Raw scores of rows that share most features, from the tables of models/walk.py, which says how and why.

   A column of which all rows have the same value is looked up once for all of them. Of the others those that change seldom from row to row, as features of
   the channel do, are looked up where one of them changes, and the rest for each row. Scores are added up tree by tree from 0, as LightGBM adds them. Nothing
   is kept between calls, so any number of threads may call at a time. */

#include <stdint.h>
#include <string.h>

enum { MOST_COLUMNS = 4096, TOGETHER = 4, SELDOM = 4 };
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t columns;            /* that any split asks */
    const int32_t *column;      /* which of the matrix each is */
    const int64_t *begin;       /* its first row of the table */
    const int32_t *categories;  /* how many codes it tells apart; -1 of a number */
    const int64_t *cut;         /* where its thresholds begin, with one more entry for the end */
    const double *threshold;    /* in order */
    int64_t trees;
    const void *table;          /* sets of leaves, rows x trees */
    int64_t leaves;             /* places for values of each tree */
    const double *value;        /* trees x leaves */
} Model;

static int64_t place(const Model *m, int64_t i, double x) {
    int64_t begin = m->begin[i];
    if (m->categories[i] >= 0) return x > -1 && x < m->categories[i] ? begin + 1 + (int64_t)x : begin;
    if (x != x) return begin;
    if (x >= -(double)1e-35f && x <= (double)1e-35f) return begin + 1;
    const double *low = m->threshold + m->cut[i];
    int64_t count = m->cut[i + 1] - m->cut[i];
    const double *first = low;
    while (count > 0) {
        int64_t half = count / 2;
        if (low[half] < x) {
            low += half + 1;
            count -= half + 1;
        } else count = half;
    }
    return begin + 2 + (low - first);
}

/* Whether a column of a row is the same, to the bit, as that of the row before. */
INLINE int is_kept(const double *x, int64_t width) { return memcmp(x, x - width, sizeof *x) == 0; }

#define WALK(NAME, SET, FIRST)                                                                                        \
    INLINE void NAME(const Model *m, const double *matrix, int64_t rows, int64_t width, double *score, SET *sets) {   \
        const SET *table = m->table;                                                                                  \
        const int64_t trees = m->trees;                                                                               \
        int32_t own[MOST_COLUMNS]; /* columns that change: the first of them seldom, the last of them often */        \
        int64_t at[MOST_COLUMNS];                                                                                     \
        int64_t seldom = 0, often = MOST_COLUMNS;                                                                     \
        SET *base = sets + TOGETHER * trees, *near = base + trees;                                                    \
        memset(base, 0xff, sizeof(SET) * trees);                                                                      \
        for (int64_t i = 0; i < m->columns; i++) {                                                                    \
            const double *x = matrix + m->column[i];                                                                  \
            int64_t changes = 0;                                                                                      \
            for (int64_t r = 1; r < rows && changes * SELDOM <= rows; r++) changes += !is_kept(x + r * width, width); \
            const int64_t where = place(m, i, *x);                                                                    \
            if (changes > 0) {                                                                                        \
                const int64_t j = changes * SELDOM <= rows ? seldom++ : --often;                                      \
                own[j] = (int32_t)i;                                                                                  \
                at[j] = where;                                                                                        \
                continue;                                                                                             \
            }                                                                                                         \
            const SET *row = table + where * trees;                                                                   \
            for (int64_t t = 0; t < trees; t++) base[t] &= row[t];                                                    \
        }                                                                                                             \
        for (int64_t first = 0; first < rows; first += TOGETHER) {                                                    \
            int64_t some = rows - first < TOGETHER ? rows - first : TOGETHER;                                         \
            for (int64_t k = 0; k < some; k++) {                                                                      \
                const double *x = matrix + (first + k) * width;                                                       \
                SET *left = sets + k * trees;                                                                         \
                int is_new = first + k == 0;                                                                          \
                for (int64_t j = 0; j < seldom && first + k > 0; j++) {                                               \
                    const double *here = x + m->column[own[j]];                                                       \
                    if (is_kept(here, width)) continue;                                                               \
                    at[j] = place(m, own[j], *here);                                                                  \
                    is_new = 1;                                                                                       \
                }                                                                                                     \
                if (is_new) {                                                                                         \
                    memcpy(near, base, sizeof(SET) * trees);                                                          \
                    for (int64_t j = 0; j < seldom; j++) {                                                            \
                        const SET *row = table + at[j] * trees;                                                       \
                        for (int64_t t = 0; t < trees; t++) near[t] &= row[t];                                        \
                    }                                                                                                 \
                }                                                                                                     \
                for (int64_t j = often; j < MOST_COLUMNS; j++) {                                                      \
                    const double *here = x + m->column[own[j]];                                                       \
                    if (first + k > 0 && !is_kept(here, width)) at[j] = place(m, own[j], *here);                      \
                    const SET *row = table + at[j] * trees;                                                           \
                    if (j == often)                                                                                   \
                        for (int64_t t = 0; t < trees; t++) left[t] = near[t] & row[t];                               \
                    else                                                                                              \
                        for (int64_t t = 0; t < trees; t++) left[t] &= row[t];                                        \
                }                                                                                                     \
                if (often == MOST_COLUMNS) memcpy(left, near, sizeof(SET) * trees);                                   \
            }                                                                                                         \
            for (int64_t k = some; k < TOGETHER; k++) memcpy(sets + k * trees, sets, sizeof(SET) * trees);            \
            double a = 0, b = 0, c = 0, d = 0;                                                                        \
            const double *value = m->value;                                                                           \
            for (int64_t t = 0; t < trees; t++, value += m->leaves) {                                                 \
                a += value[FIRST(sets[t])];                                                                           \
                b += value[FIRST(sets[t + trees])];                                                                   \
                c += value[FIRST(sets[t + 2 * trees])];                                                               \
                d += value[FIRST(sets[t + 3 * trees])];                                                               \
            }                                                                                                         \
            const double sum[TOGETHER] = {a, b, c, d};                                                                \
            memcpy(score + first, sum, sizeof(double) * some);                                                        \
        }                                                                                                             \
    }

WALK(walk_narrow, uint32_t, __builtin_ctz)
WALK(walk_wide, uint64_t, __builtin_ctzll)

int walk_format(void) { return 2; }

/* `sets` has room for 6 sets of each tree. */
void walk(const Model *m, const double *matrix, int64_t rows, int64_t width, double *score, void *sets, int is_wide) {
    if (is_wide) walk_wide(m, matrix, rows, width, score, sets);
    else walk_narrow(m, matrix, rows, width, score, sets);
}
