/* mbframework_kafka._speedups: what the Kafka provider does for every message, in C.
 * providers/mbframework_kafka/speedups.py says when it is used.
 *
 * Promises: the same bytes and answers as the modules in Python, which are the reference, and which do whatever is not
 * plain: then the answer is None, and nothing has changed. Keeps nothing between two calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kafka_keys.h"
#include "kafka_records.h"

/* Rises with every change of what the Python side counts on; speedups.py of the provider has the same number. */
#define MB_BUILD 1

#define MB_FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef functions[] = {
    MB_FAST(place_keys),
    MB_FAST(record_batch),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mbframework_kafka._speedups",
    .m_doc = "What the Kafka provider does for every message, in C; see mbframework_kafka.speedups.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__speedups(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "BUILD", MB_BUILD)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
