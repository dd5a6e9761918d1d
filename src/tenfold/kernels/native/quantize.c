/* Quantizers in one pass over memory.
 *
 * Compiled several times, for instruction sets of different width; LEVEL(name) gives each its own names, and dispatch.c
 * chooses. Plain C on plain arrays: nothing here knows torch. Each function works on n consecutive numbers, so that the
 * caller can give parts to several threads. No multiplication is contracted with an addition (the build says so): the
 * values are those of the PyTorch code, to the bit.
 */
#include <math.h>
#include <stdint.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

/* Sums run in so many lanes, which one or two vectors hold, and go to double precision after so many numbers a lane. */
#define LANES 32
#define FLUSH 64

enum { NONE = 0, ROUND = 1, FLOOR = 2, FLOOR_CENTERED = 3 };

static inline float clamped(float value, float low, float high) {
    value = value < low ? low : value; /* so that NaN stays NaN, as in torch.clamp */
    return value > high ? high : value;
}

static inline float levelled(float value, float top, int kind) {
    if (kind == ROUND) return rintf(value);
    if (kind == FLOOR) return clamped(floorf(value), 0.0f, top);
    if (kind == FLOOR_CENTERED) return clamped(floorf(value), 0.0f, top) + 0.5f;
    return value;
}

/* y = unit * level(clamp(x * scale + shift, 0, steps)) + offset. */
#define AFFINE_ROUND(KIND)                                                                         \
    for (int64_t i = 0; i < n; i++)                                                                \
        y[i] = levelled(clamped(x[i] * scale + shift, 0.0f, steps), top, KIND) * unit + offset;

void LEVEL(affine_round)(const float *x, float *y, int64_t n, float scale, float shift, float steps, float top,
                         int kind, float unit, float offset) {
    switch (kind) {
        case ROUND: AFFINE_ROUND(ROUND) break;
        case FLOOR: AFFINE_ROUND(FLOOR) break;
        case FLOOR_CENTERED: AFFINE_ROUND(FLOOR_CENTERED) break;
        default: AFFINE_ROUND(NONE) break;
    }
}

/* q(u) between two grids of u in [0, 1]; a grid without steps is the constant zero. */
typedef struct {
    float scale, shift;                  /* u = clamp(x * scale + shift, 0, 1) */
    float steps[2], top[2], share, zero; /* of both grids; the share of the second */
    float unit, offset;                  /* y = unit * q(u) + offset */
    int32_t kind;
} Interpolation;

static inline float placed(float u, float steps, float top, float zero, int kind) {
    return steps > 0.0f ? levelled(u * steps, top, kind) / steps : zero;
}

#define EACH_KIND(kind, LOOP)                                                                      \
    switch (kind) {                                                                                \
        case ROUND: LOOP(ROUND) break;                                                             \
        case FLOOR: LOOP(FLOOR) break;                                                             \
        default: LOOP(FLOOR_CENTERED) break;                                                       \
    }

/* y = unit * (q_0 + share (q_1 - q_0)) + offset. */
#define INTERPOLATE(KIND)                                                                          \
    for (int64_t i = 0; i < n; i++) {                                                              \
        float u = clamped(x[i] * o.scale + o.shift, 0.0f, 1.0f);                                   \
        float below = placed(u, o.steps[0], o.top[0], o.zero, KIND);                               \
        float above = placed(u, o.steps[1], o.top[1], o.zero, KIND);                               \
        y[i] = (below + o.share * (above - below)) * o.unit + o.offset;                            \
    }

void LEVEL(interpolate)(const float *x, float *y, int64_t n, const Interpolation *options) {
    const Interpolation o = *options;
    EACH_KIND(o.kind, INTERPOLATE)
}

/* sums[0] += <g, q_1 - q_0>. */
#define INTERPOLATE_SLOPE(KIND)                                                                    \
    for (; i + LANES <= end; i += LANES)                                                           \
        for (int lane = 0; lane < LANES; lane++) {                                                 \
            float u = clamped(x[i + lane] * o.scale + o.shift, 0.0f, 1.0f);                        \
            float below = placed(u, o.steps[0], o.top[0], o.zero, KIND);                           \
            lanes[lane] += g[i + lane] * (placed(u, o.steps[1], o.top[1], o.zero, KIND) - below);  \
        }                                                                                          \
    for (; i < end; i++) {                                                                         \
        float u = clamped(x[i] * o.scale + o.shift, 0.0f, 1.0f);                                   \
        float below = placed(u, o.steps[0], o.top[0], o.zero, KIND);                               \
        total += (double)(g[i] * (placed(u, o.steps[1], o.top[1], o.zero, KIND) - below));         \
    }

void LEVEL(interpolate_slope)(const float *g, const float *x, int64_t n, const Interpolation *options, double *sums) {
    const Interpolation o = *options;
    double total = 0.0;
    for (int64_t start = 0; start < n; start += LANES * FLUSH) {
        int64_t end = start + LANES * FLUSH < n ? start + LANES * FLUSH : n, i = start;
        float lanes[LANES] = {0.0f};
        EACH_KIND(o.kind, INTERPOLATE_SLOPE)
        for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
    }
    sums[0] = total;
}

/* masked = g where low < x < high, else 0; sums[0] += <g, r>, sums[1] += <masked, x>, r being y, or x clipped. */
void LEVEL(clip_backward)(const float *g, const float *x, const float *y, float *masked, int64_t n, float low,
                          float high, int calibrated, double *sums) {
    double outer = 0.0, inner = 0.0;
    for (int64_t start = 0; start < n; start += LANES * FLUSH) {
        int64_t end = start + LANES * FLUSH < n ? start + LANES * FLUSH : n, i = start;
        float outer_lane[LANES] = {0.0f}, inner_lane[LANES] = {0.0f};
        for (; i + LANES <= end; i += LANES)
            for (int lane = 0; lane < LANES; lane++) {
                float gradient = g[i + lane], value = x[i + lane];
                float kept = (value <= low || value >= high) ? 0.0f : gradient;
                float reference = calibrated ? y[i + lane] : clamped(value, low, high);
                masked[i + lane] = kept;
                outer_lane[lane] += gradient * reference;
                inner_lane[lane] += kept * value;
            }
        for (; i < end; i++) {
            float kept = (x[i] <= low || x[i] >= high) ? 0.0f : g[i];
            float reference = calibrated ? y[i] : clamped(x[i], low, high);
            masked[i] = kept;
            outer += (double)(g[i] * reference);
            inner += (double)(kept * x[i]);
        }
        for (int lane = 0; lane < LANES; lane++) {
            outer += outer_lane[lane];
            inner += inner_lane[lane];
        }
    }
    sums[0] = outer;
    sums[1] = inner;
}

/* sums = (sum x, sum x^2), all in double precision: a variance is the small difference of the two. */
void LEVEL(moments)(const float *x, int64_t n, double *sums) {
    double first = 0.0, second = 0.0, first_lane[LANES] = {0.0}, second_lane[LANES] = {0.0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            double value = x[i + lane];
            first_lane[lane] += value;
            second_lane[lane] += value * value;
        }
    for (; i < n; i++) {
        first += x[i];
        second += (double)x[i] * x[i];
    }
    for (int lane = 0; lane < LANES; lane++) {
        first += first_lane[lane];
        second += second_lane[lane];
    }
    sums[0] = first;
    sums[1] = second;
}

/* A fused product and sum where the processor has it in one instruction; for polynomials of our own only. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FUSED(a, b, c) __builtin_fmaf(a, b, c)
#else
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif

/* t = tanh(x), to 3e-7: the rational approximation of degree 13 over 6 of Eigen and XLA. */
static inline float squashed(float x) {
    x = clamped(x, -7.90531110763549805f, 7.90531110763549805f);
    float s = x * x;
    float p = FUSED(s, -2.76076847742355e-16f, 2.00018790482477e-13f);
    p = FUSED(s, p, -8.60467152213735e-11f);
    p = FUSED(s, p, 5.12229709037114e-08f);
    p = FUSED(s, p, 1.48572235717979e-05f);
    p = FUSED(s, p, 6.37261928875436e-04f);
    p = FUSED(s, p, 4.89352455891786e-03f);
    float q = FUSED(s, 1.19825839466702e-06f, 1.18534705686654e-04f);
    q = FUSED(s, q, 2.26843463243900e-03f);
    q = FUSED(s, q, 4.89352518554385e-03f);
    return x * p / q;
}

void LEVEL(tanh)(const float *x, float *t, int64_t n) {
    for (int64_t i = 0; i < n; i++) t[i] = squashed(x[i]);
}

/* out = g * (1 - t^2) / peak, the gradient of tanh(w) / peak but for the maximum; sums = <g, t>. */
void LEVEL(tanh_backward)(const float *g, const float *t, float *out, int64_t n, float peak, double *sums) {
    double total = 0.0;
    for (int64_t start = 0; start < n; start += LANES * FLUSH) {
        int64_t end = start + LANES * FLUSH < n ? start + LANES * FLUSH : n, i = start;
        float lanes[LANES] = {0.0f};
        for (; i + LANES <= end; i += LANES)
            for (int lane = 0; lane < LANES; lane++) {
                float gradient = g[i + lane], value = t[i + lane];
                out[i + lane] = gradient * (1.0f - value * value) / peak;
                lanes[lane] += gradient * value;
            }
        for (; i < end; i++) {
            out[i] = g[i] * (1.0f - t[i] * t[i]) / peak;
            total += (double)(g[i] * t[i]);
        }
        for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
    }
    sums[0] = total;
}

/* The first position that holds the value; -1 if none does. */
int64_t LEVEL(find)(const float *x, int64_t n, float value) {
    int64_t i = 0;
    for (; i + 1024 <= n; i += 1024) {
        int found = 0;
        for (int j = 0; j < 1024; j++) found |= x[i + j] == value;
        if (found) break;
    }
    for (; i < n; i++)
        if (x[i] == value) return i;
    return -1;
}
