/* Numbers as little-endian bytes, and numbers of different lengths as one row of bits. */
#ifndef SPLITPOINT_BITS_H
#define SPLITPOINT_BITS_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t get_u16(const uint8_t *from) { return from[0] | (uint32_t)from[1] << 8; }

static inline uint32_t get_u32(const uint8_t *from) {
    return get_u16(from) | get_u16(from + 2) << 16;
}

static inline void put_u16(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static inline void put_u32(uint8_t *to, uint32_t value) {
    put_u16(to, value);
    put_u16(to + 2, value >> 16);
}

/* So many bits, the highest of each byte first. The bytes behind them are 0 until they are used. */
typedef struct {
    uint8_t *bytes;
    size_t count;
} bit_row;

/* Appends the lowest `count` bits of `value`, at most 32. */
static inline void put_bits(bit_row *row, uint32_t value, unsigned count) {
    for (unsigned left = count; left > 0;) {
        unsigned space = 8 - (unsigned)(row->count & 7), take = left < space ? left : space;
        uint32_t part = (value >> (left - take)) & ((1u << take) - 1);
        row->bytes[row->count >> 3] |= (uint8_t)(part << (space - take));
        row->count += take;
        left -= take;
    }
}

#endif
