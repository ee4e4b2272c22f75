/* Positions band after band and back, with the mean taken off and put on. */
#include "loops.h"

enum sp_status sp_centre(const float *rows, size_t row_count, const float *mean, size_t channels,
                         const int32_t *order, size_t positions, float *out) {
    for (size_t i = 0; i < positions; i++)
        if ((uint32_t)order[i] >= positions) return SP_MISFIT;
    for (size_t row = 0; row < row_count; row++) {
        const float *from = rows + row * positions, *own = mean + row % channels * positions;
        float *to = out + row * positions;
        for (size_t i = 0; i < positions; i++) to[i] = from[order[i]] - own[order[i]];
    }
    return SP_OK;
}

enum sp_status sp_restore(const float *rows, size_t row_count, const float *mean, size_t channels,
                          const int32_t *order, size_t positions, float *out) {
    for (size_t i = 0; i < positions; i++)
        if ((uint32_t)order[i] >= positions) return SP_MISFIT;
    for (size_t row = 0; row < row_count; row++) {
        const float *from = rows + row * positions, *own = mean + row % channels * positions;
        float *to = out + row * positions;
        for (size_t i = 0; i < positions; i++) to[order[i]] = from[i] + own[order[i]];
    }
    return SP_OK;
}
