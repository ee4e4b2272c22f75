/* Coefficients in steps, as magnitudes, and back. No product is fused with a sum anywhere
 * (-ffp-contract=off), so that Arm and x86 round alike. */
#include <math.h>
#include <string.h>

#include "bits.h"
#include "bytes8.h"
#include "loops.h"

static int finite(float value) { return fabsf(value) <= FLT_MAX; }

enum sp_status sp_pick(const float *mixed, size_t size, float step, const int32_t *order, size_t n,
                       float *sent) {
    int all = 1;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)order[i] >= size) return SP_MISFIT;
        sent[i] = mixed[order[i]];
    }
    for (size_t i = 0; i < n; i++) {
        sent[i] = sent[i] / step;
        all &= finite(sent[i]);
    }
    return all ? SP_OK : SP_NOT_FINITE;
}

/* Those of the unsent ones that are large, as index and value; SP_TOO_LARGE for too many. `found`
 * is their number, which may be more than there is `room` for: only so many are written. */
enum sp_status sp_outliers(const float *mixed, size_t size, float step, const int32_t *unsent,
                           const int32_t *names, size_t n, uint8_t *out, size_t room,
                           size_t *found) {
    int all = 1, too_large = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)unsent[i] >= size) return SP_MISFIT;
        float value = mixed[unsent[i]] / step, magnitude = fabsf(value);
        all &= finite(value);
        if (!(magnitude > 2.0f)) continue;
        too_large |= magnitude >= (float)SP_MAX_MAGNITUDE;
        if (count < room && !too_large && all) {
            put_u32(out + count * SP_OUTLIER_BYTES, (uint32_t)names[i]);
            put_u32(out + count * SP_OUTLIER_BYTES + 4, (uint32_t)(int32_t)rintf(value));
        }
        count++;
    }
    *found = count;
    if (!all) return SP_NOT_FINITE;
    return too_large || count > SP_MAX_OUTLIERS ? SP_TOO_LARGE : SP_OK;
}

#define BLOCK 256

/* A size that rounds to u becomes u from the threshold of u on, and else u - 1; beyond the last
 * threshold it always becomes u. Most sizes are below the first threshold of every class: eight at
 * once are looked at for those that are not. */
enum sp_status sp_quantise(const float *sent, const uint8_t *classes, size_t n,
                           const float *thresholds, uint32_t class_count, int32_t *magnitudes) {
    float up_from[SP_MOST_CLASSES][SP_SYMBOLS], least = INFINITY;
    uint8_t highest = 0, above[BLOCK];
    int too_large = 0;
    if (class_count > SP_MOST_CLASSES) return SP_MISFIT;
    for (size_t i = 0; i < n; i++) highest = classes[i] > highest ? classes[i] : highest;
    if (n && highest >= class_count) return SP_MISFIT;
    for (size_t i = 0; i < n; i++) too_large |= !(fabsf(sent[i]) < (float)SP_MAX_MAGNITUDE);
    if (too_large) return SP_TOO_LARGE;
    for (uint32_t class = 0; class < class_count; class++) {
        const float *own = thresholds + class * SP_SYMBOLS;
        least = own[1] < least ? own[1] : least;
        for (int k = 0; k < SP_SYMBOLS; k++)
            up_from[class][k] = k > SP_LAST_SINGLE ? 0 : own[k ? k : 1];
    }
    memset(magnitudes, 0, n * sizeof *magnitudes);
    for (size_t block = 0; block < n; block += BLOCK) {
        const size_t width = n - block < BLOCK ? n - block : BLOCK;
        memset(above, 0, sizeof above);
        for (size_t i = 0; i < width; i++) above[i] = fabsf(sent[block + i]) >= least;
        for (size_t begin = 0; begin < width; begin += 8)
            for (uint64_t marks = at_least(load8(above + begin), 1); marks; marks &= marks - 1) {
                size_t i = block + begin + first_marked(marks);
                const float *own = up_from[classes[i]], size = fabsf(sent[i]);
                int32_t up = (int32_t)(size + 0.5f); /* its floor, as it is positive */
                int32_t found = up - (up > 0) + (size >= own[up < 10 ? up : 10]);
                int32_t negative = sent[i] < 0;
                found &= -(int32_t)(size >= own[1]);
                magnitudes[i] = (found ^ -negative) + negative;
            }
    }
    return SP_OK;
}

enum sp_status sp_place(const int32_t *magnitudes, const uint8_t *classes, size_t n,
                        const int8_t *offsets, uint32_t class_count, int64_t *values) {
    int8_t offset_of[SP_MOST_CLASSES][SP_SYMBOLS]; /* a 0 stays where it is */
    uint8_t highest = 0;
    int too_large = 0;
    if (class_count > SP_MOST_CLASSES) return SP_MISFIT;
    for (size_t i = 0; i < n; i++) highest = classes[i] > highest ? classes[i] : highest;
    if (n && highest >= class_count) return SP_MISFIT;
    for (uint32_t i = 0; i < class_count * SP_SYMBOLS; i++)
        offset_of[i / SP_SYMBOLS][i % SP_SYMBOLS] = i % SP_SYMBOLS ? offsets[i] : 0;
    for (size_t i = 0; i < n; i++) {
        int32_t value = magnitudes[i];
        int64_t sign = value < 0 ? -1 : 1;
        uint32_t size = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
        too_large |= size > SP_MAX_MAGNITUDE;
        values[i] = (int64_t)SP_FINE * value + sign * offset_of[classes[i]][sp_symbol_of(size)];
    }
    return too_large ? SP_TOO_LARGE : SP_OK;
}

/* As int16; how many do not fit, in whose place there is a 0. */
#define NARROW(name, type)                                              \
    size_t name(const type *values, size_t n, int16_t *narrow) {        \
        size_t beyond = 0;                                              \
        for (size_t i = 0; i < n; i++) {                                \
            int fits = values[i] >= INT16_MIN && values[i] <= INT16_MAX; \
            narrow[i] = (int16_t)(fits ? values[i] : 0);                \
            beyond += !fits;                                            \
        }                                                               \
        return beyond;                                                  \
    }

NARROW(sp_narrow_32, int32_t)
NARROW(sp_narrow_64, int64_t)

enum sp_status sp_spread(const int16_t *values, const int32_t *order, size_t n, float scale,
                         float *out, size_t size) {
    memset(out, 0, size * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)order[i] >= size) return SP_MISFIT;
        out[order[i]] = (float)values[i] * scale;
    }
    return SP_OK;
}
