/* The best cascades of models/planner.py, which says how they are valued and in which order the sums are taken.

   A sum is begun only where a bound says that it could be among the best; what is left out is worse by more than rounding, so that changes nothing that is
   found. Before its start a send is worth 0 and has met no reaction, which multiplies by 1 exactly, so that its sums go on from there with what was added up
   of the set before.

   Nodes lie side by side, four to a vector, and are added up at the same time, each in its own order. At least one lane is left over, in which E and N are 0
   and P and B are 1.

   A bound is the product of a row of the set and one of the send c. For the cell s in which c starts, and E+ the sum of what is above 0, it is

       sum_g E B_c + P N_c  <=  sum_{g<s} E + sum_{g>=s} E+  +  P(s) N_c(s) + max_{g>s} P x sum_{g>s} N_c+.

   Where reactions come by lags that sends have in common, B_c = 1 - r L and N_c = v l but for the price at s, with l the share of the reactions in a cell and
   L those before it, next to nothing is left to bound:

       sum_g E B_c + P N_c  =  sum_g E - r sum_g l(g) sum_{j>g} E(j) + v sum_g l P + (N_c(s) - v l(s)) P(s)

   but for rounding, for which every bound has room. A price is shared by the nodes as their weights w say, so that the last term, summed over nodes, is
   max_z (N_c(s) - v l(s)) / w  x  sum_z w P(s), and never more than that. Lags of one kind fall alike from cell to cell, l(g + 1) = d(g) l(g) from the
   start on, so that one pass gives the sums of all of them: sum_{g>=s} l(g) X(g) = l(s) S(s), S(g) = X(g) + d(g) S(g + 1). */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAIRS = 8, LANES = 4, MOST_BLOCKS = 4 };
#define ROUNDING 1e-9 /* more than rounding can make of what is added up, as a part of it */
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default"))) /* each lane adds up by itself, so that both give the same to the bit */
#else
#define WIDE
#endif

typedef double Lanes __attribute__((vector_size(8 * LANES)));
typedef int64_t Bits __attribute__((vector_size(8 * LANES)));

typedef struct {
    int64_t sends, nodes, cells, steps;
    int64_t pairs;                 /* of each first send for which a third is sought, at most MOST_PAIRS */
    int64_t closed_second;         /* whether no paid send may be the second step */
    int64_t closed_third;
    const double *net;             /* worth by send, node and cell, price taken off */
    const double *before;          /* P(no reaction before), by send, node and cell */
    const double *pending;         /* by node and cell */
    const double *weights;         /* of nodes, above 0 */
    const int64_t *start, *ready;  /* cells, by send */
    const int64_t *channel;        /* by send */
    const uint8_t *is_paid;
    int64_t shapes;                /* how many lags sends have in common; 0 where their curves are of no such shape */
    const int64_t *shape;          /* by send; sends of one shape start alike */
    const double *lag;             /* shares of the reactions by shape and cell */
    int64_t kinds;                 /* of lags; each falls in its own way */
    const int64_t *kind;           /* by shape */
    const double *reacts, *gains;  /* by send and node: r and v above */
    double *alone, *pair, *value;  /* results, by send */
    int64_t *second, *third;
    const uint8_t *is_free;        /* by send; NULL where the next is not asked for */
    double *free_most;             /* result: the greatest value of a free send with none but free ones after it; -inf where none is free */
} Problem;

typedef struct {
    int64_t channel, start, send;
} Key;

/* What sends of one channel may come with a set: places in the order, from a begin up to before its end. */
typedef struct {
    int64_t begin[2], end[2];
    double top;                    /* the greatest bound of one of them */
} Range;

typedef struct {
    const Problem *p;
    int64_t blocks;                /* vectors to a cell */
    int64_t channels, rows;        /* how many rows of bounds a set has */
    Key *order;                    /* the sends by channel and start */
    int64_t *first;                /* by channel and cell, the place in order of the channel's first send that starts there or later; of one more channel, the end */
    int64_t *upto;                 /* likewise, of the channel's first send that no send of that cell may follow */
    int64_t *row;                  /* by place in order, which row of bounds is the send's: that of its start, and of its kind of lags */
    int is_orderly;                /* whether of the sends of a channel those that start later are followed later */
    double *fall;                  /* d by kind and cell */
    Lanes weights[MOST_BLOCKS];
    Lanes *net, *before;           /* by send and cell */
    Lanes *parts;                  /* by place in order, what a row of bounds is multiplied by */
    double *excess;                /* by place in order, what rounding may make of its part of a bound */
    int is_bounded;                /* whether 0 <= before <= 1, and nothing happens before the start */
    int is_still;                  /* whether nothing is pending */
    double nothing;                /* the sum of pending */
    /* Of the set that is looked at: */
    Range *ranges;                 /* by channel */
    double *likely;                /* bounds, by place in order */
    double *worth;                 /* sums, by place in order */
    int64_t *known;                /* of which set the sum is, by place in order */
    int64_t number;                /* of the set */
} Plan;

/* What a set of sends comes to: E and P of models/planner.py, by cell. */
typedef struct {
    Lanes *earned, *left;
    Lanes *so_far;                 /* the sum of earned before each cell */
    Lanes *rows;                   /* two for each vector of a cell; the lane of the first that is left over is multiplied by the price */
    double *bases;                 /* what is added to the product of each row */
    double all;                    /* the sum of earned, and room for rounding */
} Set;

typedef struct {
    double value;
    int64_t send, channel;
} Best;

/* Macros: vectors are passed to no function, since how depends on the processor. */
#define SIZE_OF(X) ((Lanes)((Bits)(X) & INT64_MAX))
#define SUM_OF(X) ({ const Lanes x_ = (X); (x_[0] + x_[2]) + (x_[1] + x_[3]); })
#define EITHER(IS_FIRST, FIRST, SECOND) ((Lanes)(((IS_FIRST) & (Bits)(FIRST)) | (~(IS_FIRST) & (Bits)(SECOND))))

/* From which cell on the sums of a send begin. */
INLINE int64_t begin_of(const Plan *plan, int64_t send) { return plan->is_bounded ? plan->p->start[send] : 0; }

/* The value of a set and one more send. */
INLINE double with_one(const Plan *plan, const Set *a, int64_t send, const int64_t blocks) {
    const int64_t cells = plan->p->cells, nodes = plan->p->nodes, begin = begin_of(plan, send);
    const Lanes *before = plan->before + send * cells * blocks, *net = plan->net + send * cells * blocks;
    double total = 0;
    for (int64_t b = 0; b < blocks; b++) {
        Lanes of_earned = a->so_far[begin * blocks + b], of_net = {0};
        for (int64_t k = begin * blocks + b; k < cells * blocks; k += blocks) {
            of_earned += a->earned[k] * before[k];
            of_net += a->left[k] * net[k];
        }
        const Lanes both = of_earned + of_net;
        for (int64_t z = 0; z < LANES; z++)
            if (b * LANES + z < nodes) total += both[z];
    }
    return total - plan->nothing;
}

/* Work out of a set the rows of sends that start at this cell or later. */
INLINE void find_rows_by_start(const Plan *plan, Set *a, int64_t from, const int64_t blocks) {
    Lanes above[MOST_BLOCKS] = {{0}}, most[MOST_BLOCKS] = {{0}};
    for (int64_t k = plan->p->cells - 1; k >= from; k--) {
        Lanes *row = a->rows + k * 2 * blocks;
        double base = a->all;
        for (int64_t b = 0; b < blocks; b++) {
            const Lanes earned = a->earned[k * blocks + b], left = a->left[k * blocks + b];
            above[b] += EITHER(earned > 0, earned, (Lanes){0});
            base += SUM_OF(a->so_far[k * blocks + b] + above[b]);
            row[b] = left;
            row[blocks + b] = most[b];
            most[b] = EITHER(left > most[b], left, most[b]);
        }
        a->bases[k] = base;
    }
}

/* The same where sends have lags in common. */
INLINE void find_rows_by_lag(const Plan *plan, Set *a, int64_t from, const int64_t blocks) {
    const int64_t cells = plan->p->cells, nodes = plan->p->nodes;
    for (int64_t kind = 0; kind < plan->p->kinds; kind++) {
        const double *fall = plan->fall + kind * cells;
        Lanes later[MOST_BLOCKS] = {{0}}, of_later[MOST_BLOCKS] = {{0}}, of_left[MOST_BLOCKS] = {{0}};
        for (int64_t k = cells - 1; k >= from; k--) {
            Lanes *row = a->rows + (kind * cells + k) * 2 * blocks;
            double price = 0;
            for (int64_t b = 0; b < blocks; b++) {
                const Lanes left = a->left[k * blocks + b];
                of_later[b] = later[b] + fall[k] * of_later[b];
                of_left[b] = left + fall[k] * of_left[b];
                later[b] += a->earned[k * blocks + b];
                row[b] = of_later[b];
                row[blocks + b] = of_left[b];
                price += SUM_OF(plan->weights[b] * left);
            }
            ((double *)row)[nodes] = price;
        }
    }
}

/* Work out what a set comes to with one more send, and what bounds need of sends that start at one cell or later. Nothing happened before `origin`. */
INLINE void grow(const Plan *plan, const Set *a, int64_t send, Set *to, int64_t origin, int64_t from, const int64_t blocks) {
    const int64_t cells = plan->p->cells;
    const Lanes *before = plan->before + send * cells * blocks, *net = plan->net + send * cells * blocks;
    double size = fabs(plan->nothing), all = -plan->nothing;
    for (int64_t b = 0; b < blocks; b++) {
        Lanes sum = {0}, sizes = {0};
        for (int64_t k = origin * blocks + b; k < cells * blocks; k += blocks) {
            const Lanes earned = a->earned[k] * before[k] + a->left[k] * net[k];
            to->earned[k] = earned;
            to->left[k] = a->left[k] * before[k];
            to->so_far[k] = sum;
            sum += earned;
            sizes += SIZE_OF(earned);
        }
        all += SUM_OF(sum);
        size += SUM_OF(sizes);
    }
    if (plan->p->shapes) {
        to->all = all + ROUNDING * size;
        find_rows_by_lag(plan, to, from, blocks);
    } else {
        to->all = ROUNDING * size - plan->nothing;
        find_rows_by_start(plan, to, from, blocks);
    }
}

INLINE int is_better(double value, int64_t send, const Best *than) {
    return value > than->value || (value == than->value && send < than->send);
}

/* Where a send through a channel would stand among the best, of which no two are of one channel. */
INLINE int64_t place_of(const Best *best, int64_t count, int64_t channel) {
    int64_t i = 0;
    while (i < count - 1 && best[i].channel != channel) i++;
    return i;
}

INLINE int may_follow(const Problem *p, int64_t a, int64_t b, int64_t is_closed) {
    return (p->channel[a] != p->channel[b]) & (p->start[b] >= p->ready[a]) & !(is_closed & p->is_paid[b]);
}

/* Whether a send may come with a set: after `first`, or where `then` is a send, after both or between them. */
INLINE int is_open(const Problem *p, int64_t first, int64_t then, int64_t c) {
    const int is_second = may_follow(p, first, c, p->closed_second);
    if (then < 0) return is_second;
    return (p->channel[first] != p->channel[c]) & (may_follow(p, then, c, p->closed_third) | (is_second & may_follow(p, c, then, p->closed_third)));
}

INLINE int64_t at_most(int64_t x, int64_t most) { return x < 0 ? 0 : x < most ? x : most; }

/* From which cell on a send may start that comes after `first`, or where `then` is a send, after both or between them. */
INLINE int64_t earliest(const Problem *p, int64_t first, int64_t then) {
    const int64_t from = p->ready[first];
    return at_most(then >= 0 && p->ready[then] < from ? p->ready[then] : from, p->cells);
}

/* Find out what a set and each send that may come with it cannot add up to more than. All such sends are in the ranges, and some others may be. */
INLINE void bound_each(Plan *plan, const Set *a, int64_t first, int64_t then, const int64_t blocks) {
    const Problem *p = plan->p;
    const int64_t cells = p->cells, from = earliest(p, first, then);
    plan->number++;
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        const int64_t *places = plan->first + channel * (cells + 1), end = places[cells + 1];
        Range *range = plan->ranges + channel;
        const int is_out = channel == p->channel[first] || (then >= 0 && channel == p->channel[then]);
        *range = (Range){.begin = {is_out ? end : places[from], end}, .end = {end, end}, .top = -INFINITY};
        if (!is_out && then >= 0 && plan->is_orderly) { /* between the two, and after both */
            const int64_t upto = plan->upto[channel * (cells + 1) + at_most(p->start[then], cells)], after = places[at_most(p->ready[then], cells)];
            range->begin[0] = places[at_most(p->ready[first], cells)];
            range->end[0] = upto < range->begin[0] ? range->begin[0] : upto;
            range->begin[1] = after < range->end[0] ? range->end[0] : after;
        }
        double top = -INFINITY;
        for (int part = 0; part < 2; part++)
            for (int64_t i = range->begin[part]; i < range->end[part]; i++) {
                const Lanes *row = a->rows + plan->row[i] * 2 * blocks, *mine = plan->parts + i * 2 * blocks;
                Lanes sum = row[0] * mine[0];
                for (int64_t b = 1; b < 2 * blocks; b++) sum += row[b] * mine[b];
                const double base = p->shapes ? a->all : a->bases[plan->row[i]];
                const double bound = plan->is_bounded ? SUM_OF(sum) + (base + plan->excess[i]) : INFINITY;
                plan->likely[i] = bound;
                top = bound > top ? bound : top;
            }
        range->top = top;
    }
}

/* Add up a set and the send at a place in the order, and put it among the best if it is. */
INLINE void try_one(Plan *plan, const Set *a, int64_t i, Best *best, int64_t count, const int64_t blocks) {
    const Key key = plan->order[i];
    if (plan->known[i] != plan->number) {
        plan->known[i] = plan->number;
        plan->worth[i] = with_one(plan, a, key.send, blocks);
    }
    const Best found = {plan->worth[i], key.send, key.channel};
    int64_t place = place_of(best, count, found.channel);
    if (!is_better(found.value, found.send, best + place)) return;
    for (; place > 0 && is_better(found.value, found.send, best + place - 1); place--) best[place] = best[place - 1];
    best[place] = found;
}

INLINE int may_be(const Plan *plan, int64_t i, int64_t first, int64_t then, int only_free) {
    const int64_t send = plan->order[i].send;
    return (!only_free || plan->p->is_free[send]) && is_open(plan->p, first, then, send);
}

/* Find the best sends to come with a set, of those worth more than this. The likeliest of the likeliest channels are tried first. */
INLINE void seek(Plan *plan, const Set *a, int64_t first, int64_t then, int only_free, double least, Best *best, int64_t count, const int64_t blocks) {
    int64_t last = -1;
    for (int64_t i = 0; i < count; i++) best[i] = (Best){least, -1, -1};
    for (int64_t i = 0; i < count; i++) {
        int64_t channel = -1;
        for (int64_t c = 0; c < plan->channels; c++) {
            const double top = plan->ranges[c].top;
            const int is_after = last < 0 || top < plan->ranges[last].top || (top == plan->ranges[last].top && c > last);
            if (is_after && top >= least && (channel < 0 || top > plan->ranges[channel].top)) channel = c;
        }
        if (channel < 0) return;
        const Range *range = plan->ranges + channel;
        int is_tried = 0;
        for (int part = 0; part < 2 && !is_tried; part++)
            for (int64_t j = range->begin[part]; j < range->end[part] && !is_tried; j++)
                if (plan->likely[j] == range->top) {
                    is_tried = 1;
                    if (may_be(plan, j, first, then, only_free)) try_one(plan, a, j, best, count, blocks);
                }
        last = channel;
    }
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        const Range *range = plan->ranges + channel;
        double at_least = best[place_of(best, count, channel)].value;
        if (range->top < at_least) continue;
        for (int part = 0; part < 2; part++)
            for (int64_t j = range->begin[part]; j < range->end[part]; j++) {
                if (plan->likely[j] < at_least || !may_be(plan, j, first, then, only_free)) continue;
                try_one(plan, a, j, best, count, blocks);
                at_least = best[place_of(best, count, channel)].value;
            }
    }
}

INLINE int is_among(const Best *best, int64_t count, int64_t send) {
    for (int64_t i = 0; i < count; i++)
        if (best[i].send == send) return 1;
    return 0;
}

INLINE void plan_each(Plan *plan, Set *sets, const int64_t blocks) {
    const Problem *p = plan->p;
    const int is_split = p->is_free != NULL;
    Set *none = sets, *one = sets + 1, *two = sets + 2;
    double most = -INFINITY;
    for (int64_t a = 0; a < p->sends; a++) {
        p->alone[a] = p->pair[a] = p->value[a] = with_one(plan, none, a, blocks);
        p->second[a] = p->third[a] = -1;
        if (is_split && p->is_free[a] && p->alone[a] > most) most = p->alone[a];
    }
    for (int64_t a = 0; a < p->sends && p->steps >= 2; a++) {
        const int is_free = is_split && p->is_free[a];
        const int64_t origin = plan->is_still ? begin_of(plan, a) : 0;
        Best seconds[MOST_PAIRS], free_seconds[MOST_PAIRS], third;
        int64_t count = 0, free_count = 0;
        grow(plan, none, a, one, origin, earliest(p, a, -1), blocks);
        bound_each(plan, one, a, -1, blocks);
        seek(plan, one, a, -1, 0, -INFINITY, seconds, p->pairs, blocks);
        while (count < p->pairs && seconds[count].send >= 0) count++;
        if (count && seconds->value > p->value[a]) {
            p->value[a] = p->pair[a] = seconds->value;
            p->second[a] = seconds->send;
        }
        if (is_free) {
            seek(plan, one, a, -1, 1, -INFINITY, free_seconds, p->pairs, blocks);
            while (free_count < p->pairs && free_seconds[free_count].send >= 0) free_count++;
            if (free_count && free_seconds->value > most) most = free_seconds->value;
        }
        if (p->steps < 3) continue;
        for (int64_t i = 0; i < count + free_count; i++) { /* first what is best of all, then what is best of those that are free */
            const int is_best = i < count;
            const Best *pair = is_best ? seconds + i : free_seconds + (i - count);
            if (!is_best && is_among(seconds, count, pair->send)) continue;
            const int64_t then = pair->send;
            grow(plan, one, then, two, origin, earliest(p, a, then), blocks);
            bound_each(plan, two, a, then, blocks);
            if (is_best) {
                seek(plan, two, a, then, 0, p->value[a], &third, 1, blocks);
                if (third.send >= 0) {
                    const int is_last = may_follow(p, then, third.send, p->closed_third);
                    p->value[a] = third.value;
                    p->pair[a] = is_last ? pair->value : with_one(plan, one, third.send, blocks);
                    p->second[a] = is_last ? then : third.send;
                    p->third[a] = is_last ? third.send : then;
                }
            }
            if (is_free && (!is_best || is_among(free_seconds, free_count, then))) {
                seek(plan, two, a, then, 1, most, &third, 1, blocks);
                if (third.send >= 0) most = third.value;
            }
        }
    }
    if (is_split) *p->free_most = most;
}

static int by_channel_and_start(const void *one, const void *two) {
    const Key *a = one, *b = two;
    if (a->channel != b->channel) return a->channel < b->channel ? -1 : 1;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->send < b->send ? -1 : a->send > b->send;
}

/* Put the sends in order, and find where each channel's begin that start at a cell or later, and that no send of a cell may follow. */
static void put_in_order(Plan *plan) {
    const Problem *p = plan->p;
    int is_in_order = 1;
    for (int64_t i = 0; i < p->sends; i++) {
        plan->order[i] = (Key){p->channel[i], p->start[i], i};
        is_in_order &= i == 0 || by_channel_and_start(plan->order + i - 1, plan->order + i) < 0;
    }
    if (!is_in_order) qsort(plan->order, p->sends, sizeof(Key), by_channel_and_start);
    int64_t begin = 0;
    plan->is_orderly = 1;
    for (int64_t channel = 0; channel <= plan->channels; channel++) {
        int64_t *first = plan->first + channel * (p->cells + 1), *upto = plan->upto + channel * (p->cells + 1), end = begin, i = begin, j = begin;
        while (end < p->sends && plan->order[end].channel == channel) end++;
        for (int64_t cell = 0; cell <= p->cells; cell++) {
            while (i < end && plan->order[i].start < cell) i++;
            while (j < end && p->ready[plan->order[j].send] <= cell) j++;
            first[cell] = i;
            upto[cell] = j;
        }
        for (int64_t k = begin + 1; k < end; k++) plan->is_orderly &= p->ready[plan->order[k].send] >= p->ready[plan->order[k - 1].send];
        begin = end;
    }
}

/* Work out what hangs on when sends are made alone. */
static void prepare_times(Plan *plan) {
    const Problem *p = plan->p;
    put_in_order(plan);
    for (int64_t i = 0; i < p->shapes; i++) {
        const double *lag = p->lag + i * p->cells;
        for (int64_t k = 0; k < p->cells - 1; k++)
            if (lag[k] > 0) plan->fall[p->kind[i] * p->cells + k] = lag[k + 1] / lag[k];
    }
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t send = plan->order[i].send;
        plan->row[i] = p->start[send] + (p->shapes ? p->kind[p->shape[send]] * p->cells : 0);
        plan->known[i] = -1;
    }
    for (int64_t z = 0; z < p->nodes; z++) plan->weights[z / LANES][z % LANES] = p->weights[z];
}

/* Lay the sends out by cell, and find out whether bounds hold. */
static void lay_out(Plan *plan) {
    const Problem *p = plan->p;
    const int64_t cells = p->cells, nodes = p->nodes, lanes = plan->blocks * LANES;
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t send = plan->order[i].send;
        double *to_before = (double *)(plan->before + send * cells * plan->blocks), *to_net = (double *)(plan->net + send * cells * plan->blocks), size = 0;
        int is_bounded = 1;
        for (int64_t k = 0; k < cells * lanes; k++) to_before[k] = 1, to_net[k] = 0;
        for (int64_t z = 0; z < nodes; z++) {
            const double *before = p->before + (send * nodes + z) * cells, *net = p->net + (send * nodes + z) * cells;
            for (int64_t k = 0; k < cells; k++) {
                to_before[k * lanes + z] = before[k];
                to_net[k * lanes + z] = net[k];
                size += fabs(net[k]);
                is_bounded &= (before[k] >= 0) & (before[k] <= 1);
            }
            for (int64_t k = 0; k < p->start[send]; k++) is_bounded &= (before[k] == 1) & (net[k] == 0);
        }
        plan->excess[i] = ROUNDING * size;
        plan->is_bounded &= is_bounded;
    }
}

/* Work out of each send what bounds need. */
static void prepare_parts(Plan *plan) {
    const Problem *p = plan->p;
    const int64_t cells = p->cells, nodes = p->nodes;
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t send = plan->order[i].send, start = p->start[send];
        double *of_later = (double *)(plan->parts + i * 2 * plan->blocks), *of_left = of_later + plan->blocks * LANES, price = -INFINITY;
        for (int64_t z = 0; z < nodes; z++) {
            const double *net = p->net + (send * nodes + z) * cells;
            if (p->shapes) {
                const double first = p->lag[p->shape[send] * cells + start], gain = p->gains[send * nodes + z] * first, other = (net[start] - gain) / p->weights[z];
                of_later[z] = -p->reacts[send * nodes + z] * first;
                of_left[z] = gain;
                price = other > price ? other : price;
            } else {
                double sum = 0;
                for (int64_t k = start + 1; k < cells; k++) sum += net[k] > 0 ? net[k] : 0;
                of_later[z] = net[start];
                of_left[z] = sum;
            }
        }
        if (p->shapes) of_later[nodes] = price;
    }
}

WIDE static void plan_by_three(Plan *plan, Set *sets) { plan_each(plan, sets, 1); }

static void plan_all(Plan *plan, Set *sets) {
    if (plan->blocks == 1) plan_by_three(plan, sets);
    else plan_each(plan, sets, plan->blocks);
}

typedef struct {
    Plan plan;
    Set sets[3];
    void *room;
} Desk;

static size_t take(size_t *used, int64_t count, size_t size) {
    const size_t begin = *used;
    *used += (count * size + sizeof(Lanes) - 1) / sizeof(Lanes) * sizeof(Lanes);
    return begin;
}

/* Make room for planning, and work out what hangs on when sends are made alone; 0 where there is no memory. */
static int open_desk(Desk *desk, const Problem *p) {
    const int64_t m = p->sends, blocks = p->nodes / LANES + 1, cells = p->cells, rows = p->shapes ? p->kinds * cells : cells;
    int64_t channels = 0;
    for (int64_t i = 0; i < m; i++)
        if (p->channel[i] >= channels) channels = p->channel[i] + 1;
    const int64_t table = (channels + 1) * (cells + 1);
    size_t used = 0, places[12], of_sets[3][5];
    const struct { int64_t count; size_t size; } wanted[12] = {
        {m * cells * blocks, sizeof(Lanes)}, {m * cells * blocks, sizeof(Lanes)}, {m * 2 * blocks, sizeof(Lanes)}, {m, 8}, {m, 8}, {m, 8},
        {m, 8}, {m, 8}, {m, sizeof(Key)}, {table, 8}, {table, 8}, {channels, sizeof(Range)},
    };
    for (int i = 0; i < 12; i++) places[i] = take(&used, wanted[i].count, wanted[i].size);
    const size_t fall = take(&used, rows, 8);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) of_sets[i][j] = take(&used, cells * blocks, sizeof(Lanes));
        of_sets[i][3] = take(&used, rows * 2 * blocks, sizeof(Lanes));
        of_sets[i][4] = take(&used, rows, 8);
    }
    char *room = aligned_alloc(sizeof(Lanes), used);
    if (room == NULL) return 0;
    memset(room + places[2], 0, used - places[2]);
    *desk = (Desk){.room = room, .plan = {.p = p, .blocks = blocks, .channels = channels, .rows = rows, .is_bounded = 1, .is_still = 1}};
    Plan *plan = &desk->plan;
    plan->net = (Lanes *)(room + places[0]);
    plan->before = (Lanes *)(room + places[1]);
    plan->parts = (Lanes *)(room + places[2]);
    plan->excess = (double *)(room + places[3]);
    plan->likely = (double *)(room + places[4]);
    plan->worth = (double *)(room + places[5]);
    plan->known = (int64_t *)(room + places[6]);
    plan->row = (int64_t *)(room + places[7]);
    plan->order = (Key *)(room + places[8]);
    plan->first = (int64_t *)(room + places[9]);
    plan->upto = (int64_t *)(room + places[10]);
    plan->ranges = (Range *)(room + places[11]);
    plan->fall = (double *)(room + fall);
    for (int i = 0; i < 3; i++)
        desk->sets[i] = (Set){
            .earned = (Lanes *)(room + of_sets[i][0]),
            .left = (Lanes *)(room + of_sets[i][1]),
            .so_far = (Lanes *)(room + of_sets[i][2]),
            .rows = (Lanes *)(room + of_sets[i][3]),
            .bases = (double *)(room + of_sets[i][4]),
        };
    prepare_times(plan);
    Set *none = desk->sets;
    for (int64_t k = 0; k < cells * blocks * LANES; k++) ((double *)none->left)[k] = 1;
    for (int64_t z = 0; z < p->nodes; z++) {
        double sum = 0;
        for (int64_t k = 0; k < cells; k++) {
            const double pending = p->pending[z * cells + k];
            ((double *)none->earned)[k * blocks * LANES + z] = pending;
            ((double *)none->so_far)[k * blocks * LANES + z] = sum;
            sum += pending;
            plan->is_still &= pending == 0;
        }
        plan->nothing += sum;
    }
    return 1;
}

int plan_format(void) { return 4; }

/* Returns 0, and 1 where there is no memory. */
int plan(const Problem *p) {
    Desk desk;
    if (!open_desk(&desk, p)) return 1;
    lay_out(&desk.plan);
    prepare_parts(&desk.plan);
    plan_all(&desk.plan, desk.sets);
    free(desk.room);
    return 0;
}

/* What customers whose sends are the same differ by; arrays by customer, then by send, then by node. */
typedef struct {
    int64_t customers;
    const double *click, *uplift, *p_unsubscribe; /* as `plain` of models/curves.c has them */
    const double *price;                          /* in micros, with shadow prices */
    const double *margin;                         /* by customer */
    const uint8_t *is_free;                       /* as in Problem; NULL where nobody asks */
    double *free_most;                            /* results, by customer */
    double harm;
} Plain;

/* Draw the plain curves of one customer as `plain` of models/curves.c does, by cell, and work out of each send what bounds need. At most three nodes. */
WIDE static void draw(Plan *plan, const double *click, const double *uplift, const double *p_unsubscribe, const double *price, double margin, double harm) {
    const Problem *p = plan->p;
    const int64_t cells = p->cells, nodes = p->nodes;
    const Lanes ones = (Lanes){0} + 1, weights = plan->weights[0];
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t a = plan->order[i].send, start = p->start[a];
        const double *lag = p->lag + p->shape[a] * cells, unsubscribes = p_unsubscribe[a], lost = uplift[a] < 0 ? uplift[a] : 0;
        const int earns = uplift[a] > 0;
        Lanes *net = plan->net + a * cells, *before = plan->before + a * cells, reacted = {0}, q = {0};
        for (int64_t z = 0; z < nodes; z++) q[z] = click[a * nodes + z];
        Bits is_node = (weights > 0);
        const Lanes other = 1 - q;
        for (int64_t k = 0; k < start; k++) net[k] = (Lanes){0}, before[k] = ones;
        for (int64_t k = start; k < cells; k++) {
            const Lanes left = unsubscribes * lag[k] * other, clicked = q * lag[k];
            net[k] = weights * ((earns ? clicked : (Lanes){0} + lag[k] * lost) * margin - harm * left);
            before[k] = 1 - EITHER(reacted < 1, reacted, ones);
            reacted += (Lanes)(is_node & (Bits)(clicked + left));
        }
        net[start] -= price[a] * weights;
        const double first = lag[start];
        const Lanes left = unsubscribes * other, gains = weights * ((earns ? q : (Lanes){0} + lost) * margin - harm * left);
        Lanes *parts = plan->parts + i * 2;
        parts[0] = (Lanes)(is_node & (Bits)(-(q + left) * first));
        parts[0][nodes] = -price[a];
        parts[1] = gains * first;
        plan->excess[i] = ROUNDING * (SUM_OF(SIZE_OF(weights * margin)) * (earns ? 1 : -lost) + SUM_OF(SIZE_OF(harm * weights)) + fabs(price[a]));
        const Lanes within = (Lanes)((Bits)((q >= 0) & (q <= 1)) & (Bits)ones);
        plan->is_bounded &= (SUM_OF(within) == LANES) & (unsubscribes >= 0) & (unsubscribes <= 1);
    }
}

/* Draw the plain curves of each customer, and plan: results are by customer, then by send. What is of one customer alone is left empty in `shared`.
   Returns 0, 1 where there is no memory, and 2 where there are more than three nodes. */
int plan_plain(const Problem *shared, const Plain *x) {
    const int64_t m = shared->sends, nodes = shared->nodes;
    Problem p = *shared;
    Desk desk;
    if (nodes >= LANES) return 2;
    if (!open_desk(&desk, &p)) return 1;
    for (int64_t i = 0; i < x->customers; i++) {
        desk.plan.is_bounded = 1;
        draw(&desk.plan, x->click + i * m * nodes, x->uplift + i * m, x->p_unsubscribe + i * m, x->price + i * m, x->margin[i], x->harm);
        p.is_free = x->is_free == NULL ? NULL : x->is_free + i * m;
        p.free_most = x->free_most == NULL ? NULL : x->free_most + i;
        plan_all(&desk.plan, desk.sets);
        p.alone += m, p.pair += m, p.value += m, p.second += m, p.third += m;
    }
    free(desk.room);
    return 0;
}
