/* Worth and P(no reaction before) of sends by node and cell, for models/curves.py, where the same is written with numpy: every number is worked out by the same
   operations in the same order, so that both give the same to the bit. */

#include <stdint.h>

int curves_format(void) { return 1; }

/* `_Reactions.along`: m sends, noticed with (m, G), through channels whose reactions are of shape (n, Z, G). */
void along(int64_t sends, int64_t nodes, int64_t cells, const double *noticed, const int64_t *of, const double *worth_of_channel,
           const double *reacts_of_channel, double *worth, double *before) {
    for (int64_t a = 0; a < sends; a++)
        for (int64_t z = 0; z < nodes; z++) {
            const int64_t from = (of[a] * nodes + z) * cells, to = (a * nodes + z) * cells;
            const double *here = noticed + a * cells, *its_worth = worth_of_channel + from, *reacts = reacts_of_channel + from;
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
