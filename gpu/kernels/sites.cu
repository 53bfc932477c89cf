// Convolutional kernels step by step: S and T of all pairs of sites lie in memory between steps.
//
// A state is S (the covariance, float64: the angle is the square root of a difference near
// cos = 1) and T (the tangent kernel, REAL) of a block of pairs of samples, (pairs, sites, sites),
// or (pairs, sites) where equal sites are all that is needed. Each kernel makes one state from one
// or two others, a thread an entry, and applies the activation behind it before it stores; the
// geometry comes in tables from the host. Entries are numbered in 64 bits over the block, in 32
// within a pair. The host runs the same entries one after another.
//
// REAL and FAMILIES (a bit for each family that the plan uses) are defined by whoever compiles.

// Rows are the means of phi', the roots of E phi'^2, the far coefficients and the others, of each
// sample's sites. The parity of the function and the far orders stand in a, b and c of the task.
DEVICE dual series_dual(const sites_task& t, long long one, long long two, double w, double delta,
                        bool same) {
    const double c = 1 - delta;
    const double *a = t.rows_one + one, *b = t.rows_two + two;
    const long long da = t.stride_one, db = t.stride_two;
    double value = 0, slope = 0;
    const int first = 2 + t.far;
    for (int l = first + t.terms - 1; l >= first; --l) {
        slope = slope * c + value;
        value = value * c + a[l * da] * b[l * db];
    }
    for (int l = 2; l < first; ++l) {
        const double p = a[l * da] * b[l * db];
        if (p == 0) continue;
        const far_term term = dual_far(p, l == 2 ? t.b : t.c, t.a, delta);
        value += term.value;
        slope += term.slope;
    }
    if (same) return {value, a[da] * b[db]};
    return {value, w > 0 ? slope / w : a[0] * b[0]};
}

DEVICE void activate(const sites_task& t, const place& at, double& s, REAL& ntk) {
    const long long one = t.pairs[2 * at.pair] * (long long)t.sites_out + at.p;
    const long long two = t.pairs[2 * at.pair + 1] * (long long)t.sites_out + at.q;
    const double r1 = t.roots_one[2 * one], r2 = t.roots_two[2 * two], w = r1 * r2;
    double delta = 1 - s * t.roots_one[2 * one + 1] * t.roots_two[2 * two + 1];
    const bool same = itself(t, at);
    if (same || !(w > 0)) delta = 0;
    delta = lesser(greater(delta, 0.0), 2.0);
    if (USES(KINK) && t.family == KINK) {
        REAL theta, gap;
        angle_and_gap((REAL)delta, theta, gap);
        s = t.a * (s + t.b * w * gap);
        ntk *= (REAL)t.a * (1 - (REAL)t.b * theta);
        return;
    }
    const double q1 = r1 * r1, q2 = r2 * r2;
    dual k = {0, 0};
    if ((USES(STEP) && t.family == STEP) || (USES(SQUARE) && t.family == SQUARE)) {
        double theta, gap;
        angle_and_gap(delta, theta, gap);
        if (t.family == SQUARE) k = dual_square(q1, q2, delta, theta, t.a, t.b);
        else if (w > 0) k = dual_step(q1, q2, delta, theta, t.a, t.b);
    }
    if (USES(ERF) && t.family == ERF) k = dual_erf(q1, q2, delta, t.a, t.b, t.c);
    if (USES(GELU) && t.family == GELU) k = dual_gelu(q1, q2, delta);
    if (USES(SINE) && t.family == SINE) k = dual_sine(q1, q2, delta, t.a, t.b, t.c);
    if (USES(EXP) && t.family == EXP) k = dual_exp(q1, q2, delta, t.a, t.b);
    if (USES(SERIES) && t.family == SERIES) {
        k = series_dual(t, one, two, w, delta, same);
    }
    s = k.value;
    ntk *= (REAL)k.slope;
}

DEVICE void finish(const sites_task& t, const place& at, long long index, double s, REAL ntk) {
    if (t.family >= 0) activate(t, at, s, ntk);
    t.s_out[index] = s;
    if (t.t_out) t.t_out[index] = ntk;
}

// The covariances of the inputs.
DEVICE void source_entry(const sites_task& t, long long index, int lane) {
    const place at = place_of(t, index);
    const long long i = t.pairs[2 * at.pair], j = t.pairs[2 * at.pair + 1];
    const double* one = t.input_one + (i * t.sites_out + at.p) * t.channels;
    const double* two = t.input_two + (j * t.sites_out + at.q) * t.channels;
    double s = 0;
    KEEP_LOOP for (int c = 0; c < t.channels; ++c) s += one[c] * two[c];
    finish(t, at, index, s / t.channels, 0);
}

// Random weights: the window's pairs of sites, weighted, and a bias. A tap outside gives nothing.
DEVICE void gather_entry(const sites_task& t, long long index, int lane) {
    const place at = place_of(t, index);
    double s = 0;
    REAL ntk = 0;
    for (int k = 0; k < t.taps; ++k) {
        const int p = t.table ? t.table[k * t.sites_out + at.p] : at.p;
        const int q = t.table ? t.table[k * t.sites_out + at.q] : at.q;
        if (p < 0 || q < 0) continue;
        const long long from = entry_one(t, at.pair, p, q);
        s += t.s_one[from];
        if (t.t_one) ntk += t.t_one[from];
    }
    ntk = (REAL)t.weight * ntk + (REAL)(t.weight_gain * s + t.bias_gain);
    finish(t, at, index, t.weight * s + t.bias, ntk);
}

// Two uncorrelated branches, or one alone.
DEVICE void combine_entry(const sites_task& t, long long index, int lane) {
    const place at = place_of(t, index);
    const long long one = entry_one(t, at.pair, at.p, at.q);
    double s = t.weight * t.s_one[one];
    REAL ntk = t.t_one ? (REAL)t.weight * t.t_one[one] : (REAL)0;
    if (t.s_two) {
        const long long two = entry_two(t, at.pair, at.p, at.q);
        s += t.bias * t.s_two[two];
        if (t.t_two) ntk += (REAL)t.bias * t.t_two[two];
    }
    finish(t, at, index, s, ntk);
}

// The product of two independent branches.
DEVICE void multiply_entry(const sites_task& t, long long index, int lane) {
    const place at = place_of(t, index);
    const long long one = entry_one(t, at.pair, at.p, at.q);
    const long long two = entry_two(t, at.pair, at.p, at.q);
    const double s1 = t.s_one[one], s2 = t.s_two[two];
    REAL ntk = 0;
    if (t.t_one) ntk += t.t_one[one] * (REAL)s2;
    if (t.t_two) ntk += (REAL)s1 * t.t_two[two];
    finish(t, at, index, s1 * s2, ntk);
}

// A factor a site of each sample, or one for all; a trained gain and bias behind; dropout.
DEVICE void factor_entry(const sites_task& t, long long index, int lane) {
    const place at = place_of(t, index);
    const long long one = entry_one(t, at.pair, at.p, at.q);
    double factor = t.weight;
    if (t.factors_one)
        factor *= t.factors_one[t.pairs[2 * at.pair] * (long long)t.sites_out + at.p]
                * t.factors_two[t.pairs[2 * at.pair + 1] * (long long)t.sites_out + at.q];
    if (itself(t, at)) factor /= t.keep;
    const double s = factor * t.s_one[one];
    const REAL ntk = t.t_one ? (REAL)factor * t.t_one[one] : (REAL)0;
    finish(t, at, index, s, ntk + (REAL)(t.weight_gain * s + t.bias_gain));
}

// Pooling, one axis of sites at a time, and sums over all. A warp takes every 32nd weight of a row
// for each lane; the host, all of them.
DEVICE void linear_entry(const sites_task& t, long long index, int lane) {
    const long long row = index / t.inner, inner = index - row * t.inner;
    const long long outer = row / t.to;
    const int r = (int)(row - outer * t.to);
#ifdef ON_DEVICE
    const int step = 1 << t.lane_bits;
#else
    const int step = 1;
#endif
    double s = 0, ntk = 0;
    for (int k = t.starts[r] + lane; k < t.starts[r + 1]; k += step) {
        const long long from = (outer * t.from + t.places[k]) * t.inner + inner;
        s += t.shares[k] * t.s_one[from];
        if (t.t_one) ntk += t.shares[k] * t.t_one[from];
    }
#ifdef ON_DEVICE
    if (step > 1) {
        s = total_of(s);
        ntk = total_of(ntk);
    }
#endif
    if (lane == 0) finish(t, place_of(t, index), index, s, (REAL)ntk);
}

#ifdef ON_DEVICE
// Blocks are of whole warps, so that the lanes of one entry are the lanes of one warp.
#define SITES_KERNEL(name)                                                                    \
    extern "C" __global__ void __launch_bounds__(256) sites_##name##_kernel(                  \
        const sites_task* __restrict__ task) {                                                \
        const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;            \
        const long long index = thread >> task->lane_bits;                                    \
        const int lane = (int)(thread & ((1 << task->lane_bits) - 1));                        \
        if (index < task->count) name##_entry(*task, index, lane);                            \
    }
#else
#define SITES_KERNEL(name)                                                                    \
    extern "C" void sites_##name##_host(const sites_task* task) {                             \
        for (long long index = 0; index < task->count; ++index) name##_entry(*task, index, 0); \
    }
#endif

SITES_KERNEL(source)
SITES_KERNEL(gather)
SITES_KERNEL(combine)
SITES_KERNEL(multiply)
SITES_KERNEL(factor)
SITES_KERNEL(linear)
