#include "one_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(condition)                                                          \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                             \
        }                                                                        \
    } while (0)

/* A block of its own; of nothing, too, so that reading from it is seen. */
static void *block(size_t count, size_t each) {
    void *found = malloc(count * each + (count * each == 0));
    MUST(found != NULL);
    return found;
}

static void *copied(const void *from, size_t bytes) {
    void *found = block(bytes, 1);
    if (bytes) memcpy(found, from, bytes);
    return found;
}

/* ---- cases ---- */

static void *taken(FILE *file, size_t count, size_t each) {
    void *found = block(count, each);
    MUST(fread(found, each, count, file) == count);
    return found;
}

static uint32_t number(FILE *file) {
    uint32_t found;
    MUST(fread(&found, sizeof found, 1, file) == 1);
    return found;
}

/* What codec/fkt/rans.py makes of the shares: the symbol of every slot, and a width's bits. */
static void look_ups(sp_model *model, uint32_t contexts) {
    uint8_t *symbols = block((size_t)contexts * SP_TOTAL, 1);
    for (size_t at = 0; at < (size_t)contexts * SP_SYMBOLS; at++) {
        uint32_t width = model->shares[at] >> 16, start = model->shares[at] & 0xffff;
        MUST(start + width <= SP_TOTAL);
        memset(symbols + (at / SP_SYMBOLS) * SP_TOTAL + start, (int)(at % SP_SYMBOLS), width);
    }
    float *information = block(SP_TOTAL + 1, sizeof *information);
    for (uint32_t width = 0; width <= SP_TOTAL; width++)
        information[width] = (float)log2((double)SP_TOTAL / (width ? width : 1));
    model->symbols = symbols;
    model->information = information;
}

fuzz_case *read_case(const char *path) {
    FILE *file = fopen(path, "rb");
    MUST(file != NULL);
    MUST(number(file) == 0x31504653);
    fuzz_case *found = block(1, sizeof *found);
    uint32_t classes = found->model.classes = number(file), contexts = 3 * classes + 1;
    uint32_t n = number(file), singles = number(file), sparse = number(file);
    uint32_t groups = (sparse + SP_TOGETHER - 1) / SP_TOGETHER;
    found->size = number(file);
    found->least_lanes = number(file);
    found->lanes = number(file);
    found->seeds = number(file);
    found->model.shares = taken(file, (size_t)contexts * SP_SYMBOLS, 4);
    look_ups(&found->model, contexts);
    found->offsets = taken(file, (size_t)classes * SP_SYMBOLS, 1);
    found->thresholds = taken(file, (size_t)classes * SP_SYMBOLS, 4);
    found->mostly_zero = taken(file, classes, 1);
    found->plan = (sp_plan){.n = n, .singles = singles, .sparse_count = sparse};
    found->plan.classes = taken(file, n, 1);
    found->plan.single = taken(file, singles, 4);
    found->plan.sparse = taken(file, sparse, 4);
    found->plan.first = taken(file, singles + groups, 1);
    found->order = taken(file, n, 4);
    found->unsent = taken(file, found->size - n, 4);
    found->ring = taken(file, n, 1);
    found->kept = taken(file, n, 8);
    found->seed = block(found->seeds, sizeof *found->seed);
    found->seed_bytes = block(found->seeds, sizeof *found->seed_bytes);
    for (uint32_t i = 0; i < found->seeds; i++) {
        found->seed_bytes[i] = number(file);
        MUST(found->seed_bytes[i] >= 1);
        found->seed[i] = taken(file, found->seed_bytes[i], 1);
    }
    MUST(fgetc(file) == EOF);
    fclose(file);
    return found;
}

/* ---- inputs ---- */

/* A sample of any bytes: values and outliers are in their bounds, and can be placed. */
static enum sp_status sample(const fuzz_case *given, const sp_plan *plan, const uint8_t *data,
                             size_t bytes, int32_t *values) {
    uint8_t *payload = copied(data, bytes);
    size_t outliers = 0;
    enum sp_status status = sp_read(&given->model, plan, given->offsets, given->size,
                                    given->least_lanes, payload, bytes, values, &outliers);
    if (status == SP_OK) {
        MUST(SP_HEAD_BYTES + outliers * SP_OUTLIER_BYTES <= bytes);
        for (size_t i = 0; i < plan->n; i++)
            MUST(abs(values[i]) <= SP_FINE * SP_MAX_MAGNITUDE + 128);
        int16_t *narrow = block(plan->n, sizeof *narrow);
        float *out = block(given->size, sizeof *out);
        (void)sp_narrow_32(values, plan->n, narrow);
        MUST(sp_spread(narrow, given->order, plan->n, 0.37f, out, given->size) == SP_OK);
        free(out);
        free(narrow);
    }
    free(payload);
    return status;
}

static enum sp_status intra(const fuzz_case *given, const uint8_t *data, size_t bytes) {
    int32_t *values = block(given->plan.n, sizeof *values);
    enum sp_status status = sample(given, &given->plan, data, bytes, values);
    free(values);
    return status;
}

static enum sp_status difference(const fuzz_case *given, const uint8_t *data, size_t bytes) {
    if (bytes < SP_RINGS) return SP_NO_HEAD;
    const size_t n = given->plan.n;
    const uint32_t classes = given->model.classes;
    uint8_t *rings = copied(data, SP_RINGS), *expected = block(n, 1), *first = block(n, 1);
    int64_t *base = block(n, sizeof *base);
    int32_t *single = block(n, 4), *sparse = block(n, 4), *values = block(n, 4);
    sp_plan plan = {.n = n, .classes = expected, .single = single, .sparse = sparse, .first = first};
    MUST(sp_expect(given->kept, given->ring, given->plan.classes, n, rings, base, expected) ==
         SP_OK);
    MUST(sp_order_plan(expected, n, given->mostly_zero, classes, single, sparse, first,
                       &plan.singles) == SP_OK);
    MUST(plan.singles <= n);
    plan.sparse_count = n - plan.singles;
    enum sp_status status = sample(given, &plan, data + SP_RINGS, bytes - SP_RINGS, values);
    if (status == SP_OK) {
        int16_t *narrow = block(n, sizeof *narrow);
        for (size_t i = 0; i < n; i++) base[i] += values[i];
        (void)sp_narrow_64(base, n, narrow);
        free(narrow);
    }
    free(values);
    free(sparse);
    free(single);
    free(base);
    free(first);
    free(expected);
    free(rings);
    return status;
}

/* Rows of at most 15 channels and 31 values: symbols to floats, and floats to symbols. */
static enum sp_status affine(const uint8_t *data, size_t bytes) {
    if (bytes < 2) return SP_NO_HEAD;
    size_t rows = data[0] % 16, values = data[1] % 32, count = rows * values;
    size_t packed_row = (values + 1) / 2, ranges = 8 * rows;
    if (bytes - 2 < ranges + count) return SP_NO_LANES;
    float *low = copied(data + 2, 4 * rows), *step = copied(data + 2 + 4 * rows, 4 * rows);
    uint8_t *symbols = copied(data + 2 + ranges, count), *again = block(count, 1);
    uint8_t *packed = block(rows * packed_row, 1);
    float *floats = block(count, 4);
    sp_affine_values(symbols, low, step, rows, values, floats);
    sp_affine_symbols(floats, low, step, rows, values, 255, again);
    sp_affine_symbols(floats, low, step, rows, values, 15, again);
    for (size_t i = 0; i < count; i++) {
        MUST(again[i] <= 15);
        symbols[i] &= 15;
    }
    sp_pack_nibbles(symbols, rows, values, packed);
    sp_unpack_nibbles(packed, rows, values, again);
    MUST(count == 0 || memcmp(symbols, again, count) == 0);
    free(floats);
    free(packed);
    free(again);
    free(symbols);
    free(step);
    free(low);
    return SP_OK;
}

/* What was written is read again as it was meant. */
static enum sp_status there_and_back(const fuzz_case *given, const int32_t *magnitudes,
                                     const uint8_t *outliers, size_t outlier_bytes) {
    const sp_plan *plan = &given->plan;
    size_t room = sp_write_bound(plan, given->lanes, outlier_bytes), written = 0, found = 0;
    uint8_t *out = block(room, 1);
    enum sp_status status = sp_write(&given->model, plan, magnitudes, given->lanes, outliers,
                                     outlier_bytes, out, room, &written);
    if (status == SP_OK) {
        MUST(written <= room);
        uint8_t *payload = copied(out, written);
        int32_t *values = block(plan->n, 4);
        int64_t *wanted = block(plan->n, 8);
        MUST(sp_read(&given->model, plan, given->offsets, given->size, given->least_lanes, payload,
                     written, values, &found) == SP_OK);
        MUST(found == outlier_bytes / SP_OUTLIER_BYTES);
        MUST(outlier_bytes == 0 || memcmp(payload + SP_HEAD_BYTES, outliers, outlier_bytes) == 0);
        MUST(sp_place(magnitudes, plan->classes, plan->n, given->offsets, given->model.classes,
                      wanted) == SP_OK);
        for (size_t i = 0; i < plan->n; i++) MUST(values[i] == wanted[i]);
        free(wanted);
        free(values);
        free(payload);
    }
    free(out);
    return status;
}

/* The mean taken off and put on again, with orders that name positions that there are not, too. */
static void positions(const uint8_t *data, size_t bytes) {
    const size_t count = 1 + data[0] % 16, channels = 1 + data[1] % 4, rows = 2 * channels;
    float *values = block(rows * count, 4), *mean = block(channels * count, 4);
    float *out = block(rows * count, 4);
    int32_t *order = block(count, 4);
    int there = 1;
    for (size_t i = 0; i < rows * count; i++) memcpy(values + i, data + i * 4 % (bytes / 4 * 4), 4);
    for (size_t i = 0; i < channels * count; i++) mean[i] = (float)data[i % bytes];
    for (size_t i = 0; i < count; i++) {
        uint8_t any = data[i % bytes];
        order[i] = any == 255 ? -1 : (int32_t)(any % (count + (any > 250)));
        there &= any != 255 && (size_t)order[i] < count;
    }
    enum sp_status wanted = there ? SP_OK : SP_MISFIT;
    MUST(sp_centre(values, rows, mean, channels, order, count, out) == wanted);
    memset(out, 0, 4 * rows * count);
    MUST(sp_restore(values, rows, mean, channels, order, count, out) == wanted);
    free(order);
    free(out);
    free(mean);
    free(values);
}

/* Blocks of any sizes, with an identity: every value comes back, and none from elsewhere. */
static void blocks(const uint8_t *data, size_t bytes) {
    const size_t size = 1 + data[0] % SP_MOST_IN_BLOCK, inner = 1 + data[1] % 9;
    const size_t count = data[2] % 5, n = count * size * inner;
    float *rows = block(n, 4), *matrix = block(size * size, 4), *out = block(n, 4);
    for (size_t i = 0; i < n; i++) rows[i] = (float)data[i % bytes];
    for (size_t i = 0; i < size * size; i++) matrix[i] = i % (size + 1) == 0;
    sp_in_blocks(rows, count, size, inner, matrix, out);
    for (size_t i = 0; i < n; i++) MUST(out[i] == rows[i]);
    free(out);
    free(matrix);
    free(rows);
}

/* Floats of any bits, over and over until there are enough. */
static enum sp_status tensor(const fuzz_case *given, const uint8_t *data, size_t bytes) {
    const sp_plan *plan = &given->plan;
    const size_t size = given->size, left = size - plan->n;
    if (bytes < 4) return SP_NO_HEAD;
    positions(data, bytes);
    blocks(data, bytes);
    float *mixed = block(size, 4), *sent = block(plan->n, 4);
    for (size_t i = 0; i < size; i++) memcpy(mixed + i, data + i * 4 % (bytes / 4 * 4), 4);
    int32_t *magnitudes = block(plan->n, 4);
    uint8_t *outliers = block(left, SP_OUTLIER_BYTES);
    size_t found = 0;
    enum sp_status status = sp_pick(mixed, size, 0.5f, given->order, plan->n, sent);
    if (status == SP_OK)
        status = sp_outliers(mixed, size, 0.5f, given->unsent, given->unsent, left, outliers, left,
                             &found);
    if (status == SP_OK) {
        MUST(found <= left);
        status = sp_quantise(sent, plan->classes, plan->n, given->thresholds, given->model.classes,
                             magnitudes);
    }
    if (status == SP_OK) {
        double energies[(1 + SP_SHARES) * SP_RINGS];
        MUST(sp_ring_energies(sent, given->kept, given->ring, plan->n, energies) == SP_OK);
        MUST(sp_raw_bits(magnitudes, plan->n) <= 21 * plan->n);
        status = there_and_back(given, magnitudes, outliers, found * SP_OUTLIER_BYTES);
        MUST(status == SP_OK);
    }
    free(outliers);
    free(magnitudes);
    free(sent);
    free(mixed);
    return status;
}

/* Up to 7 entries of the plan's arrays are changed, then there is a sample. */
static enum sp_status damaged_plan(const fuzz_case *given, const uint8_t *data, size_t bytes) {
    const sp_plan *plan = &given->plan;
    size_t groups = (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER;
    size_t firsts = plan->singles + groups, n = plan->n;
    uint8_t *classes = copied(plan->classes, n), *first = copied(plan->first, firsts);
    int32_t *single = copied(plan->single, 4 * plan->singles);
    int32_t *sparse = copied(plan->sparse, 4 * plan->sparse_count);
    size_t changes = bytes ? data[0] % 8 : 0, at = bytes > 0;
    for (; changes > 0 && bytes - at >= 7; changes--, at += 7) {
        uint32_t place = data[at + 1] | (uint32_t)data[at + 2] << 8, value;
        memcpy(&value, data + at + 3, 4);
        /* Half of them are indices that there are, if not the right ones. */
        if (data[at] & 4) value %= data[at] & 2 ? (uint32_t)n + 1 : given->model.classes;
        if (data[at] % 4 == 0 && n) classes[place % n] = (uint8_t)value;
        if (data[at] % 4 == 1 && firsts) first[place % firsts] = (uint8_t)value;
        if (data[at] % 4 == 2 && plan->singles) single[place % plan->singles] = (int32_t)value;
        if (data[at] % 4 == 3 && plan->sparse_count)
            sparse[place % plan->sparse_count] = (int32_t)value;
    }
    sp_plan changed = *plan;
    changed.classes = classes;
    changed.first = first;
    changed.single = single;
    changed.sparse = sparse;
    int32_t *values = block(n, 4);
    enum sp_status status = sample(given, &changed, data + at, bytes - at, values);
    for (size_t i = 0; i < n; i++)
        values[i] = at < bytes ? (int32_t)(data[at + i % (bytes - at)] % 13) - 6 : 0;
    size_t room = sp_write_bound(&changed, given->lanes, 0), written = 0;
    uint8_t *out = block(room, 1);
    (void)sp_write(&given->model, &changed, values, given->lanes, NULL, 0, out, room, &written);
    MUST(written <= room);
    free(out);
    free(values);
    free(sparse);
    free(single);
    free(first);
    free(classes);
    return status;
}

enum sp_status try_input(const fuzz_case *given, enum kind kind, const uint8_t *data,
                         size_t bytes) {
    switch (kind) {
    case INTRA: return intra(given, data, bytes);
    case DIFFERENCE: return difference(given, data, bytes);
    case AFFINE: return affine(data, bytes);
    case TENSOR: return tensor(given, data, bytes);
    case PLAN: return damaged_plan(given, data, bytes);
    default: return SP_MISFIT;
    }
}
