/* The aligned temporal shift of TSAM and its gradient: features of both neighbouring frames, moved along optical flow
 * and let through where the flow is trusted, in one pass.
 *
 * Compiled several times, as quantize.c is. Places and weights of the four pixels around a point are computed once for
 * a few pixels, and then used for all channels. A call works on some of the frames, so the caller may give frames to
 * threads: every number is written by one of them, in one order.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef LEVEL
#define LEVEL(name) name
#endif

#define RUN 64 /* pixels whose places are held at once */

/* Maps are (batch, frames, ...), then (channels, height, width), or (height, width, channels) with `last`. Frames from
 * `past` to `frames - future` have an answer. */
typedef struct {
    int64_t batch, frames, channels, height, width, fold, past, future, last, copies_edge;
} geometry;

/* One direction: where the pixels of each frame but one look, (batch, frames - 1, height, width, 2) from -1 to 1 over
 * the whole map, and whether to look there. */
typedef struct {
    const float *grid;
    const uint8_t *trusted;
} direction;

/* The pixels around some points, nearest ones where there is none, with weight 0. */
typedef struct {
    int32_t at[4][RUN];
    float weight[4][RUN];
} places;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int32_t inside(int32_t place, int32_t size) { return place < 0 ? 0 : place >= size ? size - 1 : place; }

static void find_places(places *restrict found, const float *restrict grid, int64_t count, int64_t height,
                        int64_t width) {
    const int32_t rows = (int32_t)height, columns = (int32_t)width;
    for (int64_t i = 0; i < count; i++) {
        const float x = ((grid[2 * i] + 1.0f) * (float)columns - 1.0f) / 2.0f;
        const float y = ((grid[2 * i + 1] + 1.0f) * (float)rows - 1.0f) / 2.0f;
        const float left = floorf(x), above = floorf(y), right = x - left, below = y - above;
        const int32_t u = (int32_t)left, v = (int32_t)above, next_u = u + 1, next_v = v + 1;
        const int32_t has_u = u >= 0 && u < columns, has_next_u = next_u >= 0 && next_u < columns;
        const int32_t has_v = v >= 0 && v < rows, has_next_v = next_v >= 0 && next_v < rows;
        const int32_t first = inside(v, rows) * columns, second = inside(next_v, rows) * columns;
        found->at[0][i] = first + inside(u, columns);
        found->at[1][i] = first + inside(next_u, columns);
        found->at[2][i] = second + inside(u, columns);
        found->at[3][i] = second + inside(next_u, columns);
        found->weight[0][i] = (has_u & has_v) ? (1.0f - right) * (1.0f - below) : 0.0f;
        found->weight[1][i] = (has_next_u & has_v) ? right * (1.0f - below) : 0.0f;
        found->weight[2][i] = (has_u & has_next_v) ? (1.0f - right) * below : 0.0f;
        found->weight[3][i] = (has_next_u & has_next_v) ? right * below : 0.0f;
    }
}

/* Let `fold` channels of the neighbour through where `trusted`. */
static void warp(const float *restrict from, float *restrict to, const float *grid, const uint8_t *trusted,
                 const geometry *shape) {
    const int64_t pixels = shape->height * shape->width, fold = shape->fold, channels = shape->channels;
    places found;
    for (int64_t first = 0; first < pixels; first += RUN) {
        const int64_t count = least(RUN, pixels - first);
        find_places(&found, grid + 2 * first, count, shape->height, shape->width);
        if (shape->last) {
            for (int64_t i = 0; i < count; i++) {
                if (!trusted[first + i]) continue;
                float *const target = to + (first + i) * channels;
                const float *const a = from + found.at[0][i] * channels, *const b = from + found.at[1][i] * channels;
                const float *const c = from + found.at[2][i] * channels, *const d = from + found.at[3][i] * channels;
                const float wa = found.weight[0][i], wb = found.weight[1][i];
                const float wc = found.weight[2][i], wd = found.weight[3][i];
                for (int64_t j = 0; j < fold; j++) target[j] = a[j] * wa + b[j] * wb + c[j] * wc + d[j] * wd;
            }
            continue;
        }
        for (int64_t j = 0; j < fold; j++) {
            const float *const plane = from + j * pixels;
            float *const target = to + j * pixels + first;
            for (int64_t i = 0; i < count; i++)
                if (trusted[first + i])
                    target[i] = plane[found.at[0][i]] * found.weight[0][i] + plane[found.at[1][i]] * found.weight[1][i] +
                                plane[found.at[2][i]] * found.weight[2][i] + plane[found.at[3][i]] * found.weight[3][i];
        }
    }
}

/* Add the gradient of what was let through to that of the neighbour from which it came. */
static void unwarp(const float *restrict g, float *restrict to, const float *grid, const uint8_t *trusted,
                   const geometry *shape) {
    const int64_t pixels = shape->height * shape->width, fold = shape->fold, channels = shape->channels;
    places found;
    for (int64_t first = 0; first < pixels; first += RUN) {
        const int64_t count = least(RUN, pixels - first);
        find_places(&found, grid + 2 * first, count, shape->height, shape->width);
        if (shape->last) {
            for (int64_t i = 0; i < count; i++) {
                if (!trusted[first + i]) continue;
                const float *const gradient = g + (first + i) * channels;
                for (int corner = 0; corner < 4; corner++) {
                    float *const target = to + found.at[corner][i] * channels;
                    const float weight = found.weight[corner][i];
                    for (int64_t j = 0; j < fold; j++) target[j] += weight * gradient[j];
                }
            }
            continue;
        }
        for (int64_t j = 0; j < fold; j++)
            for (int64_t i = 0; i < count; i++) {
                if (!trusted[first + i]) continue;
                const float gradient = g[j * pixels + first + i];
                for (int corner = 0; corner < 4; corner++)
                    to[j * pixels + found.at[corner][i]] += found.weight[corner][i] * gradient;
            }
    }
}

/* Set `fold` channels of one frame to zero, everywhere or where `trusted`. */
static void clear(float *to, const uint8_t *trusted, const geometry *shape) {
    const int64_t pixels = shape->height * shape->width, fold = shape->fold;
    if (shape->last) {
        for (int64_t i = 0; i < pixels; i++)
            if (trusted == NULL || trusted[i])
                for (int64_t j = 0; j < fold; j++) to[i * shape->channels + j] = 0.0f;
        return;
    }
    for (int64_t j = 0; j < fold; j++)
        for (int64_t i = 0; i < pixels; i++)
            if (trusted == NULL || trusted[i]) to[j * pixels + i] = 0.0f;
}

/* x to the shifted maps, in which only frames with an answer are. Two directions: to the next frame, and back. */
void LEVEL(align)(const float *x, float *out, const direction *directions, const geometry *shape, int64_t part,
                  int64_t parts) {
    const int64_t pixels = shape->height * shape->width, size = pixels * shape->channels, frames = shape->frames;
    const int64_t answers = frames - shape->past - shape->future, all = shape->batch * answers;
    for (int64_t unit = all * part / parts; unit < all * (part + 1) / parts; unit++) {
        const int64_t clip = unit / answers, frame = shape->past + unit % answers;
        const float *const own = x + (clip * frames + frame) * size;
        float *const to = out + unit * size;
        memcpy(to, own, (size_t)size * sizeof(float));
        for (int side = 0; side < 2; side++) {
            const int64_t neighbour = side ? frame - 1 : frame + 1, pair = clip * (frames - 1) + frame - side;
            const int64_t skip = side * shape->fold * (shape->last ? 1 : pixels);
            if (neighbour >= 0 && neighbour < frames)
                warp(own + (neighbour - frame) * size + skip, to + skip, directions[side].grid + pair * pixels * 2,
                     directions[side].trusted + pair * pixels, shape);
            else if (!shape->copies_edge)
                clear(to + skip, NULL, shape);
        }
    }
}

/* The gradient of x, frame by frame, from that of the shifted maps. */
void LEVEL(align_backward)(const float *g, float *dx, const direction *directions, const geometry *shape, int64_t part,
                           int64_t parts) {
    const int64_t pixels = shape->height * shape->width, size = pixels * shape->channels, frames = shape->frames;
    const int64_t end = frames - shape->future, answers = end - shape->past, all = shape->batch * frames;
    for (int64_t unit = all * part / parts; unit < all * (part + 1) / parts; unit++) {
        const int64_t clip = unit / frames, frame = unit % frames, before = clip * (frames - 1);
        const float *const own = g + (clip * answers + frame - shape->past) * size;
        float *const to = dx + unit * size;
        const int is_answered = frame >= shape->past && frame < end;
        if (is_answered)
            memcpy(to, own, (size_t)size * sizeof(float));
        else
            memset(to, 0, (size_t)size * sizeof(float));
        for (int side = 0; side < 2; side++) {
            /* A frame's neighbour on this side, and the frame whose neighbour this one is. */
            const int64_t neighbour = side ? frame - 1 : frame + 1, reader = side ? frame + 1 : frame - 1;
            const int64_t skip = side * shape->fold * (shape->last ? 1 : pixels);
            if (neighbour >= 0 && neighbour < frames)
                clear(to + skip, directions[side].trusted + (before + frame - side) * pixels, shape);
            else if (!shape->copies_edge)
                clear(to + skip, NULL, shape);
            if (reader >= shape->past && reader < end) {
                const int64_t pair = before + reader - side;
                unwarp(own + (reader - frame) * size + skip, to + skip, directions[side].grid + pair * pixels * 2,
                       directions[side].trusted + pair * pixels, shape);
            }
        }
    }
}
