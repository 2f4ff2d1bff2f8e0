/* The forward of a policy and the link of a genome, with the same bits on every CPU.
 *
 * SUMMATION ORDER. Every output of a layer starts at its bias and takes one fused multiply-add for
 * each of its inputs, in the order row, column, channel; the float32 result of each is the start of
 * the next. Lanes of a vector are outputs, never inputs, so the vector's width changes no order:
 *
 *     out[o] = fma(x[n-1], w[n-1][o], ... fma(x[1], w[1][o], fma(x[0], w[0][o], bias[o])))
 *
 * Zeros of a convolution's padding take part like any input; a fully connected layer skips the
 * inputs that are 0. ReLU is x > 0 ? x : +0, so it maps NaN to 0. Pixels are u8 / 255.0f. tanh is
 * the formula in net.c. Floating point is in its default mode, subnormals included (module.h).
 *
 * WHAT IS KEPT. Between two observations with the same weights, patches of which no pixel changed keep
 * their outputs, and a dense layer after an image begins at the first part of its inputs in which
 * one changed. Equal inputs give equal bits, so this changes speed only (net.c).
 *
 * MEMORY. An image is float32 (row, column, channel), with its padding around it:
 *
 *     padded          run = kernel * channels floats, one kernel row of a patch
 *     +---------------------+
 *     | 0 0 0 0 0 0 0 0 0 0 |        A patch is `kernel` such runs, `width * channels` apart.
 *     | 0 [-----run-----] 0 |        A tile is some patches side by side in registers, each with
 *     | 0 [-----run-----] 0 |        a panel of outputs.
 *     | 0 x x x x x x x x 0 |
 *     +---------------------+
 *
 * Weights arrive as (inputs, outputs), the outputs of one input side by side, and are laid out once
 * for each individual, in rows padded with zeros to a multiple of BLOCK outputs:
 *
 *     convolution   panel 0: input 0 | input 1 | ... | input n-1 |   panel 1: input 0 | ...
 *                   `panel` outputs each, so that what one panel reads lies together
 *     dense         input 0: all outputs | input 1: all outputs | ...
 *                   so that the row of an input that is 0 is never read
 *     dense, bf16   the same rows in 16 bits; a word of 32 holds the outputs i (low half) and
 *                   i + lanes (high half) of a pair of vectors: two operations widen both
 *
 * Each instruction set has an object of its own, made from kernel.c; levels.c knows them all.
 */
#ifndef KUBEVO_KERNEL_H
#define KUBEVO_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Outputs are padded to a multiple of this; no vector is wider. */
#define BLOCK 16

typedef struct {
    int kernel;            /* rows of a patch */
    int run;               /* floats in a row of a patch */
    ptrdiff_t width;       /* floats from one row of the padded input to the next */
    int outputs;           /* a multiple of BLOCK */
    int patches;           /* how many are asked for, a multiple of the level's tile */
    const int *starts;     /* where each begins in the padded input */
    const int *targets;    /* where its outputs go */
} Convolution;

typedef struct {
    const char *name;
    int tile;              /* patches in a tile of a convolution */
    int panel;             /* outputs in a panel of a convolution */
    int pair;              /* outputs in a pair of vectors, of bf16 rows */

    /* Pixels to floats from 0 to 1. */
    void (*scale)(const uint8_t *pixels, int count, float *values);

    /* The convolution of some patches of `padded`, with ReLU, into `out`. */
    void (*convolve)(const Convolution *shape, const float *padded, const float *weights,
                     const float *bias, float *out);

    /* Write the inputs that are not 0 and their indices; return their number. */
    int (*compress)(const float *inputs, int count, float *values, int *indices);

    /* Add `count` products to `sums`, which holds the bias: rows are `outputs` (a multiple of
     * BLOCK, and of `pair` for bf16) apart, and `indices` says which. */
    void (*dense)(const float *values, const int *indices, int count, const float *weights,
                  int outputs, float *sums);
    void (*dense_bf16)(const float *values, const int *indices, int count,
                       const uint32_t *weights, int outputs, float *sums);

    void (*relu)(float *values, int count);

    /* One link of a genome: out = theta + table[half], see kubevo_core.noise; `theta` may be
     * `out`, `length` any number. */
    void (*add_noise)(const float *theta, size_t length, uint32_t key0, uint32_t key1,
                      const float *table, float *out);
} Level;

#endif
