/* Integer codes of activations and weights, and the gradient of a quantizer whose output was kept as codes.
 *
 * As in quantize.c: plain C, compiled once for each instruction set, and no product contracted with a sum, so that codes
 * are those of the PyTorch code, to the last one.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

#define LANES 32
#define FLUSH 64
#define SHORT 32768

static inline float clamped(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* u = stretch * level(clamp(x * scale + shift, 0, steps)) + start; returns whether there was a NaN, whose code means
 * nothing. All of it is in float numbers, which are whole and small: compilers find vectors for that. */
#define ENCODE(ROUNDED)                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                              \
        float value = clamped(x[i] * scale + shift, 0.0f, steps);                                  \
        value = (ROUNDED)*stretch + start;                                                         \
        broken |= value != value;                                                                  \
        u[i] = (uint8_t)(int32_t)value;                                                            \
    }

int LEVEL(encode)(const float *x, uint8_t *u, int64_t n, float scale, float shift, float steps, float top, int floors,
                  float stretch, float start) {
    int32_t broken = 0;
    if (floors) {
        ENCODE(clamped(floorf(value), 0.0f, top))
    } else {
        ENCODE(rintf(value))
    }
    return broken;
}

/* sums[0] = the sum of codes - middle, sums[1] = that of their squares; both are whole, and exact. */
void LEVEL(code_sums)(const uint8_t *u, int64_t n, int32_t middle, double *sums) {
    int64_t total = 0, squares = 0;
    for (int64_t start = 0; start < n; start += SHORT) { /* 32 bits hold the sums of so many */
        const int64_t end = start + SHORT < n ? start + SHORT : n;
        int32_t some = 0, some_squares = 0;
        for (int64_t i = start; i < end; i++) {
            const int32_t code = (int32_t)u[i] - middle;
            some += code;
            some_squares += code * code;
        }
        total += some;
        squares += some_squares;
    }
    sums[0] = (double)total;
    sums[1] = (double)squares;
}

/* With y = unit * u + offset and h = factor * g: masked = h where low < x < high, else 0;
 * sums[0] += <h, r>, sums[1] += <masked, x>, r being y, or x clipped. */
#define DECODE_BACKWARD(GRADIENT)                                                                  \
    for (int64_t start = 0; start < n; start += LANES * FLUSH) {                                   \
        int64_t end = start + LANES * FLUSH < n ? start + LANES * FLUSH : n, i = start;            \
        float outer_lane[LANES] = {0.0f}, inner_lane[LANES] = {0.0f};                              \
        for (; i + LANES <= end; i += LANES)                                                       \
            for (int lane = 0; lane < LANES; lane++) {                                             \
                int64_t at = i + lane;                                                             \
                float gradient = factor * (GRADIENT), value = x[at];                               \
                float kept = (value <= low || value >= high) ? 0.0f : gradient;                    \
                float reference = calibrated ? unit * (float)u[at] + offset : clamped(value, low, high); \
                masked[at] = kept;                                                                 \
                outer_lane[lane] += gradient * reference;                                          \
                inner_lane[lane] += kept * value;                                                  \
            }                                                                                      \
        for (; i < end; i++) {                                                                     \
            int64_t at = i;                                                                        \
            float gradient = factor * (GRADIENT), value = x[at];                                   \
            float kept = (value <= low || value >= high) ? 0.0f : gradient;                        \
            float reference = calibrated ? unit * (float)u[at] + offset : clamped(value, low, high); \
            masked[at] = kept;                                                                     \
            outer += (double)(gradient * reference);                                               \
            inner += (double)(kept * value);                                                       \
        }                                                                                          \
        for (int lane = 0; lane < LANES; lane++) {                                                 \
            outer += outer_lane[lane];                                                             \
            inner += inner_lane[lane];                                                             \
        }                                                                                          \
    }

static inline float from_bfloat16(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

void LEVEL(decode_backward)(const void *g, int is_bfloat16, const float *x, const uint8_t *u, float *masked, int64_t n,
                            float factor, float unit, float offset, float low, float high, int calibrated,
                            double *sums) {
    double outer = 0.0, inner = 0.0;
    if (is_bfloat16) {
        const uint16_t *g16 = g;
        DECODE_BACKWARD(from_bfloat16(g16[at]))
    } else {
        const float *g32 = g;
        DECODE_BACKWARD(g32[at])
    }
    sums[0] = outer;
    sums[1] = inner;
}
