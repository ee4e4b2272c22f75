/* One small matrix for every block of neighbours along an axis. */
#include "loops.h"

/* Sums run over j in its order in both: that is what numpy's form does. */
static void columns(const float *from, size_t size, size_t inner, const float *matrix, float *to) {
    for (size_t k = 0; k < size; k++) {
        const float *row = matrix + k * size;
        float *own = to + k * inner;
        for (size_t i = 0; i < inner; i++) own[i] = from[i] * row[0];
        for (size_t j = 1; j < size; j++)
            for (size_t i = 0; i < inner; i++) own[i] += from[j * inner + i] * row[j];
    }
}

/* A block that lies in a row: `turned` is the matrix with its rows as columns. */
static void within(const float *from, size_t size, const float *turned, float *to) {
    float sums[SP_MOST_IN_BLOCK];
    for (size_t k = 0; k < size; k++) sums[k] = from[0] * turned[k];
    for (size_t j = 1; j < size; j++)
        for (size_t k = 0; k < size; k++) sums[k] += from[j] * turned[j * size + k];
    for (size_t k = 0; k < size; k++) to[k] = sums[k];
}

void sp_in_blocks(const float *rows, size_t blocks, size_t size, size_t inner, const float *matrix,
                  float *out) {
    float turned[SP_MOST_IN_BLOCK * SP_MOST_IN_BLOCK];
    for (size_t k = 0; k < size; k++)
        for (size_t j = 0; j < size; j++) turned[j * size + k] = matrix[k * size + j];
    for (size_t block = 0; block < blocks; block++) {
        const float *from = rows + block * size * inner;
        float *to = out + block * size * inner;
        if (inner == 1)
            within(from, size, turned, to);
        else
            columns(from, size, inner, matrix, to);
    }
}
