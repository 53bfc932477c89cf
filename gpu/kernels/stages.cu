// One stage of a longer network: the layers of images.cu between states in memory.
//
// FROM_MEMORY takes S and T of all pairs of sites from memory in place of images, and TO_MEMORY
// leaves them there in place of sums over the sites. A state is S (float64) and T (REAL), each
// (pairs, sites, sites): a warp reads and writes one cyclic displacement of one pair, and its
// neighbours in the block the numbers beside, so that sectors are filled before they leave the
// cache. The host runs the same warps, 32 lanes in lockstep.

// One stage of a block of pairs; all displacements, numbered along the rows.
struct stage_task {
    const REAL *images_one, *images_two;  // (n, channels, HEIGHT, WIDTH), or null FROM_MEMORY
    const double* s_in;                   // (pairs, sites, sites) FROM_MEMORY
    const REAL* t_in;                     // the same, or null where it is zero
    const REAL *roots_one, *roots_two;    // (n, depth, HEIGHT, WIDTH, 2)
    const REAL* layers;
    const int* pairs;                     // (pairs, 2): which of the images
    double* s_out;                        // (pairs, sites, sites) TO_MEMORY
    REAL* t_out;                          // the same, or null
    double* sums;                         // (pairs, displacements, 2), or null TO_MEMORY
    long long count;                      // pairs
    double first_share;
    int channels, depth;
    int symmetric;                        // whether image i of the left is image i of the right
};

#define SITES (HEIGHT * WIDTH)

// Where the entry of row 0 lies in the square of one pair, a lane each, and how far on that of y.
DEVICE lane_index entry_at(const displacement& at) {
    return at.column_one * SITES + at.column_two;
}
DEVICE long long row_at(const displacement& at, int y) {
    return (long long)y * WIDTH * SITES + other_row(at, y) * WIDTH;
}

DEVICE void stage_work(const stage_task& task, long long warp) {
    const long long pair = warp / SITES;
    const int shift = (int)(warp % SITES);
    const long long i = task.pairs[2 * pair], j = task.pairs[2 * pair + 1];
    const long long table = 2LL * task.depth * SITES;
    displacement at = displaced(shift / WIDTH, shift % WIDTH);
    at.open.apart = task.symmetric && i == j && shift == 0 ? (REAL)0 : (REAL)1;
    lanes S[HEIGHT], T[HEIGHT];
#ifdef FROM_MEMORY
    const long long begin = pair * SITES * SITES;
    const REAL share = (REAL)task.first_share;
    UNROLL for (int y = 0; y < HEIGHT; ++y) {
        const long long from = begin + row_at(at, y);
        S[y] = fetch_as<lanes>(task.s_in + from, entry_at(at)) * share;
        T[y] = constant<lanes>(0);
        if (task.t_in) T[y] = fetch_as<lanes>(task.t_in + from, entry_at(at)) * share;
    }
#else
    const long long image = (long long)task.channels * SITES;
    from_images(S, T, at, task.images_one + i * image, task.images_two + j * image,
                task.channels, (REAL)task.first_share);
#endif
    through_layers(S, T, at, task.roots_one + i * table, task.roots_two + j * table,
                   (const layer_of_images*)task.layers, task.depth);
#ifdef TO_MEMORY
    const long long end = pair * SITES * SITES;
    UNROLL for (int y = 0; y < HEIGHT; ++y) {
        const long long to = end + row_at(at, y);
        store_as(task.s_out + to, entry_at(at), S[y], at.inside);
        if (task.t_out) store_as(task.t_out + to, entry_at(at), T[y], at.inside);
    }
#else
    double s, t;
    into_sums(S, T, at, &s, &t);
    if (first_lane()) {
        task.sums[2 * warp] = s;
        task.sums[2 * warp + 1] = t;
    }
#endif
}

#ifdef ON_DEVICE
extern "C" __global__ void __launch_bounds__(128, sizeof(REAL) == 4 ? 4 : 2) stage_kernel(
    const stage_task* __restrict__ task
) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (warp >= task->count * SITES) return;
    stage_work(*task, warp);
}
#else
extern "C" void stage_host(const stage_task* task) {
    for (long long warp = 0; warp < task->count * SITES; ++warp) stage_work(*task, warp);
}
#endif
