/* Prints a digest for each instruction set that runs here: networks of every kind of layer, in both
 * precisions, on observations that change wholly and in part, and links of a genome. */
#include <stdio.h>
#include <stdlib.h>

#include "levels.h"
#include "net.h"

static const Shape dqn[] = {{8, 4, 84, 2, 2, 4, 16, RELU},
                            {4, 2, 21, 1, 2, 16, 32, RELU},
                            {0, 0, 0, 0, 0, 3872, 256, RELU},
                            {0, 0, 0, 0, 0, 256, 18, NONE}};
static const Shape mlp[] = {{0, 0, 0, 0, 0, 24, 64, TANH},
                            {0, 0, 0, 0, 0, 64, 33, RELU},
                            {0, 0, 0, 0, 0, 33, 5, NONE}};
static const struct {
    const Shape *shapes;
    int count;
} nets[] = {{dqn, 4}, {mlp, 3}};

static uint32_t state;
static uint64_t digest;

static uint32_t random32(void) { return state = state * 1664525u + 1013904223u; }

static float random_float(void) { return (float)((int)(random32() >> 8) - (1 << 23)) * 0x1p-27f; }

static void add(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        digest = (digest ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
}

static void play(const Level *level, const Shape *shapes, int count, int bf16)
{
    static unsigned char pixels[84 * 84 * 4];
    static float table[65536];
    float vector[24], values[32];
    const char *reason;
    Net *net = net_new(level, shapes, count, bf16, &reason);
    size_t size = net_parameters(net);
    float *weights = malloc(size * sizeof *weights);
    for (size_t i = 0; i < size; i++)
        weights[i] = random_float() * (i % 5 ? 1 : 1e-38f);
    for (int i = 0; i < 65536; i++)
        table[i] = random_float();
    net_load(net, weights);
    for (int step = 0; step < 4; step++) {
        for (int i = 0; i < (step % 2 ? 3000 : 84 * 84 * 4); i++)
            pixels[i] = (unsigned char)(random32() >> 24);
        for (int i = 0; i < 24; i++)
            vector[i] = random_float() * 30;
        net_forward(net, net_side(net) ? (void *)pixels : (void *)vector, values);
        add(values, net_outputs(net) * sizeof *values);
    }
    uint32_t key0 = random32(), key1 = random32();
    level->add_noise(weights, size, key0, key1, table, weights);
    add(weights, size * sizeof *weights);
    free(weights);
    net_free(net);
}

int main(void)
{
    const Level *level;
    for (int i = 0; (level = level_at(i)); i++) {
        state = 1;
        digest = 14695981039346656037u;
        for (int n = 0; n < 4; n++)
            play(level, nets[n / 2].shapes, nets[n / 2].count, n % 2);
        printf("%s %016llx\n", level->name, (unsigned long long)digest);
    }
}
