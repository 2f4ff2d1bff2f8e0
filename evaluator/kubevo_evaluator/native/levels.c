#include "levels.h"

#include <string.h>

extern const Level kubevo_level_portable;

#if defined(__x86_64__)
extern const Level kubevo_level_avx2, kubevo_level_avx512;

/* These ask the operating system, too, whether it saves the registers. */
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#elif defined(__aarch64__)
extern const Level kubevo_level_neon;
#endif

const Level *level_at(int index)
{
    const Level *found[4];
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init(); /* not every compiler's library does it when it is loaded */
    if (has_avx512())
        found[count++] = &kubevo_level_avx512;
    if (has_avx2())
        found[count++] = &kubevo_level_avx2;
#elif defined(__aarch64__)
    found[count++] = &kubevo_level_neon; /* every such CPU has it */
#endif
    found[count++] = &kubevo_level_portable;
    return index < count ? found[index] : NULL;
}

const Level *level_named(const char *name)
{
    for (int i = 0; level_at(i); i++)
        if (!strcmp(level_at(i)->name, name))
            return level_at(i);
    return NULL;
}
