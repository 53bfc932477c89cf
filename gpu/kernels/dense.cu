// Fully connected kernels: all layers of one pair in registers, one pass over memory.
//
// A block of 32 x 8 threads takes a tile of 32 x 32 cosines of a float64 product, carries
// delta = 1 - cos and tau = ntk / sqrt(q1 q2) through `recursion`, which the layer plan wrote, and
// stores the kernel; of a symmetric tile also its mirror, through memory that the block shares.
// The host runs the same phases, one thread after another.

// A sample's numbers, one vector a slot: `shares` in the type of the recursion, `wide` in float64.
struct sample {
    const REAL* shares;
    const double* wide;
    long long stride;
    DEVICE REAL share(int slot) const { return shares[slot * stride]; }
    DEVICE double number(int slot) const { return wide[slot * stride]; }
};

@RECURSION@

struct dense_task {
    const double* products;         // (rows, columns), leading dimension `lead`
    long long rows, columns, lead;
    const REAL *shares_one, *shares_two;
    const double *wide_one, *wide_two;
    long long stride_one, stride_two;
    const double *unit_one, *unit_two;  // (., features) for pairs closer than `near`, or null
    long long features;
    double near;
    const double *ends_one, *ends_two;  // standard deviations at the output
    const double* tangents;             // ntk of each sample with itself; null if not symmetric
    long long row_start, column_start;  // of the tile in the whole matrix
    REAL *nngp, *ntk;                   // null where not asked for
    long long lead_out;
    REAL *mirror_nngp, *mirror_ntk;     // where the transposed tile begins, or null
    long long lead_mirror;
};

struct dense_shared { REAL nngp[32][33], ntk[32][33]; };

DEVICE double first_delta(const dense_task& t, long long i, long long j) {
    double delta = 1 - t.products[i * t.lead + j];
    if (t.unit_one && delta < t.near) {  // half a squared distance has no cancellation
        delta = 0;
        KEEP_LOOP for (long long k = 0; k < t.features; ++k) {
            const double step = t.unit_one[i * t.features + k] - t.unit_two[j * t.features + k];
            delta += 0.5 * step * step;
        }
    }
    return lesser(greater(delta, 0.0), 2.0);
}

// Compute: thread (x, y) of the block takes column x and four rows.
DEVICE void dense_compute(const dense_task& t, dense_shared& shared, long long bi, long long bj,
                          int x, int y) {
    const long long j = bj * 32 + x;
    if (j >= t.columns) return;
    const sample two = {t.shares_two + j, t.wide_two + j, t.stride_two};
    UNROLL for (int r = 0; r < 32; r += 8) {
        const long long i = bi * 32 + y + r;
        if (i >= t.rows) return;
        const sample one = {t.shares_one + i, t.wide_one + i, t.stride_one};
        REAL delta = (REAL)first_delta(t, i, j), tau = 0;
        recursion(delta, tau, one, two);
        const REAL scale = (REAL)(t.ends_one[i] * t.ends_two[j]);
        REAL nngp = scale * (1 - delta), ntk = scale * tau;
        if (t.tangents && t.row_start + i == t.column_start + j) {
            nngp = (REAL)(t.ends_one[i] * t.ends_one[i]);
            ntk = (REAL)t.tangents[i];
        }
        shared.nngp[y + r][x] = nngp;
        shared.ntk[y + r][x] = ntk;
        if (t.nngp) t.nngp[i * t.lead_out + j] = nngp;
        if (t.ntk) t.ntk[i * t.lead_out + j] = ntk;
    }
}

// Mirror: the thread takes row x of the tile, so that neighbours write neighbours.
DEVICE void dense_mirror(const dense_task& t, const dense_shared& shared, long long bi,
                         long long bj, int x, int y) {
    const long long i = bi * 32 + x;
    if (i >= t.rows) return;
    for (int r = 0; r < 32; r += 8) {
        const long long j = bj * 32 + y + r;
        if (j >= t.columns || t.row_start + i >= t.column_start + j) continue;
        if (t.mirror_nngp) t.mirror_nngp[j * t.lead_mirror + i] = shared.nngp[x][y + r];
        if (t.mirror_ntk) t.mirror_ntk[j * t.lead_mirror + i] = shared.ntk[x][y + r];
    }
}

// Blocks that lie below the diagonal of a symmetric matrix are the mirrors of others.
DEVICE bool dense_below(const dense_task& t, long long bi, long long bj) {
    return t.tangents && t.row_start + bi * 32 > t.column_start + bj * 32 + 31;
}

#ifdef ON_DEVICE
extern "C" __global__ void __launch_bounds__(256) dense_kernel(
    const dense_task* __restrict__ task
) {
    const dense_task t = *task;
    __shared__ dense_shared shared;
    const long long bi = blockIdx.y, bj = blockIdx.x;
    if (dense_below(t, bi, bj)) return;
    dense_compute(t, shared, bi, bj, threadIdx.x, threadIdx.y);
    __syncthreads();
    if (t.mirror_nngp || t.mirror_ntk) dense_mirror(t, shared, bi, bj, threadIdx.x, threadIdx.y);
}
#else
extern "C" void dense_host(const dense_task* task) {
    const dense_task& t = *task;
    dense_shared shared;
    for (long long bi = 0; 32 * bi < t.rows; ++bi)
        for (long long bj = 0; 32 * bj < t.columns; ++bj) {
            if (dense_below(t, bi, bj)) continue;
            for (int k = 0; k < 256; ++k) dense_compute(t, shared, bi, bj, k % 32, k / 32);
            if (!t.mirror_nngp && !t.mirror_ntk) continue;
            for (int k = 0; k < 256; ++k) dense_mirror(t, shared, bi, bj, k % 32, k / 32);
        }
}
#endif
