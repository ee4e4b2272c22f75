/* For libFuzzer: the first byte chooses a case, the second what the rest is.
 *
 * SPLITPOINT_CASES names the cases' files, with a colon between them.
 */
#include <stdlib.h>
#include <string.h>

#include "one_input.h"

static fuzz_case *cases[64];
static size_t count;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    char *names = getenv("SPLITPOINT_CASES");
    if (names == NULL) abort();
    for (char *name = strtok(names, ":"); name != NULL && count < 64;
         name = strtok(NULL, ":"))
        cases[count++] = read_case(name);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 2) return -1;
    (void)try_input(cases[data[0] % count], data[1] % KINDS, data + 2, bytes - 2);
    return 0;
}
