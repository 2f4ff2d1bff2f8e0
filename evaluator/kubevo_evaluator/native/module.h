/* What the files of the Python boundary share. */
#ifndef KUBEVO_MODULE_H
#define KUBEVO_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <fenv.h>
#include <stddef.h>

/* An array's shape: up to 3 sizes, of which one may be ANY. */
typedef struct {
    int dimensions;
    Py_ssize_t sizes[3];
} ArrayShape;

enum { ANY = -1 };

#define VECTOR(size) ((ArrayShape){1, {(Py_ssize_t)(size), 0, 0}})

/* Fill `view` from a C-contiguous array of `format` and `shape`; 0, or -1 with a Python exception
 * that says what was expected of `name`. */
int get_array(PyObject *object, const char *name, char format, ArrayShape shape, int writable,
              Py_buffer *view);

/* Do two arrays share memory? */
int arrays_overlap(const Py_buffer *one, const Py_buffer *other);

/* Floating point in its default mode around a statement: a library may have asked the thread for
 * another rounding, or for subnormals to be flushed. */
#define IN_DEFAULT_MODE(statement)                                                                \
    do {                                                                                          \
        fenv_t mode;                                                                              \
        fegetenv(&mode);                                                                          \
        fesetenv(FE_DFL_ENV);                                                                     \
        statement;                                                                                \
        fesetenv(&mode);                                                                          \
    } while (0)

extern PyType_Spec pixels_spec; /* pixels_module.c */

#endif
