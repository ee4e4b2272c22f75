/* The Python face of loops.h: checks lengths, lets the GIL go, and answers with a status.
 *
 * Functions write into arrays that the caller has made. What they return instead of a result, or of
 * 0, is a number of `sp_status`, which codec/fkt/native_loops.py puts into words. ValueError is for
 * arrays that do not fit together, which only a programming error brings about. Longer than others:
 * one function for each of loops.h, all of the same form.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "loops.h"

/* Handing the GIL over and taking it back costs more than so many values do: a nanosecond or less
 * each, but for an entropy-coded one, which takes some five times that. */
#define WORTH_RELEASING 16384
#define CODED 5

/* Runs a statement, without the GIL where it is about enough values. */
#define RELEASED(values, statement)                                                     \
    do {                                                                                \
        PyThreadState *kept = (values) >= WORTH_RELEASING ? PyEval_SaveThread() : NULL; \
        statement;                                                                      \
        if (kept != NULL) PyEval_RestoreThread(kept);                                   \
    } while (0)

#define MOST_BUFFERS 10

typedef struct {
    Py_buffer view[MOST_BUFFERS];
    int count;
} buffers;

static void release(buffers *held) {
    while (held->count > 0) PyBuffer_Release(&held->view[--held->count]);
}

static PyObject *misfit(buffers *held) {
    release(held);
    PyErr_SetString(PyExc_ValueError, "arrays do not fit together");
    return NULL;
}

/* Whether buffer `index` holds `items` aligned items of `size` bytes. */
static int holds(const buffers *held, int index, size_t items, size_t size) {
    const Py_buffer *view = &held->view[index];
    return view->len >= 0 && (size_t)view->len % size == 0 && (size_t)view->len / size == items &&
           (uintptr_t)view->buf % size == 0;
}

/* The product; where there is none, a number of items that no buffer holds. */
static size_t times(size_t rows, size_t columns) {
    return columns > 0 && rows > SIZE_MAX / columns ? SIZE_MAX : rows * columns;
}

static size_t items(const buffers *held, int index, size_t size) {
    return (size_t)held->view[index].len / size;
}

static PyObject *answer(buffers *held, enum sp_status status) {
    release(held);
    if (status == SP_NO_MEMORY) return PyErr_NoMemory();
    if (status == SP_MISFIT) return misfit(held);
    return PyLong_FromLong(status);
}

/* shares, symbols, information at `at`; classes, single, sparse, first behind them. */
static int model_and_plan(const buffers *held, int at, sp_model *model, sp_plan *plan) {
    size_t contexts = items(held, at, SP_SYMBOLS * sizeof(uint32_t));
    if (contexts < 4 || contexts % 3 != 1 || contexts / 3 > SP_MOST_CLASSES ||
        !holds(held, at, contexts * SP_SYMBOLS, sizeof(uint32_t)) ||
        !holds(held, at + 1, contexts * SP_TOTAL, 1) ||
        !holds(held, at + 2, SP_TOTAL + 1, sizeof(float)))
        return 0;
    model->classes = (uint32_t)(contexts / 3);
    model->shares = held->view[at].buf;
    model->symbols = held->view[at + 1].buf;
    model->information = held->view[at + 2].buf;
    plan->n = items(held, at + 3, 1);
    plan->singles = items(held, at + 4, sizeof(int32_t));
    plan->sparse_count = items(held, at + 5, sizeof(int32_t));
    plan->classes = held->view[at + 3].buf;
    plan->single = held->view[at + 4].buf;
    plan->sparse = held->view[at + 5].buf;
    plan->first = held->view[at + 6].buf;
    return plan->n < INT32_MAX / 32 && plan->singles + plan->sparse_count == plan->n &&
           holds(held, at + 4, plan->singles, sizeof(int32_t)) &&
           holds(held, at + 5, plan->sparse_count, sizeof(int32_t)) &&
           holds(held, at + 6, plan->singles + (plan->sparse_count + SP_TOGETHER - 1) / SP_TOGETHER,
                 1);
}

static PyObject *py_write(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    Py_ssize_t lanes;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*n:write", &v[0], &v[1], &v[2], &v[3], &v[4],
                          &v[5], &v[6], &v[7], &v[8], &lanes))
        return NULL;
    held.count = 9;
    sp_model model;
    sp_plan plan;
    if (!model_and_plan(&held, 0, &model, &plan) || !holds(&held, 7, plan.n, sizeof(int32_t)) ||
        lanes < 1 || lanes > SP_MAX_LANES)
        return misfit(&held);
    size_t room = sp_write_bound(&plan, (size_t)lanes, (size_t)v[8].len), written = 0;
    uint8_t *out = malloc(room);
    enum sp_status status = SP_NO_MEMORY;
    if (out != NULL)
        RELEASED(CODED * plan.n, status = sp_write(&model, &plan, v[7].buf, (size_t)lanes, v[8].buf,
                                           (size_t)v[8].len, out, room, &written));
    PyObject *found = status == SP_OK
                          ? PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)written)
                          : answer(&held, status);
    free(out);
    release(&held);
    return found;
}

typedef struct {
    Py_buffer view;
    enum sp_status status;
    size_t outliers;
} sample;

static PyObject *read_all(buffers *held, PyObject *payloads, const sp_model *model,
                          const sp_plan *plan, size_t coefficients, size_t least_lanes) {
    Py_ssize_t count = PyTuple_Size(payloads), got = 0;
    sample *samples = calloc(count > 0 ? (size_t)count : 1, sizeof *samples);
    PyObject *found = NULL;
    if (samples == NULL) return PyErr_NoMemory();
    for (; got < count; got++)
        if (PyObject_GetBuffer(PyTuple_GetItem(payloads, got), &samples[got].view, PyBUF_SIMPLE))
            goto done;
    int32_t *values = held->view[8].buf;
    const int8_t *offsets = held->view[7].buf;
    RELEASED(CODED * plan->n * (size_t)count, for (sample *own = samples; own < samples + count; own++) {
        own->status = sp_read(model, plan, offsets, coefficients, least_lanes, own->view.buf,
                              (size_t)own->view.len, values, &own->outliers);
        values += plan->n;
    });
    found = PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        const sample *own = &samples[i];
        PyObject *status = answer(&(buffers){.count = 0}, own->status);
        PyObject *one =
            status == NULL ? NULL : Py_BuildValue("(Nn)", status, (Py_ssize_t)own->outliers);
        if (one == NULL || PyList_SetItem(found, i, one)) Py_CLEAR(found);
    }
done:
    while (got > 0) PyBuffer_Release(&samples[--got].view);
    free(samples);
    return found;
}

static PyObject *py_read(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    PyObject *payloads;
    Py_ssize_t coefficients, least_lanes;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*w*O!nn:read", &v[0], &v[1], &v[2], &v[3], &v[4],
                          &v[5], &v[6], &v[7], &v[8], &PyTuple_Type, &payloads, &coefficients,
                          &least_lanes))
        return NULL;
    held.count = 9;
    sp_model model;
    sp_plan plan;
    if (!model_and_plan(&held, 0, &model, &plan) ||
        !holds(&held, 7, model.classes * SP_SYMBOLS, 1) ||
        !holds(&held, 8, times(plan.n, (size_t)PyTuple_Size(payloads)), sizeof(int32_t)) ||
        coefficients < 0 || least_lanes < 0)
        return misfit(&held);
    PyObject *found =
        read_all(&held, payloads, &model, &plan, (size_t)coefficients, (size_t)least_lanes);
    release(&held);
    return found;
}

static PyObject *py_pick(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    float step;
    if (!PyArg_ParseTuple(args, "y*fy*w*:pick", &v[0], &step, &v[1], &v[2])) return NULL;
    held.count = 3;
    size_t size = items(&held, 0, sizeof(float)), n = items(&held, 1, sizeof(int32_t));
    if (!holds(&held, 0, size, sizeof(float)) || !holds(&held, 1, n, sizeof(int32_t)) ||
        !holds(&held, 2, n, sizeof(float)))
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_pick(v[0].buf, size, step, v[1].buf, n, v[2].buf));
    return answer(&held, status);
}

/* A status, or the outliers as bytes. */
static PyObject *py_outliers(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    float step;
    if (!PyArg_ParseTuple(args, "y*fy*y*:outliers", &v[0], &step, &v[1], &v[2])) return NULL;
    held.count = 3;
    size_t size = items(&held, 0, sizeof(float)), n = items(&held, 1, sizeof(int32_t));
    if (!holds(&held, 0, size, sizeof(float)) || !holds(&held, 1, n, sizeof(int32_t)) ||
        !holds(&held, 2, n, sizeof(int32_t)))
        return misfit(&held);
    enum { FEW = 16 }; /* as there usually are: for those nothing is allocated */
    uint8_t few[FEW * SP_OUTLIER_BYTES], *out = few;
    size_t room = FEW, count = 0;
    enum sp_status status;
    RELEASED(n, status = sp_outliers(v[0].buf, size, step, v[1].buf, v[2].buf, n, out, room,
                                     &count));
    while (status == SP_OK && count > room) { /* once, if nobody else writes into the arrays */
        if (out != few) free(out);
        room = count;
        out = malloc(room * SP_OUTLIER_BYTES);
        if (out == NULL) return answer(&held, SP_NO_MEMORY);
        RELEASED(n, status = sp_outliers(v[0].buf, size, step, v[1].buf, v[2].buf, n, out, room,
                                         &count));
    }
    PyObject *found = status == SP_OK ? PyBytes_FromStringAndSize(
                                            (const char *)out, (Py_ssize_t)(count * SP_OUTLIER_BYTES))
                                      : answer(&held, status);
    if (out != few) free(out);
    release(&held);
    return found;
}

static PyObject *py_quantise(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*w*:quantise", &v[0], &v[1], &v[2], &v[3])) return NULL;
    held.count = 4;
    size_t n = items(&held, 1, 1), classes = items(&held, 2, SP_SYMBOLS * sizeof(float));
    if (!holds(&held, 0, n, sizeof(float)) ||
        !holds(&held, 2, classes * SP_SYMBOLS, sizeof(float)) ||
        !holds(&held, 3, n, sizeof(int32_t)))
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_quantise(v[0].buf, v[1].buf, n, v[2].buf, (uint32_t)classes, v[3].buf));
    return answer(&held, status);
}

static PyObject *py_place(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*w*:place", &v[0], &v[1], &v[2], &v[3])) return NULL;
    held.count = 4;
    size_t n = items(&held, 1, 1), classes = items(&held, 2, SP_SYMBOLS);
    if (!holds(&held, 0, n, sizeof(int32_t)) || !holds(&held, 2, classes * SP_SYMBOLS, 1) ||
        !holds(&held, 3, n, sizeof(int64_t)))
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_place(v[0].buf, v[1].buf, n, v[2].buf, (uint32_t)classes, v[3].buf));
    return answer(&held, status);
}

static PyObject *py_raw_bits(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    if (!PyArg_ParseTuple(args, "y*:raw_bits", &held.view[0])) return NULL;
    held.count = 1;
    size_t n = items(&held, 0, sizeof(int32_t)), bits;
    if (!holds(&held, 0, n, sizeof(int32_t))) return misfit(&held);
    RELEASED(n, bits = sp_raw_bits(held.view[0].buf, n));
    release(&held);
    return PyLong_FromSize_t(bits);
}

/* How many values, int32 or int64, are beyond int16. */
static PyObject *py_narrow(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*w*:narrow", &v[0], &v[1])) return NULL;
    held.count = 2;
    size_t n = items(&held, 1, sizeof(int16_t)), beyond;
    if (!holds(&held, 1, n, sizeof(int16_t))) return misfit(&held);
    if (holds(&held, 0, n, sizeof(int32_t)))
        RELEASED(n, beyond = sp_narrow_32(v[0].buf, n, v[1].buf));
    else if (holds(&held, 0, n, sizeof(int64_t)))
        RELEASED(n, beyond = sp_narrow_64(v[0].buf, n, v[1].buf));
    else
        return misfit(&held);
    release(&held);
    return PyLong_FromSize_t(beyond);
}

/* Several samples: values [samples x n] to out [samples x size]. */
static PyObject *py_spread(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    float scale;
    Py_ssize_t samples;
    if (!PyArg_ParseTuple(args, "y*y*fnw*:spread", &v[0], &v[1], &scale, &samples, &v[2]))
        return NULL;
    held.count = 3;
    size_t n = items(&held, 1, sizeof(int32_t));
    size_t size = samples > 0 ? items(&held, 2, sizeof(float)) / (size_t)samples : 0;
    if (samples < 0 || (samples > 0 && size < 1) ||
        !holds(&held, 0, times(n, (size_t)samples), sizeof(int16_t)) ||
        !holds(&held, 1, n, sizeof(int32_t)) ||
        !holds(&held, 2, times(size, (size_t)samples), sizeof(float)))
        return misfit(&held);
    const int16_t *values = v[0].buf;
    float *out = v[2].buf;
    enum sp_status status = SP_OK;
    RELEASED(size * (size_t)samples, for (Py_ssize_t i = 0; i < samples && status == SP_OK; i++) {
        status = sp_spread(values, v[1].buf, n, scale, out, size);
        values += n;
        out += size;
    });
    return answer(&held, status);
}

typedef enum sp_status positions_function(const float *, size_t, const float *, size_t,
                                          const int32_t *, size_t, float *);

static PyObject *positions(PyObject *args, positions_function *function) {
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    held.count = 4;
    size_t count = items(&held, 2, sizeof(int32_t)), size = items(&held, 1, sizeof(float));
    size_t channels = count ? size / count : 0, whole = items(&held, 0, sizeof(float));
    size_t rows = count ? whole / count : 0;
    if (count == 0 || channels == 0 || rows % channels ||
        !holds(&held, 0, rows * count, sizeof(float)) ||
        !holds(&held, 1, channels * count, sizeof(float)) ||
        !holds(&held, 2, count, sizeof(int32_t)) || !holds(&held, 3, rows * count, sizeof(float)))
        return misfit(&held);
    enum sp_status status;
    RELEASED(whole, status = function(v[0].buf, rows, v[1].buf, channels, v[2].buf, count,
                                      v[3].buf));
    return answer(&held, status);
}

static PyObject *py_centre(PyObject *self, PyObject *args) {
    (void)self;
    return positions(args, sp_centre);
}

static PyObject *py_restore(PyObject *self, PyObject *args) {
    (void)self;
    return positions(args, sp_restore);
}

static PyObject *py_in_blocks(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    Py_ssize_t size, inner;
    if (!PyArg_ParseTuple(args, "y*y*nnw*:in_blocks", &v[0], &v[1], &size, &inner, &v[2])) return NULL;
    held.count = 3;
    size_t n = items(&held, 0, sizeof(float));
    if (size < 1 || size > SP_MOST_IN_BLOCK || inner < 1) return misfit(&held);
    size_t block = times((size_t)size, (size_t)inner);
    if (block == SIZE_MAX || n % block != 0 || !holds(&held, 0, n, sizeof(float)) ||
        !holds(&held, 1, (size_t)(size * size), sizeof(float)) || !holds(&held, 2, n, sizeof(float)))
        return misfit(&held);
    RELEASED(n, sp_in_blocks(v[0].buf, n / block, (size_t)size, (size_t)inner, v[1].buf, v[2].buf));
    release(&held);
    Py_RETURN_NONE;
}

static PyObject *py_expect(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*:expect", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]))
        return NULL;
    held.count = 6;
    size_t n = items(&held, 1, 1);
    if (!holds(&held, 0, n, sizeof(int64_t)) || !holds(&held, 2, n, 1) ||
        !holds(&held, 3, SP_RINGS, 1) || !holds(&held, 4, n, sizeof(int64_t)) || !holds(&held, 5, n, 1))
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_expect(v[0].buf, v[1].buf, v[2].buf, n, v[3].buf, v[4].buf, v[5].buf));
    return answer(&held, status);
}

static PyObject *py_ring_energies(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*w*:ring_energies", &v[0], &v[1], &v[2], &v[3])) return NULL;
    held.count = 4;
    size_t n = items(&held, 2, 1);
    if (!holds(&held, 0, n, sizeof(float)) || !holds(&held, 1, n, sizeof(int64_t)) ||
        !holds(&held, 3, (1 + SP_SHARES) * SP_RINGS, sizeof(double)))
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_ring_energies(v[0].buf, v[1].buf, v[2].buf, n, v[3].buf));
    return answer(&held, status);
}

/* How many of the n go alone; the arrays all have room for n. */
static PyObject *py_order_plan(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*w*w*w*:order_plan", &v[0], &v[1], &v[2], &v[3], &v[4]))
        return NULL;
    held.count = 5;
    size_t n = items(&held, 0, 1), classes = items(&held, 1, 1), singles = 0;
    if (classes < 1 || classes > SP_MOST_CLASSES || !holds(&held, 2, n, sizeof(int32_t)) ||
        !holds(&held, 3, n, sizeof(int32_t)) || !holds(&held, 4, n, 1) || n >= INT32_MAX)
        return misfit(&held);
    enum sp_status status;
    RELEASED(n, status = sp_order_plan(v[0].buf, n, v[1].buf, (uint32_t)classes, v[2].buf, v[3].buf,
                                       v[4].buf, &singles));
    if (status != SP_OK) return misfit(&held);
    release(&held);
    return PyLong_FromSize_t(singles);
}

/* Rows, one a low and a scale; `top` is the largest symbol. */
static PyObject *py_affine_symbols(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    float top;
    if (!PyArg_ParseTuple(args, "y*y*y*fw*:affine_symbols", &v[0], &v[1], &v[2], &top, &v[3]))
        return NULL;
    held.count = 4;
    size_t rows = items(&held, 1, sizeof(float)), whole = items(&held, 0, sizeof(float));
    size_t values = rows ? whole / rows : 0;
    if (!holds(&held, 0, rows * values, sizeof(float)) || !holds(&held, 1, rows, sizeof(float)) ||
        !holds(&held, 2, rows, sizeof(float)) || !holds(&held, 3, rows * values, 1) ||
        !(top >= 0 && top <= 255))
        return misfit(&held);
    RELEASED(whole,
             sp_affine_symbols(v[0].buf, v[1].buf, v[2].buf, rows, values, top, v[3].buf));
    return answer(&held, SP_OK);
}

static PyObject *py_affine_values(PyObject *self, PyObject *args) {
    (void)self;
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    if (!PyArg_ParseTuple(args, "y*y*y*w*:affine_values", &v[0], &v[1], &v[2], &v[3])) return NULL;
    held.count = 4;
    size_t rows = items(&held, 1, sizeof(float)), whole = items(&held, 0, 1);
    size_t values = rows ? whole / rows : 0;
    if (!holds(&held, 0, rows * values, 1) || !holds(&held, 1, rows, sizeof(float)) ||
        !holds(&held, 2, rows, sizeof(float)) || !holds(&held, 3, rows * values, sizeof(float)))
        return misfit(&held);
    RELEASED(whole, sp_affine_values(v[0].buf, v[1].buf, v[2].buf, rows, values, v[3].buf));
    return answer(&held, SP_OK);
}

/* `values` symbols a row, and their bytes; the one or the other way. */
static PyObject *nibbles(PyObject *args, int packing,
                         void (*function)(const uint8_t *, size_t, size_t, uint8_t *)) {
    buffers held = {.count = 0};
    Py_buffer *v = held.view;
    Py_ssize_t rows, values;
    if (!PyArg_ParseTuple(args, "y*nnw*", &v[0], &rows, &values, &v[1])) return NULL;
    held.count = 2;
    if (rows < 0 || values < 0 || (values > 0 && rows > PY_SSIZE_T_MAX / (values + 1)))
        return misfit(&held);
    size_t whole = (size_t)rows * (size_t)values, half = (size_t)rows * (((size_t)values + 1) / 2);
    if (!holds(&held, 0, packing ? whole : half, 1) || !holds(&held, 1, packing ? half : whole, 1))
        return misfit(&held);
    RELEASED(whole, function(v[0].buf, (size_t)rows, (size_t)values, v[1].buf));
    return answer(&held, SP_OK);
}

static PyObject *py_pack_nibbles(PyObject *self, PyObject *args) {
    (void)self;
    return nibbles(args, 1, sp_pack_nibbles);
}

static PyObject *py_unpack_nibbles(PyObject *self, PyObject *args) {
    (void)self;
    return nibbles(args, 0, sp_unpack_nibbles);
}

static PyMethodDef functions[] = {
    {"write", py_write, METH_VARARGS, NULL},
    {"read", py_read, METH_VARARGS, NULL},
    {"raw_bits", py_raw_bits, METH_VARARGS, NULL},
    {"pick", py_pick, METH_VARARGS, NULL},
    {"outliers", py_outliers, METH_VARARGS, NULL},
    {"quantise", py_quantise, METH_VARARGS, NULL},
    {"place", py_place, METH_VARARGS, NULL},
    {"narrow", py_narrow, METH_VARARGS, NULL},
    {"spread", py_spread, METH_VARARGS, NULL},
    {"centre", py_centre, METH_VARARGS, NULL},
    {"restore", py_restore, METH_VARARGS, NULL},
    {"in_blocks", py_in_blocks, METH_VARARGS, NULL},
    {"expect", py_expect, METH_VARARGS, NULL},
    {"ring_energies", py_ring_energies, METH_VARARGS, NULL},
    {"order_plan", py_order_plan, METH_VARARGS, NULL},
    {"affine_symbols", py_affine_symbols, METH_VARARGS, NULL},
    {"affine_values", py_affine_values, METH_VARARGS, NULL},
    {"pack_nibbles", py_pack_nibbles, METH_VARARGS, NULL},
    {"unpack_nibbles", py_unpack_nibbles, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_layout(PyObject *module) {
    return PyModule_AddIntConstant(module, "LAYOUT", SP_LAYOUT);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)add_layout}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_loops",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__loops(void) { return PyModuleDef_Init(&definition); }
