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
   start on, so that one pass gives the sums of all of them: sum_{g>=s} l(g) X(g) = l(s) S(s), S(g) = X(g) + d(g) S(g + 1).

   Third sends. E and P are those of the first send a, and c starts at s, where something may follow b, so after b's own start. Then E_ab = E B_b + P N_b and
   P_ab = P B_b, and what c adds to a and b is

       V(abc) - V(ab) = sum_{g>=s} B_b (P N_c - E (1 - B_c)) - P N_b (1 - B_c),

   node by node. No second send is looked at beside which no c adds enough to reach the best cascade found, and of its thirds only those that may. As B_b and P
   fall from cell to cell and 0 <= 1 - B_c <= 1, that is never more, with x- for what of x is less than 0, than

       B_b(s) (P(s) N_c(s) + max_{g>s} P x sum_{g>s} N_c+ + sum_{g>=s} E-) + sum_{g>=s} N_b- .

   So b keeps B_b(s) of U_c, which is the bracket, and has some room. For all c that start at the earliest cell or later, B_b is B_b there of what of U_c is above 0, and
   B_b at the end of what is below.

   By lags, with F(g) = l_b(g) / l_b(s), Phi(g) the sum of F before g, Phi' the sum of all, and h = P N_c - E (1 - B_c), it is

       (1 - r_b) sum h  +  r_b l_b(s) W_c  -  (v_b - omega r_b) l_b(s) Q,      Q = sum P F (1 - B_c),      W_c = Phi' sum h - sum Phi h - omega Q,

   since B_b = B_b(s) - r_b l_b(s) Phi from s on, and falls to 1 - r_b in the end, as the shares of a lag sum to 1. omega is the least gain of a reaction among sends that gain, so that the last term
   is above 0 for others alone, and has room: l_b(s) Q <= 1. What is left of W_c is little: what c has earned so far less what b's reactions would have earned in its
   place. U_c is sum h. Both come of one pass, as sums of products of two lags' F and Phi do: with d and d' how they fall,

       sum P F Phi' from k on = d (sum P F from k + 1 on + d' x the same from k + 1 on),

   and likewise of the others. The greatest U and W of a channel from a start on, node by node, bound what any c of the channel adds that starts then or later. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 4, MOST_BLOCKS = 4 };
#define NOTHING -1e300 /* what is added where there is no send; finite, since it is multiplied by 0 */
#define LEVEL 1e-12 /* rises by less are rounding */
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
    int64_t closed_second;         /* whether no paid send may be the second step */
    int64_t closed_third;
    const double *net;             /* worth by send, node and cell, price taken off */
    const double *before;          /* P(no reaction before), by send, node and cell */
    const double *pending;         /* by node and cell */
    const double *weights;         /* of nodes, above 0 */
    const int64_t *start, *ready;  /* cells, by send */
    const int64_t *channel;        /* by send */
    const uint8_t *is_paid;
    const uint8_t *is_later;       /* by send, whether it may be a step after the first */
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
    int64_t is_first;              /* whether it may be a first step alone */
    int64_t channel, start, send;
} Key;

/* The sends of one channel that may come with a set: places in the order, from a begin up to before its end. */
typedef struct {
    int64_t begin, end;
    double top;                    /* the greatest bound of one of them */
    int64_t likeliest;             /* the place of that one */
} Range;

/* A send that may come with others, and what they are not worth more than, a third send with them. */
typedef struct {
    double promise;
    int64_t place;                 /* of the send, in order */
} Option;

typedef struct {
    const Problem *p;
    int64_t blocks;                /* vectors to a cell */
    int64_t channels, rows;        /* how many rows of bounds a set has */
    Key *order;                    /* the sends that may be later steps by channel and start, then the others */
    int64_t later;                 /* how many may be later steps */
    int64_t *first;                /* by channel and cell, the place in order of the channel's first send that starts there or later; of one more channel, the end */
    int64_t *row;                  /* by place in order, which row of bounds is the send's: that of its start, and of its kind of lags */
    double *fall;                  /* d by kind and cell */
    double *ahead;                 /* Phi', by kind and cell */
    double *highest;               /* the greatest l of a shape in a cell or later, by shape and cell */
    Lanes weights[MOST_BLOCKS];
    Lanes *net, *before;           /* by send and cell */
    Lanes *parts;                  /* by place in order, what a row of bounds is multiplied by */
    double *excess;                /* by place in order, what rounding may make of its part of a bound */
    double most_excess;
    int is_bounded;                /* whether 0 <= before <= 1 and falls, nothing happens before the start, and what follows a send starts later */
    int is_timely;                 /* the last of these */
    int is_still;                  /* whether nothing is pending */
    double nothing;                /* the sum of pending */
    /* Of what a third send adds: */
    Lanes least_gain[MOST_BLOCKS]; /* omega */
    Lanes *keeps;                  /* by place in order of a second send, what the greatest U and W are multiplied by, and r */
    double *room;                  /* by place in order of a second send, what else a third may add */
    Lanes *most_kept;              /* the greatest of the first two, by channel */
    double *most_room;             /* likewise */
    Lanes *crossed;                /* by kind of the second send and row of bounds, what W is made of */
    Lanes *adds;                   /* U and W by kind of the second send and place in order of the third */
    Lanes *most;                   /* the greatest of them, of W not less than 0, of this place and those after it in its channel; without lags what of U is above 0, and what is below */
    Option *pairs, *thirds;          /* second sends beside which a third is to be sought, and those */
} Plan;

/* What a set of sends comes to: E and P of models/planner.py, by cell. */
typedef struct {
    Lanes *earned, *left;
    Lanes *so_far;                 /* the sum of earned before each cell */
    Lanes *rows;                   /* two for each vector of a cell; the lane of the first that is left over is multiplied by the price */
    Lanes *below;                  /* what of earned is less than 0, from each cell on */
    double *bases;                 /* what is added to the product of each row */
    double all;                    /* the sum of earned, and room for rounding */
    double rounding;               /* what rounding may make of that */
    /* Of each send that may come with it: */
    Range *ranges;                 /* by channel */
    double *likely;                /* bounds, by place in order */
    double *worth;                 /* sums, by place in order */
    int64_t *known;                /* of which set the sum is, by place in order */
    int64_t number;                /* of the set */
} Set;

typedef struct {
    double value;
    int64_t send, place;           /* the latter in order */
} Best;

/* What the planner is compiled for, each by itself. */
typedef struct {
    int by_lag;                    /* whether sends have lags in common */
    int64_t kinds;                 /* of lags; 1 where there are none */
    int64_t blocks;
} Form;

/* Macros: vectors are passed to no function, since how depends on the processor. */
#define SIZE_OF(X) ((Lanes)((Bits)(X) & INT64_MAX))
#define SUM_OF(X) ({ const Lanes x_ = (X); (x_[0] + x_[2]) + (x_[1] + x_[3]); })
#define EITHER(IS_FIRST, FIRST, SECOND) ((Lanes)(((IS_FIRST) & (Bits)(FIRST)) | (~(IS_FIRST) & (Bits)(SECOND))))

/* From which cell on the sums of a send begin. */
INLINE int64_t begin_of(const Plan *plan, int64_t send) { return plan->is_bounded ? plan->p->start[send] : 0; }

/* The value of a set and one more send. */
INLINE double with_one(const Plan *plan, const Set *a, int64_t send, const Form form) {
    const int64_t blocks = form.blocks, cells = plan->p->cells, nodes = plan->p->nodes, begin = begin_of(plan, send);
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
INLINE void find_rows_by_start(const Plan *plan, Set *a, int64_t from, const Form form) {
    const int64_t blocks = form.blocks;
    Lanes above[MOST_BLOCKS] = {{0}}, below[MOST_BLOCKS] = {{0}}, most[MOST_BLOCKS] = {{0}};
    for (int64_t k = plan->p->cells - 1; k >= from; k--) {
        Lanes *row = a->rows + k * 2 * blocks;
        double base = a->all;
        for (int64_t b = 0; b < blocks; b++) {
            const Lanes earned = a->earned[k * blocks + b], left = a->left[k * blocks + b];
            above[b] += EITHER(earned > 0, earned, (Lanes){0});
            below[b] += EITHER(earned > 0, (Lanes){0}, -earned);
            a->below[k * blocks + b] = below[b];
            base += SUM_OF(a->so_far[k * blocks + b] + above[b]);
            row[b] = left;
            row[blocks + b] = most[b];
            most[b] = EITHER(left > most[b], left, most[b]);
        }
        a->bases[k] = base;
    }
}

/* The same where sends have lags in common. */
INLINE void find_rows_by_lag(const Plan *plan, Set *a, int64_t from, const Form form) {
    const int64_t blocks = form.blocks, cells = plan->p->cells, nodes = plan->p->nodes;
    for (int64_t kind = 0; kind < form.kinds; kind++) {
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

/* Work out what a set comes to with one more send. Nothing happened before `origin`. */
INLINE void grow(const Plan *plan, const Set *a, int64_t send, Set *to, int64_t origin, const Form form) {
    const int64_t blocks = form.blocks, cells = plan->p->cells;
    const Lanes *before = plan->before + send * cells * blocks, *net = plan->net + send * cells * blocks;
    for (int64_t b = 0; b < blocks; b++) {
        Lanes sum = {0};
        for (int64_t k = origin * blocks + b; k < cells * blocks; k += blocks) {
            const Lanes earned = a->earned[k] * before[k] + a->left[k] * net[k];
            to->earned[k] = earned;
            to->left[k] = a->left[k] * before[k];
            to->so_far[k] = sum;
            sum += earned;
        }
    }
}

/* Work out what bounds need of a set, for sends that start at one cell or later. */
INLINE void find_rows(const Plan *plan, Set *a, int64_t origin, int64_t from, const Form form) {
    const int64_t blocks = form.blocks, cells = plan->p->cells;
    double size = fabs(plan->nothing), all = -plan->nothing;
    for (int64_t b = 0; b < blocks; b++) {
        Lanes sizes = {0};
        for (int64_t k = origin * blocks + b; k < cells * blocks; k += blocks) sizes += SIZE_OF(a->earned[k]);
        size += SUM_OF(sizes);
        all += SUM_OF(a->so_far[(cells - 1) * blocks + b] + a->earned[(cells - 1) * blocks + b]);
    }
    a->rounding = ROUNDING * size;
    if (form.by_lag) {
        a->all = all + a->rounding;
        find_rows_by_lag(plan, a, from, form);
    } else {
        a->all = a->rounding - plan->nothing;
        find_rows_by_start(plan, a, from, form);
    }
}

INLINE int is_better(double value, int64_t send, const Best *than) {
    return value > than->value || (value == than->value && send < than->send);
}

INLINE int may_follow(const Problem *p, int64_t a, int64_t b, int64_t is_closed) {
    return (p->channel[a] != p->channel[b]) & (p->start[b] >= p->ready[a]) & (p->is_later[b] != 0) & !(is_closed & p->is_paid[b]);
}

/* Whether a send may come after `first`, or where `then` is a send, after both. */
INLINE int is_open(const Problem *p, int64_t first, int64_t then, int64_t c) {
    return then < 0 ? may_follow(p, first, c, p->closed_second) : (p->channel[first] != p->channel[c]) & may_follow(p, then, c, p->closed_third);
}

/* From which cell on a send may start that comes after this one. */
INLINE int64_t earliest(const Problem *p, int64_t send) {
    const int64_t from = p->ready[send];
    return from < 0 ? 0 : from < p->cells ? from : p->cells;
}

/* The value of a set and the send at a place in the order. */
INLINE double add_up(const Plan *plan, Set *a, int64_t i, const Form form) {
    if (a->known[i] != a->number) {
        a->known[i] = a->number;
        a->worth[i] = with_one(plan, a, plan->order[i].send, form);
    }
    return a->worth[i];
}

INLINE int may_be(const Plan *plan, int64_t i, int64_t first, int64_t then, int only_free) {
    const int64_t send = plan->order[i].send;
    return (!only_free || plan->p->is_free[send]) && is_open(plan->p, first, then, send);
}

/* Add up a set and the send at a place in the order, and take it where it is the best. */
INLINE void try_one(const Plan *plan, Set *a, int64_t i, Best *best, const Form form) {
    const double value = add_up(plan, a, i, form);
    if (is_better(value, plan->order[i].send, best)) *best = (Best){value, plan->order[i].send, i};
}

/* Find the best send to come with a set, of those better than this. The likeliest is tried first. */
INLINE void seek(const Plan *plan, Set *a, int64_t first, int64_t then, int only_free, Best *best, const Form form) {
    int64_t likeliest = 0;
    for (int64_t c = 1; c < plan->channels; c++)
        if (a->ranges[c].top > a->ranges[likeliest].top) likeliest = c;
    const Range *top = a->ranges + likeliest;
    if (top->top < best->value) return;
    if (top->begin < top->end && may_be(plan, top->likeliest, first, then, only_free)) try_one(plan, a, top->likeliest, best, form);
    for (const Range *range = a->ranges; range < a->ranges + plan->channels; range++) {
        if (range->top < best->value) continue;
        for (int64_t i = range->begin; i < range->end; i++)
            if (a->likely[i] >= best->value && may_be(plan, i, first, then, only_free)) try_one(plan, a, i, best, form);
    }
}

/* Work out of the set of a first send what W of third sends is made of, beside second ones of each kind. */
INLINE void cross_lags(const Plan *plan, const Set *one, int64_t from, const Form form) {
    const int64_t blocks = form.blocks;
    const Problem *p = plan->p;
    const int64_t cells = p->cells;
    for (int64_t kind = 0; kind < form.kinds; kind++) {
        const double *fall = plan->fall + kind * cells, *ahead = plan->ahead + kind * cells;
        for (int64_t other = 0; other < form.kinds; other++) {
            const double *its = plan->fall + other * cells;
            Lanes left_later[MOST_BLOCKS] = {{0}}, later_left[MOST_BLOCKS] = {{0}}, both[MOST_BLOCKS] = {{0}};
            const Lanes zeros[2 * MOST_BLOCKS] = {{0}}, *next = zeros, *its_next = zeros;
            for (int64_t k = cells - 1; k >= from; k--) {
                const Lanes *row = one->rows + (kind * cells + k) * 2 * blocks, *its_row = one->rows + (other * cells + k) * 2 * blocks;
                Lanes *crossed = plan->crossed + (kind * plan->rows + other * cells + k) * 2 * blocks;
                for (int64_t b = 0; b < blocks; b++) {
                    left_later[b] = its[k] * (its_next[blocks + b] + fall[k] * left_later[b]);
                    later_left[b] = fall[k] * (next[blocks + b] + its[k] * later_left[b]);
                    both[b] = its_row[b] + fall[k] * (next[b] + its[k] * both[b]);
                    crossed[b] = ahead[k] * its_row[b] - both[b] + plan->least_gain[b] * later_left[b];
                    crossed[blocks + b] = ahead[k] * its_row[blocks + b] - left_later[b];
                }
                next = row, its_next = its_row;
            }
        }
    }
}

/* Bound what a first send and each that may follow it come to, and find U and W of each as a third, and the greatest of them. */
INLINE void bound_seconds(const Plan *plan, Set *one, int64_t first, int only_free, const Form form) {
    const int64_t blocks = form.blocks;
    const Problem *p = plan->p;
    const int64_t cells = p->cells, from = earliest(p, first), nodes = p->nodes;
    const int has_thirds = p->steps >= 3 && plan->is_bounded;
    one->number += !only_free;
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        const int64_t *places = plan->first + channel * (cells + 1), end = places[cells + 1], begin = channel == p->channel[first] ? end : places[from];
        Range range = {begin, end, -INFINITY, begin};
        for (int64_t kind = 0; kind < form.kinds; kind++) {
            const double *ahead = plan->ahead + kind * cells;
            Lanes most[2 * MOST_BLOCKS];
            for (int64_t b = 0; b < blocks; b++) most[b] = (Lanes){0} + NOTHING, most[blocks + b] = (Lanes){0} + (form.by_lag ? 0 : NOTHING);
            for (int64_t i = end - 1; i >= begin; i--) {
                const int64_t send = plan->order[i].send, k = plan->order[i].start;
                const Lanes *row = one->rows + plan->row[i] * 2 * blocks, *mine = plan->parts + i * 2 * blocks;
                Lanes *to = plan->most + (kind * p->sends + i) * 2 * blocks, total = {0};
                const int is_third = has_thirds & !(only_free && !p->is_free[send]) & !(p->closed_third & p->is_paid[send]);
                for (int64_t b = 0; b < blocks; b++) {
                    const Lanes added = mine[b] * row[b] + mine[blocks + b] * row[blocks + b];
                    total += added;
                    if (is_third) {
                        Lanes adds, also, *its = plan->adds + (kind * p->sends + i) * 2 * blocks;
                        if (form.by_lag) {
                            const Lanes *crossed = plan->crossed + (kind * plan->rows + plan->row[i]) * 2 * blocks;
                            const double price = ((double *)mine)[nodes];
                            adds = added;
                            also = mine[b] * crossed[b] + mine[blocks + b] * crossed[blocks + b];
                            if (price != 0) {
                                const Lanes paid = price * (plan->weights[b] * one->left[k * blocks + b]);
                                adds += paid;
                                also += ahead[k] * paid;
                            }
                            its[b] = adds, its[blocks + b] = also;
                        } else {
                            const Lanes zero = {0};
                            its[b] = added + one->below[k * blocks + b];
                            adds = EITHER(added > 0, added, zero) + one->below[k * blocks + b];
                            also = EITHER(added > 0, zero, added);
                        }
                        most[b] = EITHER(adds > most[b], adds, most[b]);
                        most[blocks + b] = EITHER(also > most[blocks + b], also, most[blocks + b]);
                    }
                    to[b] = most[b], to[blocks + b] = most[blocks + b];
                }
                if (kind > 0) continue;
                const double base = form.by_lag ? one->all : one->bases[plan->row[i]];
                const double bound = plan->is_bounded ? SUM_OF(total) + (base + plan->excess[i]) : INFINITY;
                one->likely[i] = bound;
                if (bound > range.top) range.top = bound, range.likeliest = i;
            }
        }
        one->ranges[channel] = range;
    }
}

/* What a third send adds at most beside the second at place i, of those in a channel that start in this cell or later. */
INLINE double most_beside(const Plan *plan, int64_t i, int64_t channel, int64_t from, const Form form) {
    const int64_t blocks = form.blocks;
    const Problem *p = plan->p;
    const int64_t *places = plan->first + channel * (p->cells + 1);
    if (places[from] == places[p->cells + 1]) return -INFINITY;
    const int64_t kind = form.kinds > 1 ? p->kind[p->shape[plan->order[i].send]] : 0;
    const Lanes *keeps = plan->keeps + i * 3 * blocks, *most = plan->most + (kind * p->sends + places[from]) * 2 * blocks;
    Lanes sum = keeps[0] * most[0];
    for (int64_t b = 1; b < 2 * blocks; b++) sum += keeps[b] * most[b];
    return SUM_OF(sum);
}

typedef struct {
    double value;
    int64_t second, third;
} Cascade;

INLINE void swap(Option *one, Option *two) {
    const Option kept = *one;
    *one = *two;
    *two = kept;
}

/* List the second sends beside which a third may reach `least`, with rough promises, the likeliest first; return how many. */
INLINE int64_t list_pairs(const Plan *plan, const Set *one, int64_t a, int only_free, double least, const Form form) {
    const int64_t blocks = form.blocks;
    const Problem *p = plan->p;
    int64_t count = 0, likeliest = 0;
    double most_of_all = -INFINITY;
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        const Range range = one->ranges[channel];
        if (range.begin == range.end) continue;
        const int64_t from = p->start[plan->order[range.begin].send] + 1;
        for (int64_t kind = 0; kind < form.kinds; kind++) {
            Lanes most[2 * MOST_BLOCKS];
            for (int64_t b = 0; b < blocks; b++) most[b] = (Lanes){0} + NOTHING, most[blocks + b] = (Lanes){0} + (form.by_lag ? 0 : NOTHING);
            for (int64_t other = 0; other < plan->channels && plan->is_bounded; other++) {
                const int64_t *places = plan->first + other * (p->cells + 1);
                if (other == channel || other == p->channel[a] || places[from] == places[p->cells + 1]) continue;
                const Lanes *its = plan->most + (kind * p->sends + places[from]) * 2 * blocks;
                for (int64_t b = 0; b < 2 * blocks; b++) most[b] = EITHER(its[b] > most[b], its[b], most[b]);
            }
            double any = INFINITY; /* what is added beside any second send of the channel */
            if (plan->is_bounded) {
                const Lanes *keeps = plan->most_kept + channel * 2 * blocks;
                Lanes sum = {0};
                for (int64_t b = 0; b < 2 * blocks; b++) sum += keeps[b] * EITHER(most[b] > 0, most[b], (Lanes){0});
                any = plan->most_room[channel] + SUM_OF(sum);
                if (range.top + any < least) continue;
            }
            for (int64_t i = range.begin; i < range.end; i++) {
                if (one->likely[i] + any < least || (form.kinds > 1 && p->kind[p->shape[plan->order[i].send]] != kind)) continue;
                const Lanes *keeps = plan->keeps + i * 3 * blocks;
                Lanes sum = keeps[0] * most[0];
                for (int64_t b = 1; b < 2 * blocks; b++) sum += keeps[b] * most[b];
                const double promise = plan->is_bounded ? one->likely[i] + plan->room[i] + SUM_OF(sum) : INFINITY;
                if (promise < least || !may_be(plan, i, a, -1, only_free)) continue;
                plan->pairs[count] = (Option){promise, i};
                if (promise > most_of_all) most_of_all = promise, likeliest = count;
                count++;
            }
        }
    }
    if (count > 0) swap(plan->pairs, plan->pairs + likeliest);
    return count;
}

/* List the third sends by which a cascade of three that begins with these two may reach `least`, the likeliest first; return how many. */
INLINE int64_t list_thirds(const Plan *plan, Set *one, int64_t a, int64_t place, int only_free, double least, const Form form) {
    const int64_t blocks = form.blocks;
    const Problem *p = plan->p;
    const int64_t then = plan->order[place].send, from = earliest(p, then), kind = form.kinds > 1 ? p->kind[p->shape[then]] : 0;
    const Lanes *keeps = plan->keeps + place * 3 * blocks, *before = plan->before + then * p->cells * blocks, *adds = plan->adds + kind * p->sends * 2 * blocks;
    const double *lag = form.by_lag ? p->lag + p->shape[then] * p->cells : NULL;
    double base = one->likely[place] + plan->room[place], most_of_all = -INFINITY;
    int is_exact = form.by_lag;
    int64_t count = 0, likeliest = 0;
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        if (channel == p->channel[a] || channel == p->channel[then]) continue;
        const int64_t *places = plan->first + channel * (p->cells + 1);
        if (plan->is_bounded) {
            const double most = most_beside(plan, place, channel, from, form);
            if (!(base + most >= least)) continue;
            if (!is_exact) {
                base = add_up(plan, one, place, form) + one->rounding + plan->excess[place] + plan->room[place];
                is_exact = 1;
                if (!(base + most >= least)) continue;
            }
        }
        for (int64_t i = places[from]; i < places[p->cells + 1]; i++) {
            const int64_t third = plan->order[i].send, k = p->start[third];
            double bound = INFINITY;
            if (plan->is_bounded) {
                Lanes sum = {0};
                for (int64_t b = 0; b < blocks; b++) {
                    const Lanes *its = adds + i * 2 * blocks + b;
                    if (form.by_lag) sum += keeps[b] * its[0] + (lag[k] * keeps[2 * blocks + b]) * its[blocks];
                    else sum += before[k * blocks + b] * its[0];
                }
                bound = SUM_OF(sum) + base;
            }
            if (!(bound >= least) || !may_be(plan, i, a, then, only_free)) continue;
            plan->thirds[count] = (Option){bound, i};
            if (bound > most_of_all) most_of_all = bound, likeliest = count;
            count++;
        }
    }
    if (count > 0) swap(plan->thirds, plan->thirds + likeliest);
    return count;
}

/* Find the best cascade of three that begins with these two, of those better than this, or as good and earlier in the order of sends. */
INLINE void seek_third(const Plan *plan, Set *one, Set *two, int64_t a, int64_t place, int64_t origin, int only_free, Cascade *best, const Form form) {
    const int64_t count = list_thirds(plan, one, a, place, only_free, best->value, form), then = plan->order[place].send;
    if (count == 0) return;
    int64_t last = then < best->second ? INT64_MAX : -1;
    double value = best->value;
    grow(plan, one, then, two, origin, form);
    for (int64_t i = 0; i < count; i++) {
        if (plan->thirds[i].promise < value) continue;
        const int64_t send = plan->order[plan->thirds[i].place].send;
        const double found = with_one(plan, two, send, form);
        if (found > value || (found == value && send < last)) value = found, last = send;
    }
    if (last >= 0 && last < plan->p->sends) *best = (Cascade){value, then, last};
}

/* Find the best cascade of three, of those better than this; what begins with the best pair is tried first. */
INLINE void seek_thirds(const Plan *plan, Set *one, Set *two, int64_t a, int64_t place, int64_t origin, int only_free, Cascade *best, const Form form) {
    if (place >= 0) seek_third(plan, one, two, a, place, origin, only_free, best, form);
    const int64_t count = list_pairs(plan, one, a, only_free, best->value, form);
    for (int64_t i = 0; i < count; i++)
        if (plan->pairs[i].promise >= best->value && plan->pairs[i].place != place) seek_third(plan, one, two, a, plan->pairs[i].place, origin, only_free, best, form);
}

INLINE void plan_each(Plan *plan, Set *sets, const Form form) {
    const Problem *p = plan->p;
    const int is_split = p->is_free != NULL;
    Set *none = sets, *one = sets + 1, *two = sets + 2;
    double most = -INFINITY;
    for (int64_t a = 0; a < p->sends; a++) {
        p->alone[a] = p->pair[a] = p->value[a] = with_one(plan, none, a, form);
        p->second[a] = p->third[a] = -1;
        if (is_split && p->is_free[a] && p->alone[a] > most) most = p->alone[a];
    }
    for (int64_t a = 0; a < p->sends && p->steps >= 2; a++) {
        const int64_t origin = plan->is_still ? begin_of(plan, a) : 0, from = earliest(p, a);
        Best second = {p->value[a], -1, -1};
        grow(plan, none, a, one, origin, form);
        find_rows(plan, one, origin, from, form);
        if (form.by_lag && p->steps >= 3 && plan->is_bounded) cross_lags(plan, one, from, form);
        bound_seconds(plan, one, a, 0, form);
        seek(plan, one, a, -1, 0, &second, form);
        if (second.send >= 0) {
            p->value[a] = p->pair[a] = second.value;
            p->second[a] = second.send;
        }
        if (p->steps >= 3) {
            Cascade best = {p->value[a], -1, -1};
            seek_thirds(plan, one, two, a, second.place, origin, 0, &best, form);
            if (best.second >= 0) {
                p->value[a] = best.value;
                p->pair[a] = with_one(plan, one, best.second, form);
                p->second[a] = best.second;
                p->third[a] = best.third;
            }
        }
        if (!is_split || !p->is_free[a] || p->value[a] <= most) continue; /* free ones alone are worth no more than all */
        if ((p->second[a] < 0 || p->is_free[p->second[a]]) && (p->third[a] < 0 || p->is_free[p->third[a]])) {
            most = p->value[a];
            continue;
        }
        Best free_second = {most, -1, -1};
        seek(plan, one, a, -1, 1, &free_second, form);
        most = free_second.value;
        if (p->steps >= 3) {
            Cascade best = {most, -1, -1};
            bound_seconds(plan, one, a, 1, form);
            seek_thirds(plan, one, two, a, free_second.place, origin, 1, &best, form);
            most = best.value;
        }
    }
    if (is_split) *p->free_most = most;
}

static int by_channel_and_start(const void *one, const void *two) {
    const Key *a = one, *b = two;
    if (a->is_first != b->is_first) return a->is_first < b->is_first ? -1 : 1;
    if (a->channel != b->channel) return a->channel < b->channel ? -1 : 1;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->send < b->send ? -1 : a->send > b->send;
}

/* Put the sends in order, and find where each channel's begin that start at a cell or later. */
static void put_in_order(Plan *plan) {
    const Problem *p = plan->p;
    int is_in_order = 1;
    for (int64_t i = 0; i < p->sends; i++) {
        plan->order[i] = (Key){!p->is_later[i], p->channel[i], p->start[i], i};
        plan->later += p->is_later[i] != 0;
        is_in_order &= i == 0 || by_channel_and_start(plan->order + i - 1, plan->order + i) < 0;
    }
    if (!is_in_order) qsort(plan->order, p->sends, sizeof(Key), by_channel_and_start);
    int64_t begin = 0;
    for (int64_t channel = 0; channel <= plan->channels; channel++) {
        int64_t *first = plan->first + channel * (p->cells + 1), end = begin, i = begin;
        while (end < plan->later && plan->order[end].channel == channel) end++;
        for (int64_t cell = 0; cell <= p->cells; cell++) {
            while (i < end && plan->order[i].start < cell) i++;
            first[cell] = i;
        }
        begin = end;
    }
    plan->is_timely = 1;
    for (int64_t i = 0; i < p->sends; i++) plan->is_timely &= p->ready[i] > p->start[i];
}

/* Work out what hangs on when sends are made alone. */
static void prepare_times(Plan *plan) {
    const Problem *p = plan->p;
    put_in_order(plan);
    for (int64_t i = 0; i < p->shapes; i++) {
        const double *lag = p->lag + i * p->cells;
        for (int64_t k = 0; k < p->cells - 1; k++)
            if (lag[k] > 0) plan->fall[p->kind[i] * p->cells + k] = lag[k + 1] / lag[k];
        double highest = 0;
        for (int64_t k = p->cells - 1; k >= 0; k--) {
            highest = lag[k] > highest ? lag[k] : highest;
            plan->highest[i * p->cells + k] = highest;
        }
    }
    for (int64_t kind = 0; kind < p->kinds && p->shapes; kind++) {
        double ahead = 0;
        for (int64_t k = p->cells - 1; k >= 0; k--) {
            ahead = 1 + plan->fall[kind * p->cells + k] * ahead;
            plan->ahead[kind * p->cells + k] = ahead;
        }
    }
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t send = plan->order[i].send;
        plan->row[i] = p->start[send] + (p->shapes ? p->kind[p->shape[send]] * p->cells : 0);
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
                is_bounded &= (before[k] >= 0) & (before[k] <= 1) & (k == 0 || before[k] <= before[k - 1] + LEVEL);
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

/* Work out of each send what bounds of a third need where it is the second. */
static void prepare_keeps(Plan *plan) {
    const Problem *p = plan->p;
    const int64_t blocks = plan->blocks, cells = p->cells;
    for (int64_t b = 0; b < blocks; b++) {
        Lanes least = (Lanes){0} + INFINITY;
        for (int64_t i = 0; i < plan->later && p->shapes; i++) {
            const Lanes reacts = -plan->parts[i * 2 * blocks + b], gains = plan->parts[(i * 2 + 1) * blocks + b], each = gains / reacts;
            least = EITHER((gains > 0) & (reacts > 0) & (each < least), each, least);
        }
        plan->least_gain[b] = EITHER(least < INFINITY, least, (Lanes){0});
    }
    plan->most_excess = 0;
    for (int64_t i = 0; i < p->sends; i++)
        if (plan->excess[i] > plan->most_excess) plan->most_excess = plan->excess[i];
    for (int64_t i = 0; i < plan->later; i++) {
        const int64_t send = plan->order[i].send, ready = earliest(p, send);
        Lanes *keeps = plan->keeps + i * 3 * blocks;
        double room = 3 * plan->most_excess;
        for (int64_t b = 0; b < blocks; b++) {
            const Bits is_node = plan->weights[b] > 0;
            Lanes keep = (Lanes){0}, reacts = keep, reacts_later = keep, lost = keep;
            if (p->shapes) {
                const double *highest = plan->highest + p->shape[send] * cells, one = 1 / p->lag[p->shape[send] * cells + p->start[send]];
                const Lanes gains = one * plan->parts[(i * 2 + 1) * blocks + b];
                reacts = -one * plan->parts[i * 2 * blocks + b];
                keep = 1 - reacts;
                if (ready < cells) reacts_later = reacts * highest[ready];
                lost = plan->least_gain[b] * reacts - gains;
            } else if (ready < cells) {
                keep = plan->before[(send * cells + ready) * blocks + b];
                reacts_later = plan->before[(send * cells + cells - 1) * blocks + b];
                for (int64_t k = ready; k < cells; k++) {
                    const Lanes net = plan->net[(send * cells + k) * blocks + b];
                    lost -= EITHER(net < 0, net, (Lanes){0});
                }
            }
            keeps[b] = (Lanes)(is_node & (Bits)keep);
            keeps[blocks + b] = (Lanes)(is_node & (Bits)reacts_later);
            keeps[2 * blocks + b] = (Lanes)(is_node & (Bits)reacts);
            lost = (Lanes)(is_node & (lost > 0) & (Bits)lost);
            room += SUM_OF(lost);
        }
        plan->room[i] = room;
        const int64_t channel = plan->order[i].channel;
        Lanes *most = plan->most_kept + channel * 2 * blocks;
        const int is_first = i == 0 || plan->order[i - 1].channel != channel;
        for (int64_t b = 0; b < 2 * blocks; b++) most[b] = EITHER((keeps[b] > most[b]) | -(int64_t)is_first, keeps[b], most[b]);
        if (is_first || room > plan->most_room[channel]) plan->most_room[channel] = room;
    }
}

WIDE static void plan_by_one_lag(Plan *plan, Set *sets) { plan_each(plan, sets, (Form){1, 1, 1}); }
WIDE static void plan_by_lags(Plan *plan, Set *sets) { plan_each(plan, sets, (Form){1, plan->p->kinds, 1}); }
WIDE static void plan_by_starts(Plan *plan, Set *sets) { plan_each(plan, sets, (Form){0, 1, 1}); }

static void plan_all(Plan *plan, Set *sets) {
    const Problem *p = plan->p;
    if (plan->blocks > 1) plan_each(plan, sets, (Form){p->shapes > 0, p->shapes ? p->kinds : 1, plan->blocks});
    else if (p->shapes == 0) plan_by_starts(plan, sets);
    else if (p->kinds == 1) plan_by_one_lag(plan, sets);
    else plan_by_lags(plan, sets);
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
    size_t used = 0, places[19], of_sets[3][10];
    const int64_t kinds = p->shapes ? p->kinds : 1;
    const struct { int64_t count; size_t size; } wanted[19] = {
        {m * cells * blocks, sizeof(Lanes)}, {m * cells * blocks, sizeof(Lanes)}, {m * 2 * blocks, sizeof(Lanes)}, {m, 8}, {m, 8},
        {m, sizeof(Key)}, {table, 8}, {rows, 8}, {rows, 8}, {p->shapes * cells, 8},
        {m * 3 * blocks, sizeof(Lanes)}, {m, 8}, {p->shapes ? kinds * rows * 2 * blocks : 0, sizeof(Lanes)}, {kinds * m * 2 * blocks, sizeof(Lanes)},
        {kinds * m * 2 * blocks, sizeof(Lanes)}, {m + 1, sizeof(Option)}, {m + 1, sizeof(Option)}, {channels * 2 * blocks, sizeof(Lanes)}, {channels, 8},
    };
    for (int i = 0; i < 19; i++) places[i] = take(&used, wanted[i].count, wanted[i].size);
    for (int i = 0; i < 3; i++) {
        const struct { int64_t count; size_t size; } of_set[9] = {
            {cells * blocks, sizeof(Lanes)}, {cells * blocks, sizeof(Lanes)}, {cells * blocks, sizeof(Lanes)}, {rows * 2 * blocks, sizeof(Lanes)}, {cells * blocks, sizeof(Lanes)},
            {rows, 8}, {channels, sizeof(Range)}, {m, 8}, {m, 8},
        };
        for (int j = 0; j < 9; j++) of_sets[i][j] = take(&used, of_set[j].count, of_set[j].size);
        of_sets[i][9] = take(&used, m, 8);
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
    plan->row = (int64_t *)(room + places[4]);
    plan->order = (Key *)(room + places[5]);
    plan->first = (int64_t *)(room + places[6]);
    plan->fall = (double *)(room + places[7]);
    plan->ahead = (double *)(room + places[8]);
    plan->highest = (double *)(room + places[9]);
    plan->keeps = (Lanes *)(room + places[10]);
    plan->room = (double *)(room + places[11]);
    plan->crossed = (Lanes *)(room + places[12]);
    plan->most = (Lanes *)(room + places[13]);
    plan->adds = (Lanes *)(room + places[14]);
    plan->pairs = (Option *)(room + places[15]);
    plan->thirds = (Option *)(room + places[16]);
    plan->most_kept = (Lanes *)(room + places[17]);
    plan->most_room = (double *)(room + places[18]);
    for (int i = 0; i < 3; i++)
        desk->sets[i] = (Set){
            .earned = (Lanes *)(room + of_sets[i][0]),
            .left = (Lanes *)(room + of_sets[i][1]),
            .so_far = (Lanes *)(room + of_sets[i][2]),
            .rows = (Lanes *)(room + of_sets[i][3]),
            .below = (Lanes *)(room + of_sets[i][4]),
            .bases = (double *)(room + of_sets[i][5]),
            .ranges = (Range *)(room + of_sets[i][6]),
            .likely = (double *)(room + of_sets[i][7]),
            .worth = (double *)(room + of_sets[i][8]),
            .known = (int64_t *)(room + of_sets[i][9]),
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

int plan_format(void) { return 6; }

/* Returns 0, and 1 where there is no memory. */
int plan(const Problem *p) {
    Desk desk;
    if (!open_desk(&desk, p)) return 1;
    desk.plan.is_bounded = desk.plan.is_timely;
    lay_out(&desk.plan);
    prepare_parts(&desk.plan);
    prepare_keeps(&desk.plan);
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
        desk.plan.is_bounded = desk.plan.is_timely;
        draw(&desk.plan, x->click + i * m * nodes, x->uplift + i * m, x->p_unsubscribe + i * m, x->price + i * m, x->margin[i], x->harm);
        prepare_keeps(&desk.plan);
        p.is_free = x->is_free == NULL ? NULL : x->is_free + i * m;
        p.free_most = x->free_most == NULL ? NULL : x->free_most + i;
        plan_all(&desk.plan, desk.sets);
        p.alone += m, p.pair += m, p.value += m, p.second += m, p.third += m;
    }
    free(desk.room);
    return 0;
}
