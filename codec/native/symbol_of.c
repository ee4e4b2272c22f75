/* Magnitudes as sixteen symbols and raw bits: see codec/fkt/symbols.py. */
#include "loops.h"

const uint32_t sp_first_of[SP_SYMBOLS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 40, 72};
const uint8_t sp_extra_bits[SP_SYMBOLS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 20};

/* Of 0 to 72; all that is larger has the last symbol, too. */
const uint8_t sp_of_small[73] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 10, 11, 11, 11, 11, 12, 12, 12,
    12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13,
    13, 13, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14,
    14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 15};

size_t sp_raw_bits(const int32_t *magnitudes, size_t n) {
    size_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t value = magnitudes[i];
        if (value == 0) continue;
        bits += 1u + sp_extra_bits[sp_symbol_of(value < 0 ? 0u - (uint32_t)value : (uint32_t)value)];
    }
    return bits;
}
