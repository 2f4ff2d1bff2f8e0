#include "pixels.h"

#include <math.h>
#include <string.h>

static void add_tap(Taps *taps, int i, int source, double weight)
{
    if (taps->count[i] == 0)
        taps->first[i] = source;
    taps->weight[i][taps->count[i]++] = (float)weight;
}

static Taps taps_of(int size)
{
    Taps taps = {0};
    const double scale = 1.0 / ((double)SMALL_SIDE / size), least = 1e-3;
    for (int i = 0; i < SMALL_SIDE; i++) {
        const double start = i * scale, end = start + scale, length = fmin(scale, size - start);
        const int last = (int)fmin(floor(end), size - 1), whole = (int)fmin(ceil(start), last);
        if (whole - start > least)
            add_tap(&taps, i, whole - 1, (whole - start) / length);
        for (int source = whole; source < last; source++)
            add_tap(&taps, i, source, 1.0 / length);
        if (end - last > least)
            add_tap(&taps, i, last, fmin(fmin(end - last, 1.0), length) / length);
    }
    return taps;
}

bool pixels_open(Pixels *pixels, int height, int width)
{
    if (height <= SMALL_SIDE || height > MOST_LINES || width <= SMALL_SIDE || width > MOST_LINES)
        return false;
    pixels->height = height;
    pixels->width = width;
    pixels->across = taps_of(width);
    pixels->down = taps_of(height);
    return true;
}

void pixels_learn(Pixels *pixels, const uint8_t *screen, const uint8_t *grey)
{
    for (int i = 0; i < pixels->height * pixels->width; i++) {
        pixels->grey[screen[i]] = grey[i];
        pixels->known[screen[i]] = true;
    }
}

bool pixels_see(Pixels *pixels, enum Frame frame, const uint8_t *screen)
{
    const int width = pixels->width;
    for (int y = 0; y < pixels->height; y++) {
        const uint8_t *row = screen + y * width;
        uint8_t *kept = pixels->screen[frame] + y * width;
        /* What was seen is known, but the zeros of the very beginning were not seen. */
        if (pixels->known[row[0]] && !memcmp(row, kept, (size_t)width))
            continue;
        for (int x = 0; x < width; x++)
            if (!pixels->known[row[x]])
                return false;
        memcpy(kept, row, (size_t)width);
        pixels->changed[y] = true;
    }
    *(frame == NEWEST ? &pixels->newest : &pixels->before) = true;
    return true;
}

static void take_maximum(Pixels *pixels, int y)
{
    const bool both = pixels->before, anew = pixels->newest;
    const uint8_t *before = pixels->screen[BEFORE] + y * pixels->width;
    const uint8_t *newest = pixels->screen[NEWEST] + y * pixels->width;
    uint8_t *row = pixels->picture + y * pixels->width;
    for (int x = 0; x < pixels->width; x++) {
        const uint8_t one = anew ? pixels->grey[newest[x]] : row[x];
        const uint8_t other = both ? pixels->grey[before[x]] : 0;
        row[x] = one > other ? one : other;
    }
}

static void shrink_across(Pixels *pixels, int y)
{
    const uint8_t *row = pixels->picture + y * pixels->width;
    if (y > 0 && !memcmp(row, row - pixels->width, (size_t)pixels->width)) {
        memcpy(pixels->sums[y], pixels->sums[y - 1], sizeof pixels->sums[y]);
        return;
    }
    for (int i = 0; i < SMALL_SIDE; i++) {
        const uint8_t *source = row + pixels->across.first[i];
        const float *weight = pixels->across.weight[i];
        float sum = source[0] * weight[0];
        for (int k = 1; k < pixels->across.count[i]; k++)
            sum += source[k] * weight[k];
        pixels->sums[y][i] = sum;
    }
}

static void shrink_down(Pixels *pixels, int j)
{
    const int first = pixels->down.first[j];
    const float *weight = pixels->down.weight[j];
    float total[SMALL_SIDE];
    for (int i = 0; i < SMALL_SIDE; i++)
        total[i] = weight[0] * pixels->sums[first][i];
    for (int k = 1; k < pixels->down.count[j]; k++)
        for (int i = 0; i < SMALL_SIDE; i++)
            total[i] += weight[k] * pixels->sums[first + k][i];
    for (int i = 0; i < SMALL_SIDE; i++) {
        /* A float of 2^23 and more has no fraction: the addition rounds, half to even, and the
         * lowest bits are the number. All instruction sets do this in vectors, unlike rintf. */
        const float rounded = total[i] + 8388608.0f;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        pixels->small[j * SMALL_SIDE + i] = (uint8_t)bits;
    }
}

/* Bring everything up to date that hangs on the rows that changed, from the top on. */
static void refresh(Pixels *pixels)
{
    for (int y = 0; y < pixels->height; y++)
        if (pixels->changed[y]) {
            take_maximum(pixels, y);
            shrink_across(pixels, y);
        }
    for (int j = 0; j < SMALL_SIDE; j++)
        if (memchr(pixels->changed + pixels->down.first[j], true, (size_t)pixels->down.count[j]))
            shrink_down(pixels, j);
}

void pixels_fill(Pixels *pixels, uint8_t *stack)
{
    pixels->before = false;
    pixels->newest = true;
    memset(pixels->changed, true, sizeof pixels->changed);
    refresh(pixels);
    for (int i = 0; i < SMALL_SIDE * SMALL_SIDE; i++)
        memset(stack + i * STACKED, pixels->small[i], STACKED);
    /* All rows stay out of date: with a frame before, any of them may become another one. */
    pixels->newest = false;
}

/* Of a pixel's four bytes, as a word, drop the oldest. */
static uint32_t pushed(uint32_t pixel, uint8_t newest)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return pixel << 8 | newest;
#else
    return pixel >> 8 | (uint32_t)newest << 24;
#endif
}

void pixels_push(Pixels *pixels, uint8_t *stack)
{
    refresh(pixels);
    for (int i = 0; i < SMALL_SIDE * SMALL_SIDE; i++) {
        uint32_t pixel;
        memcpy(&pixel, stack + i * STACKED, sizeof pixel);
        pixel = pushed(pixel, pixels->small[i]);
        memcpy(stack + i * STACKED, &pixel, sizeof pixel);
    }
    /* Where an older picture stood in, it is not the maximum of the two screens that are kept. */
    memset(pixels->changed, !pixels->newest, sizeof pixels->changed);
    pixels->newest = false;
}
