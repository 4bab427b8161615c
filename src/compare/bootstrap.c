/*
 * What the bootstrap rests on: random numbers, the length of a block, Student's t. See match.h.
 */
#include <math.h>

#include "compare/match.h"

uint64_t pm_random(uint64_t *rng)
{
    uint64_t z = *rng += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/* Covariance of the values with themselves so many later. */
static double autocovariance(const double *values, unsigned n, double mean, unsigned lag)
{
    double sum = 0;
    for (unsigned i = 0; i + lag < n; i++)
        sum += (values[i] - mean) * (values[i + lag] - mean);
    return sum / n;
}

/* Politis and White, Automatic block-length selection for the dependent bootstrap (2004), with the
 * correction of Patton, Politis and White (2009), for the circular bootstrap:
 *   b = (2 G^2 / D)^(1/3) n^(1/3),  D = 4/3 g(0)^2,
 *   g(0) = sum lambda(k/M) R(k),  G = sum lambda(k/M) |k| R(k),  lambda: a flat-top window,
 *   M twice the lag after which K lags in a row are not significant. */
double pm_block_length(const double *values, unsigned n)
{
    const double most = n >= 16 ? n / 8.0 : 1.0;
    double mean = 0, g = 0, big_g = 0;

    if (n < 16)
        return 1.0;
    for (unsigned i = 0; i < n; i++)
        mean += values[i] / n;
    const double variance = autocovariance(values, n, mean, 0);
    if (!(variance > 0) || !isfinite(variance))
        return 1.0;
    const double logs = log10(n), bound = 2.0 * sqrt(logs / n);
    const unsigned run = sqrt(logs) > 5.0 ? (unsigned)ceil(sqrt(logs)) : 5u;
    const unsigned last = (unsigned)ceil(sqrt(n)) + run;
    unsigned quiet = 0, lag = 1, m = 0;
    for (; lag <= last && lag < n && quiet < run; lag++)
        if (fabs(autocovariance(values, n, mean, lag)) / variance < bound)
            quiet++;
        else {
            quiet = 0;
            m = lag;
        }
    if (m == 0)
        return 1.0;
    unsigned window = 2 * m < last ? 2 * m : last;
    if (window >= n)
        window = n - 1;
    for (unsigned k = 0; k <= window; k++) {
        const double share = (double)k / window;
        const double lambda = share <= 0.5 ? 1.0 : 2.0 * (1.0 - share);
        const double r = autocovariance(values, n, mean, k) * lambda * (k == 0 ? 1.0 : 2.0);
        g += r;
        big_g += k * r;
    }
    if (!(g > 0))
        return most; /* an oscillation: longest blocks are safest */
    const double length = cbrt(1.5 * big_g * big_g / (g * g) * n);
    return length < 1.0 ? 1.0 : length > most ? most : length;
}

double pm_student_95(double degrees)
{
    static const double small[] = {12.706, 12.706, 4.303, 3.182, 2.776, 2.571};
    const double z = 1.959964, v = degrees;

    if (v < 6)
        return small[v < 1 ? 0 : (unsigned)v];
    return z + (z * z * z + z) / (4 * v) + (5 * pow(z, 5) + 16 * pow(z, 3) + 3 * z) / (96 * v * v) +
           (3 * pow(z, 7) + 19 * pow(z, 5) + 17 * pow(z, 3) - 15 * z) / (384 * v * v * v);
}
