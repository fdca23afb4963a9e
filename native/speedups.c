/* mbframework._speedups: the paths that run for every message, in C. mbframework/speedups.py says when it is used.
 *
 * Promises: the same bytes on disk and the same answers as the modules in Python, which are the reference, and which
 * do whatever is not plain. CPython's limited API of 3.11; needs the GIL, and one interpreter (a second one with a GIL
 * of its own cannot import it, and goes without). Starts no thread, keeps no descriptor.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>
#include <structmember.h>
#include <time.h>

/* Rises with every change of what the Python side counts on; mbframework/speedups.py has the same number. */
#define MB_BUILD 2

#include "decode.h"
#include "encode.h"
#include "pen.h"

PyDoc_STRVAR(crc32_doc,
    "crc32($module, data, value=0, /)\n--\n\nAs zlib.crc32(); the GIL is let go of while much is counted.");

static PyObject *crc32(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer data;
    unsigned long start = 0;
    if (!PyArg_ParseTuple(args, "y*|k:crc32", &data, &start))
        return NULL;
    uint32_t crc;
    if (data.len >= 64 * 1024) {
        Py_BEGIN_ALLOW_THREADS
        crc = mb_crc32((uint32_t)start, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    } else {
        crc = mb_crc32((uint32_t)start, data.buf, (size_t)data.len);
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(crc);
}

#define MB_FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef functions[] = {
    {"crc32", crc32, METH_VARARGS, crc32_doc},
    {"install", install, METH_O, install_doc},
    MB_FAST(decode_singles),
    MB_FAST(decode_several),
    MB_FAST(decode_body),
    MB_FAST(encode_one),
    MB_FAST(encode_many),
    MB_FAST(encode_items),
    MB_FAST(fitting),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mbframework._speedups",
    .m_doc = "The paths that run for every message, in C; see mbframework.speedups.",
    .m_size = -1,
    .m_methods = functions,
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromSpec(spec);
    return *type == NULL || PyModule_AddObjectRef(module, name, (PyObject *)*type);
}

PyMODINIT_FUNC PyInit__speedups(void)
{
    mb_crc32_prepare();
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
    if (!(mb_no_timestamp = PyLong_FromLongLong(MB_NO_TIMESTAMP)) || !(mb_no_partition = PyLong_FromLong(MB_NO_PARTITION))
        || add_type(module, "Lock", &Lock_spec, &Lock_type) || add_type(module, "Tip", &Tip_spec, &Tip_type)
        || add_type(module, "Gate", &Gate_spec, &Gate_type) || add_type(module, "Pen", &Pen_spec, &Pen_type)
        || PyModule_AddIntConstant(module, "BUILD", MB_BUILD)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
