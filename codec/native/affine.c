/* Symbols between a channel's minimum and maximum, and two of them in a byte. */
#include <math.h>

#include "loops.h"

void sp_affine_symbols(const float *rows, const float *low, const float *scale, size_t row_count,
                       size_t values, float top, uint8_t *symbols) {
    for (size_t row = 0; row < row_count; row++) {
        const float *from = rows + row * values, least = low[row], own = scale[row];
        uint8_t *to = symbols + row * values;
        for (size_t i = 0; i < values; i++) {
            float value = rintf((from[i] - least) * own);
            value = value > 0 ? value : 0;
            to[i] = (uint8_t)(value < top ? value : top);
        }
    }
}

void sp_affine_values(const uint8_t *symbols, const float *low, const float *step,
                      size_t row_count, size_t values, float *rows) {
    for (size_t row = 0; row < row_count; row++) {
        const uint8_t *from = symbols + row * values;
        float *to = rows + row * values, least = low[row], own = step[row];
        for (size_t i = 0; i < values; i++) {
            float product = (float)from[i] * own;
            to[i] = product + least;
        }
    }
}

void sp_pack_nibbles(const uint8_t *symbols, size_t row_count, size_t values, uint8_t *packed) {
    for (size_t row = 0; row < row_count; row++, symbols += values) {
        for (size_t i = 0; i + 1 < values; i += 2)
            *packed++ = (uint8_t)(symbols[i] << 4 | symbols[i + 1]);
        if (values % 2) *packed++ = (uint8_t)(symbols[values - 1] << 4);
    }
}

void sp_unpack_nibbles(const uint8_t *packed, size_t row_count, size_t values, uint8_t *symbols) {
    for (size_t row = 0; row < row_count; row++) {
        for (size_t i = 0; i + 1 < values; i += 2, packed++) {
            *symbols++ = *packed >> 4;
            *symbols++ = *packed & 15;
        }
        if (values % 2) *symbols++ = *packed++ >> 4;
    }
}
