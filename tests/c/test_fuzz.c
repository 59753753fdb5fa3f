/*
 * test_fuzz.c: the calls of fuzz_model.c from random bytes, for where there is no fuzzer.
 */
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Long runs of the bytes that choose usual values, so that many models come to life. */
static void random_calls(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    uint8_t bytes[400];
    unsigned most = check_between(&r, 0, 3) ? 0xef : 0xff;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)check_between(&r, 0, most);
    /* After the config and the variant: complete the model. */
    if (check_between(&r, 0, 3))
        bytes[15] = 2;
    LLVMFuzzerTestOneInput(bytes, sizeof bytes);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {{"random_calls", random_calls, 600}};
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
