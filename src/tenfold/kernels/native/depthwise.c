/* The backward pass of depthwise convolutions: k x k kernels, one for each channel, on images with channels last.
 *
 * Compiled several times, as quantize.c is. One vector holds LANES channels of one pixel. Such a slice of a few rows is
 * copied into a small buffer with zeros around it, so that the loops over kernels know no borders and no odd strides; a
 * copy costs one load and one store a pixel, beside the 2 k^2 multiply-adds that follow from cache. A call works on some
 * of the slices and on all images, so the caller may give slices to threads: each sum over images and pixels is made by
 * one of them, and results do not depend on how many there are.
 *
 * Rows and columns of the input are counted with its padding: u = row + padding, so that output row o meets input rows
 * u = o * stride + tap.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

/* A vector in the buffers, and one anywhere in the caller's arrays. */
typedef float vector __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define ALIGNMENT 64
#define WIDEST 8                /* columns of the input's gradient that are summed at once, in registers */
#define LARGEST 7               /* kernel */
#define BAND_BYTES (256 * 1024) /* rows of input and gradient that stay in the second-level cache */
#define BLOCK 8                 /* slices that go through a band together: memory brings neighbours along */
#define RUN 48                  /* columns, at least, that a kernel's gradient is summed over before it is stored */

typedef struct {
    int64_t images, channels, height, width, out_height, out_width, kernel, stride, padding;
} geometry;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static inline vector load(const float *from, int64_t channels) {
    if (channels >= LANES) return *(const loose *)from;
    vector value = {0.0f};
    for (int64_t c = 0; c < channels; c++) value[c] = from[c];
    return value;
}

static inline void store(vector value, float *to, int64_t channels) {
    if (channels >= LANES)
        *(loose *)to = value;
    else
        for (int64_t c = 0; c < channels; c++) to[c] = value[c];
}

/* A buffer with some rows of one slice of an image; `margin` zeros before the first of `width` columns. */
typedef struct {
    vector *values;
    int64_t width, margin;
} buffer;

/* Fill it with rows `first` to `last` - 1 of an image; there are zeros where the image has no row or no column. */
static void fill(buffer to, const float *image, int64_t height, int64_t width, int64_t first, int64_t last,
                 int64_t channels) {
    const int64_t left = least(to.margin, to.width), inside = least(width, to.width - left);
    for (int64_t row = first; row < last; row++) {
        vector *const target = to.values + (row - first) * to.width;
        if (row < 0 || row >= height) {
            memset(target, 0, (size_t)to.width * sizeof(vector));
            continue;
        }
        const float *const from = image + row * width * channels;
        memset(target, 0, (size_t)left * sizeof(vector));
        for (int64_t i = 0; i < inside; i++) target[left + i] = load(from + i * channels, channels);
        memset(target + left + inside, 0, (size_t)(to.width - left - inside) * sizeof(vector));
    }
}

/* `count` columns of one row of the input's gradient, `stride` pixels apart: column j is the sum over taps (a, b) of
 * g[j - a * g_width - b] * w[stride * (a * kernel + b)]. */
static inline __attribute__((always_inline)) void spread(const vector *g, int64_t g_width, const vector *w,
                                                         int64_t kernel, int64_t stride, int64_t rows,
                                                         int64_t columns, float *to, int64_t count, int64_t channels,
                                                         const int tile) {
    for (int64_t first = 0; first < count; first += tile) {
        vector sums[WIDEST];
#pragma GCC unroll 8
        for (int j = 0; j < tile; j++) sums[j] = (vector){0.0f};
        for (int64_t a = 0; a < rows; a++)
            for (int64_t b = 0; b < columns; b++) {
                const vector tap = w[stride * (a * kernel + b)], *from = g + first - a * g_width - b;
#pragma GCC unroll 8
                for (int j = 0; j < tile; j++) sums[j] += tap * from[j];
            }
        float *const target = to + first * stride * channels;
#pragma GCC unroll 8
        for (int j = 0; j < tile; j++)
            if (first + j < count) store(sums[j], target + j * stride * channels, channels);
    }
}

/* Row u of the input's gradient, which row `row` of the buffer and those before it make; w is the kernel. */
static void input_row(buffer g, int64_t row, const vector *w, const geometry *shape, int64_t u, float *to) {
    const int64_t kernel = shape->kernel, stride = shape->stride, padding = shape->padding, channels = shape->channels;
    const int64_t rows = (kernel - u % stride + stride - 1) / stride;
    for (int64_t v = padding; v < padding + least(stride, shape->width); v++) {
        const int64_t columns = (kernel - v % stride + stride - 1) / stride;
        const int64_t count = (padding + shape->width - v + stride - 1) / stride;
        const vector *const from = g.values + row * g.width + g.margin + v / stride;
        const vector *const taps = w + u % stride * kernel + v % stride;
        float *const target = to + (v - padding) * channels;
        if ((count + 6) / 7 * 7 < (count + 7) / 8 * 8) /* which leaves less over */
            spread(from, g.width, taps, kernel, stride, rows, columns, target, count, channels, 7);
        else
            spread(from, g.width, taps, kernel, stride, rows, columns, target, count, channels, 8);
    }
}

/* Add what some rows of the output contribute to the gradient of one row of a kernel. */
static inline __attribute__((always_inline)) void gather(buffer g, buffer x, int64_t row, int64_t rows, int64_t a,
                                                         const geometry *shape, vector *dw, const int kernel) {
    vector even[LARGEST], odd[LARGEST];
#pragma GCC unroll 8
    for (int b = 0; b < kernel; b++) even[b] = odd[b] = (vector){0.0f};
    const int64_t width = shape->out_width, stride = shape->stride;
    for (const int64_t end = row + rows; row < end; row++) {
        const vector *const gradient = g.values + row * g.width + g.margin;
        const vector *const input = x.values + (row * stride + a) * x.width;
        int64_t column = 0;
        for (; column + 2 <= width; column += 2) {
            const vector first = gradient[column], second = gradient[column + 1];
            const vector *const near = input + column * stride, *const far = near + stride;
#pragma GCC unroll 8
            for (int b = 0; b < kernel; b++) {
                even[b] += first * near[b];
                odd[b] += second * far[b];
            }
        }
        if (column < width) {
            const vector first = gradient[column], *const near = input + column * stride;
#pragma GCC unroll 8
            for (int b = 0; b < kernel; b++) even[b] += first * near[b];
        }
    }
#pragma GCC unroll 8
    for (int b = 0; b < kernel; b++) dw[b] += even[b] + odd[b];
}

/* Gradients of x and of the kernels, for the channels of one of `parts` equal parts of the slices. There are
 * ceil(channels / LANES) slices; where the last one is not full it begins earlier and repeats a few channels.
 *
 * x and dx are (images, height, width, channels), g is (images, out_height, out_width, channels), w and dw are
 * (kernel, kernel, channels). dx or dw may be NULL, and is then not computed. Kernels: 5 and 7. No array is empty.
 * Returns 0, or 1 if there is no memory. */
int LEVEL(depthwise_backward)(const float *x, const float *g, const float *w, float *dx, float *dw,
                              const geometry *shape, int64_t part, int64_t parts) {
    const int64_t channels = shape->channels, height = shape->height, width = shape->width;
    const int64_t out_height = shape->out_height, out_width = shape->out_width;
    const int64_t kernel = shape->kernel, stride = shape->stride, padding = shape->padding, taps = kernel * kernel;
    const int64_t all = (channels + LANES - 1) / LANES, first = all * part / parts, last = all * (part + 1) / parts;
    const int64_t reach = (kernel - 1) / stride; /* output rows before u / stride that meet u */
    const int64_t end_row = most(out_height, (padding + height - 1) / stride + 1);
    const int64_t end_column = most(out_width, (padding + width - 1) / stride + 1);
    const int64_t row_bytes = (2 * width * stride + out_width) * least(channels, BLOCK * LANES) * 4;
    const int64_t band = least(out_height, most(kernel / 2, BAND_BYTES / row_bytes));
    const int64_t group = (RUN + out_width - 1) / out_width;

    buffer gs = {NULL, reach + end_column + WIDEST, reach}, xs = {NULL, (out_width - 1) * stride + kernel, padding};
    const int64_t g_size = (reach + band + end_row - out_height) * gs.width;
    const int64_t x_size = ((band - 1) * stride + kernel) * xs.width;
    const size_t bytes = (size_t)(g_size + x_size + 2 * BLOCK * taps) * sizeof(vector);
    vector *const memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (memory == NULL) return 1;
    gs.values = memory;
    xs.values = memory + g_size;
    vector *const kernels = xs.values + x_size, *const sums = kernels + BLOCK * taps;

    for (int64_t begin = first; begin < last; begin += BLOCK) {
        const int64_t slices = least(BLOCK, last - begin);
        memset(sums, 0, (size_t)(slices * taps) * sizeof(vector));
        for (int64_t slice = 0; slice < slices; slice++) {
            const int64_t channel = most(0, least((begin + slice) * LANES, channels - LANES));
            for (int64_t tap = 0; tap < taps; tap++)
                kernels[slice * taps + tap] = load(w + tap * channels + channel, channels);
        }
        for (int64_t image = 0; image < shape->images; image++)
            for (int64_t from = 0; from < out_height; from += band)
                for (int64_t slice = 0; slice < slices; slice++) {
                    const int64_t to = least(from + band, out_height), is_last = to == out_height;
                    const int64_t channel = most(0, least((begin + slice) * LANES, channels - LANES));
                    const int64_t start = image * height * width * channels + channel;
                    fill(gs, g + image * out_height * out_width * channels + channel, out_height, out_width,
                         from - reach, is_last ? end_row : to, channels);
                    if (dw != NULL) {
                        const buffer inner = {gs.values + reach * gs.width, gs.width, gs.margin};
                        fill(xs, x + start, height, width, from * stride - padding,
                             (to - 1) * stride + kernel - padding, channels);
                        for (int64_t row = 0; row < to - from; row += group)
                            for (int64_t a = 0; a < kernel; a++) {
                                const int64_t rows = least(group, to - from - row);
                                vector *const sum = sums + slice * taps + a * kernel;
                                if (kernel == 5)
                                    gather(inner, xs, row, rows, a, shape, sum, 5);
                                else
                                    gather(inner, xs, row, rows, a, shape, sum, 7);
                            }
                    }
                    if (dx != NULL) {
                        const int64_t end = padding + height, until = is_last ? end : least(to * stride, end);
                        for (int64_t u = most(from * stride, padding); u < until; u++)
                            input_row(gs, u / stride - from + reach, kernels + slice * taps, shape, u,
                                      dx + start + (u - padding) * width * channels);
                    }
                }
        if (dw != NULL)
            for (int64_t slice = 0; slice < slices; slice++) {
                const int64_t channel = most(0, least((begin + slice) * LANES, channels - LANES));
                for (int64_t tap = 0; tap < taps; tap++)
                    store(sums[slice * taps + tap], dw + tap * channels + channel, channels);
            }
    }
    free(memory);
    return 0;
}
