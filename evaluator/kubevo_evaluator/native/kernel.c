/* The loops, once for each instruction set: compiled with -DLEVEL=<name> -DLEVEL_<name>. */
#include "kernel.h"
#include "vectors.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PANEL (VECTORS * LANES)
/* Rows of a dense layer that are added in one pass over the sums. */
#define ROWS 8

static void scale(const uint8_t *pixels, int count, float *values)
{
    for (int i = 0; i < count; i++)
        values[i] = (float)pixels[i] / 255.0f;
}

/* `vectors` is a constant where this is called, so that all loops over it unroll. */
ALWAYS_INLINE void convolve_tile(const Convolution *shape, const float *padded, const int *starts,
                                 const int *targets, const float *weights, const float *bias,
                                 float *out, const int vectors)
{
    Vector sums[TILE][VECTORS];
    for (int t = 0; t < TILE; t++)
        for (int v = 0; v < vectors; v++)
            sums[t][v] = v_load(bias + v * LANES);
    for (int row = 0; row < shape->kernel; row++) {
        const float *patches[TILE];
        for (int t = 0; t < TILE; t++)
            patches[t] = padded + starts[t] + row * shape->width;
        for (int i = 0; i < shape->run; i++, weights += vectors * LANES) {
            Vector w[VECTORS];
            for (int v = 0; v < vectors; v++)
                w[v] = v_load(weights + v * LANES);
            for (int t = 0; t < TILE; t++) {
                Vector x = v_all(patches[t][i]);
                for (int v = 0; v < vectors; v++)
                    sums[t][v] = v_fma(x, w[v], sums[t][v]);
            }
        }
    }
    for (int t = 0; t < TILE; t++)
        for (int v = 0; v < vectors; v++)
            v_store(out + targets[t] + v * LANES, v_relu(sums[t][v]));
}

static void convolve(const Convolution *shape, const float *padded, const float *weights,
                     const float *bias, float *out)
{
    int rows = shape->kernel * shape->run, done = 0;
    for (; done + PANEL <= shape->outputs; done += PANEL)
        for (int i = 0; i < shape->patches; i += TILE)
            convolve_tile(shape, padded, shape->starts + i, shape->targets + i,
                          weights + (ptrdiff_t)done * rows, bias + done, out + done, VECTORS);
    if (done < shape->outputs) /* only where a panel is wider than BLOCK */
        for (int i = 0; i < shape->patches; i += TILE)
            convolve_tile(shape, padded, shape->starts + i, shape->targets + i,
                          weights + (ptrdiff_t)done * rows, bias + done, out + done,
                          BLOCK / LANES);
}

static int compress(const float *inputs, int count, float *values, int *indices)
{
    int found = 0;
    for (int i = 0; i < count; i++) { /* no branch: most of the time it would be guessed wrong */
        values[found] = inputs[i];
        indices[found] = i;
        found += inputs[i] != 0;
    }
    return found;
}

/* `next` are the rows of the next pass, fetched meanwhile: 16 MB of rows, of which some are skipped,
 * come from a cache that is far away, in an order that the processor does not guess. */
ALWAYS_INLINE void add_rows(const float *values, const int *indices, const int *next,
                            const float *weights, int outputs, float *sums, const int rows)
{
    Vector x[ROWS];
    const float *row[ROWS];
    for (int r = 0; r < rows; r++) {
        x[r] = v_all(values[r]);
        row[r] = weights + (ptrdiff_t)indices[r] * outputs;
    }
    for (int o = 0; o < outputs; o += LANES) {
        if (next && o % BLOCK == 0) /* a block is a line of the cache */
            for (int r = 0; r < ROWS; r++)
                __builtin_prefetch(weights + (ptrdiff_t)next[r] * outputs + o);
        Vector sum = v_load(sums + o);
        for (int r = 0; r < rows; r++)
            sum = v_fma(x[r], v_load(row[r] + o), sum);
        v_store(sums + o, sum);
    }
}

static void dense(const float *values, const int *indices, int count, const float *weights,
                  int outputs, float *sums)
{
    int done = 0;
    for (; done + 2 * ROWS <= count; done += ROWS)
        add_rows(values + done, indices + done, indices + done + ROWS, weights, outputs, sums, ROWS);
    for (; done + ROWS <= count; done += ROWS)
        add_rows(values + done, indices + done, NULL, weights, outputs, sums, ROWS);
    for (; done < count; done++)
        add_rows(values + done, indices + done, NULL, weights, outputs, sums, 1);
}

ALWAYS_INLINE void add_rows_bf16(const float *values, const int *indices, const uint32_t *weights,
                                 int outputs, float *sums, const int rows)
{
    Vector x[ROWS];
    const uint32_t *row[ROWS];
    for (int r = 0; r < rows; r++) {
        x[r] = v_all(values[r]);
        row[r] = weights + (ptrdiff_t)indices[r] * (outputs / 2);
    }
    for (int o = 0; o < outputs; o += 2 * LANES) {
        Vector low = v_load(sums + o), high = v_load(sums + o + LANES);
        for (int r = 0; r < rows; r++) {
            Words words = w_load(row[r] + o / 2);
            low = v_fma(x[r], w_low(words), low);
            high = v_fma(x[r], w_high(words), high);
        }
        v_store(sums + o, low);
        v_store(sums + o + LANES, high);
    }
}

static void dense_bf16(const float *values, const int *indices, int count,
                       const uint32_t *weights, int outputs, float *sums)
{
    int done = 0;
    for (; done + ROWS <= count; done += ROWS)
        add_rows_bf16(values + done, indices + done, weights, outputs, sums, ROWS);
    for (; done < count; done++)
        add_rows_bf16(values + done, indices + done, weights, outputs, sums, 1);
}

static void relu(float *values, int count)
{
    for (int i = 0; i < count; i += LANES)
        v_store(values + i, v_relu(v_load(values + i)));
}

static uint32_t hash(uint32_t x, uint32_t key1)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x ^= key1;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static void add_noise(const float *theta, size_t length, uint32_t key0, uint32_t key1,
                      const float *table, float *out)
{
    enum { CHUNK = 256 }; /* hashes at a time: their loop is vectors, the table look-ups are not */
    uint32_t hashes[CHUNK];
    size_t pairs = length / 2;
    for (size_t start = 0; start < pairs; start += CHUNK) {
        size_t count = pairs - start < CHUNK ? pairs - start : CHUNK;
        const float *from = theta + 2 * start;
        for (size_t i = 2 * CHUNK; i < 4 * CHUNK && 2 * start + i < length; i += 16)
            __builtin_prefetch(from + i); /* the next chunk comes while this one is hashed */
        for (size_t i = 0; i < count; i++)
            hashes[i] = hash((uint32_t)(start + i) + key0, key1);
        float *to = out + 2 * start;
        for (size_t i = 0; i < count; i++) {
            float first = from[2 * i] + table[hashes[i] & 0xffff];
            float second = from[2 * i + 1] + table[hashes[i] >> 16];
            to[2 * i] = first;
            to[2 * i + 1] = second;
        }
    }
    if (length % 2)
        out[length - 1] = theta[length - 1] + table[hash((uint32_t)pairs + key0, key1) & 0xffff];
}

#define STRING(x) #x
#define NAME_OF(x) STRING(x)
#define JOIN(a, b) a##b
#define SYMBOL(name) JOIN(kubevo_level_, name)

const Level SYMBOL(LEVEL) = {
    .name = NAME_OF(LEVEL),
    .tile = TILE,
    .panel = PANEL,
    .pair = 2 * LANES,
    .scale = scale,
    .convolve = convolve,
    .compress = compress,
    .dense = dense,
    .dense_bf16 = dense_bf16,
    .relu = relu,
    .add_noise = add_noise,
};
