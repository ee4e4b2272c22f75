/* What a difference between two frames starts from: see codec/fkt/video.py. */
#include "loops.h"

static const int64_t share_of[SP_SHARES] = {0, 2, 3, 4}; /* of 4 */

enum sp_status sp_expect(const int64_t *kept, const uint8_t *ring, const uint8_t *classes, size_t n,
                         const uint8_t *rings, int64_t *base, uint8_t *expected) {
    int64_t share[SP_RINGS];
    int shift[SP_RINGS];
    uint8_t highest = 0;
    for (int i = 0; i < SP_RINGS; i++) {
        share[i] = share_of[rings[i] & 3];
        shift[i] = rings[i] >> 2;
    }
    for (size_t i = 0; i < n; i++) highest = ring[i] > highest ? ring[i] : highest;
    if (highest >= SP_RINGS) return SP_MISFIT;
    for (size_t i = 0; i < n; i++) {
        int left = (int)classes[i] - shift[ring[i]];
        base[i] = kept[i] * share[ring[i]] >> 2; /* rounds down: gcc and clang copy the sign */
        expected[i] = (uint8_t)(left > 0 ? left : 0);
    }
    return SP_OK;
}

/* [(1 + SP_SHARES) x SP_RINGS]: the energy of `sent` by ring, then what each share would leave. */
enum sp_status sp_ring_energies(const float *sent, const int64_t *kept, const uint8_t *ring,
                                size_t n, double *energies) {
    for (size_t i = 0; i < (1 + SP_SHARES) * SP_RINGS; i++) energies[i] = 0;
    for (size_t i = 0; i < n; i++) {
        if (ring[i] >= SP_RINGS) return SP_MISFIT;
        double *own = energies + ring[i];
        float value = sent[i], before = (float)kept[i] / SP_FINE;
        float square = value * value;
        own[0] += square;
        for (int share = 1; share < SP_SHARES; share++) {
            float left = value - before * ((float)share_of[share] / 4);
            square = left * left;
            own[(1 + share) * SP_RINGS] += square;
        }
    }
    /* The first share is 0, and leaves all. */
    for (size_t i = 0; i < SP_RINGS; i++) energies[SP_RINGS + i] = energies[i];
    return SP_OK;
}

/* What SymbolPlan.of finds: single ones as they come; the others from the highest class down, and
 * within a class from the last one on. All three arrays have room for n. */
enum sp_status sp_order_plan(const uint8_t *classes, size_t n, const uint8_t *mostly_zero,
                             uint32_t class_count, int32_t *single, int32_t *sparse,
                             uint8_t *first, size_t *singles) {
    size_t count[256] = {0}, together[256] = {0}, alone = 0, at = 0; /* by class */
    int32_t *next[256], nowhere;
    uint8_t highest = 0;
    if (class_count == 0 || class_count > SP_MOST_CLASSES) return SP_MISFIT;
    for (size_t i = 0; i < n; i++) {
        highest = classes[i] > highest ? classes[i] : highest;
        count[classes[i]]++;
    }
    if (highest >= class_count) return SP_MISFIT;
    for (uint32_t own = class_count; own-- > 0;) {
        together[own] = mostly_zero[own] != 0;
        next[own] = together[own] ? sparse + at : &nowhere;
        at += together[own] * count[own];
    }
    /* Branches on a stream's classes would be mispredicted: all are written, some overwritten. */
    for (size_t i = 0; i < n; i++) {
        first[alone] = classes[i];
        single[alone] = (int32_t)i;
        alone += !together[classes[i]];
    }
    for (size_t i = n; i-- > 0;) {
        *next[classes[i]] = (int32_t)i;
        next[classes[i]] += together[classes[i]];
    }
    size_t groups = (at + SP_TOGETHER - 1) / SP_TOGETHER;
    for (size_t group = 0; group < groups; group++)
        first[alone + group] = (uint8_t)(class_count + 1 + classes[sparse[group * SP_TOGETHER]]);
    *singles = alone;
    return SP_OK;
}
