/* One sample from bytes: the counterpart of write_sample.c, on what anybody may have sent. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "bytes8.h"
#include "loops.h"

typedef struct {
    uint32_t *state;
    size_t lanes;
    const uint8_t *next, *end; /* of the words */
} decoder;

/* A step of one lane; `word` is the next one, and `*low` whether it was taken. */
static inline uint32_t step_of(const sp_model *model, uint32_t context, uint32_t x, uint32_t word,
                               uint8_t *symbol, uint32_t *low) {
    uint32_t slot = x & (SP_TOTAL - 1);
    uint32_t found = model->symbols[context << SP_PRECISION_BITS | slot] & (SP_SYMBOLS - 1);
    uint32_t share = model->shares[context * SP_SYMBOLS + found];
    x = (share >> 16) * (x >> SP_PRECISION_BITS) + slot - (share & 0xffff);
    *symbol = (uint8_t)found;
    *low = x < SP_FLOOR;
    return *low ? x << 16 | word : x;
}

/* The next `count` symbols; contexts are below the model's, which the caller has seen to. */
static enum sp_status decode_pass(const sp_model *model, decoder *from, const uint8_t *contexts,
                                  size_t count, uint8_t *symbols) {
    for (size_t begin = 0; begin < count; begin += from->lanes) {
        size_t width = count - begin < from->lanes ? count - begin : from->lanes;
        const uint8_t *next = from->next, *own = contexts + begin;
        uint8_t *to = symbols + begin;
        uint32_t low;
        if ((size_t)(from->end - next) >= 2 * width) {
            for (size_t l = 0; l < width; l++) {
                from->state[l] = step_of(model, own[l], from->state[l], get_u16(next), to + l, &low);
                next += 2 * low;
            }
        } else {
            for (size_t l = 0; l < width; l++) {
                int there = from->end - next >= 2;
                uint32_t word = there ? get_u16(next) : 0;
                from->state[l] = step_of(model, own[l], from->state[l], word, to + l, &low);
                if (low && !there) return SP_DAMAGED;
                next += 2 * low;
            }
        }
        from->next = next;
    }
    return SP_OK;
}

/* Raw bits: what the last states hold, and the bytes behind the words. Highest bit first. */
typedef struct {
    uint64_t window;
    unsigned held; /* bits of the window */
    const uint8_t *next;
} bit_reader;

static uint32_t take_bits(bit_reader *reader, unsigned count) {
    while (reader->held < count) {
        reader->window = reader->window << 8 | *reader->next++;
        reader->held += 8;
    }
    reader->held -= count;
    return (uint32_t)(reader->window >> reader->held) & ((1u << count) - 1);
}

static bit_reader reader_at(const uint8_t *bytes, size_t bit) {
    bit_reader found = {0, 0, bytes + (bit >> 3)};
    (void)take_bits(&found, (unsigned)(bit & 7));
    return found;
}

/* The number of the highest bit that is set, of a value of at least 2^16. */
static unsigned top_bit(uint32_t value) {
    unsigned found = 16;
    for (unsigned half = 8; half > 0; half /= 2)
        if (value >> (found + half)) found += half;
    return found;
}

/* The bits of the states and the tail in one row of zeroed bytes; their number. */
static size_t raw_row(const decoder *from, const uint8_t *tail, size_t tail_bytes, uint8_t *bytes) {
    bit_row row = {bytes, 16 * from->lanes};
    for (size_t l = 0; l < from->lanes; l++) {
        unsigned more = top_bit(from->state[l]) - 16;
        uint32_t head = from->state[l] >> more;
        bytes[2 * l] = (uint8_t)(head >> 8);
        bytes[2 * l + 1] = (uint8_t)head;
    }
    for (size_t l = 0; l < from->lanes; l++)
        put_bits(&row, from->state[l], top_bit(from->state[l]) - 16);
    for (size_t i = 0; i < tail_bytes; i++) put_bits(&row, tail[i], 8);
    return row.count;
}

static int any_bit(const uint8_t *bytes, size_t begin, size_t end) {
    for (size_t at = begin; at < end; at++)
        if (bytes[at >> 3] >> (7 - (at & 7)) & 1) return 1;
    return 0;
}

/* What the symbols ask for besides: numbers of raw bits, and of large values. */
typedef struct {
    size_t signs, extra_bits, large;
} raw_counts;

/* Counts that, and notes the places of large values. Behind the symbols there are 8 zeros. */
static raw_counts count_raw(const uint8_t *symbols, size_t n, int32_t *large) {
    raw_counts found = {0, 0, 0};
    for (size_t begin = 0; begin < n; begin += 8) {
        uint64_t eight = load8(symbols + begin);
        if (eight == 0) continue;
        found.signs += marked(at_least(eight, 1));
        for (uint64_t marks = at_least(eight, SP_LAST_SINGLE + 1); marks; marks &= marks - 1) {
            size_t place = begin + first_marked(marks);
            found.extra_bits += sp_extra_bits[symbols[place]];
            large[found.large++] = (int32_t)place;
        }
    }
    return found;
}

/* The symbol of every coefficient, over zeroed `symbols`. `found` and `contexts` have room for 4
 * more than n, as has `places`. */
static enum sp_status read_symbols(const sp_model *model, const sp_plan *plan, decoder *from,
                                   uint8_t *symbols, uint8_t *found, uint8_t *contexts,
                                   int32_t *places) {
    const size_t groups = (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER;
    const uint32_t nonzero = 2 * model->classes + 1;
    for (size_t i = 0; i < plan->singles + groups; i++)
        if (plan->first[i] >= nonzero) return SP_MISFIT;
    enum sp_status status =
        decode_pass(model, from, plan->first, plan->singles + groups, found);
    if (status != SP_OK) return status;
    for (size_t i = 0; i < plan->singles; i++) {
        if ((uint32_t)plan->single[i] >= plan->n) return SP_MISFIT;
        symbols[plan->single[i]] = found[i];
    }
    size_t rest = 0;
    for (size_t group = 0; group < groups; group++) {
        const size_t begin = group * SP_TOGETHER, left = plan->sparse_count - begin;
        const size_t width = left < SP_TOGETHER ? left : SP_TOGETHER;
        const uint32_t mask = found[plan->singles + group];
        if (mask == 0) continue;
        for (size_t k = 0; k < width; k++) { /* writes one further than it counts, at most */
            uint32_t place = (uint32_t)plan->sparse[begin + k];
            if (place >= plan->n) return SP_MISFIT;
            places[rest] = (int32_t)place;
            contexts[rest] = (uint8_t)(nonzero + plan->classes[place]);
            rest += mask >> (3 - k) & 1;
        }
    }
    status = decode_pass(model, from, contexts, rest, found);
    if (status != SP_OK) return status;
    for (size_t i = 0; i < rest; i++) {
        if (found[i] + 1 >= SP_SYMBOLS) return SP_MISFIT;
        symbols[places[i]] = (uint8_t)(found[i] + 1);
    }
    return SP_OK;
}

/* Values in 1/64 step from symbols and raw bits, of which there are enough. `of_symbol` is
 * [classes x 16]. */
static void place_values(const sp_plan *plan, const int32_t *of_symbol, const uint8_t *symbols,
                         const uint8_t *raw, const raw_counts *counts, const int32_t *large,
                         int32_t *values) {
    size_t at = 0;
    memset(values, 0, plan->n * sizeof *values);
    for (size_t begin = 0; begin < plan->n; begin += 8) {
        for (uint64_t marks = at_least(load8(symbols + begin), 1); marks; marks &= marks - 1) {
            size_t i = begin + first_marked(marks);
            int32_t negative = raw[at >> 3] >> (7 - (at & 7)) & 1;
            values[i] = (of_symbol[plan->classes[i] * SP_SYMBOLS + symbols[i]] ^ -negative) + negative;
            at++;
        }
    }
    bit_reader extra = reader_at(raw, counts->signs);
    for (size_t i = 0; i < counts->large; i++) {
        int32_t *value = values + large[i];
        int32_t more = SP_FINE * (int32_t)take_bits(&extra, sp_extra_bits[symbols[large[i]]]);
        *value += *value < 0 ? -more : more;
    }
}

/* Values from symbols and the raw bits, of which there have to be exactly as many as are wanted. */
static enum sp_status read_values(const sp_model *model, const sp_plan *plan, const int8_t *offsets,
                                  const decoder *from, const uint8_t *symbols, int32_t *places,
                                  int32_t *of_symbol, int32_t *values) {
    const raw_counts counts = count_raw(symbols, plan->n, places);
    const size_t wanted = counts.signs + counts.extra_bits;
    size_t within = 16 * from->lanes;
    for (size_t l = 0; l < from->lanes; l++) within += top_bit(from->state[l]) - 16;
    const size_t tail_bytes = (size_t)(from->end - from->next);
    if (tail_bytes != (wanted > within ? (wanted - within + 7) / 8 : 0)) return SP_BAD_LENGTH;
    uint8_t *raw = calloc((within + 7) / 8 + tail_bytes + 16, 1);
    if (raw == NULL) return SP_NO_MEMORY;
    size_t held = raw_row(from, from->next, tail_bytes, raw);
    enum sp_status status = any_bit(raw, wanted, held) ? SP_BAD_LENGTH : SP_OK;
    if (status == SP_OK) {
        for (uint32_t i = 0; i < model->classes * SP_SYMBOLS; i++) {
            uint32_t symbol = i % SP_SYMBOLS;
            of_symbol[i] = symbol ? (int32_t)(SP_FINE * sp_first_of[symbol]) + offsets[i] : 0;
        }
        place_values(plan, of_symbol, symbols, raw, &counts, places, values);
    }
    free(raw);
    return status;
}

static enum sp_status read_body(const sp_model *model, const sp_plan *plan, const int8_t *offsets,
                                const uint8_t *body, size_t bytes, size_t lanes, uint8_t *block,
                                int32_t *values) {
    /* `block` is laid out as sp_read has measured it. */
    const size_t room = plan->n + 8;
    decoder from = {(uint32_t *)block, lanes, body + 4 * lanes, body + bytes};
    int32_t *places = (int32_t *)(from.state + lanes), *of_symbol = places + room;
    uint8_t *symbols = (uint8_t *)(of_symbol + model->classes * SP_SYMBOLS);
    uint8_t *found = symbols + room, *contexts = found + room;
    uint8_t highest = 0;
    memset(symbols, 0, room);
    for (size_t i = 0; i < plan->n; i++)
        highest = plan->classes[i] > highest ? plan->classes[i] : highest;
    if (highest >= model->classes) return SP_MISFIT;
    for (size_t l = 0; l < lanes; l++) {
        from.state[l] = get_u32(body + 4 * l);
        if (from.state[l] < SP_FLOOR) return SP_DAMAGED;
    }
    enum sp_status status = read_symbols(model, plan, &from, symbols, found, contexts, places);
    if (status != SP_OK) return status;
    return read_values(model, plan, offsets, &from, symbols, places, of_symbol, values);
}

enum sp_status sp_read(const sp_model *model, const sp_plan *plan, const int8_t *offsets,
                       size_t coefficients, size_t least_lanes, const uint8_t *payload,
                       size_t payload_bytes, int32_t *values, size_t *outliers) {
    if (payload_bytes < SP_HEAD_BYTES) return SP_NO_HEAD;
    size_t lanes = get_u16(payload), count = get_u16(payload + 2);
    size_t begin = SP_HEAD_BYTES + count * SP_OUTLIER_BYTES;
    if (lanes < 1 || lanes < least_lanes || lanes > SP_MAX_LANES || begin > payload_bytes)
        return SP_BAD_HEAD;
    for (size_t i = 0; i < count; i++)
        if (get_u32(payload + SP_HEAD_BYTES + i * SP_OUTLIER_BYTES) >= coefficients)
            return SP_BAD_INDEX;
    const uint8_t *body = payload + begin;
    size_t bytes = payload_bytes - begin;
    if (bytes < 4 * lanes) return SP_NO_LANES;
    const size_t room = plan->n + 8, words = lanes + room + model->classes * SP_SYMBOLS;
    uint8_t *block = malloc(4 * words + 3 * room);
    if (block == NULL) return SP_NO_MEMORY;
    enum sp_status status =
        read_body(model, plan, offsets, body, bytes, lanes, block, values);
    free(block);
    *outliers = count;
    return status;
}
