/* The inner loops of the codecs, without Python: plain functions over arrays.
 *
 * codec/fkt/numpy_loops.py and codec/simple/affine_loops.py say the same in numpy; they are the
 * reference, and every function here gives the same bits. No array is read or written beyond the
 * length beside it, whatever the arrays hold, since a table may come from a stranger as well as a
 * payload. So what serves as an index, a shift or a divisor is checked first, or cannot be out of range.
 * Nothing is allocated by a length that a payload declares.
 */
#ifndef SPLITPOINT_LOOPS_H
#define SPLITPOINT_LOOPS_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>

#if FLT_EVAL_METHOD != 0 || defined(__FAST_MATH__)
#error "sums and products must round as numpy's do: without the extension, numpy's form serves"
#endif

/* To be raised with every change of an array's meaning: the Python side refuses another number. */
#define SP_LAYOUT 2

#define SP_SYMBOLS 16
#define SP_MOST_CLASSES 85 /* of which there are 3 contexts each and one more, all in a byte */
#define SP_TOGETHER 4
#define SP_PRECISION_BITS 12
#define SP_TOTAL (1u << SP_PRECISION_BITS)
#define SP_FLOOR (1u << 16)
#define SP_LAST_SINGLE 9
#define SP_MAX_MAGNITUDE (72 + (1 << 20) - 1)
#define SP_FINE 64
#define SP_MAX_LANES 1024
#define SP_MAX_OUTLIERS 65535
#define SP_HEAD_BYTES 4
#define SP_OUTLIER_BYTES 8
#define SP_RINGS 12
#define SP_SHARES 4
#define SP_MOST_IN_BLOCK 16

enum sp_status {
    SP_OK = 0,
    SP_NO_MEMORY,
    SP_NOT_FINITE, /* the tensor holds NaN or infinity */
    SP_TOO_LARGE,  /* the tensor holds a magnitude that cannot be written */
    SP_MISFIT,     /* an array holds an index that another array has not */
    SP_NO_HEAD,    /* payload: ends within its head */
    SP_BAD_HEAD,   /* payload: its head is damaged */
    SP_BAD_INDEX,  /* payload: names a coefficient that there is not */
    SP_NO_LANES,   /* payload: ends within its lanes */
    SP_DAMAGED,    /* payload: its words do not fit its symbols */
    SP_BAD_LENGTH  /* payload: has not the length that its symbols ask for */
};

/* How probable each symbol is, in each of 3 classes + 1 contexts: see SymbolModel. */
typedef struct {
    uint32_t classes;
    const uint32_t *shares;   /* [contexts x 16]: width << 16 | start, in 1/4096 */
    const uint8_t *symbols;   /* [contexts x 4096]: the symbol of every slot */
    const float *information; /* [4097]: how many bits a symbol of that width holds */
} sp_model;

/* Which way the n coefficients go through the entropy stage: see SymbolPlan. */
typedef struct {
    size_t n, singles, sparse_count;
    const uint8_t *classes; /* [n] */
    const int32_t *single;  /* [singles] */
    const int32_t *sparse;  /* [sparse_count] */
    const uint8_t *first;   /* [singles + ceil(sparse_count / 4)]: contexts of the first pass */
} sp_plan;

/* symbol_of.c: see codec/fkt/symbols.py. */
extern const uint8_t sp_of_small[73];
extern const uint32_t sp_first_of[SP_SYMBOLS];
extern const uint8_t sp_extra_bits[SP_SYMBOLS];

/* write_sample.c: the most bytes that a sample of this plan can take, and the sample. */
size_t sp_write_bound(const sp_plan *plan, size_t lanes, size_t outlier_bytes);
enum sp_status sp_write(const sp_model *model, const sp_plan *plan, const int32_t *magnitudes,
                        size_t lanes, const uint8_t *outliers, size_t outlier_bytes, uint8_t *out,
                        size_t room, size_t *written);

/* read_sample.c: values [n] in 1/64 step; outliers lie behind the head, *outliers of them. */
enum sp_status sp_read(const sp_model *model, const sp_plan *plan, const int8_t *offsets,
                       size_t coefficients, size_t least_lanes, const uint8_t *payload,
                       size_t payload_bytes, int32_t *values, size_t *outliers);

static inline uint8_t sp_symbol_of(uint32_t magnitude) {
    return sp_of_small[magnitude < 72 ? magnitude : 72];
}

/* symbol_of.c: raw bits of magnitudes, beside their symbols. */
size_t sp_raw_bits(const int32_t *magnitudes, size_t n);

/* coefficients.c */
enum sp_status sp_pick(const float *mixed, size_t size, float step, const int32_t *order, size_t n,
                       float *sent);
enum sp_status sp_outliers(const float *mixed, size_t size, float step, const int32_t *unsent,
                           const int32_t *names, size_t n, uint8_t *out, size_t room,
                           size_t *found);
enum sp_status sp_quantise(const float *sent, const uint8_t *classes, size_t n,
                           const float *thresholds, uint32_t class_count, int32_t *magnitudes);
enum sp_status sp_place(const int32_t *magnitudes, const uint8_t *classes, size_t n,
                        const int8_t *offsets, uint32_t class_count, int64_t *values);
size_t sp_narrow_32(const int32_t *values, size_t n, int16_t *narrow);
size_t sp_narrow_64(const int64_t *values, size_t n, int16_t *narrow);
enum sp_status sp_spread(const int16_t *values, const int32_t *order, size_t n, float scale,
                         float *out, size_t size);

/* positions.c: rows [rows x positions] whose mean is [channels x positions], row after row. */
enum sp_status sp_centre(const float *rows, size_t row_count, const float *mean, size_t channels,
                         const int32_t *order, size_t positions, float *out);
enum sp_status sp_restore(const float *rows, size_t row_count, const float *mean, size_t channels,
                          const int32_t *order, size_t positions, float *out);

/* in_blocks.c: rows [blocks x size x inner] along `size`, which is at most SP_MOST_IN_BLOCK. */
void sp_in_blocks(const float *rows, size_t blocks, size_t size, size_t inner, const float *matrix,
                  float *out);

/* video.c */
enum sp_status sp_expect(const int64_t *kept, const uint8_t *ring, const uint8_t *classes, size_t n,
                         const uint8_t *rings, int64_t *base, uint8_t *expected);
enum sp_status sp_ring_energies(const float *sent, const int64_t *kept, const uint8_t *ring,
                                size_t n, double *energies);
enum sp_status sp_order_plan(const uint8_t *classes, size_t n, const uint8_t *mostly_zero,
                             uint32_t class_count, int32_t *single, int32_t *sparse,
                             uint8_t *first, size_t *singles);

/* affine.c */
void sp_affine_symbols(const float *rows, const float *low, const float *scale, size_t row_count,
                       size_t values, float top, uint8_t *symbols);
void sp_affine_values(const uint8_t *symbols, const float *low, const float *step,
                      size_t row_count, size_t values, float *rows);
void sp_pack_nibbles(const uint8_t *symbols, size_t row_count, size_t values, uint8_t *packed);
void sp_unpack_nibbles(const uint8_t *packed, size_t row_count, size_t values, uint8_t *symbols);

#endif
