/* A network: its layers, its buffers and the weights of one individual. No Python in here. */
#ifndef KUBEVO_NET_H
#define KUBEVO_NET_H

#include "kernel.h"

enum Activation { NONE, RELU, TANH };

/* A layer as it is asked for; `kernel` is 0 for a dense layer, which has no geometry. */
typedef struct {
    int kernel, stride, side, before, after; /* a square image, its padding on either side */
    int inputs, outputs;                     /* channels of a convolution, else values */
    enum Activation activation;              /* of a convolution always RELU */
} Shape;

typedef struct Net Net;

enum { MOST_LAYERS = 32 };

/* Return a network, or NULL and why not in `*reason` (a constant text). */
Net *net_new(const Level *level, const Shape *shapes, int count, int bf16, const char **reason);
void net_free(Net *net);

/* What the Python boundary must check against. */
size_t net_parameters(const Net *net);
size_t net_inputs(const Net *net);
size_t net_outputs(const Net *net);
int net_side(const Net *net); /* of the pixels that it reads; 0: it reads a vector */

/* Lay out the weights of an individual, tensor by tensor as in kubevo_core.networks. */
void net_load(Net *net, const float *parameters);

/* Write the last layer's values: `observation` is uint8 pixels or float32 values. NaN comes out as
 * one and the same NaN. Floating point must be in its default mode (module.h sees to it). */
void net_forward(Net *net, const void *observation, float *values);

#endif
