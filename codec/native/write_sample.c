/* One sample to bytes: its head, its outliers, and its symbols by rANS over many lanes.
 *
 * The order of everything is that of codec/fkt/rans.py: lane l takes the symbols l, l + lanes, ... of
 * each pass; the coder goes through them backwards, so the shared stream of words is filled from its
 * end. States start with raw bits in them, so that a lane costs about one bit.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "bytes8.h"
#include "loops.h"

/* `count` bits, at most 16, from bit `at` on; up to two bytes behind them are read as well. */
static uint32_t bits_at(const uint8_t *bytes, size_t at, unsigned count) {
    const uint8_t *from = bytes + (at >> 3);
    uint32_t three = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
    return (three >> (24 - (at & 7) - count)) & ((1u << count) - 1);
}

size_t sp_write_bound(const sp_plan *plan, size_t lanes, size_t outlier_bytes) {
    size_t groups = (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER;
    size_t words = plan->singles + groups + plan->sparse_count;
    return SP_HEAD_BYTES + outlier_bytes + 4 * lanes + 2 * words + (21 * plan->n + 7) / 8 + 16;
}

typedef struct {
    uint32_t *shares; /* of the first pass's symbols, then of the second's */
    size_t first, second;
    bit_row raw; /* signs, then what tells large magnitudes */
} coded;

/* Symbols of all magnitudes; `symbols` has room for 8 more, which are 0. */
static enum sp_status symbols_of(const sp_model *model, const sp_plan *plan,
                                 const int32_t *magnitudes, uint8_t *symbols) {
    uint32_t bad_class = 0, too_large = 0;
    memset(symbols + plan->n, 0, 8);
    for (size_t i = 0; i < plan->n; i++) {
        int32_t value = magnitudes[i];
        uint32_t size = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
        too_large |= size > SP_MAX_MAGNITUDE;
        symbols[i] = (uint8_t)(size < 11 ? size : 11); /* those above 10 are mended below */
    }
    for (size_t i = 0; i < plan->n; i++) bad_class |= plan->classes[i] >= model->classes;
    if (bad_class) return SP_MISFIT;
    return too_large ? SP_TOO_LARGE : SP_OK;
}

/* How many raw bits these magnitudes need. */
static size_t count_raw_bits(const int32_t *magnitudes, const uint8_t *symbols, size_t n) {
    size_t bits = 0;
    for (size_t begin = 0; begin < n; begin += 8) {
        uint64_t eight = load8(symbols + begin);
        if (eight == 0) continue;
        bits += marked(at_least(eight, 1));
        for (uint64_t marks = at_least(eight, SP_LAST_SINGLE + 1); marks; marks &= marks - 1) {
            int32_t value = magnitudes[begin + first_marked(marks)];
            bits += sp_extra_bits[sp_symbol_of((uint32_t)(value < 0 ? -value : value))];
        }
    }
    return bits;
}

/* Raw bits: signs, then what tells large magnitudes. `large` has room for n places. The row is for
 * the caller to free; it has zeros for so many lanes' first bits, too. */
static enum sp_status raw_bits(const sp_plan *plan, const int32_t *magnitudes, uint8_t *symbols,
                               int32_t *large, size_t lanes, bit_row *raw) {
    raw->bytes = calloc((count_raw_bits(magnitudes, symbols, plan->n) + 7) / 8 + 2 * lanes + 16, 1);
    if (raw->bytes == NULL) return SP_NO_MEMORY;
    uint64_t signs = 0;
    unsigned held = 0;
    size_t large_count = 0;
    for (size_t begin = 0; begin < plan->n; begin += 8) {
        uint64_t eight = load8(symbols + begin);
        if (eight == 0) continue;
        for (uint64_t marks = at_least(eight, 1); marks; marks &= marks - 1) {
            signs = signs << 1 | (magnitudes[begin + first_marked(marks)] < 0);
            if (++held == 32) {
                put_bits(raw, (uint32_t)(signs >> 16) & 0xffff, 16);
                put_bits(raw, (uint32_t)signs & 0xffff, 16);
                held = 0;
            }
        }
        for (uint64_t marks = at_least(eight, SP_LAST_SINGLE + 1); marks; marks &= marks - 1)
            large[large_count++] = (int32_t)(begin + first_marked(marks));
    }
    for (unsigned left = held; left > 0; left--) put_bits(raw, (uint32_t)(signs >> (left - 1)) & 1, 1);
    for (size_t i = 0; i < large_count; i++) {
        int32_t value = magnitudes[large[i]];
        uint32_t size = (uint32_t)(value < 0 ? -value : value);
        uint8_t symbol = symbols[large[i]] = sp_symbol_of(size);
        put_bits(raw, size - sp_first_of[symbol], sp_extra_bits[symbol]);
    }
    return SP_OK;
}

/* The shares of all symbols, in the order of the passes; SP_MISFIT for an index out of range, or a
 * share that no symbol can have: widths are divisors, and indices of the information. */
static enum sp_status collect(const sp_model *model, const sp_plan *plan, const uint8_t *symbols,
                              coded *out) {
    const uint32_t masks = model->classes + 1;
    const uint32_t *nonzero = model->shares + (2 * model->classes + 1) * SP_SYMBOLS;
    const size_t groups = (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER;
    for (size_t i = 0; i < plan->singles; i++) {
        uint32_t place = (uint32_t)plan->single[i], context = plan->first[i];
        if (place >= plan->n || context >= model->classes) return SP_MISFIT;
        out->shares[i] = model->shares[context * SP_SYMBOLS + symbols[place]];
    }
    out->first = plan->singles + groups;
    uint32_t *rest = out->shares + out->first;
    for (size_t group = 0; group < groups; group++) {
        const size_t begin = group * SP_TOGETHER, left = plan->sparse_count - begin;
        const size_t width = left < SP_TOGETHER ? left : SP_TOGETHER;
        uint32_t mask = 0, context = plan->first[plan->singles + group];
        if (context < masks || context >= masks + model->classes) return SP_MISFIT;
        for (size_t k = 0; k < width; k++) {
            uint32_t place = (uint32_t)plan->sparse[begin + k];
            if (place >= plan->n) return SP_MISFIT;
            uint32_t symbol = symbols[place], any = symbol > 0;
            mask |= (8u >> k) * any;
            *rest = nonzero[plan->classes[place] * SP_SYMBOLS + symbol - any];
            rest += any;
        }
        out->shares[plan->singles + group] = model->shares[context * SP_SYMBOLS + mask];
    }
    out->second = (size_t)(rest - out->shares) - out->first;
    uint32_t bad_width = 0;
    for (const uint32_t *share = out->shares; share < rest; share++)
        bad_width |= (*share >> 16) - 1 >= SP_TOTAL;
    return bad_width ? SP_MISFIT : SP_OK;
}

/* Adds the information of one pass's symbols to their lanes, in the order of the steps. */
static void add_information(const float *information, const uint32_t *shares, size_t count,
                            size_t lanes, float *lane) {
    for (size_t begin = 0; begin < count; begin += lanes) {
        size_t width = count - begin < lanes ? count - begin : lanes;
        for (size_t l = 0; l < width; l++) lane[l] += information[shares[begin + l] >> 16];
    }
}

/* States that hold raw bits and will just not be full; the number of bits that they took. */
static size_t first_states(const float *information, const bit_row *raw, size_t lanes,
                           uint32_t *state) {
    const size_t room = 16 * lanes, spare = raw->count > room ? raw->count - room : 0;
    size_t offered = 0, at = room;
    for (size_t l = 0; l < lanes; l++) {
        uint32_t head = SP_FLOOR + bits_at(raw->bytes, 16 * l, 16);
        double filled = log2((double)head) + (double)information[l];
        double last = 16 + (filled - 16 * floor(filled / 16)); /* the remainder, exactly */
        double most = 32 - 0.05 - last;
        size_t more = (size_t)floor(most > 15 ? 15 : most > 0 ? most : 0);
        offered += more;
        size_t over = offered > spare ? offered - spare : 0;
        more -= over < more ? over : more;
        state[l] = head << more | (more ? bits_at(raw->bytes, at, (unsigned)more) : 0);
        at += more;
    }
    return at;
}

/* One pass, backwards; words go before `end`. */
static uint8_t *encode_pass(const uint32_t *shares, size_t count, size_t lanes, uint32_t *state,
                            uint8_t *end) {
    size_t steps = (count + lanes - 1) / lanes;
    for (size_t step = steps; step-- > 0;) {
        size_t begin = step * lanes, width = count - begin < lanes ? count - begin : lanes;
        const uint32_t *own = shares + begin;
        for (size_t l = width; l-- > 0;) {
            uint32_t x = state[l], share = own[l], width12 = share >> 16;
            /* A width of 2^12 changes nothing; its limit would overflow. */
            if (width12 == SP_TOTAL) continue;
            uint32_t full = x >= width12 << 20;
            put_u16(end - 2, x);
            end -= 2 * full;
            x >>= 16 * full;
            state[l] = (x / width12) * (SP_TOTAL - width12) + x + (share & 0xffff);
        }
    }
    return end;
}

enum sp_status sp_write(const sp_model *model, const sp_plan *plan, const int32_t *magnitudes,
                        size_t lanes, const uint8_t *outliers, size_t outlier_bytes, uint8_t *out,
                        size_t room, size_t *written) {
    if (lanes < 1 || lanes > SP_MAX_LANES || outlier_bytes % SP_OUTLIER_BYTES ||
        outlier_bytes / SP_OUTLIER_BYTES > SP_MAX_OUTLIERS ||
        room < sp_write_bound(plan, lanes, outlier_bytes))
        return SP_MISFIT;
    const size_t groups = (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER;
    const size_t most = plan->singles + groups + plan->sparse_count;
    /* One block: shares (and one to spare), large places, states, information, words
     * (with two bytes before them), symbols. */
    const size_t words_bytes = 2 * most + 2;
    size_t total = 4 * (most + 1 + plan->n + 2 * lanes) + words_bytes + plan->n + 8;
    uint32_t *block = malloc(total);
    if (block == NULL) return SP_NO_MEMORY;
    int32_t *large = (int32_t *)(block + most + 1);
    uint32_t *state = (uint32_t *)(large + plan->n);
    float *information = (float *)(state + lanes);
    uint8_t *words = (uint8_t *)(information + lanes), *words_end = words + words_bytes;
    coded todo = {.shares = block, .raw = {.bytes = NULL, .count = 0}};
    uint8_t *symbols = words_end;
    memset(information, 0, 4 * lanes);
    enum sp_status status = symbols_of(model, plan, magnitudes, symbols);
    if (status == SP_OK)
        status = raw_bits(plan, magnitudes, symbols, large, lanes, &todo.raw);
    if (status == SP_OK) status = collect(model, plan, symbols, &todo);
    if (status == SP_OK) {
        const uint32_t *second = todo.shares + todo.first;
        add_information(model->information, todo.shares, todo.first, lanes, information);
        add_information(model->information, second, todo.second, lanes, information);
        size_t at = first_states(information, &todo.raw, lanes, state);
        uint8_t *begin = encode_pass(second, todo.second, lanes, state, words_end);
        begin = encode_pass(todo.shares, todo.first, lanes, state, begin);
        uint8_t *to = out;
        put_u16(to, (uint32_t)lanes);
        put_u16(to + 2, (uint32_t)(outlier_bytes / SP_OUTLIER_BYTES));
        to += SP_HEAD_BYTES;
        if (outlier_bytes) memcpy(to, outliers, outlier_bytes);
        to += outlier_bytes;
        for (size_t l = 0; l < lanes; l++, to += 4) put_u32(to, state[l]);
        memcpy(to, begin, (size_t)(words_end - begin));
        to += words_end - begin;
        for (; at < todo.raw.count; at += 8) {
            size_t left = todo.raw.count - at;
            unsigned take = left < 8 ? (unsigned)left : 8;
            *to++ = (uint8_t)(bits_at(todo.raw.bytes, at, take) << (8 - take));
        }
        *written = (size_t)(to - out);
    }
    free(todo.raw.bytes);
    free(block);
    return status;
}
