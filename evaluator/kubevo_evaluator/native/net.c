#include "net.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Shape shape;
    int rows;        /* inputs of one output */
    int outputs;     /* as they lie in memory: padded */
    float *weights;
    uint32_t *words; /* the weights in bf16: of a dense layer, in place of `weights` */
    float *bias;
    float *input;    /* the padded image, or the values */
    /* Of a dense layer: */
    int part;         /* inputs of one part: all, or after a convolution some rows */
    int changed_from; /* the first input that is another one than at the last forward */
    float *partial;   /* the sums before each part */
    /* Of a convolution: */
    int side;            /* of its output */
    uint8_t *changed;    /* of each pixel of `input`: is it another one than at the last forward? */
    int *starts, *targets; /* of the patches to be computed now, see Convolution */
} Layer;

struct Net {
    const Level *level;
    int count, bf16;
    Layer layers[MOST_LAYERS];
    float *sums, *values; /* of a dense layer: its outputs, its inputs that are not 0 ... */
    int *indices;         /* ... and which they are */
    uint8_t *pixels;      /* the observation of the last forward */
    int fresh;            /* no forward yet with these weights */
};

enum { ALIGNMENT = 64, PARTS = 11, MOST_SIDE = 1024 /* of an image with its padding */ };

static int rounded_up(int count, int block) { return (count + block - 1) / block * block; }

static void *zeros(size_t count, size_t size)
{
    size_t bytes = (count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *found = aligned_alloc(ALIGNMENT, bytes ? bytes : ALIGNMENT);
    if (found)
        memset(found, 0, bytes);
    return found;
}

static int padded_side(const Shape *shape) { return shape->before + shape->side + shape->after; }

/* Of a convolution's output. */
static int out_side(const Shape *shape)
{
    return (padded_side(shape) - shape->kernel) / shape->stride + 1;
}

/* Floats that a layer reads, without padding; 0 if its numbers make no sense or are too many. */
static size_t input_size(const Shape *shape)
{
    const int most = 1 << 26; /* so that no index overflows an int */
    if (shape->inputs < 1 || shape->inputs > most || shape->outputs < 1 || shape->outputs > most)
        return 0;
    if (shape->kernel == 0)
        return (size_t)shape->inputs * shape->outputs <= (size_t)most ? (size_t)shape->inputs : 0;
    if (shape->kernel < 1 || shape->kernel > 64 || shape->stride < 1 || shape->stride > 64 ||
        shape->side < 1 || shape->side > MOST_SIDE || shape->before < 0 || shape->before > 64 ||
        shape->after < 0 || shape->after > 64 || shape->inputs > 4096 || shape->outputs > 4096)
        return 0;
    size_t side = (size_t)padded_side(shape), patch = (size_t)shape->kernel * shape->kernel;
    if (side < (size_t)shape->kernel || side > MOST_SIDE ||
        side * side * shape->inputs > (size_t)most ||
        side * side * shape->outputs > (size_t)most ||
        patch * shape->inputs * shape->outputs > (size_t)most)
        return 0;
    return (size_t)shape->side * shape->side * shape->inputs;
}

static size_t output_size(const Shape *shape)
{
    size_t side = shape->kernel ? (size_t)out_side(shape) : 1;
    return side * side * shape->outputs;
}

static const char *refusal(const Shape *shapes, int count)
{
    if (count < 1 || count > MOST_LAYERS)
        return "expected 1 to 32 layers";
    for (int i = 0; i < count; i++) {
        if (!input_size(&shapes[i]))
            return "a layer's numbers are out of range";
        if (i && input_size(&shapes[i]) != output_size(&shapes[i - 1]))
            return "a layer reads another number of values than the one before it gives";
        if (i && shapes[i].kernel && (!shapes[i - 1].kernel ||
            shapes[i].inputs != shapes[i - 1].outputs || shapes[i].side != out_side(&shapes[i - 1])))
            return "a convolution reads another image than the one before it gives";
        if (shapes[i].kernel && shapes[i].outputs % BLOCK)
            return "expected a multiple of 16 outputs of a convolution";
    }
    return shapes[count - 1].kernel ? "expected a dense layer at the end" : NULL;
}

/* Which pixel of the padded input one of the image is. */
static int pixel(const Shape *shape, int row, int column)
{
    return (row + shape->before) * padded_side(shape) + column + shape->before;
}

static int make_convolution(Layer *layer, const Level *level)
{
    const Shape *shape = &layer->shape;
    size_t pixels = (size_t)padded_side(shape) * padded_side(shape);
    size_t most = (size_t)rounded_up(layer->side * layer->side, level->tile);
    layer->rows = shape->kernel * shape->kernel * shape->inputs;
    layer->outputs = shape->outputs;
    layer->weights = zeros((size_t)layer->rows * layer->outputs, sizeof *layer->weights);
    layer->input = zeros(pixels * shape->inputs, sizeof *layer->input);
    layer->changed = zeros(pixels, 1);
    layer->starts = zeros(most, sizeof *layer->starts);
    layer->targets = zeros(most, sizeof *layer->targets);
    return layer->weights && layer->changed && layer->starts && layer->targets;
}

static int make_dense(Layer *layer, int after_image, const Level *level, int bf16)
{
    layer->rows = layer->shape.inputs;
    layer->part = after_image ? (layer->rows + PARTS - 1) / PARTS : layer->rows;
    layer->outputs = rounded_up(layer->shape.outputs,
                                bf16 && level->pair > BLOCK ? level->pair : BLOCK);
    layer->input = zeros((size_t)layer->rows, sizeof *layer->input);
    layer->partial = zeros((size_t)PARTS * layer->outputs, sizeof *layer->partial);
    size_t size = (size_t)layer->rows * layer->outputs;
    if (bf16)
        layer->words = zeros(size / 2, sizeof *layer->words);
    else
        layer->weights = zeros(size, sizeof *layer->weights);
    return layer->partial && (layer->words || layer->weights);
}

Net *net_new(const Level *level, const Shape *shapes, int count, int bf16, const char **reason)
{
    *reason = refusal(shapes, count);
    if (*reason)
        return NULL;
    Net *net = calloc(1, sizeof *net);
    int made = net != NULL;
    int most_inputs = 1, most_outputs = 1;
    if (made) {
        net->level = level;
        net->count = count;
        net->bf16 = bf16;
    }
    for (int i = 0; made && i < count; i++) {
        Layer *layer = &net->layers[i];
        layer->shape = shapes[i];
        if (shapes[i].kernel) {
            layer->side = out_side(&shapes[i]);
            made = make_convolution(layer, level);
        } else {
            made = make_dense(layer, i && shapes[i - 1].kernel, level, bf16);
            most_inputs = layer->rows > most_inputs ? layer->rows : most_inputs;
            most_outputs = layer->outputs > most_outputs ? layer->outputs : most_outputs;
        }
        layer->bias = zeros((size_t)layer->outputs, sizeof *layer->bias);
        made = made && layer->bias && layer->input;
    }
    if (made) {
        net->sums = zeros((size_t)most_outputs, sizeof *net->sums);
        net->values = zeros((size_t)most_inputs, sizeof *net->values);
        net->indices = zeros((size_t)most_inputs, sizeof *net->indices);
        net->pixels = zeros(net_inputs(net), 1);
        made = net->sums && net->values && net->indices && net->pixels;
    }
    if (!made) {
        net_free(net);
        return NULL; /* and no reason: out of memory */
    }
    return net;
}

void net_free(Net *net)
{
    if (!net)
        return;
    for (int i = 0; i < net->count; i++) {
        Layer *layer = &net->layers[i];
        free(layer->partial);
        free(layer->changed);
        free(layer->starts);
        free(layer->targets);
        free(layer->weights);
        free(layer->words);
        free(layer->bias);
        free(layer->input);
    }
    free(net->sums);
    free(net->values);
    free(net->indices);
    free(net->pixels);
    free(net);
}

size_t net_parameters(const Net *net)
{
    size_t found = 0;
    for (int i = 0; i < net->count; i++)
        found += ((size_t)net->layers[i].rows + 1) * net->layers[i].shape.outputs;
    return found;
}

size_t net_inputs(const Net *net) { return input_size(&net->layers[0].shape); }

size_t net_outputs(const Net *net) { return output_size(&net->layers[net->count - 1].shape); }

int net_side(const Net *net)
{
    const Shape *first = &net->layers[0].shape;
    return first->kernel ? first->side : 0;
}

/* The upper half of a float, rounded to nearest, ties to even; NaN stays NaN. */
static uint32_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : rounded;
}

static float from_bf16(uint32_t half)
{
    uint32_t bits = half << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

static void lay_out_convolution(Layer *layer, const float *weights, int panel, int bf16)
{
    float *to = layer->weights;
    for (int start = 0; start < layer->outputs; start += panel) {
        int width = layer->outputs - start < panel ? layer->outputs - start : panel;
        for (int row = 0; row < layer->rows; row++, to += width) {
            const float *from = weights + (size_t)row * layer->outputs + start;
            if (!bf16)
                memcpy(to, from, (size_t)width * sizeof *to);
            for (int i = 0; bf16 && i < width; i++)
                to[i] = from_bf16(to_bf16(from[i]));
        }
    }
}

static void lay_out_dense(Layer *layer, const float *weights)
{
    size_t outputs = (size_t)layer->shape.outputs, padded = (size_t)layer->outputs;
    if (outputs == padded)
        memcpy(layer->weights, weights, (size_t)layer->rows * outputs * sizeof *weights);
    else
        for (int row = 0; row < layer->rows; row++)
            memcpy(layer->weights + row * padded, weights + row * outputs,
                   outputs * sizeof *weights);
}

static void lay_out_dense_bf16(Layer *layer, const float *weights, int pair)
{
    int outputs = layer->shape.outputs, lanes = pair / 2;
    uint32_t *to = layer->words;
    for (int row = 0; row < layer->rows; row++, weights += outputs)
        for (int start = 0; start < layer->outputs; start += pair, to += lanes) {
            if (start + pair <= outputs) {
                for (int i = 0; i < lanes; i++)
                    to[i] = to_bf16(weights[start + i]) | to_bf16(weights[start + lanes + i]) << 16;
                continue;
            }
            for (int i = 0; i < lanes; i++) {
                int low = start + i, high = low + lanes;
                to[i] = (low < outputs ? to_bf16(weights[low]) : 0) |
                        (high < outputs ? to_bf16(weights[high]) << 16 : 0);
            }
        }
}

void net_load(Net *net, const float *parameters)
{
    for (int i = 0; i < net->count; i++) {
        Layer *layer = &net->layers[i];
        if (layer->shape.kernel)
            lay_out_convolution(layer, parameters, net->level->panel, net->bf16);
        else if (net->bf16)
            lay_out_dense_bf16(layer, parameters, net->level->pair);
        else
            lay_out_dense(layer, parameters);
        parameters += (size_t)layer->rows * layer->shape.outputs;
        memcpy(layer->bias, parameters, (size_t)layer->shape.outputs * sizeof *parameters);
        parameters += layer->shape.outputs;
    }
    net->fresh = 1;
}

/* exp of 0 <= x <= 20, to about 2^-52: 2^k * exp(r) with |r| <= log(2)/2, exp(r) by its series. */
static double exponential(double x)
{
    static const double inverse[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800,
                                     1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                                     1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1, 1};
    int power = (int)(x * 1.4426950408889634 + 0.5);
    /* log(2) in two parts, so that the first product is exact */
    double rest = x - power * 0x1.62e42fee00000p-1 - power * 0x1.a39ef35793c76p-33;
    double found = 0;
    for (size_t i = 0; i < sizeof inverse / sizeof *inverse; i++)
        found = found * rest + inverse[i];
    return found * (double)(1 << power);
}

/* tanh in doubles, so that only the last rounding to float is seen: within 1 ulp. libm's differs
 * between systems; +, -, * and / do not. */
static float hyperbolic_tangent(float value)
{
    double x = value < 0 ? -(double)value : (double)value, found;
    if (x < 0x1p-12)
        found = x - x * x * x / 3;
    else if (x < 10)
        found = 1 - 2 / (exponential(2 * x) + 1);
    else
        found = x != x ? x : 1;
    return (float)(value < 0 ? -found : found);
}

static void activate(const Level *level, enum Activation activation, float *values, int count)
{
    if (activation == RELU)
        level->relu(values, rounded_up(count, BLOCK));
    if (activation == TANH)
        for (int i = 0; i < count; i++)
            values[i] = hyperbolic_tangent(values[i]);
}

/* After an image the sums are kept as they were before each part of the inputs: up to the first
 * input that changed, they would only become the same again. */
static void forward_dense(Net *net, Layer *layer, float *out)
{
    const Level *level = net->level;
    int part = net->fresh ? 0 : layer->changed_from / layer->part;
    size_t outputs = (size_t)layer->outputs, bytes = outputs * sizeof *net->sums;
    memcpy(net->sums, part ? layer->partial + part * outputs : layer->bias, bytes);
    for (int start = part * layer->part; start < layer->rows; start += layer->part, part++) {
        int count = layer->rows - start < layer->part ? layer->rows - start : layer->part;
        memcpy(layer->partial + part * outputs, net->sums, bytes);
        int found = level->compress(layer->input + start, count, net->values, net->indices);
        if (net->bf16)
            level->dense_bf16(net->values, net->indices, found,
                              layer->words + start * outputs / 2, layer->outputs, net->sums);
        else
            level->dense(net->values, net->indices, found, layer->weights + start * outputs,
                         layer->outputs, net->sums);
    }
    activate(level, layer->shape.activation, net->sums, layer->shape.outputs);
    memcpy(out, net->sums, (size_t)layer->shape.outputs * sizeof *out);
}

/* Take in the observation, and mark the pixels that are not what they were. */
static void see_pixels(Net *net, const uint8_t *observation)
{
    Layer *layer = &net->layers[0];
    const Shape *shape = &layer->shape;
    int channels = shape->inputs, length = shape->side * channels;
    for (int row = 0; row < shape->side; row++) {
        const uint8_t *now = observation + row * length;
        uint8_t *before = net->pixels + row * length;
        if (!net->fresh && !memcmp(now, before, (size_t)length))
            continue;
        uint8_t *changed = layer->changed + pixel(shape, row, 0);
        for (int column = 0; column < shape->side; column++)
            changed[column] = memcmp(now + column * channels, before + column * channels,
                                     (size_t)channels) != 0;
        net->level->scale(now, length,
                          layer->input + (ptrdiff_t)pixel(shape, row, 0) * channels);
        memcpy(before, now, (size_t)length);
    }
}

/* Write for each column whether a pixel changed in the kernel rows that begin with `row`. */
static void changed_columns(const Layer *layer, int row, uint8_t *columns)
{
    int width = padded_side(&layer->shape);
    memset(columns, 0, (size_t)width);
    for (int k = 0; k < layer->shape.kernel; k++)
        for (int column = 0; column < width; column++)
            columns[column] |= layer->changed[(row + k) * width + column];
}

/* Compute the patches of which a pixel changed. The others keep their outputs, which are those of
 * equal inputs and so equal: much of a game's screen stands still from one step to the next. */
static void forward_convolution(const Net *net, Layer *layer, Layer *next)
{
    const Shape *shape = &layer->shape;
    int width = padded_side(shape), count = 0;
    uint8_t columns[MOST_SIDE];
    for (int row = 0; row < layer->side; row++) {
        changed_columns(layer, row * shape->stride, columns);
        for (int column = 0; column < layer->side; column++) {
            const uint8_t *first = columns + column * shape->stride;
            if (!net->fresh && !memchr(first, 1, (size_t)shape->kernel))
                continue;
            int target = row * layer->side + column;
            if (next->shape.kernel) {
                target = pixel(&next->shape, row, column);
                next->changed[target] = 1;
            }
            layer->starts[count] = (row * width + column) * shape->stride * shape->inputs;
            layer->targets[count++] = target * shape->outputs;
        }
    }
    memset(layer->changed, 0, (size_t)width * width);
    if (!next->shape.kernel)
        next->changed_from = count ? layer->targets[0] : next->rows - 1;
    for (; count % net->level->tile; count++) { /* fill up with the last one again */
        layer->starts[count] = layer->starts[count - 1];
        layer->targets[count] = layer->targets[count - 1];
    }
    Convolution patches = {
        .kernel = shape->kernel,
        .run = shape->kernel * shape->inputs,
        .width = (ptrdiff_t)width * shape->inputs,
        .outputs = shape->outputs,
        .patches = count,
        .starts = layer->starts,
        .targets = layer->targets,
    };
    net->level->convolve(&patches, layer->input, layer->weights, layer->bias, next->input);
}

void net_forward(Net *net, const void *observation, float *values)
{
    if (net_side(net))
        see_pixels(net, observation);
    else
        memcpy(net->layers[0].input, observation, net_inputs(net) * sizeof(float));
    for (int i = 0; i < net->count; i++) {
        Layer *layer = &net->layers[i], *next = i + 1 < net->count ? layer + 1 : NULL;
        if (layer->shape.kernel)
            forward_convolution(net, layer, next);
        else
            forward_dense(net, layer, next ? next->input : values);
    }
    net->fresh = 0;
    for (size_t i = 0; i < net_outputs(net); i++)
        if (values[i] != values[i])
            values[i] = NAN;
}
