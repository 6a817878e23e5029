/* The best cascades of models/planner.py, which says how they are valued and in which order the sums are taken.

   A sum is begun only where a bound says that it could be among the best; what is left out is worse by more than rounding, so that changes nothing that is
   found. Before its start a send is worth 0 and has met no reaction, which multiplies by 1 exactly, so that its sums go on from there with what was added up
   of the set before. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAIRS = 8 };
#define ROUNDING 1e-9 /* more than rounding can make of what is added up, as a part of it */
#define INLINE static inline __attribute__((always_inline))

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
    double *alone, *pair, *value;  /* results, by send */
    int64_t *second, *third;
} Problem;

typedef struct {
    const Problem *p;
    int64_t size, width;           /* nodes x cells, and the length of a row of a bound */
    const int64_t *begin;          /* from which cell the sums of each send begin */
    double *parts;                 /* by send, what a row of bounds is multiplied by: 1; of each node net at the start, and what is above 0 elsewhere */
    double *excess;                /* by send, what rounding may make of its part of a bound */
    double *likely;                /* room for a bound of each send */
    int64_t *asked;                /* and for those that are asked */
    int is_bounded;                /* whether 0 <= before <= 1, and nothing happens before the start */
    double nothing;                /* the sum of pending */
} Plan;

/* What a set of sends comes to: E and P of models/planner.py, by node and cell. */
typedef struct {
    double *earned, *left;
    double *so_far;                /* the sum of earned before each cell, of each node by itself */
    double *bounds;                /* by cell: what is earned before it and above 0 from it on, of all nodes; of each node left, and the greatest of it from there on */
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

/* What a set and one more send cannot add up to more than. */
INLINE double bound(const Plan *plan, const Set *a, int64_t send) {
    const double *row = a->bounds + plan->p->start[send] * plan->width, *part = plan->parts + send * plan->width;
    double total = plan->excess[send], rest = 0;
    if (plan->width == 7) {
        for (int i = 0; i < 4; i++) total += row[i] * part[i];
        for (int i = 4; i < 7; i++) rest += row[i] * part[i];
        return total + rest - plan->nothing;
    }
    for (int64_t i = 0; i < plan->width; i++) total += row[i] * part[i];
    return total - plan->nothing;
}

/* Work out of a set what sums begin with, and what bounds need. */
static void add_up(const Plan *plan, Set *a) {
    const int64_t cells = plan->p->cells, width = plan->width;
    double size = fabs(plan->nothing);
    for (int64_t k = 0; k < cells; k++) a->bounds[k * width] = 0;
    for (int64_t z = 0; z < plan->p->nodes; z++) {
        const double *earned = a->earned + z * cells, *left = a->left + z * cells;
        double *so_far = a->so_far + z * cells, sum = 0, most = 0;
        for (int64_t k = 0; k < cells; k++) {
            so_far[k] = sum;
            sum += earned[k];
            size += fabs(earned[k]);
        }
        sum = 0;
        for (int64_t k = cells - 1; k >= 0; k--) {
            double *row = a->bounds + k * width;
            sum += earned[k] > 0 ? earned[k] : 0;
            most = left[k] > most ? left[k] : most;
            row[0] += so_far[k] + sum;
            row[1 + 2 * z] = left[k];
            row[2 + 2 * z] = most;
        }
    }
    for (int64_t k = 0; k < cells; k++) a->bounds[k * width] += ROUNDING * size;
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

/* Find the best sends to come with a set: after `first`, or where `then` is a send, after both or between them. The likeliest is tried first. */
static void seek(const Plan *plan, const Set *a, int64_t first, int64_t then, Best *best, int64_t count) {
    const Problem *p = plan->p;
    int64_t asked = 0, likeliest = -1;
    for (int64_t i = 0; i < count; i++) best[i] = (Best){-INFINITY, -1, -1};
    for (int64_t c = 0; c < p->sends; c++) {
        int is_open = may_follow(p, first, c, p->closed_second);
        if (then >= 0)
            is_open = (p->channel[first] != p->channel[c]) & (may_follow(p, then, c, p->closed_third) | (is_open & may_follow(p, c, then, p->closed_third)));
        if (!is_open) continue;
        plan->likely[asked] = plan->is_bounded ? bound(plan, a, c) : INFINITY;
        plan->asked[asked] = c;
        if (likeliest < 0 || plan->likely[asked] > plan->likely[likeliest]) likeliest = asked;
        asked++;
    }
    if (likeliest < 0) return;
    try_one(plan, a, plan->asked[likeliest], best, count);
    for (int64_t i = 0; i < asked; i++) {
        const int64_t c = plan->asked[i];
        if (i != likeliest && plan->likely[i] >= best[place_of(best, count, p->channel[c])].value) try_one(plan, a, c, best, count);
    }
}

static void plan_each(const Plan *plan, Set *one, Set *two) {
    const Problem *p = plan->p;
    const int64_t size = plan->size;
    memcpy(two->earned, p->pending, sizeof(double) * size);
    for (int64_t k = 0; k < size; k++) two->left[k] = 1;
    add_up(plan, two);
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
        add_up(plan, one);
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
            add_up(plan, two);
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

/* Work out of each send what bounds need, and whether they hold. */
static void prepare(Plan *plan) {
    const Problem *p = plan->p;
    plan->is_bounded = 1;
    for (int64_t send = 0; send < p->sends; send++) {
        const int64_t start = p->start[send];
        double *part = plan->parts + send * plan->width, size = 0;
        int is_bounded = 1;
        part[0] = 1;
        for (int64_t z = 0; z < p->nodes; z++) {
            const double *before = p->before + send * plan->size + z * p->cells, *net = p->net + send * plan->size + z * p->cells;
            double sum = 0;
            for (int64_t k = 0; k < p->cells; k++) {
                is_bounded &= (before[k] >= 0) & (before[k] <= 1);
                size += fabs(net[k]);
            }
            for (int64_t k = 0; k < start; k++) is_bounded &= (before[k] == 1) & (net[k] == 0);
            for (int64_t k = start + 1; k < p->cells; k++) sum += net[k] > 0 ? net[k] : 0;
            part[1 + 2 * z] = net[start];
            part[2 + 2 * z] = sum;
        }
        plan->excess[send] = ROUNDING * size;
        plan->is_bounded &= is_bounded;
    }
}

int plan_format(void) { return 1; }

/* Returns 0, and 1 where there is no memory. */
int plan(const Problem *p) {
    const int64_t m = p->sends, size = p->nodes * p->cells, width = 1 + 2 * p->nodes;
    double *room = calloc(m * (width + 4) + 2 * (3 * size + p->cells * width), sizeof(double)), *next = room;
    if (room == NULL) return 1;
    Set sets[2];
    for (int i = 0; i < 2; i++) {
        sets[i].earned = next, next += size;
        sets[i].left = next, next += size;
        sets[i].so_far = next, next += size;
        sets[i].bounds = next, next += p->cells * width;
    }
    Plan plan = {.p = p, .size = size, .width = width, .parts = next, .excess = next + m * width, .likely = next + m * (width + 1)};
    int64_t *numbers = (int64_t *)(next + m * (width + 2));
    plan.asked = numbers, numbers += m;
    prepare(&plan);
    plan.begin = plan.is_bounded ? p->start : numbers; /* else from the first cell, which is 0 */
    for (int64_t z = 0; z < p->nodes; z++) {
        double sum = 0;
        for (int64_t k = 0; k < p->cells; k++) sum += p->pending[z * p->cells + k];
        plan.nothing += sum;
    }
    plan_each(&plan, sets, sets + 1);
    free(room);
    return 0;
}
