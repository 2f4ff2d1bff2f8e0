/* The picture that a policy sees: grey, the maximum of two frames, 84x84 by area, four stacked.
 *
 *     screen   height x width   the emulator's colours, a byte each, of a step's last two frames
 *     picture  height x width   pixelwise maximum of their greys, which the emulator tells
 *     sums     height x 84      the picture's rows, shrunk to 84 columns
 *     small    84 x 84          the sums shrunk to 84 rows
 *     stack    84 x 84 x 4      each pixel of the last four small ones, newest last
 *
 * ORDER. The bytes are those of OpenCV's INTER_AREA: the mean of the area that a small pixel covers.
 * In each direction small pixel i covers from i * scale to (i + 1) * scale, with scale =
 * 1 / (84 / size), but not beyond size. A source pixel that lies wholly within weighs 1 / length,
 * another one its part / length, unless the part is 0.001 or less. All that is done in double and
 * each weight rounded to float. Then in float, rounded after each operation:
 *
 *     sums[y][i]  = weight * picture[y][x], added up for x from left to right
 *     small[j][i] = weight * sums[y][i], added up for y from top to bottom, half rounded to even
 *
 * (OpenCV takes another way where 84 divides both height and width. No game has such a screen.)
 *
 * SPEED. From one step to the next, most rows of a game's screen stay as they are. Only those in
 * which a byte changed are turned to grey and shrunk again; of all others, the results are kept.
 * And many rows equal the one above.
 */
#ifndef KUBEVO_PIXELS_H
#define KUBEVO_PIXELS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SMALL_SIDE = 84,
    STACKED = 4,
    MOST_LINES = 256, /* rows or columns of a screen; consoles have 210 or 250 by 160 */
    MOST_TAPS = 5,    /* source pixels under a small one: two more than whole ones, 256 / 84 */
};

/* The two frames of a step that its picture is made of. */
enum Frame { BEFORE, NEWEST };

/* What each small pixel takes in one direction: `count` source pixels from `first` on. */
typedef struct {
    int first[SMALL_SIDE], count[SMALL_SIDE];
    float weight[SMALL_SIDE][MOST_TAPS];
} Taps;

/* All zeros at first; about 300 kB. */
typedef struct {
    int height, width;
    Taps across, down;
    uint8_t grey[256];
    bool known[256];          /* the colours whose grey was learnt */
    bool before, newest;      /* was one seen: in this episode; since the last picture */
    bool changed[MOST_LINES]; /* the rows in which the picture is out of date */
    uint8_t screen[2][MOST_LINES * MOST_LINES]; /* by Frame, as last seen */
    uint8_t picture[MOST_LINES * MOST_LINES];
    float sums[MOST_LINES][SMALL_SIDE];
    uint8_t small[SMALL_SIDE * SMALL_SIDE];
} Pixels;

/* Begin with screens of a size; false if a side is not within 85 ... MOST_LINES. */
bool pixels_open(Pixels *pixels, int height, int width);

/* Learn the grey of every colour of a screen from the same screen in grey. */
void pixels_learn(Pixels *pixels, const uint8_t *screen, const uint8_t *grey);

/* Take a frame of a step; false if a colour of it is not known: learn it and show it again. */
bool pixels_see(Pixels *pixels, enum Frame frame, const uint8_t *screen);

/* Begin an episode: all four pictures of the stack are the newest frame. */
void pixels_fill(Pixels *pixels, uint8_t *stack);

/* Push the maximum of the step's two frames onto the stack. After a step without a newest frame, as
 * when the game ended before, the last picture stands for it. */
void pixels_push(Pixels *pixels, uint8_t *stack);

#endif
