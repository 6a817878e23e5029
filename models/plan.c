/* The best cascades of models/planner.py, which says how they are valued and in which order the sums are taken.

   A sum is begun only where a bound says that it could be among the best; what is left out is worse by more than rounding, so that changes nothing that is
   found. Before its start a send is worth 0 and has met no reaction, which multiplies by 1 exactly, so that its sums go on from there with what was added up
   of the set before.

   A bound is the product of a row of the set and one of the send c. For the cell s in which c starts, and E+ the sum of what is above 0, it is

       sum_g E B_c + P N_c  <=  sum_{g<s} E + sum_{g>=s} E+  +  P(s) N_c(s) + max_{g>s} P x sum_{g>s} N_c+.

   Where reactions come by lags that sends have in common, B_c = 1 - r L and N_c = w l but for the price at s, with l the share of the reactions in a cell and
   L those before it, nothing is left to bound:

       sum_g E B_c + P N_c  =  sum_g E - r sum_g l(g) sum_{j>g} E(j) + w sum_g l P + (N_c(s) - w l(s)) P(s)

   but for rounding, for which every bound has room. Lags of one kind fall alike from cell to cell, l(g + 1) = d(g) l(g) from the start on, so that one pass gives
   the sums of all of them: sum_{g>=s} l(g) X(g) = l(s) S(s), S(g) = X(g) + d(g) S(g + 1). */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "curves.c"

enum { MOST_PAIRS = 8, LANES = 4 };
#define ROUNDING 1e-9 /* more than rounding can make of what is added up, as a part of it */
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default"))) /* bounds need not be the same to the bit */
#else
#define WIDE
#endif

typedef struct {
    int64_t sends, nodes, cells, steps;
    int64_t pairs;                 /* of each first send for which a third is sought, at most MOST_PAIRS */
    int64_t closed_second;         /* whether no paid send may be the second step */
    int64_t closed_third;
    const double *net;             /* worth by send, node and cell, price taken off */
    const double *before;          /* P(no reaction before), by send, node and cell */
    const double *pending;         /* by node and cell */
    const int64_t *start, *ready;  /* cells, by send */
    const int64_t *channel;        /* by send */
    const uint8_t *is_paid;
    int64_t shapes;                /* how many lags sends have in common; 0 where their curves are of no such shape */
    const int64_t *shape;          /* by send; sends of one shape start alike */
    const double *lag;             /* shares of the reactions by shape and cell */
    int64_t kinds;                 /* of lags; each falls in its own way */
    const int64_t *kind;           /* by shape */
    const double *reacts, *gains;  /* by send and node: r and w above */
    double *alone, *pair, *value;  /* results, by send */
    int64_t *second, *third;
} Problem;

typedef struct {
    int64_t channel, start, send;
} Key;

typedef struct {
    const Problem *p;
    int64_t size;                  /* nodes x cells */
    const int64_t *begin;          /* from which cell the sums of each send begin */
    Key *order;                    /* the sends by channel and start */
    int64_t channels;
    int64_t *first;                /* by channel and cell, the place in order of the channel's first send that starts there or later; of one more channel, the end */
    double *parts;                 /* by place in order, what a row of bounds is multiplied by */
    double *excess;                /* by place in order, what rounding may make of its part of a bound */
    double *likely;                /* by place in order, room for bounds */
    int64_t *row;                  /* by place in order, which row of bounds is the send's: that of its start, and of its kind of lags */
    double *fall;                  /* d by kind and cell */
    int64_t width, rows;           /* the length of a row of bounds, a multiple of LANES, and how many there are */
    int is_bounded;                /* whether 0 <= before <= 1, and nothing happens before the start */
    double nothing;                /* the sum of pending */
} Plan;

/* What a set of sends comes to: E and P of models/planner.py, by node and cell. */
typedef struct {
    double *earned, *left;
    double *so_far;                /* the sum of earned before each cell, of each node by itself */
    double *bounds;                /* rows */
} Set;

typedef struct {
    double value;
    int64_t send, channel;
} Best;

/* The value of a set and one more send. Three nodes are added up at a time: one by one they would wait for each other's sums. */
#define ADD_UP(N)                                                                                                     \
    do {                                                                                                              \
        double of_earned[N], of_net[N];                                                                               \
        for (int i = 0; i < N; i++) {                                                                                 \
            of_earned[i] = so_far[i * cells + begin];                                                                 \
            of_net[i] = 0;                                                                                            \
        }                                                                                                             \
        for (int64_t k = begin; k < cells; k++)                                                                       \
            for (int i = 0; i < N; i++) {                                                                             \
                of_earned[i] += earned[i * cells + k] * before[i * cells + k];                                        \
                of_net[i] += left[i * cells + k] * net[i * cells + k];                                                \
            }                                                                                                         \
        for (int i = 0; i < N; i++) total += of_earned[i] + of_net[i];                                                \
        earned += N * cells, left += N * cells, so_far += N * cells, before += N * cells, net += N * cells, z += N;   \
    } while (0)

static double with_one(const Plan *plan, const Set *a, int64_t send) {
    const int64_t cells = plan->p->cells, nodes = plan->p->nodes, begin = plan->begin[send];
    const double *before = plan->p->before + send * plan->size, *net = plan->p->net + send * plan->size;
    const double *earned = a->earned, *left = a->left, *so_far = a->so_far;
    double total = 0;
    int64_t z = 0;
    while (z + 3 <= nodes) ADD_UP(3);
    while (z < nodes) ADD_UP(1);
    return total - plan->nothing;
}

/* Work out of a set the rows of sends that start at this cell or later. */
static void find_rows_by_start(const Plan *plan, Set *a, int64_t from) {
    const int64_t cells = plan->p->cells, width = plan->width;
    for (int64_t k = from; k < cells; k++) a->bounds[k * width] = 0;
    for (int64_t z = 0; z < plan->p->nodes; z++) {
        const double *earned = a->earned + z * cells, *left = a->left + z * cells, *so_far = a->so_far + z * cells;
        double above = 0, most = 0;
        for (int64_t k = cells - 1; k >= from; k--) {
            double *row = a->bounds + k * width;
            above += earned[k] > 0 ? earned[k] : 0;
            row[0] += so_far[k] + above;
            row[1 + 2 * z] = left[k];
            row[2 + 2 * z] = most;
            most = left[k] > most ? left[k] : most;
        }
    }
}

/* The same where sends have lags in common. */
static void find_rows_by_lag(const Plan *plan, Set *a, int64_t from) {
    const int64_t cells = plan->p->cells, nodes = plan->p->nodes, width = plan->width;
    double all = 0;
    for (int64_t z = 0; z < nodes; z++) all += a->so_far[z * cells + cells - 1] + a->earned[z * cells + cells - 1];
    for (int64_t kind = 0; kind < plan->p->kinds; kind++) {
        const double *fall = plan->fall + kind * cells;
        double *rows = a->bounds + kind * cells * width;
        for (int64_t k = from; k < cells; k++) rows[k * width] = all;
        for (int64_t z = 0; z < nodes; z++) {
            const double *earned = a->earned + z * cells, *left = a->left + z * cells;
            double later = 0, of_later = 0, of_left = 0;
            for (int64_t k = cells - 1; k >= from; k--) {
                double *row = rows + k * width + 1 + z;
                of_later = later + fall[k] * of_later;
                of_left = left[k] + fall[k] * of_left;
                row[0] = of_later;
                row[nodes] = of_left;
                row[2 * nodes] = left[k];
                later += earned[k];
            }
        }
    }
}

/* Work out of a set what sums begin with, and what bounds need of sends that start at this cell or later. */
static void add_up(const Plan *plan, Set *a, int64_t from) {
    const int64_t cells = plan->p->cells;
    double size = fabs(plan->nothing);
    for (int64_t z = 0; z < plan->p->nodes; z++) {
        const double *earned = a->earned + z * cells;
        double *so_far = a->so_far + z * cells, sum = 0;
        for (int64_t k = 0; k < cells; k++) {
            so_far[k] = sum;
            sum += earned[k];
            size += fabs(earned[k]);
        }
    }
    if (plan->p->shapes) find_rows_by_lag(plan, a, from);
    else find_rows_by_start(plan, a, from);
    for (int64_t i = 0; i < plan->rows; i++) a->bounds[i * plan->width] += ROUNDING * size - plan->nothing;
}

#define BOUND_EACH(WIDTH)                                                                                             \
    for (int64_t i = begin; i < end; i++) {                                                                           \
        const double *row = rows + plan->row[i] * (WIDTH), *part = parts + i * (WIDTH);                               \
        double sums[LANES] = {0};                                                                                     \
        for (int64_t j = 0; j < (WIDTH); j += LANES)                                                                  \
            for (int64_t k = 0; k < LANES; k++) sums[k] += row[j + k] * part[j + k];                                  \
        likely[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]) + excess[i];                                            \
    }

/* Find out what a set and each send in these places of the order cannot add up to more than. */
WIDE static void bound_each(const Plan *plan, const Set *a, int64_t begin, int64_t end) {
    const double *rows = a->bounds, *parts = plan->parts, *excess = plan->excess;
    double *likely = plan->likely;
    if (!plan->is_bounded) for (int64_t i = begin; i < end; i++) likely[i] = INFINITY;
    else if (plan->width == 8) BOUND_EACH(8) /* three nodes */
    else if (plan->width == 12) BOUND_EACH(12)
    else BOUND_EACH(plan->width)
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

INLINE void try_one(const Plan *plan, const Set *a, int64_t send, Best *best, int64_t count) {
    const Best found = {with_one(plan, a, send), send, plan->p->channel[send]};
    int64_t i = place_of(best, count, found.channel);
    if (!is_better(found.value, send, best + i)) return;
    for (; i > 0 && is_better(found.value, send, best + i - 1); i--) best[i] = best[i - 1];
    best[i] = found;
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

/* From which cell on a send may start that comes after `first`, or where `then` is a send, after both or between them. */
INLINE int64_t earliest(const Problem *p, int64_t first, int64_t then) {
    int64_t from = p->ready[first];
    if (then >= 0 && p->ready[then] < from) from = p->ready[then];
    return from < 0 ? 0 : from > p->cells ? p->cells : from;
}

/* Find the best sends to come with a set. The likeliest of the likeliest channels are tried first. */
static void seek(const Plan *plan, const Set *a, int64_t first, int64_t then, Best *best, int64_t count) {
    const Problem *p = plan->p;
    const Key *order = plan->order;
    const double *likely = plan->likely;
    const int64_t from = earliest(p, first, then), row = p->cells + 1;
    int64_t top[MOST_PAIRS], tops = 0;
    for (int64_t i = 0; i < count; i++) best[i] = (Best){-INFINITY, -1, -1};
    for (int64_t channel = 0; channel < plan->channels; channel++) {
        const int64_t begin = plan->first[channel * row + from], end = plan->first[(channel + 1) * row];
        if (begin == end || channel == p->channel[first] || (then >= 0 && channel == p->channel[then])) continue;
        bound_each(plan, a, begin, end);
        int64_t its = -1;
        for (int64_t i = begin; i < end; i++)
            if ((its < 0 || likely[i] > likely[its]) && is_open(p, first, then, order[i].send)) its = i;
        if (its < 0) continue;
        int64_t i = tops < count ? tops++ : count;
        for (; i > 0 && likely[its] > likely[top[i - 1]]; i--)
            if (i < count) top[i] = top[i - 1];
        if (i < count) top[i] = its;
    }
    for (int64_t i = 0; i < tops; i++) try_one(plan, a, order[top[i]].send, best, count);
    for (int64_t channel = 0; channel < plan->channels && tops > 0; channel++) {
        const int64_t begin = plan->first[channel * row + from], end = plan->first[(channel + 1) * row];
        if (begin == end || channel == p->channel[first] || (then >= 0 && channel == p->channel[then])) continue;
        double least = best[place_of(best, count, channel)].value;
        for (int64_t i = begin; i < end; i++) {
            if (likely[i] < least || !is_open(p, first, then, order[i].send)) continue;
            int64_t tried = 0;
            while (tried < tops && top[tried] != i) tried++;
            if (tried < tops) continue;
            try_one(plan, a, order[i].send, best, count);
            least = best[place_of(best, count, channel)].value;
        }
    }
}

static void plan_each(const Plan *plan, Set *one, Set *two) {
    const Problem *p = plan->p;
    const int64_t size = plan->size;
    memcpy(two->earned, p->pending, sizeof(double) * size);
    for (int64_t k = 0; k < size; k++) two->left[k] = 1;
    add_up(plan, two, 0);
    for (int64_t a = 0; a < p->sends; a++) {
        p->alone[a] = p->pair[a] = p->value[a] = with_one(plan, two, a);
        p->second[a] = p->third[a] = -1;
    }
    for (int64_t a = 0; a < p->sends && p->steps >= 2; a++) {
        const double *net = p->net + a * size, *before = p->before + a * size;
        for (int64_t k = 0; k < size; k++) {
            one->earned[k] = p->pending[k] * before[k] + net[k];
            one->left[k] = before[k];
        }
        add_up(plan, one, earliest(p, a, -1));
        Best seconds[MOST_PAIRS], third;
        seek(plan, one, a, -1, seconds, p->pairs);
        if (seconds->value > p->value[a]) {
            p->value[a] = p->pair[a] = seconds->value;
            p->second[a] = seconds->send;
        }
        for (int64_t i = 0; i < p->pairs && p->steps >= 3 && seconds[i].send >= 0; i++) {
            const int64_t then = seconds[i].send;
            const double *its_net = p->net + then * size, *its_before = p->before + then * size;
            for (int64_t k = 0; k < size; k++) {
                two->earned[k] = one->earned[k] * its_before[k] + one->left[k] * its_net[k];
                two->left[k] = one->left[k] * its_before[k];
            }
            add_up(plan, two, earliest(p, a, then));
            seek(plan, two, a, then, &third, 1);
            if (third.value > p->value[a]) {
                const int is_last = may_follow(p, then, third.send, p->closed_third);
                p->value[a] = third.value;
                p->pair[a] = is_last ? seconds[i].value : with_one(plan, one, third.send);
                p->second[a] = is_last ? then : third.send;
                p->third[a] = is_last ? third.send : then;
            }
        }
    }
}

static int by_channel_and_start(const void *one, const void *two) {
    const Key *a = one, *b = two;
    if (a->channel != b->channel) return a->channel < b->channel ? -1 : 1;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->send < b->send ? -1 : a->send > b->send;
}

/* Put the sends in order, and find where each channel's begin that start at a cell or later. */
static void put_in_order(Plan *plan) {
    const Problem *p = plan->p;
    int is_in_order = 1;
    for (int64_t i = 0; i < p->sends; i++) {
        plan->order[i] = (Key){p->channel[i], p->start[i], i};
        is_in_order &= i == 0 || by_channel_and_start(plan->order + i - 1, plan->order + i) < 0;
    }
    if (!is_in_order) qsort(plan->order, p->sends, sizeof(Key), by_channel_and_start);
    int64_t i = 0;
    for (int64_t channel = 0; channel <= plan->channels; channel++)
        for (int64_t cell = 0; cell <= p->cells; cell++) {
            while (i < p->sends && (plan->order[i].channel < channel || (plan->order[i].channel == channel && plan->order[i].start < cell))) i++;
            plan->first[channel * (p->cells + 1) + cell] = i;
        }
}

/* Work out of each send what bounds need, and whether they hold. */
static void prepare(Plan *plan) {
    const Problem *p = plan->p;
    const int64_t cells = p->cells, nodes = p->nodes;
    plan->is_bounded = 1;
    put_in_order(plan);
    for (int64_t i = 0; i < p->shapes; i++) {
        const double *lag = p->lag + i * cells;
        for (int64_t k = 0; k < cells - 1; k++)
            if (lag[k] > 0) plan->fall[p->kind[i] * cells + k] = lag[k + 1] / lag[k];
    }
    for (int64_t i = 0; i < p->sends; i++) {
        const int64_t send = plan->order[i].send, start = p->start[send];
        double *part = plan->parts + i * plan->width, size = 0;
        int is_bounded = 1;
        part[0] = 1;
        for (int64_t z = 0; z < nodes; z++) {
            const double *before = p->before + send * plan->size + z * cells, *net = p->net + send * plan->size + z * cells;
            double sum = 0;
            for (int64_t k = 0; k < cells; k++) {
                is_bounded &= (before[k] >= 0) & (before[k] <= 1);
                size += fabs(net[k]);
            }
            for (int64_t k = 0; k < start; k++) is_bounded &= (before[k] == 1) & (net[k] == 0);
            if (p->shapes) {
                const double first = p->lag[p->shape[send] * cells + start], gain = p->gains[send * nodes + z] * first;
                part[1 + z] = -p->reacts[send * nodes + z] * first;
                part[1 + nodes + z] = gain;
                part[1 + 2 * nodes + z] = net[start] - gain;
            } else {
                for (int64_t k = start + 1; k < cells; k++) sum += net[k] > 0 ? net[k] : 0;
                part[1 + 2 * z] = net[start];
                part[2 + 2 * z] = sum;
            }
        }
        plan->row[i] = p->shapes ? p->kind[p->shape[send]] * cells + start : start;
        plan->excess[i] = ROUNDING * size;
        plan->is_bounded &= is_bounded;
    }
}

int plan_format(void) { return 3; }

/* Returns 0, and 1 where there is no memory. */
int plan(const Problem *p) {
    const int64_t m = p->sends, size = p->nodes * p->cells, rows = p->shapes ? p->kinds * p->cells : p->cells;
    const int64_t width = (1 + (p->shapes ? 3 : 2) * p->nodes + LANES - 1) / LANES * LANES;
    Plan plan = {.p = p, .size = size, .width = width, .rows = rows};
    for (int64_t i = 0; i < m; i++)
        if (p->channel[i] >= plan.channels) plan.channels = p->channel[i] + 1;
    const int64_t table = (plan.channels + 1) * (p->cells + 1);
    double *room = calloc(m * (width + 4) + 2 * (3 * size + rows * width) + rows + table, sizeof(double)), *next = room;
    Key *order = malloc((m + 1) * sizeof(Key));
    if (room == NULL || order == NULL) {
        free(room);
        free(order);
        return 1;
    }
    Set sets[2];
    for (int i = 0; i < 2; i++) {
        sets[i].earned = next, next += size;
        sets[i].left = next, next += size;
        sets[i].so_far = next, next += size;
        sets[i].bounds = next, next += rows * width;
    }
    plan.order = order;
    plan.parts = next, next += m * width;
    plan.excess = next, next += m;
    plan.likely = next, next += m;
    plan.fall = next, next += rows;
    int64_t *numbers = (int64_t *)next, *zeros = numbers + table;
    plan.first = numbers;
    plan.row = zeros + m;
    prepare(&plan);
    plan.begin = plan.is_bounded ? p->start : zeros; /* else from the first cell */
    for (int64_t z = 0; z < p->nodes; z++) {
        double sum = 0;
        for (int64_t k = 0; k < p->cells; k++) sum += p->pending[z * p->cells + k];
        plan.nothing += sum;
    }
    plan_each(&plan, sets, sets + 1);
    free(room);
    free(order);
    return 0;
}

/* What customers whose sends are the same differ by; arrays by customer, then by send, then by node. */
typedef struct {
    int64_t customers;
    const double *click, *uplift, *p_unsubscribe; /* as `plain` has them */
    const double *price;                          /* in micros, with shadow prices */
    const double *margin;                         /* by customer */
    const double *weights;                        /* of nodes */
    double harm;
} Plain;

/* Draw the plain curves of each customer, and plan: results are by customer, then by send. What is of one customer alone is left empty in `shared`. */
int plan_plain(const Problem *shared, const Plain *x) {
    const int64_t m = shared->sends, nodes = shared->nodes, cells = shared->cells, size = nodes * cells;
    double *room = malloc((2 * m * size + 2 * m * nodes + 1) * sizeof(double));
    if (room == NULL) return 1;
    double *net = room, *before = net + m * size, *reacts = before + m * size, *gains = reacts + m * nodes;
    int is_short = 0;
    for (int64_t i = 0; i < x->customers && !is_short; i++) {
        const double *click = x->click + i * m * nodes, *uplift = x->uplift + i * m, *p_unsubscribe = x->p_unsubscribe + i * m;
        plain(m, nodes, cells, shared->shape, shared->lag, click, uplift, p_unsubscribe, x->weights, x->margin[i], x->harm, net, before);
        for (int64_t a = 0; a < m; a++)
            for (int64_t z = 0; z < nodes; z++) {
                const double q = click[a * nodes + z], left = p_unsubscribe[a] * (1 - q), lost = uplift[a] < 0 ? uplift[a] : 0;
                net[(a * nodes + z) * cells + shared->start[a]] -= x->price[i * m + a] * x->weights[z];
                reacts[a * nodes + z] = q + left;
                gains[a * nodes + z] = x->weights[z] * ((uplift[a] > 0 ? q : lost) * x->margin[i] - x->harm * left);
            }
        Problem p = *shared;
        p.net = net, p.before = before, p.reacts = reacts, p.gains = gains;
        p.alone += i * m, p.pair += i * m, p.value += i * m, p.second += i * m, p.third += i * m;
        is_short = plan(&p);
    }
    free(room);
    return is_short;
}
