/* Eight bytes at once, of arrays in which most bytes are 0. */
#ifndef SPLITPOINT_BYTES8_H
#define SPLITPOINT_BYTES8_H

#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines: without the extension, numpy's form serves"
#endif

#define EACH8(value) (UINT64_C(0x0101010101010101) * (value))

static inline uint64_t load8(const uint8_t *from) {
    uint64_t found;
    memcpy(&found, from, 8);
    return found;
}

/* Marks, by its highest bit, each byte that is at least `least` (1 to 128). All are below 128. */
static inline uint64_t at_least(uint64_t bytes, unsigned least) {
    return (bytes + EACH8(128 - least)) & EACH8(128);
}

/* The index of the first marked byte, where there is one. */
static inline unsigned first_marked(uint64_t marks) { return (unsigned)__builtin_ctzll(marks) >> 3; }

/* How many bytes are marked: the product's highest byte is the sum of all. */
static inline unsigned marked(uint64_t marks) {
    return (unsigned)((marks >> 7) * EACH8(1) >> 56);
}

#endif
