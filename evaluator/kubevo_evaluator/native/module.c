/* The Python boundary: every size, type and layout is checked here, and nowhere below.
 *
 * Arrays come by the buffer protocol, so numpy is not needed to build this. While the GIL is
 * released a network is marked busy: a second thread gets an exception, not half of a layout.
 */
#include "module.h"

#include "levels.h"
#include "net.h"

/* Below this many parameters, letting go of the GIL costs more than it gives. */
#define WORTH_RELEASING 16384

int get_array(PyObject *object, const char *name, char format, ArrayShape shape, int writable,
              Py_buffer *view)
{
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return -1; /* not an array, not contiguous, or read-only: numpy's own words */
    Py_ssize_t size = format == 'f' ? sizeof(float) : 1;
    const char *found = view->format;
    int fits = view->ndim == shape.dimensions;
    for (int i = 0; fits && i < shape.dimensions; i++)
        fits = shape.sizes[i] == ANY || view->shape[i] == shape.sizes[i];
    if (!found || found[0] != format || found[1] || view->itemsize != size) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got items of format '%s'", name,
                     format == 'f' ? "float32" : "uint8", found ? found : "B");
    } else if (!fits && shape.dimensions == 1) {
        PyErr_Format(PyExc_ValueError, "%s: expected a vector of %zd values, got %zd in %d dimensions",
                     name, shape.sizes[0], view->len / size, view->ndim);
    } else if (!fits && shape.dimensions == 2) {
        PyErr_Format(PyExc_ValueError, "%s: expected shape (%zd, %zd)", name, shape.sizes[0],
                     shape.sizes[1]);
    } else if (!fits) {
        PyErr_Format(PyExc_ValueError, "%s: expected shape (%zd, %zd, %zd)", name, shape.sizes[0],
                     shape.sizes[1], shape.sizes[2]);
    } else if ((uintptr_t)view->buf % (size_t)size) {
        PyErr_Format(PyExc_ValueError, "%s: expected aligned memory", name);
    } else {
        return 0;
    }
    PyBuffer_Release(view);
    return -1;
}

int arrays_overlap(const Py_buffer *one, const Py_buffer *other)
{
    const char *a = one->buf, *b = other->buf;
    return a < b + other->len && b < a + one->len;
}

static const Level *find_level(const char *name)
{
    const Level *level = name ? level_named(name) : level_at(0);
    if (!level)
        PyErr_Format(PyExc_ValueError, "this CPU or build has no level '%s'; see levels()", name);
    return level;
}

/* --- Net ------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Net *net;
    int busy, loaded;
} NetObject;

static int read_shape(PyObject *item, Shape *shape)
{
    int activation;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "layers: expected tuples of 8 integers");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "iiiiiiii;layers: expected tuples of 8 integers", &shape->kernel,
                          &shape->stride, &shape->side, &shape->before, &shape->after,
                          &shape->inputs, &shape->outputs, &activation))
        return -1;
    if (activation < NONE || activation > TANH) {
        PyErr_Format(PyExc_ValueError, "layers: expected activation 0, 1 or 2, got %d", activation);
        return -1;
    }
    shape->activation = (enum Activation)activation;
    return 0;
}

static PyObject *net_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"layers", "bf16", "level", NULL};
    PyObject *layers;
    int bf16 = 0;
    const char *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|pz", names, &PyTuple_Type, &layers, &bf16,
                                     &name))
        return NULL;
    const Level *level = find_level(name);
    if (!level)
        return NULL;
    Shape shapes[MOST_LAYERS];
    Py_ssize_t count = PyTuple_Size(layers);
    for (Py_ssize_t i = 0; i < count && i < MOST_LAYERS; i++)
        if (read_shape(PyTuple_GetItem(layers, i), &shapes[i]) < 0)
            return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    NetObject *self = (NetObject *)allocate(type, 0);
    if (!self)
        return NULL;
    const char *reason;
    self->net = net_new(level, shapes, count > MOST_LAYERS ? MOST_LAYERS + 1 : (int)count, bf16,
                        &reason);
    if (!self->net) {
        Py_DECREF(self);
        return reason ? PyErr_Format(PyExc_ValueError, "layers: %s", reason) : PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void net_dealloc(NetObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    net_free(self->net);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int enter(NetObject *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this network");
    return self->busy ? -1 : (self->busy = 1, 0);
}

static PyObject *net_load_method(PyObject *object, PyObject *parameters)
{
    NetObject *self = (NetObject *)object;
    Py_buffer view;
    if (enter(self) < 0)
        return NULL;
    if (get_array(parameters, "parameters", 'f', VECTOR(net_parameters(self->net)), 0, &view) < 0) {
        self->busy = 0;
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    net_load(self->net, view.buf);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    self->loaded = 1;
    self->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *net_forward_method(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    NetObject *self = (NetObject *)object;
    Py_buffer observation, values;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "forward: expected observation and values");
    if (!self->loaded)
        return PyErr_Format(PyExc_RuntimeError, "no weights are loaded: call load first");
    if (enter(self) < 0)
        return NULL;
    Py_ssize_t side = net_side(self->net);
    ArrayShape shape = VECTOR(net_inputs(self->net));
    if (side)
        shape = (ArrayShape){3, {side, side, (Py_ssize_t)net_inputs(self->net) / (side * side)}};
    if (get_array(args[0], "observation", side ? 'B' : 'f', shape, 0, &observation) < 0)
        goto failed;
    if (get_array(args[1], "values", 'f', VECTOR(net_outputs(self->net)), 1, &values) < 0) {
        PyBuffer_Release(&observation);
        goto failed;
    }
    if (net_parameters(self->net) < WORTH_RELEASING) {
        IN_DEFAULT_MODE(net_forward(self->net, observation.buf, values.buf));
    } else {
        Py_BEGIN_ALLOW_THREADS
        IN_DEFAULT_MODE(net_forward(self->net, observation.buf, values.buf));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&observation);
    self->busy = 0;
    Py_RETURN_NONE;
failed:
    self->busy = 0;
    return NULL;
}

static PyMethodDef net_methods[] = {
    {"load", net_load_method, METH_O,
     "load(parameters)\n--\n\nLay out an individual's weights: float32, as one vector."},
    {"forward", (PyCFunction)(void (*)(void))net_forward_method, METH_FASTCALL,
     "forward(observation, values, /)\n--\n\nWrite the last layer's values into ``values``."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot net_slots[] = {
    {Py_tp_doc, "Net(layers, bf16=False, level=None)\n--\n\n"
                "A network; a layer is (kernel, stride, side, before, after, inputs, outputs, "
                "activation)."},
    {Py_tp_new, net_make},
    {Py_tp_dealloc, net_dealloc},
    {Py_tp_methods, net_methods},
    {0, NULL},
};

static PyType_Spec net_spec = {
    .name = "kubevo_evaluator.native._kernel.Net",
    .basicsize = sizeof(NetObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = net_slots,
};

/* --- functions ------------------------------------------------------------------------------- */

static PyObject *levels(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t count = 0;
    while (level_at((int)count))
        count++;
    PyObject *found = PyTuple_New(count);
    for (Py_ssize_t i = 0; found && i < count; i++) {
        PyObject *name = PyUnicode_FromString(level_at((int)i)->name);
        if (!name || PyTuple_SetItem(found, i, name) < 0)
            Py_CLEAR(found);
    }
    return found;
}

static PyObject *add_noise(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *theta, *table, *out;
    unsigned long long key0, key1;
    const char *name = NULL;
    Py_buffer from, entries, to;
    PyObject *found = NULL;
    if (!PyArg_ParseTuple(args, "OKKOO|z", &theta, &key0, &key1, &table, &out, &name))
        return NULL;
    const Level *level = find_level(name);
    if (!level)
        return NULL;
    if (key0 > UINT32_MAX || key1 > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "keys: expected 32 bits each");
    if (get_array(theta, "theta", 'f', VECTOR(ANY), 0, &from) < 0)
        return NULL;
    if (get_array(table, "table", 'f', VECTOR(65536), 0, &entries) < 0)
        goto without_table;
    if (get_array(out, "out", 'f', VECTOR(from.shape[0]), 1, &to) < 0)
        goto without_out;
    if ((from.buf != to.buf && arrays_overlap(&from, &to)) || arrays_overlap(&entries, &to)) {
        PyErr_SetString(PyExc_ValueError, "out: expected theta itself or memory apart from all else");
    } else {
        Py_BEGIN_ALLOW_THREADS
        IN_DEFAULT_MODE(level->add_noise(from.buf, (size_t)from.shape[0], (uint32_t)key0,
                                         (uint32_t)key1, entries.buf, to.buf));
        Py_END_ALLOW_THREADS
        found = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&to);
without_out:
    PyBuffer_Release(&entries);
without_table:
    PyBuffer_Release(&from);
    return found;
}

static PyMethodDef functions[] = {
    {"levels", levels, METH_NOARGS,
     "levels()\n--\n\nReturn the instruction sets of this build that run here, best first."},
    {"add_noise", add_noise, METH_VARARGS,
     "add_noise(theta, key0, key1, table, out, level=None, /)\n--\n\n"
     "Write theta + table[half] into out, as kubevo_core.noise.add_noise does."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static int execute(PyObject *module)
{
    return add_type(module, &net_spec) < 0 ? -1 : add_type(module, &pixels_spec);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "The native policy kernel; kubevo_evaluator.native is its door.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
