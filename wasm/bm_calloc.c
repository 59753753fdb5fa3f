/*
 * bm_calloc.c: the module's calloc, which does not clear memory that nobody has had yet.
 *
 * Owns one fact about WebAssembly: memory that it grows by is zero. Models and sessions are most of an engine's memory, and
 * clearing it would touch every page of it before the first weight arrives. Emscripten's own calloc clears
 * everything; as it is weak, this one takes its place.
 */
#define _DEFAULT_SOURCE /* sbrk */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *calloc(size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    /* The allocator never gives memory back to the module, so nothing from the break on has been used. */
    uintptr_t fresh = (uintptr_t)sbrk(0);
    uint8_t *block = malloc(bytes);
    if (!block)
        return NULL;
    uintptr_t start = (uintptr_t)block;
    if (start < fresh)
        memset(block, 0, fresh - start < bytes ? fresh - start : bytes);
    return block;
}
