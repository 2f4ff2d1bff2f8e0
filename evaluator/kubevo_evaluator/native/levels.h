/* Which instruction sets this build and this CPU have, best first. */
#ifndef KUBEVO_LEVELS_H
#define KUBEVO_LEVELS_H

#include "kernel.h"

/* Return the level number `index` that runs here, or NULL after the last; the portable one is last. */
const Level *level_at(int index);

/* Return the level with this name if it runs here, else NULL. */
const Level *level_named(const char *name);

#endif
