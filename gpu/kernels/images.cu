// Convolutional tangent kernels, one cyclic displacement of two images a warp.
//
// With stride-1 convolutions the covariance of the sites (p, q) only ever meets that of
// (p + s, q + s): every displacement q - p evolves on its own. The cyclic ones pack without a gap:
// lane x of the warp holds column x, and its registers the rows, of S (the covariance) and T (the
// tangent kernel) through all layers. Zero padding cuts the links over the images' edges: of image
// one behind the last row and column, of image two behind those that the displacement puts there.
//
// HEIGHT, WIDTH and REAL are defined by whoever compiles this; WIDTH is at most 32.
//
// The plain form begins with images and ends with sums over the sites. With STAGE defined it is one
// stage of a longer network: see stages.cu.


// What a layer needs; S is carried times the share that the next convolution takes of it.
struct layer_of_images {
    REAL share;       // times what the activation makes of S and T, and of the next convolution
    REAL kink;        // share (a - b)^2 / ((a^2 + b^2) pi) of a min(x, 0) + b max(x, 0)
    REAL gain;        // of S into T before the convolution
    REAL bias;        // onto S behind it
    REAL bias_gain;   // onto T behind it
};

typedef lanes_of<REAL>::type lanes;

struct links {
    lanes left, right;
#ifdef STAGE
    REAL apart;  // 0 where every site meets itself, else 1
#endif
};

DEVICE lanes across(const lanes& v, const links& open) {
    lanes sum = v + open.left * shuffle_up(v);
    return sum + open.right * shuffle_down(v);
}

// One layer: the convolution, row after row, and the activation at once behind it.
DEVICE void one_layer(
    lanes* S, lanes* T, const layer_of_images& layer, const lane_address<REAL>& one,
    lane_address<REAL> two, int cut, const links& open
) {
    lanes s = across(S[0], open), s_sum = s;
    lanes t = across(T[0] + layer.gain * S[0], open), t_sum = t;
    UNROLL for (int y = 0; y < HEIGHT; ++y) {
        lanes s_next = s, t_next = t, s_below = s, t_below = t;
        if (y + 1 < HEIGHT) {
            s_next = s_below = across(S[y + 1], open);
            t_next = t_below = across(T[y + 1] + layer.gain * S[y + 1], open);
            if (y != cut) {
                s_sum = s_sum + s_next;
                t_sum = t_sum + t_next;
                s_below = s_below + s;
                t_below = t_below + t;
            }
        }
        const lanes cov = s_sum + layer.bias, ntk = t_sum + layer.bias_gain;
        // Tables hold (root, 1 / root) side by side; rows of image two go round with the shift.
        lanes root_one, inverse_one, root_two, inverse_two;
        fetch_two(one, 2 * WIDTH * y, root_one, inverse_one);
        fetch_two(two, 2 * WIDTH * y, root_two, inverse_two);
        if (y == cut) two = moved(two, -2 * WIDTH * HEIGHT);
        lanes delta = (REAL)1 - cov * inverse_one * inverse_two;
#ifdef STAGE
        delta = delta * open.apart;
#endif
        lanes theta, gap;
        angle_and_gap(delta, theta, gap);
        S[y] = layer.share * cov + (layer.kink * root_one) * root_two * gap;
        T[y] = ntk * (layer.share - layer.kink * theta);
        s = s_next;
        t = t_next;
        s_sum = s_below;
        t_sum = t_below;
    }
}

// Where a displacement (down, right) lies: the columns of a lane, and which links are open.
struct displacement {
    lane_index column_one, column_two;
    lane_mask inside;
    links open;
    int down, cut;
};

DEVICE displacement displaced(int down, int right) {
    const lane_index lane = lane_number();
    const lanes zero = constant<lanes>(0), unit = constant<lanes>(1);
    // The link to the right is cut behind the last column of either image; to the left, before it.
    const lane_mask right_open = (lane < WIDTH - 1) & (lane != WIDTH - 1 - right);
    const lane_mask left_open = (lane > 0) & (lane < WIDTH) & (lane != (WIDTH - right) % WIDTH);
    return {lane % WIDTH, (lane + right) % WIDTH, lane < WIDTH,
            {choose(left_open, unit, zero), choose(right_open, unit, zero)}, down,
            HEIGHT - 1 - down};
}

// The row of image two that row y of image one meets.
DEVICE int other_row(const displacement& at, int y) {
    return (y > at.cut ? y - HEIGHT : y) + at.down;
}

DEVICE void from_images(
    lanes* S, lanes* T, const displacement& at, const REAL* image_one, const REAL* image_two,
    int channels, REAL first_share
) {
    UNROLL for (int y = 0; y < HEIGHT; ++y) {
        const int other = other_row(at, y);
        lanes sum = constant<lanes>(0);
        KEEP_LOOP for (int c = 0; c < channels; ++c)
            sum = sum + fetch(image_one + (c * HEIGHT + y) * WIDTH, at.column_one)
                * fetch(image_two + (c * HEIGHT + other) * WIDTH, at.column_two);
        S[y] = sum * first_share;
        T[y] = constant<lanes>(0);
    }
}

DEVICE void through_layers(
    lanes* S, lanes* T, const displacement& at, const REAL* roots_one, const REAL* roots_two,
    const layer_of_images* layers, int depth
) {
    lane_address<REAL> one = address(roots_one, at.column_one * 2);
    lane_address<REAL> two = address(roots_two, (at.column_two + at.down * WIDTH) * 2);
#ifdef FIXED_DEPTH  // the same layer several times, to count what one costs
    UNROLL for (int k = 0; k < FIXED_DEPTH; ++k)
#else
    KEEP_LOOP for (int k = 0; k < depth; ++k)
#endif
    {
        one_layer(S, T, layers[k], one, two, at.cut, at.open);
        one = moved(one, 2 * HEIGHT * WIDTH);
        two = moved(two, 2 * HEIGHT * WIDTH);
    }
}

DEVICE void into_sums(
    const lanes* S, const lanes* T, const displacement& at, double* sum_s, double* sum_t
) {
    const lanes zero = constant<lanes>(0);
    lanes s = zero, t = zero;
    UNROLL for (int y = 0; y < HEIGHT; ++y) {
        s = s + S[y];
        t = t + T[y];
    }
    *sum_s = total_of(choose(at.inside, s, zero));
    *sum_t = total_of(choose(at.inside, t, zero));
}

#ifndef STAGE
// Everything about one batch of pairs. Displacements are (0, 0) first, then along the rows.
struct images_task {
    const REAL *images_one, *images_two;  // (n, channels, HEIGHT, WIDTH)
    const REAL *roots_one, *roots_two;    // (n, depth, HEIGHT, WIDTH, 2)
    const layer_of_images* layers;
    const int* pairs;                     // (pairs, 2): which of the images
    double* sums;                         // (pairs, displacements, 2)
    long long count;                      // pairs
    int displacements, channels, depth;
    REAL first_share;
};

DEVICE void images_work(const images_task& task, long long warp) {
    const long long pair = warp / task.displacements;
    const int shift = (int)(warp % task.displacements);
    const long long i = task.pairs[2 * pair], j = task.pairs[2 * pair + 1];
    const long long image = (long long)task.channels * HEIGHT * WIDTH;
    const long long table = 2LL * task.depth * HEIGHT * WIDTH;
    const displacement at = displaced(shift / WIDTH, shift % WIDTH);
    lanes S[HEIGHT], T[HEIGHT];
    from_images(S, T, at, task.images_one + i * image, task.images_two + j * image,
                task.channels, task.first_share);
    through_layers(S, T, at, task.roots_one + i * table, task.roots_two + j * table, task.layers,
                   task.depth);
    double s, t;
    into_sums(S, T, at, &s, &t);
    if (first_lane()) {
        task.sums[2 * warp] = s;
        task.sums[2 * warp + 1] = t;
    }
}

#ifdef ON_DEVICE
extern "C" __global__ void __launch_bounds__(128, sizeof(REAL) == 4 ? 4 : 2) images_kernel(
    const REAL* images_one, const REAL* images_two, const REAL* roots_one, const REAL* roots_two,
    const REAL* layers, const int* pairs, double* sums, long long count, int displacements,
    int channels, int depth, REAL first_share
) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (warp >= count * displacements) return;
    images_work({images_one, images_two, roots_one, roots_two, (const layer_of_images*)layers,
                 pairs, sums, count, displacements, channels, depth, first_share}, warp);
}
#else
extern "C" void images_host(
    const REAL* images_one, const REAL* images_two, const REAL* roots_one, const REAL* roots_two,
    const REAL* layers, const int* pairs, double* sums, long long count, int displacements,
    int channels, int depth, REAL first_share
) {
    for (long long warp = 0; warp < count * displacements; ++warp)
        images_work({images_one, images_two, roots_one, roots_two, (const layer_of_images*)layers,
                     pairs, sums, count, displacements, channels, depth, first_share}, warp);
}
#endif

#endif
