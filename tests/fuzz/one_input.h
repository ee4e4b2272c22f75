/* One input to the codec's inner loops, as it may come from a stranger or from a tensor.
 *
 * A case is what the receiver knows: tables, the plan of a level, the frame kept of a stream. It is
 * written by cases.py. An input is what arrives. Every array is a block of its own of exactly its
 * length, so that AddressSanitizer sees a step beyond it; what must hold of the results is checked,
 * and the process aborts where it does not.
 */
#ifndef ONE_INPUT_H
#define ONE_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "loops.h"

enum kind {
    INTRA,      /* a sample */
    DIFFERENCE, /* twelve rings and a sample */
    AFFINE,     /* rows, values, then ranges and symbols */
    TENSOR,     /* floats, to be encoded and decoded again */
    PLAN,       /* changes of a plan's arrays, then a sample */
    KINDS
};

typedef struct {
    uint32_t size; /* of all coefficients, sent or not */
    uint32_t least_lanes, lanes;
    sp_model model;
    sp_plan plan;
    int8_t *offsets;       /* [classes x 16] */
    float *thresholds;     /* [classes x 16] */
    uint8_t *mostly_zero;  /* [classes] */
    int32_t *order;        /* [n] */
    int32_t *unsent;       /* [size - n] */
    uint8_t *ring;         /* [n] */
    int64_t *kept;         /* [n] */
    uint32_t seeds;        /* inputs that are sound */
    uint8_t **seed;        /* the first byte is their kind */
    uint32_t *seed_bytes;
} fuzz_case;

/* Ends the process where the file is not what cases.py writes. */
fuzz_case *read_case(const char *path);

/* What the loops made of it. */
enum sp_status try_input(const fuzz_case *given, enum kind kind, const uint8_t *data, size_t bytes);

#endif
