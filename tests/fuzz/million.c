/* Damages sound inputs so many times, and says what became of them.
 *
 *     million COUNT SEED CORPUS CASE...
 *
 * CORPUS is a file of inputs for target.c, each after its length (uint32), and tried as it is before
 * anything is damaged; "-" is none. The same arguments do the same, whatever the machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "one_input.h"

#define MOST_BYTES 4096

static uint64_t state;

static uint32_t any(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 33) % below);
}

static const uint8_t *some_seed(const fuzz_case *given, enum kind kind, size_t *bytes) {
    for (;;) {
        uint32_t at = any(given->seeds);
        if (given->seed[at][0] != kind) continue;
        *bytes = given->seed_bytes[at] - 1;
        return given->seed[at] + 1;
    }
}

static size_t min(size_t a, size_t b) { return a < b ? a : b; }

/* One change of `data`, which has room for MOST_BYTES; its new length. `head` is the sample's. */
static size_t change(uint8_t *data, size_t bytes, size_t head, const uint8_t *other,
                     size_t other_bytes) {
    static const uint8_t interesting[] = {0, 1, 2, 7, 8, 63, 64, 65, 0x7f, 0x80, 0xfe, 0xff};
    static const uint16_t lanes[] = {0, 1, 2, 3, 4, 8, 63, 64, 65, 1023, 1024, 1025, 65535};
    size_t at = any((uint32_t)bytes + 1), count = 1u << any(5);
    switch (any(12)) {
    case 0:
    case 1:
    case 2:
        if (at < bytes) data[at] ^= (uint8_t)(1u << any(8));
        return bytes;
    case 3:
        if (at < bytes) data[at] = interesting[any(sizeof interesting)];
        return bytes;
    case 4: return at;
    case 5:
        for (count = min(count, MOST_BYTES - bytes); count > 0; count--)
            data[bytes++] = (uint8_t)any(256);
        return bytes;
    case 6:
        for (bytes = any(120), at = 0; at < bytes; at++) data[at] = (uint8_t)any(256);
        return bytes;
    case 7: /* the head of one before the rest of another */
        if (at > other_bytes) return bytes;
        memcpy(data + at, other + at, other_bytes - at);
        return other_bytes;
    case 8:
        if (bytes >= head + 2) {
            uint16_t value = any(3) ? lanes[any(sizeof lanes / 2)] : (uint16_t)any(1 << 16);
            memcpy(data + head, &value, 2);
        }
        return bytes;
    case 9: /* outliers that there are not */
        if (bytes >= head + 4) data[head + 2] = interesting[any(sizeof interesting)];
        return bytes;
    case 10: /* an outlier of any value */
        if (bytes < head + 4 || bytes + SP_OUTLIER_BYTES > MOST_BYTES) return bytes;
        memmove(data + head + 4 + SP_OUTLIER_BYTES, data + head + 4, bytes - head - 4);
        data[head + 2]++;
        for (at = head + 4; at < head + 4 + SP_OUTLIER_BYTES; at++)
            data[at] = any(2) ? 0 : (uint8_t)any(256);
        return bytes + SP_OUTLIER_BYTES;
    default: /* a piece is taken out, or written over */
        count = min(count, bytes - at);
        if (any(2)) {
            memmove(data + at, data + at + count, bytes - at - count);
            return bytes - count;
        }
        for (; count > 0; count--) data[at++] = (uint8_t)any(256);
        return bytes;
    }
}

static unsigned long tried[KINDS], sound[KINDS];

static void try_one(const fuzz_case *given, enum kind kind, const uint8_t *data, size_t bytes) {
    tried[kind]++;
    sound[kind] += try_input(given, kind, data, bytes) == SP_OK;
}

static void try_corpus(const char *path, fuzz_case **cases, int count) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    static uint8_t data[1 << 16];
    uint32_t bytes;
    while (fread(&bytes, sizeof bytes, 1, file) == 1) {
        if (bytes < 2 || bytes > sizeof data || fread(data, 1, bytes, file) != bytes) exit(2);
        try_one(cases[data[0] % count], data[1] % KINDS, data + 2, bytes - 2);
    }
    fclose(file);
}

int main(int argc, char **argv) {
    static const char *const names[KINDS] = {"intra", "difference", "affine", "tensor", "plan"};
    /* Of twelve: what a stranger sends most. */
    static const enum kind shares[] = {INTRA, INTRA, INTRA, INTRA, INTRA, DIFFERENCE,
                                       DIFFERENCE, DIFFERENCE, AFFINE, TENSOR, PLAN, PLAN};
    static fuzz_case *cases[64]; /* to the end: they are no leak */
    int count = argc - 4;
    if (count < 1 || count > 64) return 2;
    for (int i = 0; i < count; i++) cases[i] = read_case(argv[4 + i]);
    if (strcmp(argv[3], "-") != 0) try_corpus(argv[3], cases, count);
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (unsigned long i = strtoul(argv[1], NULL, 10); i > 0; i--) {
        uint8_t data[MOST_BYTES];
        const fuzz_case *given = cases[any((uint32_t)count)];
        enum kind kind = shares[any(sizeof shares / sizeof *shares)];
        size_t bytes, other_bytes, head = kind == DIFFERENCE ? SP_RINGS : 0;
        const uint8_t *seed = some_seed(given, kind, &bytes);
        bytes = min(bytes, MOST_BYTES);
        memcpy(data, seed, bytes);
        for (uint32_t changes = any(2) ? 1 : 1 + any(3); changes > 0; changes--) {
            const uint8_t *other = some_seed(given, kind, &other_bytes);
            bytes = change(data, bytes, head, other, min(other_bytes, MOST_BYTES));
        }
        try_one(given, kind, data, bytes);
    }
    for (int kind = 0; kind < KINDS; kind++)
        printf("%s %lu %lu\n", names[kind], tried[kind], sound[kind]);
    return 0;
}
