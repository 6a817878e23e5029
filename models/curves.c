/* Worth and P(no reaction before) of sends by node and cell, for models/curves.py, where the same is written with numpy: every number is worked out by the same
   operations in the same order, so that both give the same to the bit. */

#include <stdint.h>
#include <string.h>

typedef double Pair __attribute__((vector_size(16)));

int curves_format(void) { return 2; }

/* `_reactions_by_numpy`: of (n, Z, G) reactions once a message is noticed; `mean` is NULL where interest does not carry over to orders, then gains are of no node. */
void reactions(int64_t rows, int64_t nodes, int64_t cells, const double *click, const double *order, const double *mean, const double *buying,
               const double *click_factor, const double *gain_factor, const double *organic, const double *leave, const double *margin, double harm,
               double most, const double *weights, double *clicked, double *gained, double *left, double *worth, double *reacts) {
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

/* `_exponents_by_numpy`: less the hazard up to the end of each cell, of sends kept with rows of a table and read at the rates of their channels' rows. */
void exponents(int64_t sends, int64_t hours, int64_t cells, const int64_t *last, const double *kept, const int64_t *place, const double *rate,
               const double *factor, const int64_t *of, double *found) {
    for (int64_t a = 0; a < sends; a++) {
        const double *here = kept + place[a] * hours, *its_rate = rate + of[a] * hours;
        const double its_factor = factor[of[a]];
        double total = 0;
        for (int64_t g = 0, h = 0; g < cells; g++) {
            for (; h <= last[g]; h++) total += here[h] * (its_factor * its_rate[h]);
            found[a * cells + g] = -total;
        }
    }
}

/* The sum of products, even and odd cells apart, of each eight the last pair first: the order of numpy's einsum on x86-64. */
static double sum_of_products(const double *x, const double *y, int64_t count) {
    Pair total = {0, 0}, a, b;
    int64_t g = 0;
    for (; g + 8 <= count; g += 8)
        for (int64_t pair = 6; pair >= 0; pair -= 2) {
            memcpy(&a, x + g + pair, sizeof a);
            memcpy(&b, y + g + pair, sizeof b);
            total += a * b;
        }
    for (; g + 2 <= count; g += 2) {
        memcpy(&a, x + g, sizeof a);
        memcpy(&b, y + g, sizeof b);
        total += a * b;
    }
    if (g < count) total[0] += x[g] * y[g];
    return total[0] + total[1];
}

/* `_notices_by_numpy`: `noticed` holds P(not noticed by the end of the cell | delivered) and then P(noticed in it); `sums` are of three chances, shape (3, m). */
void notices(int64_t sends, int64_t rows, int64_t cells, const double *delivered, const int64_t *of, const double *chances, double *noticed, double *sums) {
    for (int64_t a = 0; a < sends; a++) {
        double *here = noticed + a * cells, then = 0;
        for (int64_t k = 0; k < cells; k++) {
            const double by_then = 1.0 - here[k];
            here[k] = (by_then - then) * delivered[of[a]];
            then = by_then;
        }
        for (int64_t s = 0; s < 3; s++) sums[s * sends + a] = sum_of_products(here, chances + (s * rows + of[a]) * cells, cells);
    }
}

/* `_drawn_by_numpy`: m sends, noticed with rows of a table, through channels whose reactions are of shape (n, Z, G). */
void drawn(int64_t sends, int64_t nodes, int64_t cells, const double *noticed, const int64_t *place, const int64_t *of, const double *worth_of_channel,
           const double *reacts_of_channel, double *worth, double *before) {
    for (int64_t a = 0; a < sends; a++)
        for (int64_t z = 0; z < nodes; z++) {
            const int64_t from = (of[a] * nodes + z) * cells, to = (a * nodes + z) * cells;
            const double *here = noticed + place[a] * cells, *its_worth = worth_of_channel + from, *reacts = reacts_of_channel + from;
            double reacted = 0;
            for (int64_t k = 0; k < cells; k++) worth[to + k] = its_worth[k] * here[k];
            for (int64_t k = 0; k < cells; k++) {
                before[to + k] = 1.0 - reacted;
                reacted += reacts[k] * here[k];
            }
        }
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
