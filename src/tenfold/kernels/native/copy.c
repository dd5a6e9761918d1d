/* Colours between the pixels of frames, bilinearly among the known ones, added up by shares.
 *
 * As in quantize.c: plain C, compiled once for each instruction set, and no product contracted with a sum, so that
 * colours are those of the numpy code, to the bit.
 */
#include <math.h>
#include <stdint.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

static inline float clamped(float value, float high) {
    value = value < 0 ? 0 : value;
    return value > high ? high : value;
}

/* For each of n points: the frame it lies in (less than 0: none), its x and y there, and its share. `pictures` and
 * `holes` are those of `count` frames from `first` on. Adds to total (n, 3) and weight (n); returns the points whose
 * frame is not there. */
int64_t LEVEL(copy_colours)(const int64_t *frames, const float *x, const float *y, const float *share, int64_t n,
                            const uint8_t *const *pictures, const uint8_t *const *holes, int64_t first, int64_t count,
                            int64_t height, int64_t width, float *total, float *weight) {
    int64_t missing = 0;
    for (int64_t i = 0; i < n; i++) {
        if (frames[i] < 0) continue;
        const int64_t number = frames[i] - first;
        if (number < 0 || number >= count || !pictures[number]) {
            missing++;
            continue;
        }
        const uint8_t *picture = pictures[number], *hole = holes[number];
        const float across_all = clamped(x[i], (float)(width - 1)), down_all = clamped(y[i], (float)(height - 1));
        const int64_t left = (int64_t)floorf(across_all), top = (int64_t)floorf(down_all);
        const float across = across_all - (float)left, down = down_all - (float)top;
        const int64_t right = left + 1 < width ? left + 1 : width - 1, bottom = top + 1 < height ? top + 1 : height - 1;
        const int64_t at[4] = {top * width + left, top * width + right, bottom * width + left, bottom * width + right};
        const float near[4] = {(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down};
        float colour[3] = {0, 0, 0}, sum = 0;
        for (int corner = 0; corner < 4; corner++) {
            const float part = hole[at[corner]] ? 0 : near[corner];
            for (int channel = 0; channel < 3; channel++) colour[channel] += part * picture[3 * at[corner] + channel];
            sum += part;
        }
        if (!(sum > 1e-6f)) continue;
        for (int channel = 0; channel < 3; channel++) total[3 * i + channel] += colour[channel] / sum * share[i];
        weight[i] += share[i];
    }
    return missing;
}
