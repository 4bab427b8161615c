/*
 * From draws to verdicts: each quantity with its interval, then which changes are beyond chance.
 *
 * The interval of one quantity is estimate ± t * standard error, of the logarithm of after/before,
 * the standard error being that of the bootstrap's draws. With dozens of quantities some of those
 * intervals miss by chance alone, so a change is certain only when it is beyond what the largest of
 * all standardised deviations reaches in 95 of 100 draws (the max-t procedure of Westfall and
 * Young).
 */
#include "compare/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A quantity: how to have it of a draw, and where it goes. */
struct target {
    struct pm_change *change;
    const struct pm_match *match;
    bool ratio, family;
    unsigned kind, value;
    unsigned over, under;
    double factor;
    double q;      /* of a percentile, else 0 */
    double *draws; /* one per resample: log(after/before), or after - before */
    double centre, error;
    double blocks;         /* independent stretches that it rests on, of the side with fewer */
    double degrees, widen; /* of freedom; by how much draws of so few fall short of the spread */
};

#define TARGETS_MAX                                                                                \
    ((PM_WORK_KINDS + 1) * PM_STEP_VALUES + (2 + PM_TAILS) * PM_REQUEST_VALUES + PM_RATIOS +       \
     PM_REQUEST_RATIOS)

struct targets {
    struct target rows[TARGETS_MAX];
    unsigned n;
};

static struct target *add(struct targets *all, struct pm_change *change,
                          const struct pm_match *match)
{
    struct target *target = &all->rows[all->n++];
    memset(target, 0, sizeof(*target));
    target->change = change;
    target->match = match;
    return target;
}

static void add_matched(struct targets *all, struct pm_change *change, const struct pm_match *match,
                        unsigned kind, unsigned value, bool family)
{
    struct target *target = add(all, change, match);
    target->kind = kind;
    target->value = value;
    target->family = family;
}

static void add_ratio(struct targets *all, struct pm_change *change, const struct pm_match *match,
                      unsigned over, unsigned under, double factor)
{
    struct target *target = add(all, change, match);
    target->ratio = true;
    target->over = over;
    target->under = under;
    target->factor = factor;
}

static void add_tail(struct targets *all, struct pm_change *change, const struct pm_match *match,
                     unsigned value, double q)
{
    struct target *target = add(all, change, match);
    target->ratio = true; /* of all that there was, matched or not */
    target->value = value;
    target->q = q;
}

static void list_targets(struct targets *all, struct pm_comparison *to,
                         const struct pm_match *steps, const struct pm_match *requests)
{
    all->n = 0;
    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++)
        for (unsigned v = 0; v < PM_STEP_VALUES; v++)
            if (!to->clocks_differ || (v != PM_STEP_MODEL && v != PM_STEP_LAUNCH))
                add_matched(all, &to->steps[kind][v], steps, kind, v, true);
    add_matched(all, &to->whole, steps, PM_ALL_KINDS, PM_STEP_STEP, false);
    for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
        add_matched(all, &to->requests[v], requests, PM_ALL_KINDS, v, true);
        add_ratio(all, &to->requests_raw[v], requests, PM_REQUEST_SUM_VALUES + 2 * v,
                  PM_REQUEST_SUM_VALUES + 2 * v + 1, 1.0);
        for (unsigned t = 0; t < PM_TAILS; t++)
            add_tail(all, &to->tails[v][t], requests, v, pm_tail_rows[t].q);
    }
    for (unsigned r = 0; r < PM_RATIOS; r++)
        add_ratio(all, &to->ratios[r], steps, pm_ratio_rows[r].over, pm_ratio_rows[r].under,
                  pm_ratio_rows[r].factor);
    for (unsigned r = 0; r < PM_REQUEST_RATIOS; r++)
        add_ratio(all, &to->request_ratios[r], requests, pm_request_ratio_rows[r].over,
                  pm_request_ratio_rows[r].under, pm_request_ratio_rows[r].factor);
}

/* Both sides of a quantity in the draw at hand; false: there is nothing. */
static bool look(const struct target *target, struct pm_matched *ret)
{
    if (!target->ratio) {
        pm_match_estimate(target->match, target->kind, target->value, ret);
        return ret->weight > 0;
    }
    memset(ret, 0, sizeof(*ret));
    if (target->q > 0) {
        ret->before = pm_match_quantile(target->match, 0, target->value, target->q, &ret->n[0]);
        ret->after = pm_match_quantile(target->match, 1, target->value, target->q, &ret->n[1]);
        return ret->n[0] > 0 && ret->n[1] > 0;
    }
    for (unsigned side = 0; side < 2; side++) {
        const double *sums = target->match->block_sums[side];
        if (!(sums[target->under] > 0))
            return false;
        ret->n[side] = sums[target->under];
        (side == 0 ? &ret->before : &ret->after)[0] =
            target->factor * sums[target->over] / sums[target->under];
    }
    return true;
}

static double statistic(const struct pm_change *change, const struct pm_matched *seen)
{
    if (!change->relative)
        return seen->after - seen->before;
    return seen->before > 0 && seen->after > 0 ? log(seen->after / seen->before) : NAN;
}

static void begin(struct target *target)
{
    struct pm_change *change = target->change;
    struct pm_matched seen;

    memset(change, 0, sizeof(*change));
    if (!look(target, &seen))
        return;
    change->known = true;
    change->before = seen.before;
    change->after = seen.after;
    change->n[0] = (uint64_t)seen.n[0];
    change->n[1] = (uint64_t)seen.n[1];
    change->relative = seen.before > 0 && seen.after > 0;
    target->centre = statistic(change, &seen);
}

/* Standard error of the draws; those that had nothing to compare are left out. */
static void measure_error(struct target *target, unsigned n)
{
    const double widen = target->widen;
    double mean = 0, squares = 0;
    unsigned seen = 0;

    for (unsigned r = 0; r < n; r++)
        if (isfinite(target->draws[r])) {
            mean += target->draws[r];
            seen++;
        }
    if (seen < n / 2) {
        target->error = NAN;
        return;
    }
    mean /= seen;
    for (unsigned r = 0; r < n; r++)
        if (isfinite(target->draws[r]))
            squares += (target->draws[r] - mean) * (target->draws[r] - mean);
    target->error = sqrt(squares / seen) * widen;
    for (unsigned r = 0; r < n; r++) /* from here on: deviations, in standard errors */
        target->draws[r] = isfinite(target->draws[r]) && target->error > 0
                               ? fabs(target->draws[r] - mean) * widen / target->error
                               : 0.0;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool enough(const struct target *target)
{
    const struct pm_change *change = target->change;
    const double fewer = (double)(change->n[0] < change->n[1] ? change->n[0] : change->n[1]);
    if (!change->known || target->blocks < 5 || !isfinite(target->error))
        return false;
    if (target->q > 0)
        return fewer * (1 - target->q) >= PM_COMPARE_BEYOND;
    return target->ratio || fewer >= PM_COMPARE_LEAST;
}

/* What the largest deviation of the family reaches in 95 of 100 draws. */
static double family_bound(const struct targets *all, unsigned n)
{
    double *largest = calloc(n, sizeof(*largest));
    double bound = 1.959964;

    if (largest == NULL)
        return -1;
    for (unsigned i = 0; i < all->n; i++) {
        const struct target *target = &all->rows[i];
        if (!target->family || !enough(target))
            continue;
        for (unsigned r = 0; r < n; r++)
            if (target->draws[r] > largest[r])
                largest[r] = target->draws[r];
    }
    qsort(largest, n, sizeof(*largest), by_size);
    if (largest[n - 1 - n / 20] > bound)
        bound = largest[n - 1 - n / 20];
    free(largest);
    return bound;
}

static double shifted(const struct pm_change *change, double statistic_value)
{
    return change->relative ? exp(statistic_value) - 1.0 : statistic_value;
}

static void finish(struct target *target, double bound)
{
    struct pm_change *change = target->change;
    const bool sufficient = enough(target);
    const double t = pm_student_95(target->degrees);

    if (!change->known)
        return;
    change->change = shifted(change, target->centre);
    if (!isfinite(target->error)) {
        change->low = change->relative ? -1.0 : -INFINITY;
        change->high = INFINITY;
    } else {
        change->low = shifted(change, target->centre - t * target->error);
        change->high = shifted(change, target->centre + t * target->error);
        change->sigmas = target->error > 1e-12         ? target->centre / target->error
                         : fabs(target->centre) > 1e-9 ? copysign(1e6, target->centre)
                                                       : 0.0;
    }
    change->certain = sufficient && fabs(change->sigmas) > bound * t / 1.959964;
    change->verdict = sufficient ? PM_CHANGE_UNSURE : PM_CHANGE_LITTLE;
}

static void call(struct pm_comparison *all, struct pm_change *change, double whole)
{
    const double difference = change->after - change->before;

    if (!change->known)
        return;
    change->cost_ns = difference * (double)change->n[1];
    change->share = whole > 0 ? difference / whole : 0.0;
    if (!change->certain || (change->relative && fabs(change->change) < all->options.min_change))
        return;
    if (fabs(change->share) < PM_COMPARE_LEAST_SHARE)
        change->verdict = PM_CHANGE_SLIGHT;
    else
        change->verdict = difference > 0 ? PM_CHANGE_SLOWER : PM_CHANGE_FASTER;
    all->slower += change->verdict == PM_CHANGE_SLOWER;
    all->faster += change->verdict == PM_CHANGE_FASTER;
}

static void call_all(struct pm_comparison *all)
{
    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++)
        for (unsigned v = 0; v < PM_STEP_VALUES; v++)
            call(all, &all->steps[kind][v], all->steps[kind][PM_STEP_STEP].after);
    for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
        /* What a user waits for is weighed against itself, the parts of it against that. */
        const unsigned whole = v == PM_REQUEST_VALUE_QUEUE || v == PM_REQUEST_VALUE_PREFILL
                                   ? PM_REQUEST_VALUE_TTFT
                               : v == PM_REQUEST_VALUE_GAP ? PM_REQUEST_VALUE_E2E
                                                           : v;
        call(all, &all->requests[v],
             all->requests[whole].known ? all->requests[whole].after : all->requests[v].after);
    }
    const unsigned slower = all->slower, faster = all->faster;
    call(all, &all->whole, all->whole.after);
    all->slower = slower;
    all->faster = faster;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

/* With several sessions on a side it is they that vary, else the stretches of time. */
static void set_degrees(struct target *target)
{
    const struct pm_match *match = target->match;
    const unsigned a = match->sides[0].n_sessions, b = match->sides[1].n_sessions;
    double few;

    target->blocks = target->ratio
                         ? smaller(match->blocks[0], match->blocks[1])
                         : smaller(pm_match_stretches(match, 0, target->kind, target->value),
                                   pm_match_stretches(match, 1, target->kind, target->value));
    if (a > 1 && b > 1) {
        few = a < b ? a : b;
        target->degrees = a + b - 2.0;
    } else {
        few = a > 1 ? a : b > 1 ? b : target->blocks > 2 ? target->blocks : 2;
        target->degrees = few - 1;
    }
    target->widen = sqrt(few / (few - 1));
}

/* Every quantity once, then in each draw. */
static void estimate_all(struct targets *targets, struct pm_match *steps, struct pm_match *requests,
                         unsigned n, uint64_t seed, double *draws)
{
    uint64_t rng = seed;

    pm_match_all(steps);
    pm_match_all(requests);
    for (unsigned i = 0; i < targets->n; i++) {
        targets->rows[i].draws = draws + (size_t)i * n;
        begin(&targets->rows[i]);
        set_degrees(&targets->rows[i]);
    }
    for (unsigned r = 0; r < n; r++) {
        pm_match_draw(steps, &rng);
        pm_match_draw(requests, &rng);
        for (unsigned i = 0; i < targets->n; i++) {
            struct target *target = &targets->rows[i];
            struct pm_matched seen;
            target->draws[r] = target->change->known && look(target, &seen)
                                   ? statistic(target->change, &seen)
                                   : NAN;
        }
    }
}

/* Errors, intervals, and what is beyond chance. */
static int settle_all(struct targets *targets, unsigned n)
{
    for (unsigned i = 0; i < targets->n; i++)
        measure_error(&targets->rows[i], n);
    const double bound = family_bound(targets, n);
    if (bound < 0)
        return -PM_ENOMEM;
    for (unsigned i = 0; i < targets->n; i++)
        finish(&targets->rows[i], bound);
    return 0;
}

int pm_judge(struct pm_comparison *all, struct pm_match *steps, struct pm_match *requests)
{
    const unsigned n = all->options.resamples;
    struct targets *targets = calloc(1, sizeof(*targets));
    double *draws = calloc((size_t)TARGETS_MAX * n, sizeof(*draws));
    int rc = -PM_ENOMEM;

    if (targets != NULL && draws != NULL) {
        list_targets(targets, all, steps, requests);
        estimate_all(targets, steps, requests, n, all->options.seed, draws);
        rc = settle_all(targets, n);
    }
    for (unsigned i = 0; rc == 0 && i < targets->n; i++) {
        if (targets->rows[i].change == &all->whole)
            all->degrees = targets->rows[i].degrees;
    }
    free(draws);
    free(targets);
    if (rc != 0)
        return rc;
    for (unsigned side = 0; side < 2; side++) {
        all->blocks[side] = steps->blocks[side];
        all->request_blocks[side] = requests->blocks[side];
        all->matched_steps[side] = steps->matched[side];
        all->matched_requests[side] = requests->matched[side];
        all->matched_share[side] = steps->total_value[side] > 0
                                       ? steps->matched_value[side] / steps->total_value[side]
                                       : 0.0;
    }
    call_all(all);
    return 0;
}
