/*
 * Takes out of the values what sizes explain. See slopes.h.
 */
#include "compare/slopes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define X PM_CELL_COVARIATES
#define V PM_CELL_VALUES
#define KINDS 4
#define OWN_SLOPE_MIN 60.0 /* observations for a fit of its own; else that of its kind */
#define RIDGE 0.01         /* keeps sizes that go together from being told apart by noise */

/* Centred second moments, and what they are made of. */
struct fit {
    double xx[X][X], xy[X][V];
    double n;
    bool whole[V]; /* every observation has the value */
};

struct totals {
    double n, x[X], y[V], present[V];
};

static void add_centred(struct fit *fit, const struct totals *sum, const struct pm_moments *moments)
{
    if (sum->n < 2)
        return;
    for (unsigned i = 0; i < X; i++) {
        for (unsigned j = 0; j < X; j++)
            fit->xx[i][j] += moments->xx[i][j] - sum->x[i] * sum->x[j] / sum->n;
        for (unsigned v = 0; v < V; v++)
            fit->xy[i][v] += moments->xy[i][v] - sum->x[i] * sum->y[v] / sum->n;
    }
    fit->n += sum->n;
    for (unsigned v = 0; v < V; v++)
        fit->whole[v] = fit->whole[v] && sum->present[v] == sum->n;
}

/* Solves the normal equations, sizes scaled to one another, by elimination: a size that does not
 * vary has no slope. */
static void solve(const struct fit *fit, double slopes[X][V])
{
    double a[X][X], b[X][V], scale[X];

    memset(slopes, 0, sizeof(double) * X * V);
    for (unsigned i = 0; i < X; i++)
        scale[i] = fit->xx[i][i] > 1e-9 * fit->n ? sqrt(fit->xx[i][i]) : 0.0;
    for (unsigned i = 0; i < X; i++) {
        for (unsigned j = 0; j < X; j++)
            a[i][j] = i == j                         ? 1.0 + RIDGE
                      : scale[i] > 0 && scale[j] > 0 ? fit->xx[i][j] / (scale[i] * scale[j])
                                                     : 0.0;
        for (unsigned v = 0; v < V; v++)
            b[i][v] = scale[i] > 0 && fit->whole[v] ? fit->xy[i][v] / scale[i] : 0.0;
    }
    for (unsigned i = 0; i < X; i++) /* positive definite by the ridge: no pivoting */
        for (unsigned j = i + 1; j < X; j++) {
            const double factor = a[j][i] / a[i][i];
            for (unsigned k = i; k < X; k++)
                a[j][k] -= factor * a[i][k];
            for (unsigned v = 0; v < V; v++)
                b[j][v] -= factor * b[i][v];
        }
    for (unsigned i = X; i-- > 0;)
        for (unsigned v = 0; v < V; v++) {
            double rest = b[i][v];
            for (unsigned k = i + 1; k < X; k++)
                rest -= a[i][k] * b[k][v];
            b[i][v] = rest / a[i][i];
        }
    for (unsigned i = 0; i < X; i++)
        for (unsigned v = 0; v < V; v++)
            slopes[i][v] = scale[i] > 0 && isfinite(b[i][v]) ? b[i][v] / scale[i] : 0.0;
}

static void sum_up(const struct pm_match *match, const uint32_t *places, struct totals *totals[2])
{
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++) {
            const struct pm_tally *tally = match->sides[side].tallies[t];
            for (uint32_t b = 0; b < tally->n_blocks; b++)
                for (uint32_t c = 0; c < tally->blocks[b].n; c++) {
                    const struct pm_cell *cell = &tally->blocks[b].cells[c];
                    const uint32_t place = places[cell->stratum];
                    if (place == PM_STRATUM_NONE)
                        continue;
                    struct totals *sum = &totals[side][place];
                    sum->n += cell->n;
                    for (unsigned x = 0; x < X; x++)
                        sum->x[x] += cell->covariates[x];
                    for (unsigned v = 0; v < V; v++) {
                        sum->y[v] += cell->values[v];
                        sum->present[v] += cell->present[v];
                    }
                }
        }
}

/* Moments of a stratum over all tallies of a side. */
static void gather(const struct pm_side *side, uint32_t stratum, struct pm_moments *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (unsigned t = 0; t < side->n; t++) {
        const struct pm_tally *tally = side->tallies[t];
        if (stratum >= tally->n_moments)
            continue;
        const struct pm_moments *one = &tally->moments[stratum];
        for (unsigned i = 0; i < X; i++) {
            for (unsigned j = 0; j < X; j++)
                ret->xx[i][j] += one->xx[i][j];
            for (unsigned v = 0; v < V; v++)
                ret->xy[i][v] += one->xy[i][v];
        }
    }
}

static void move(const struct pm_match *match, const uint32_t *places, double (*const slopes)[X][V],
                 double (*const means)[X])
{
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++) {
            struct pm_tally *tally = match->sides[side].tallies[t];
            for (uint32_t b = 0; b < tally->n_blocks; b++)
                for (uint32_t c = 0; c < tally->blocks[b].n; c++) {
                    struct pm_cell *cell = &tally->blocks[b].cells[c];
                    const uint32_t place = places[cell->stratum];
                    if (place == PM_STRATUM_NONE)
                        continue;
                    for (unsigned x = 0; x < X; x++) {
                        const double off = cell->covariates[x] - cell->n * means[place][x];
                        for (unsigned v = 0; v < V; v++)
                            if (cell->present[v] == cell->n)
                                cell->values[v] -= slopes[place][x][v] * off;
                    }
                }
        }
}

int pm_slopes_apply(struct pm_match *match, const uint32_t *places, uint32_t n_strata)
{
    int rc = -PM_ENOMEM;
    const size_t n = match->n + 1;
    struct totals *totals[2] = {calloc(n, sizeof(struct totals)), calloc(n, sizeof(struct totals))};
    double(*slopes)[X][V] = calloc(n, sizeof(*slopes));
    double(*means)[X] = calloc(n, sizeof(*means));
    struct fit *fits = calloc(n, sizeof(*fits));
    struct fit kinds[KINDS];

    if (totals[0] == NULL || totals[1] == NULL || slopes == NULL || means == NULL || fits == NULL)
        goto done;
    memset(kinds, 0, sizeof(kinds));
    for (unsigned k = 0; k < KINDS; k++)
        for (unsigned v = 0; v < V; v++)
            kinds[k].whole[v] = true;
    sum_up(match, places, totals);
    for (uint32_t s = 0; s < n_strata; s++) {
        const uint32_t place = places[s];
        if (place == PM_STRATUM_NONE)
            continue;
        struct fit *fit = &fits[place], *kind = &kinds[match->kinds[place] % KINDS];
        for (unsigned v = 0; v < V; v++)
            fit->whole[v] = true;
        for (unsigned side = 0; side < 2; side++) {
            struct pm_moments moments;
            gather(&match->sides[side], s, &moments);
            add_centred(fit, &totals[side][place], &moments);
        }
        for (unsigned x = 0; x < X; x++)
            means[place][x] = (totals[0][place].x[x] + totals[1][place].x[x]) /
                              (totals[0][place].n + totals[1][place].n);
        for (unsigned i = 0; i < X; i++) {
            for (unsigned j = 0; j < X; j++)
                kind->xx[i][j] += fit->xx[i][j];
            for (unsigned v = 0; v < V; v++)
                kind->xy[i][v] += fit->xy[i][v];
        }
        kind->n += fit->n;
        for (unsigned v = 0; v < V; v++)
            kind->whole[v] = kind->whole[v] && fit->whole[v];
    }
    for (uint32_t place = 0; place < match->n; place++)
        solve(fits[place].n >= OWN_SLOPE_MIN ? &fits[place] : &kinds[match->kinds[place] % KINDS],
              slopes[place]);
    move(match, places, slopes, means);
    rc = 0;
done:
    free(totals[0]);
    free(totals[1]);
    free(slopes);
    free(means);
    free(fits);
    return rc;
}
