"""The preprocessing in C and in numpy against OpenCV: the same bytes, whatever is shown."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kubevo_core.seeding import derive
from kubevo_evaluator import native
from kubevo_evaluator.atari import games, make_atari
from kubevo_evaluator.pixels import BEFORE, NEWEST, NumpyPixels, make_pixels

SIDE, SHAPE = 84, (84, 84, 4)
CHUNKS = [sorted(games())[start::4] for start in range(4)]

needs_c = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))


def c_pixels(height, width):
    from kubevo_evaluator.native import _kernel

    return _kernel.Pixels(height, width)


ours = pytest.mark.parametrize("pixels", [pytest.param(c_pixels, marks=needs_c), NumpyPixels])


class OpenCvPixels:
    """What both must equal: as Gymnasium's AtariPreprocessing does it."""

    def __init__(self, height, width):
        self.grey = np.zeros(256, np.uint8)
        self.frames = np.zeros((2, height, width), np.uint8)

    def learn(self, screen, grey):
        self.grey[screen] = grey

    def see(self, frame, screen):
        self.frames[frame] = self.grey[screen]

    def small(self):
        picture = np.maximum(*self.frames, out=self.frames[NEWEST])
        return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    def fill(self, stack):
        self.frames[BEFORE] = 0
        stack[:] = self.small()[..., None]

    def push(self, stack):
        stack[..., :-1] = stack[..., 1:]
        stack[..., -1] = self.small()


# An episode: its first frame, then steps, each with the frames that were seen in it. The same two
# frames in every step is frame skip 2 and more, the newest alone is frame skip 1; others are the
# last steps of episodes, but nothing may depend on that.
EPISODES = st.lists(st.lists(st.sets(st.sampled_from([BEFORE, NEWEST])), max_size=6), max_size=3)


@ours
@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(85, 256),
    width=st.integers(85, 256),
    seed=st.integers(0, 2**32),
    episodes=EPISODES,
)
@example(210, 160, 1, [[{0, 1}, {0, 1}, {0}], [{0, 1}, set()]])
@example(250, 160, 2, [[{1}, {1}], [{0, 1}]])
def test_any_screens_give_opencvs_bytes(pixels, height, width, seed, episodes):
    assume(height % SIDE or width % SIDE)
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 256, 256).astype(np.uint8)
    screen = rng.integers(0, 256, (height, width)).astype(np.uint8)
    one, other = pixels(height, width), OpenCvPixels(height, width)
    stack, expected = np.zeros((2, *SHAPE), np.uint8)

    def show(frame):
        """Change some rows, and show the screen; new colours are learnt first."""
        rows = np.flatnonzero(rng.random(height) < 0.2)
        screen[rows] = rng.integers(0, 256, (len(rows), width))
        if not one.see(frame, screen):
            one.learn(screen, table[screen])
            assert one.see(frame, screen)
        other.learn(screen, table[screen])
        other.see(frame, screen)

    for steps in episodes:
        show(NEWEST)
        one.fill(stack)
        other.fill(expected)
        assert np.array_equal(stack, expected)
        for frames in steps:
            for frame in sorted(frames):
                show(frame)
            one.push(stack)
            other.push(expected)
            assert np.array_equal(stack, expected)


@ours
def test_every_height_and_width_gives_opencvs_bytes(pixels):
    for height in range(85, 257):
        width = 341 - height
        screen = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
        both = pixels(height, width), OpenCvPixels(height, width)
        stacks = np.zeros((2, *SHAPE), np.uint8)
        for each, stack in zip(both, stacks, strict=True):
            each.learn(screen, screen)
            each.see(NEWEST, screen)
            each.fill(stack)
        assert np.array_equal(*stacks), (height, width)


class Compared:
    """C (where it was built), numpy and OpenCV at once, of which OpenCV sees the emulator's greys."""

    def __init__(self, height, width):
        self.all = (
            make_pixels(height, width),
            NumpyPixels(height, width),
            OpenCvPixels(height, width),
        )
        self.stacks = np.zeros((2, *SHAPE), np.uint8)
        self.console = None

    def learn(self, screen, grey):
        for each in self.all:
            each.learn(screen, grey)

    def see(self, frame, screen):
        first, second, opencv = self.all
        known = first.see(frame, screen)
        assert second.see(frame, screen) == known
        opencv.see(frame, screen)
        if screen is not self.console.screen:  # that one is not in the emulator any more
            self.console.ale.getScreenGrayscale(opencv.frames[frame])
        return known

    def fill(self, stack):
        self.write("fill", stack)

    def push(self, stack):
        self.write("push", stack)

    def write(self, how, stack):
        first, *others = self.all
        getattr(first, how)(stack)
        for each, expected in zip(others, self.stacks, strict=True):
            getattr(each, how)(expected)
            assert np.array_equal(stack, expected), type(each)


RULES = {}, {"frameSkip": 1, "maxNoops": 0, "fireReset": False}, {"terminalOnLifeLoss": True}


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"chunk{number}" for number in range(4)])
def test_every_games_pictures_are_opencvs(environment_spec, chunk, monkeypatch):
    monkeypatch.setattr("kubevo_evaluator.atari._idle", {})
    monkeypatch.setattr("kubevo_evaluator.atari.make_pixels", Compared)
    for game in chunk:
        for rules in RULES:
            environment = make_atari(environment_spec(game, atari=rules))
            environment._pixels.console = environment._console
            for seed in range(2):
                environment.reset(seed)
                for number in range(30):
                    action = derive(seed, 99, number) % environment.actions.outputs
                    if environment.step(action)[2]:
                        break
            environment.close()


@ours
def test_a_colour_not_learnt_yet_is_asked_for(pixels):
    one, stack = pixels(210, 160), np.zeros(SHAPE, np.uint8)
    screen = np.zeros((210, 160), np.uint8)
    assert not one.see(NEWEST, screen)  # as is colour 0, with which all memory begins
    one.learn(screen, screen + 7)
    assert one.see(NEWEST, screen)
    screen[-1, -1] = 200
    assert not one.see(NEWEST, screen)
    one.learn(screen, np.full_like(screen, 9))
    assert one.see(NEWEST, screen)
    one.fill(stack)
    assert (stack == 9).all()


SCREEN = np.zeros((210, 160), np.uint8)
READ_ONLY = np.zeros(SHAPE, np.uint8)
READ_ONLY.flags.writeable = False


@needs_c
@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("see", (NEWEST, SCREEN[:-1].copy()), ValueError),
        ("see", (NEWEST, SCREEN.astype(np.int8)), TypeError),
        ("see", (NEWEST, SCREEN.astype(np.float32)), TypeError),
        ("see", (NEWEST, np.zeros((210, 320), np.uint8)[:, ::2]), ValueError),
        ("see", (NEWEST, SCREEN.T), ValueError),
        ("see", (NEWEST, None), TypeError),
        ("see", (NEWEST,), TypeError),
        ("see", (2, SCREEN), ValueError),
        ("see", (-1, SCREEN), ValueError),
        ("see", (2**80, SCREEN), OverflowError),
        ("see", ("newest", SCREEN), TypeError),
        ("learn", (SCREEN,), TypeError),
        ("learn", (SCREEN, SCREEN[:1]), ValueError),
        ("learn", (SCREEN[:1], SCREEN), ValueError),
        ("fill", (np.zeros((84, 84), np.uint8),), ValueError),
        ("fill", (np.zeros(SHAPE, np.uint16),), TypeError),
        ("push", (np.zeros((84, 84, 8), np.uint8)[..., ::2],), ValueError),
        ("push", (READ_ONLY,), ValueError),
        ("push", (bytes(84 * 84 * 4),), BufferError),
        ("push", ([],), TypeError),
    ],
    ids=str,
)
def test_an_array_that_does_not_fit_is_an_exception(method, arguments, error):
    one = c_pixels(210, 160)
    with pytest.raises(error):
        getattr(one, method)(*arguments)


@ours
@pytest.mark.parametrize(
    "size", [(84, 160), (210, 84), (257, 160), (210, 257), (-210, 160), (0, 0)]
)
def test_a_screen_of_another_size_is_refused(pixels, size):
    with pytest.raises(ValueError, match="expected sides of 85 to 256"):
        pixels(*size)
