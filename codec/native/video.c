/* What a difference between two frames starts from: see codec/fkt/video.py. */
#include "loops.h"

static const int64_t share_of[SP_SHARES] = {0, 2, 3, 4}; /* of 4 */

enum sp_status sp_expect(const int64_t *kept, const uint8_t *ring, const uint8_t *classes, size_t n,
                         const uint8_t *rings, int64_t *base, uint8_t *expected) {
    for (size_t i = 0; i < n; i++) {
        if (ring[i] >= SP_RINGS) return SP_MISFIT;
        uint8_t own = rings[ring[i]];
        int64_t value = kept[i] * share_of[own & 3];
        base[i] = value >= 0 ? value / 4 : -((3 - value) / 4); /* rounds down, as >> 2 does */
        int left = (int)classes[i] - (own >> 2);
        expected[i] = (uint8_t)(left < 0 ? 0 : left);
    }
    return SP_OK;
}

/* [1 + SP_SHARES x SP_RINGS]: the energy of `sent` by ring, then what each share would leave. */
enum sp_status sp_ring_energies(const float *sent, const int64_t *kept, const uint8_t *ring,
                                size_t n, double *energies) {
    for (size_t i = 0; i < (1 + SP_SHARES) * SP_RINGS; i++) energies[i] = 0;
    for (size_t i = 0; i < n; i++) {
        if (ring[i] >= SP_RINGS) return SP_MISFIT;
        double *own = energies + ring[i];
        float value = sent[i], before = (float)kept[i] / SP_FINE;
        float square = value * value;
        own[0] += square;
        for (int share = 0; share < SP_SHARES; share++) {
            float left = value - before * ((float)share_of[share] / 4);
            square = left * left;
            own[(1 + share) * SP_RINGS] += square;
        }
    }
    return SP_OK;
}

/* The ways of SymbolPlan.of: single ones as they come; the others from the highest class down, and
 * within a class from the last one on. `first` has room for n contexts. */
enum sp_status sp_order_plan(const uint8_t *classes, size_t n, const uint8_t *mostly_zero,
                             uint32_t class_count, int32_t *single, int32_t *sparse,
                             uint8_t *first, size_t *singles) {
    size_t count[256] = {0}, alone = 0;
    for (size_t i = 0; i < n; i++) {
        if (classes[i] >= class_count) return SP_MISFIT;
        if (mostly_zero[classes[i]]) {
            count[classes[i]]++;
        } else {
            first[alone] = classes[i];
            single[alone++] = (int32_t)i;
        }
    }
    size_t at = 0;
    for (uint32_t own = class_count; own-- > 0;) {
        size_t begin = at;
        at += count[own];
        count[own] = begin;
    }
    for (size_t i = n; i-- > 0;)
        if (mostly_zero[classes[i]]) sparse[count[classes[i]]++] = (int32_t)i;
    size_t groups = (at + SP_TOGETHER - 1) / SP_TOGETHER;
    for (size_t group = 0; group < groups; group++)
        first[alone + group] =
            (uint8_t)(class_count + 1 + classes[sparse[group * SP_TOGETHER]]);
    *singles = alone;
    return SP_OK;
}
