/* Pixels, at the Python boundary: every array is checked here. Its calls are too short to let go of
 * the GIL, which so keeps other threads away. */
#include "module.h"
#include "pixels.h"

typedef struct {
    PyObject_HEAD
    Pixels pixels;
} PixelsObject;

static PyObject *pixels_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"height", "width", NULL};
    int height, width;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ii", names, &height, &width))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PixelsObject *self = (PixelsObject *)allocate(type, 0); /* zeros */
    if (self && !pixels_open(&self->pixels, height, width)) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_ValueError, "a screen of %d x %d: expected sides of %d to %d",
                            height, width, SMALL_SIDE + 1, MOST_LINES);
    }
    return (PyObject *)self;
}

static void pixels_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int get_screen(PixelsObject *self, PyObject *object, const char *name, Py_buffer *view)
{
    const ArrayShape shape = {2, {self->pixels.height, self->pixels.width, 0}};
    return get_array(object, name, 'B', shape, 0, view);
}

static PyObject *learn(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    PixelsObject *self = (PixelsObject *)object;
    Py_buffer screen, grey;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "learn: expected screen and grey");
    if (get_screen(self, args[0], "screen", &screen) < 0)
        return NULL;
    if (get_screen(self, args[1], "grey", &grey) < 0) {
        PyBuffer_Release(&screen);
        return NULL;
    }
    pixels_learn(&self->pixels, screen.buf, grey.buf);
    PyBuffer_Release(&grey);
    PyBuffer_Release(&screen);
    Py_RETURN_NONE;
}

static PyObject *see(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    PixelsObject *self = (PixelsObject *)object;
    Py_buffer screen;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "see: expected frame and screen");
    const long frame = PyLong_AsLong(args[0]);
    if (frame == -1 && PyErr_Occurred())
        return NULL;
    if (frame != BEFORE && frame != NEWEST)
        return PyErr_Format(PyExc_ValueError, "frame: expected 0 or 1, got %ld", frame);
    if (get_screen(self, args[1], "screen", &screen) < 0)
        return NULL;
    const bool known = pixels_see(&self->pixels, (enum Frame)frame, screen.buf);
    PyBuffer_Release(&screen);
    return PyBool_FromLong(known);
}

static PyObject *write_stack(PyObject *self, PyObject *object, void (*write)(Pixels *, uint8_t *))
{
    const ArrayShape shape = {3, {SMALL_SIDE, SMALL_SIDE, STACKED}};
    Py_buffer stack;
    if (get_array(object, "stack", 'B', shape, 1, &stack) < 0)
        return NULL;
    IN_DEFAULT_MODE(write(&((PixelsObject *)self)->pixels, stack.buf));
    PyBuffer_Release(&stack);
    Py_RETURN_NONE;
}

static PyObject *fill(PyObject *self, PyObject *stack)
{
    return write_stack(self, stack, pixels_fill);
}

static PyObject *push(PyObject *self, PyObject *stack)
{
    return write_stack(self, stack, pixels_push);
}

static PyMethodDef methods[] = {
    {"learn", (PyCFunction)(void (*)(void))learn, METH_FASTCALL,
     "learn(screen, grey, /)\n--\n\nLearn the grey of every colour of a screen."},
    {"see", (PyCFunction)(void (*)(void))see, METH_FASTCALL,
     "see(frame, screen, /)\n--\n\nTake a frame; return whether all of its colours are known."},
    {"fill", fill, METH_O,
     "fill(stack, /)\n--\n\nBegin an episode: all four pictures are the newest frame."},
    {"push", push, METH_O,
     "push(stack, /)\n--\n\nPush the maximum of the step's two frames."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Pixels(height, width)\n--\n\nThe preprocessing of an emulator's screens."},
    {Py_tp_new, pixels_make},
    {Py_tp_dealloc, pixels_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec pixels_spec = {
    .name = "kubevo_evaluator.native._kernel.Pixels",
    .basicsize = sizeof(PixelsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
