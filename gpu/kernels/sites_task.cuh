// What a kernel on sites is told, and where its entries lie: see sites.cu.
#pragma once

#define KINK 0    // a min(x, 0) + b max(x, 0), as half = (a^2 + b^2) / 2 and its kink
#define STEP 1
#define SQUARE 2
#define ERF 3
#define GELU 4
#define SINE 5
#define EXP 6
#define SERIES 7
#define USES(family) ((FAMILIES >> (family)) & 1)

struct sites_task {
    const double *s_one, *s_two;      // the states that are read; s_two null where there is one
    const REAL *t_one, *t_two;        // null where zero
    double* s_out;
    REAL* t_out;                      // null where not asked for
    const int* pairs;                 // (pairs, 2): which of the samples
    long long count;                  // entries of all pairs that are made
    long long entries_one, entries_two, entries_out;  // of one pair
    int sites_in, sites_out;
    int full_one, full_two, full_out;  // whether pairs of different sites are held
    int symmetric;                    // whether sample i of the left is sample i of the right

    // Weights and biases, or the two weights of a sum.
    double weight, bias, weight_gain, bias_gain;
    double keep;                      // the share of a site's own variance that dropout leaves
    const int* table;                 // (taps, sites_out), -1 outside; null for each site itself
    int taps;
    int channels;
    const double *input_one, *input_two;      // (n, sites, channels)
    const double *factors_one, *factors_two;  // (n, sites), or null

    // Sums over one axis: in[outer, from, inner] into out[outer, to, inner], by rows of weights.
    const int *starts, *places;
    const double* shares;
    long long from, to, inner;
    int lane_bits;                    // 5 for a warp an entry, 0 for a thread

    // The activation behind the step; -1 for none.
    int family;
    double a, b, c;
    const double *roots_one, *roots_two;  // (n, sites_out, 2): standard deviations and inverses
    const double *rows_one, *rows_two;    // (2 + far + terms, n sites_out)
    long long stride_one, stride_two;
    int terms, far;
};

struct place {
    long long pair;
    int p, q;
};

DEVICE place place_of(const sites_task& t, long long index) {
    const long long pair = index / t.entries_out;
    const int entry = (int)(index - pair * t.entries_out);
    if (!t.full_out) return {pair, entry, entry};
    const int p = entry / t.sites_out;
    return {pair, p, entry - p * t.sites_out};
}

DEVICE long long entry_one(const sites_task& t, long long pair, int p, int q) {
    return pair * t.entries_one + (t.full_one ? (long long)p * t.sites_in + q : (long long)p);
}
DEVICE long long entry_two(const sites_task& t, long long pair, int p, int q) {
    return pair * t.entries_two + (t.full_two ? (long long)p * t.sites_in + q : (long long)p);
}

DEVICE bool itself(const sites_task& t, const place& at) {
    return t.symmetric && at.p == at.q && t.pairs[2 * at.pair] == t.pairs[2 * at.pair + 1];
}
