/* The smoothest filling of a hole, from coarse to fine: the solution at half the size is where conjugate gradients begin.
 *
 * The equation is solved on a grid of the whole box, row by row between the first and the last pixel of the hole: reading
 * neighbours at fixed distances is worth more than leaving out what is known in between. As in quantize.c: plain C,
 * compiled once for each instruction set.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

#define LANES 16
#define COARSEST 4

/* Sums are kept in lanes, which compilers find vectors for: they may not change the order of sums themselves. */
#define IN_LANES(ROW, begin, end)                                                                  \
    int64_t i = begin;                                                                             \
    for (; i + LANES <= (end); i += LANES) {                                                       \
        for (int lane = 0; lane < LANES; lane++) {                                                 \
            ROW(i + lane, lane)                                                                    \
        }                                                                                          \
    }                                                                                              \
    for (; i < (end); i++) {                                                                       \
        ROW(i, 0)                                                                                  \
    }

/* What of a plane with a border of zeros is to be solved for. */
typedef struct {
    int64_t rows, width;          /* with the border */
    int64_t *begin, *end;         /* columns of each row from the first pixel of the hole to behind the last */
    float *degree, *inverse;      /* neighbours inside the image, and 1 over that; both 0 outside the hole */
} grid_t;

/* product = degree * x - the sum of x over the neighbours; returns the sum of x * product. x is 0 outside the hole. */
static double apply(const grid_t *grid, const float *x, float *product) {
    double sum = 0;
    for (int64_t row = 1; row < grid->rows - 1; row++) {
        const int64_t base = row * grid->width;
        const float *degree = grid->degree + base, *here = x + base, *up = here - grid->width, *down = here + grid->width;
        float *out = product + base, lanes[LANES] = {0};
#define ROW(at, lane)                                                                              \
    const float value = degree[at] * here[at] - here[at - 1] - here[at + 1] - up[at] - down[at];   \
    out[at] = degree[at] != 0 ? value : 0;                                                         \
    lanes[lane] += here[at] * out[at];
        IN_LANES(ROW, grid->begin[row], grid->end[row])
#undef ROW
        for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    }
    return sum;
}

/* solution += step * direction, residual -= step * product; returns the sum of residual^2 / degree and sets the largest. */
static double advance(const grid_t *grid, float step, const float *direction, const float *product, float *solution,
                      float *residual, float *largest) {
    double sum = 0;
    float most = 0;
    for (int64_t row = 1; row < grid->rows - 1; row++) {
        const int64_t base = row * grid->width;
        const float *d = direction + base, *p = product + base, *inverse = grid->inverse + base;
        float *s = solution + base, *r = residual + base, lanes[LANES] = {0}, peaks[LANES] = {0};
#define ROW(at, lane)                                                                              \
    s[at] += step * d[at];                                                                         \
    r[at] -= step * p[at];                                                                         \
    lanes[lane] += r[at] * r[at] * inverse[at];                                                    \
    peaks[lane] = fabsf(r[at]) > peaks[lane] ? fabsf(r[at]) : peaks[lane];
        IN_LANES(ROW, grid->begin[row], grid->end[row])
#undef ROW
        for (int lane = 0; lane < LANES; lane++) {
            sum += lanes[lane];
            most = peaks[lane] > most ? peaks[lane] : most;
        }
    }
    *largest = most;
    return sum;
}

/* direction = residual / degree + ratio * direction */
static void turn(const grid_t *grid, float ratio, const float *residual, float *direction) {
    for (int64_t row = 1; row < grid->rows - 1; row++) {
        const int64_t base = row * grid->width;
        const float *r = residual + base, *inverse = grid->inverse + base;
        float *d = direction + base;
        for (int64_t i = grid->begin[row]; i < grid->end[row]; i++) d[i] = r[i] * inverse[i] + ratio * d[i];
    }
}

/* One channel of (rows, width) with what is known, and the guess in the hole; the other planes are 0. */
static void conjugate_gradients(const grid_t *grid, float *solution, float *residual, float *direction, float *product,
                                float tolerance, int most) {
    for (int64_t row = 1; row < grid->rows - 1; row++) {
        const int64_t base = row * grid->width;
        for (int64_t i = base + grid->begin[row]; i < base + grid->end[row]; i++) {
            const float near = solution[i - 1] + solution[i + 1] + solution[i - grid->width] + solution[i + grid->width];
            residual[i] = grid->degree[i] != 0 ? near - grid->degree[i] * solution[i] : 0;
        }
    }
    float largest;
    double energy = advance(grid, 0, direction, product, solution, residual, &largest);
    turn(grid, 0, residual, direction);
    for (int step = 0; step < most && largest > tolerance; step++) {
        const double curvature = apply(grid, direction, product), before = energy;
        energy = advance(grid, (float)(energy / (curvature > 1e-30 ? curvature : 1e-30)), direction, product, solution,
                         residual, &largest);
        turn(grid, (float)(energy / (before > 1e-30 ? before : 1e-30)), residual, direction);
    }
}

/* A first guess in the hole from half the size. */
static int guess(float *values, const uint8_t *hole, int64_t channels, int64_t height, int64_t width, float tolerance,
                 int most);

int LEVEL(harmonic)(float *values, const uint8_t *hole, int64_t channels, int64_t height, int64_t width, float tolerance,
                    int most) {
    const int64_t rows = height + 2, wide = width + 2, plane = rows * wide;
    if (guess(values, hole, channels, height, width, tolerance, most)) return -1;
    float *planes = calloc(6 * plane, sizeof(float));
    int64_t *ends = calloc(2 * rows, sizeof(int64_t));
    if (!planes || !ends) {
        free(planes);
        free(ends);
        return -1;
    }
    float *solution = planes, *residual = planes + plane, *direction = planes + 2 * plane, *product = planes + 3 * plane;
    const grid_t grid = {rows, wide, ends, ends + rows, planes + 4 * plane, planes + 5 * plane};
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            if (!hole[y * width + x]) continue;
            const int64_t at = (y + 1) * wide + x + 1;
            if (!grid.end[y + 1]) grid.begin[y + 1] = x + 1;
            grid.end[y + 1] = x + 2;
            grid.degree[at] = (float)((x > 0) + (x < width - 1) + (y > 0) + (y < height - 1));
            grid.inverse[at] = 1 / grid.degree[at];
        }
    }
    for (int64_t channel = 0; channel < channels; channel++) {
        float *own = values + channel * height * width;
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x++) solution[(y + 1) * wide + x + 1] = own[y * width + x];
        for (int64_t i = 0; i < 3 * plane; i++) residual[i] = 0; /* and the two planes behind it */
        conjugate_gradients(&grid, solution, residual, direction, product, tolerance, most);
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x++)
                if (hole[y * width + x]) own[y * width + x] = solution[(y + 1) * wide + x + 1];
    }
    free(planes);
    free(ends);
    return 0;
}

static int guess(float *values, const uint8_t *hole, int64_t channels, int64_t height, int64_t width, float tolerance,
                 int most) {
    const int64_t area = height * width, down = (height + 1) / 2, across = (width + 1) / 2;
    if (height < COARSEST || width < COARSEST) {
        int64_t count = 0;
        for (int64_t i = 0; i < area; i++) count += !hole[i];
        for (int64_t channel = 0; channel < channels; channel++, values += area) {
            float sum = 0;
            for (int64_t i = 0; i < area; i++) sum += hole[i] ? 0 : values[i];
            for (int64_t i = 0; i < area; i++)
                if (hole[i]) values[i] = sum / (float)(count > 1 ? count : 1);
        }
        return 0;
    }
    float *coarse = malloc(channels * down * across * sizeof(float));
    uint8_t *coarse_hole = malloc(down * across);
    if (!coarse || !coarse_hole) {
        free(coarse);
        free(coarse_hole);
        return -1;
    }
    int64_t unknown = 0;
    for (int64_t y = 0; y < down; y++) {
        for (int64_t x = 0; x < across; x++) {
            const int64_t last_row = 2 * y + 1 < height, last_column = 2 * x + 1 < width;
            int64_t count = 0;
            for (int64_t channel = 0; channel < channels; channel++) {
                const float *own = values + channel * area;
                float sum = 0;
                count = 0;
                for (int64_t row = 2 * y; row <= 2 * y + last_row; row++) {
                    for (int64_t column = 2 * x; column <= 2 * x + last_column; column++) {
                        if (hole[row * width + column]) continue;
                        sum += own[row * width + column];
                        count++;
                    }
                }
                coarse[(channel * down + y) * across + x] = count ? sum / (float)count : 0;
            }
            coarse_hole[y * across + x] = !count;
            unknown += !count;
        }
    }
    int failed = 0;
    if (unknown) failed = LEVEL(harmonic)(coarse, coarse_hole, channels, down, across, tolerance, most);
    for (int64_t y = 0; y < height && !failed; y++) {
        int64_t far_row = y / 2 + (y % 2 ? 1 : -1);
        far_row = far_row < 0 ? 0 : far_row >= down ? down - 1 : far_row;
        for (int64_t x = 0; x < width; x++) {
            if (!hole[y * width + x]) continue;
            int64_t far = x / 2 + (x % 2 ? 1 : -1);
            far = far < 0 ? 0 : far >= across ? across - 1 : far;
            for (int64_t channel = 0; channel < channels; channel++) {
                const float *own = coarse + channel * down * across;
                const float *near_row = own + y / 2 * across, *other_row = own + far_row * across;
                const float left = 0.75f * near_row[x / 2] + 0.25f * other_row[x / 2];
                const float right = 0.75f * near_row[far] + 0.25f * other_row[far];
                values[channel * area + y * width + x] = 0.75f * left + 0.25f * right;
            }
        }
    }
    free(coarse);
    free(coarse_hole);
    return failed;
}
