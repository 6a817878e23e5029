/* Worth and P(no reaction before) of sends by node and cell, for models/curves.py, where the same is written with numpy: every number is worked out by the same
   operations in the same order, so that both give the same to the bit. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { CHANCES = 3 };
typedef double Pair __attribute__((vector_size(16)));

int curves_format(void) { return 2; }

/* `_reactions_by_numpy`: of (n, Z, G) reactions once a message is noticed; `mean` is NULL where interest does not carry over to orders, then gains are of no node. Results one after the other: P(click), P(order caused),
   P(unsubscribe), worth, P(reaction). */
void reactions(int64_t rows, int64_t nodes, int64_t cells, const double *click, const double *order, const double *mean, const double *buying,
               const double *click_factor, const double *gain_factor, const double *organic, const double *leave, const double *margin, double harm,
               double most, const double *weights, double *found) {
    const int64_t size = rows * nodes * cells;
    double *clicked = found, *gained = clicked + size, *left = gained + size, *worth = left + size, *reacts = worth + size;
    for (int64_t a = 0; a < rows; a++)
        for (int64_t z = 0; z < nodes; z++) {
            const int64_t from = (a * nodes + z) * cells;
            const double *alone = click + from, *ordered = order + a * cells, *usual = mean ? mean + a * cells : NULL;
            double *restrict to_clicked = clicked + from, *restrict to_gained = gained + from, *restrict to_left = left + from;
            double *restrict to_worth = worth + from, *restrict to_reacts = reacts + from;
            const double weight = weights[a * nodes + z], anyway = organic[a], factor = click_factor[a], scale = gain_factor[a];
            const double leaves = leave[a], earned = margin[a], buys = buying[z];
            for (int64_t k = 0; k < cells; k++) {
                const double above = ordered[k] - anyway, corrected = alone[k] * factor, limit = alone[k] > most ? alone[k] : most;
                const double q = corrected < limit ? corrected : limit, caused = scale * (above > 0 ? above : 0);
                const double tilted = usual ? caused * (buys / usual[k]) : caused, gain = tilted < 1.0 - anyway ? tilted : 1.0 - anyway;
                const double lost = (1 - q) * leaves;
                to_clicked[k] = q;
                to_gained[k] = q * gain;
                to_left[k] = lost;
                to_worth[k] = weight * (q * (earned * gain) - harm * lost);
                to_reacts[k] = q + lost;
            }
        }
}

/* Sums that go on from cell to cell wait for themselves; those of four sends or nodes side by side wait together. */
enum { ABREAST = 4 };

INLINE void some_exponents(int64_t some, int64_t hours, int64_t cells, const int64_t *last, const double *kept, const int64_t *place, const double *rate,
                           const double *factor, const int64_t *of, double *found) {
    const double *here[ABREAST], *its_rate[ABREAST];
    double its_factor[ABREAST], total[ABREAST] = {0};
    for (int64_t j = 0; j < some; j++) {
        here[j] = kept + place[j] * hours;
        its_rate[j] = rate + of[j] * hours;
        its_factor[j] = factor[of[j]];
    }
    for (int64_t g = 0, h = 0; g < cells; g++) {
        for (; h <= last[g]; h++)
            for (int64_t j = 0; j < some; j++) total[j] += here[j][h] * (its_factor[j] * its_rate[j][h]);
        for (int64_t j = 0; j < some; j++) found[j * cells + g] = -total[j];
    }
}

/* `_exponents_by_numpy`: less the hazard up to the end of each cell, of sends kept with rows of a table and read at the rates of their channels' rows. */
void exponents(int64_t sends, int64_t hours, int64_t cells, const int64_t *last, const double *kept, const int64_t *place, const double *rate,
               const double *factor, const int64_t *of, double *found) {
    int64_t a = 0;
    for (; a + ABREAST <= sends; a += ABREAST) some_exponents(ABREAST, hours, cells, last, kept, place + a, rate, factor, of + a, found + a * cells);
    for (; a < sends; a++) some_exponents(1, hours, cells, last, kept, place + a, rate, factor, of + a, found + a * cells);
}

INLINE Pair pair_at(const double *x) {
    Pair found;
    memcpy(&found, x, sizeof found);
    return found;
}

/* `_notices_by_numpy`: `noticed` holds P(not noticed by the end of the cell | delivered) and then P(noticed in it). Its products with three chances are added up to
   `sums`, shape (3, m), even and odd cells apart, of each eight the last pair first: the order of numpy's einsum on x86-64. */
void notices(int64_t sends, int64_t rows, int64_t cells, const double *delivered, const int64_t *of, const double *chances, double *noticed, double *sums) {
    for (int64_t a = 0; a < sends; a++) {
        double *here = noticed + a * cells, then = 0;
        const double arrives = delivered[of[a]], *chance[CHANCES];
        Pair total[CHANCES] = {{0, 0}};
        int64_t k = 0;
        for (; k < cells; k++) {
            const double by_then = 1.0 - here[k];
            here[k] = (by_then - then) * arrives;
            then = by_then;
        }
        for (int64_t s = 0; s < CHANCES; s++) chance[s] = chances + (s * rows + of[a]) * cells;
        for (k = 0; k + 8 <= cells; k += 8)
            for (int64_t pair = 6; pair >= 0; pair -= 2)
                for (int64_t s = 0; s < CHANCES; s++) total[s] += pair_at(here + k + pair) * pair_at(chance[s] + k + pair);
        for (; k + 2 <= cells; k += 2)
            for (int64_t s = 0; s < CHANCES; s++) total[s] += pair_at(here + k) * pair_at(chance[s] + k);
        for (int64_t s = 0; s < CHANCES; s++) {
            if (k < cells) total[s][0] += here[k] * chance[s][k];
            sums[s * sends + a] = total[s][0] + total[s][1];
        }
    }
}

INLINE void some_before(int64_t some, int64_t first, int64_t nodes, int64_t cells, const double *noticed, const int64_t *place, const int64_t *of,
                        const double *reacts_of_channel, double *before) {
    const double *here[ABREAST], *reacts[ABREAST];
    double reacted[ABREAST] = {0};
    for (int64_t j = 0; j < some; j++) {
        const int64_t a = (first + j) / nodes, z = (first + j) % nodes;
        here[j] = noticed + place[a] * cells;
        reacts[j] = reacts_of_channel + (of[a] * nodes + z) * cells;
    }
    for (int64_t k = 0; k < cells; k++)
        for (int64_t j = 0; j < some; j++) {
            before[(first + j) * cells + k] = 1.0 - reacted[j];
            reacted[j] += reacts[j][k] * here[j][k];
        }
}

/* `_drawn_by_numpy`: m sends, noticed with rows of a table, through channels whose reactions are of shape (n, Z, G); worth, then P(no reaction before). */
void drawn(int64_t sends, int64_t nodes, int64_t cells, const double *noticed, const int64_t *place, const int64_t *of, const double *worth_of_channel,
           const double *reacts_of_channel, double *found) {
    const int64_t all = sends * nodes;
    double *before = found + all * cells;
    int64_t r = 0;
    for (int64_t a = 0; a < sends; a++) {
        const double *here = noticed + place[a] * cells;
        for (int64_t z = 0; z < nodes; z++) {
            const double *its_worth = worth_of_channel + (of[a] * nodes + z) * cells;
            double *to = found + (a * nodes + z) * cells;
            for (int64_t k = 0; k < cells; k++) to[k] = its_worth[k] * here[k];
        }
    }
    for (; r + ABREAST <= all; r += ABREAST) some_before(ABREAST, r, nodes, cells, noticed, place, of, reacts_of_channel, before);
    for (; r < all; r++) some_before(1, r, nodes, cells, noticed, place, of, reacts_of_channel, before);
}

/* `plain_curves`: m sends whose lags are rows of a table, P(click) at each node, and what an unsubscribe comes to. */
void plain(int64_t sends, int64_t nodes, int64_t cells, const int64_t *row, const double *lags, const double *click, const double *uplift,
           const double *p_unsubscribe, const double *weights, double margin, double harm, double *worth, double *before) {
    for (int64_t a = 0; a < sends; a++) {
        const double *lag = lags + row[a] * cells, lost = uplift[a] < 0 ? uplift[a] : 0;
        const int earns = uplift[a] > 0;
        for (int64_t z = 0; z < nodes; z++) {
            const double q = click[a * nodes + z], other = 1 - q;
            double *to_worth = worth + (a * nodes + z) * cells, *to_before = before + (a * nodes + z) * cells, reacted = 0;
            for (int64_t k = 0; k < cells; k++) {
                const double left = p_unsubscribe[a] * lag[k] * other;
                to_worth[k] = weights[z] * ((earns ? q * lag[k] : lag[k] * lost) * margin - harm * left);
            }
            for (int64_t k = 0; k < cells; k++) {
                to_before[k] = 1 - (reacted < 1 ? reacted : 1);
                reacted += q * lag[k] + p_unsubscribe[a] * lag[k] * other;
            }
        }
    }
}
