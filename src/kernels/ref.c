/*
 * ref.c: the reference kernels: every operation of kernels.h as plainly as its contract says it.
 *
 * The definition of right, not of fast. Signs stay in file form, nothing is tabulated.
 */
#include "kernels.h"

static uint64_t signs_bytes(size_t rows, size_t cols) {
    return (uint64_t)rows * (cols / 8);
}

static void signs_write(uint8_t *w, size_t rows, size_t cols, uint64_t offset, const uint8_t *bytes,
                        size_t n) {
    (void)rows;
    (void)cols;
    memcpy(w + offset, bytes, n);
}

static size_t table_bytes(size_t cols, bm_precision precision) {
    (void)cols;
    (void)precision;
    return 0;
}

static float larger(float a, float b) {
    return a < b ? b : a;
}

static void quantize_group(int16_t *q, float *d, const float *x, size_t n, bm_quantizer limit) {
    float max = 0.0f;
    float max4 = 0.0f;
    for (size_t i = 0; i < n; i += 4) {
        for (size_t k = 0; k < 4; k++)
            max = larger(max, bm_abs(x[i + k]));
        max4 =
            larger(max4, (bm_abs(x[i]) + bm_abs(x[i + 1])) + (bm_abs(x[i + 2]) + bm_abs(x[i + 3])));
    }
    float step = larger(max / limit.absolute, max4 / limit.group4);
    bool empty = step < 0x1p-100f;
    float inverse = empty ? 0.0f : 1.0f / step;
    *d = empty ? 0.0f : step;
    for (size_t i = 0; i < n; i++)
        q[i] = (int16_t)bm_round_to_int(x[i] * inverse);
}

static void quantize(void *act, const float *x, size_t cols, bm_precision precision) {
    if (precision == BM_EXACT) {
        memcpy(bm_act_values(act, cols), x, cols * sizeof *x);
        return;
    }
    float *d = bm_act_scales(act);
    int16_t *q = bm_act_values(act, cols);
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t n = cols - start < BM_GROUP ? cols - start : BM_GROUP;
        quantize_group(q + start, &d[start / BM_GROUP], x + start, n, bm_quantizer_of(precision));
    }
}

static void tabulate(void *act, size_t cols, bm_precision precision) {
    (void)act;
    (void)cols;
    (void)precision;
}

static float dot_signs_i16(const uint8_t *row, const int16_t *q, const float *d, size_t cols,
                           float c) {
    float y = c;
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
        int32_t dot = 0;
        for (size_t i = start; i < end; i++)
            dot += bm_is_plus(row, i) ? q[i] : -q[i];
        y += d[start / BM_GROUP] * (float)dot;
    }
    return y;
}

static bool uses_tables(size_t n, bm_precision precision) {
    (void)n;
    (void)precision;
    return false;
}

static uint64_t matmul_scratch(size_t rows, bm_precision precision) {
    (void)rows;
    (void)precision;
    return 0;
}

static void matmul(float *restrict y, size_t y_stride, const uint8_t *restrict w, size_t rows,
                   size_t cols, const bm_inputs *in, bm_precision precision,
                   void *restrict scratch) {
    (void)scratch;
    for (size_t t = 0; t < in->n; t++) {
        const uint8_t *a = in->act + t * in->stride;
        const void *values = bm_act_values(a, cols);
        for (size_t o = 0; o < rows; o++) {
            const uint8_t *row = w + o * (cols / 8);
            y[t * y_stride + o] =
                precision == BM_EXACT
                    ? bm_dot_signs_f32(row, values, cols, in->c[t])
                    : dot_signs_i16(row, values, bm_act_scales(a), cols, in->c[t]);
        }
    }
}

static float sum_stripes(const float s[BM_STRIPES]) {
    float lane[4];
    for (size_t l = 0; l < 4; l++)
        lane[l] = (s[l] + s[4 + l]) + (s[8 + l] + s[12 + l]);
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static float norm_scale(float *y, const float *x, const float *scale, const float *bias, size_t n,
                        float eps) {
    float squares[BM_STRIPES] = {0};
    float products[BM_STRIPES] = {0};
    for (size_t i = 0; i < n; i++) {
        squares[i % BM_STRIPES] += x[i] * x[i];
        products[i % BM_STRIPES] += x[i] * bias[i];
    }
    float rstd = bm_rstd(sum_stripes(squares), n, eps);
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] * rstd) * scale[i];
    return rstd * sum_stripes(products);
}

static void conv_silu(float *row, float *const *history, const float *w, size_t w_stride,
                      const float *bias, size_t n, size_t d_conv) {
    for (size_t i = 0; i < n; i++) {
        float now = row[i];
        float sum = bias[i];
        for (size_t k = 0; k + 1 < d_conv; k++)
            sum += w[k * w_stride + i] * history[k][i];
        row[i] = bm_silu(sum + w[(d_conv - 1) * w_stride + i] * now);
        history[0][i] = now;
    }
}

static void gate(float *y, const float *z, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] *= bm_silu(z[i]);
}

static float abs_max(const float *x, size_t n) {
    float max = 0.0f;
    for (size_t i = 0; i < n; i++)
        max = larger(max, bm_abs(x[i]));
    return max;
}

static void scan_f32(float *restrict state, float *restrict y, size_t y_stride, const bm_scan *in,
                     size_t head_dim, size_t d_state) {
    for (size_t t = 0; t < in->n; t++) {
        const float *x = in->x + t * in->stride;
        const float *b = in->b + t * in->stride;
        const float *c = in->c + t * in->stride;
        const bm_scan_step *step = &in->step[t];
        for (size_t p = 0; p < head_dim; p++) {
            float input = x[p] * step->gain;
            float stripes[BM_STRIPES] = {0};
            for (size_t n = 0; n < d_state; n++) {
                float s = state[p * d_state + n] * step->shrink + input * b[n];
                state[p * d_state + n] = s;
                stripes[n % BM_STRIPES] += s * c[n];
            }
            y[t * y_stride + p] = step->scale * sum_stripes(stripes) + in->skip * x[p];
        }
    }
}

static int16_t saturate_i16(int32_t v) {
    return (int16_t)(v < INT16_MIN ? INT16_MIN : INT16_MAX < v ? INT16_MAX : v);
}

static void scan_i16(int16_t *restrict state, float *restrict unit, float *restrict most,
                     float *restrict y, size_t y_stride, const bm_scan *in, size_t head_dim,
                     size_t d_state) {
    for (size_t t = 0; t < in->n; t++) {
        const float *x = in->x + t * in->stride;
        const float *b = in->b + t * in->stride;
        const float *c = in->c + t * in->stride;
        for (size_t p = 0; p < head_dim; p++) {
            int16_t *row = state + p * d_state;
            bm_row_step step = bm_row_room(unit[p], most[p], x[p], &in->step[t]);
            float stripes[BM_STRIPES] = {0};
            float largest = 0.0f;
            for (size_t n = 0; n < d_state; n++) {
                float v = (float)row[n] * step.keep + step.input * b[n];
                stripes[n % BM_STRIPES] += v * c[n];
                row[n] = saturate_i16(bm_round_to_int(v));
                largest = larger(largest, bm_abs((float)row[n]));
            }
            unit[p] = step.unit;
            most[p] = largest;
            y[t * y_stride + p] =
                (in->step[t].scale * step.unit) * sum_stripes(stripes) + in->skip * x[p];
        }
    }
}

static void head_i8(float *logits, const int8_t *w, const float *scale, size_t rows, size_t cols,
                    const void *act, bm_precision precision) {
    for (size_t v = 0; v < rows; v++) {
        const int8_t *row = w + v * cols;
        float sum = 0.0f;
        if (precision == BM_EXACT) {
            const float *x = bm_act_values(act, cols);
            float stripes[BM_STRIPES] = {0};
            for (size_t i = 0; i < cols; i++)
                stripes[i % BM_STRIPES] += x[i] * (float)row[i];
            sum = sum_stripes(stripes);
        } else {
            const int16_t *q = bm_act_values(act, cols);
            for (size_t start = 0; start < cols; start += BM_GROUP) {
                size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
                int32_t dot = 0;
                for (size_t i = start; i < end; i++)
                    dot += q[i] * row[i];
                sum += bm_act_scales(act)[start / BM_GROUP] * (float)dot;
            }
        }
        logits[v] = scale[v] * sum;
    }
}

static void head_i4(float *logits, const bm_i4_unit *w, const float *scale, size_t rows,
                    size_t cols, const void *act, bm_precision precision) {
    for (size_t v = 0; v < rows; v++) {
        float sum = 0.0f;
        if (precision == BM_EXACT) {
            const float *x = bm_act_values(act, cols);
            float stripes[BM_STRIPES] = {0};
            for (size_t i = 0; i < cols; i++)
                stripes[i % BM_STRIPES] += x[i] * (float)bm_i4_at(w, v, i, cols);
            sum = sum_stripes(stripes);
        } else {
            const int16_t *q = bm_act_values(act, cols);
            for (size_t start = 0; start < cols; start += BM_GROUP) {
                size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
                int32_t dot = 0;
                for (size_t i = start; i < end; i++)
                    dot += q[i] * bm_i4_at(w, v, i, cols);
                sum += bm_act_scales(act)[start / BM_GROUP] * (float)dot;
            }
        }
        logits[v] = (scale[v] * 0.125f) * sum;
    }
}

static void head_f32(float *logits, const float *w, size_t rows, size_t cols, const float *x) {
    for (size_t v = 0; v < rows; v++) {
        float stripes[BM_STRIPES] = {0};
        for (size_t i = 0; i < cols; i++)
            stripes[i % BM_STRIPES] += x[i] * w[v * cols + i];
        logits[v] = sum_stripes(stripes);
    }
}

static void head_f16(float *logits, const uint16_t *w, size_t rows, size_t cols, const float *x) {
    for (size_t v = 0; v < rows; v++) {
        float stripes[BM_STRIPES] = {0};
        for (size_t i = 0; i < cols; i++)
            stripes[i % BM_STRIPES] += x[i] * bm_half_to_float(w[v * cols + i]);
        logits[v] = sum_stripes(stripes);
    }
}

static const void *values_of(const bm_inputs *in, size_t t, size_t cols) {
    return bm_act_values(in->act + t * in->stride, cols);
}

static void dense_i8(float *restrict y, size_t y_stride, const int8_t *restrict w,
                     const float *restrict scale, size_t rows, size_t cols, const bm_inputs *in,
                     bm_precision precision) {
    for (size_t t = 0; t < in->n; t++) {
        float *out = y + t * y_stride;
        head_i8(out, w, scale, rows, cols, in->act + t * in->stride, precision);
        for (size_t o = 0; o < rows; o++)
            out[o] = in->c[t] + out[o];
    }
}

static float dot_codes_i16(const uint8_t *row, const float *scale, const int16_t *q, const float *d,
                           size_t cols) {
    float lane[4] = {0};
    for (size_t start = 0; start < cols; start += BM_I4_GROUP) {
        size_t end = cols - start < BM_I4_GROUP ? cols : start + BM_I4_GROUP;
        int32_t dot[4] = {0};
        for (size_t i = start; i < end; i++)
            dot[i % 8 / 2] += q[i] * bm_code_at(row, i);
        float unit = d[start / BM_GROUP] * scale[start / BM_I4_GROUP];
        for (size_t l = 0; l < 4; l++)
            lane[l] += unit * (float)dot[l];
    }
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static float dot_codes_f32(const uint8_t *row, const float *scale, const float *x, size_t cols) {
    float stripes[BM_STRIPES] = {0};
    for (size_t i = 0; i < cols; i++)
        stripes[i % BM_STRIPES] += x[i] * (scale[i / BM_I4_GROUP] * (float)bm_code_at(row, i));
    return sum_stripes(stripes);
}

static void dense_i4(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                     const float *restrict scale, size_t rows, size_t cols, const bm_inputs *in,
                     bm_precision precision) {
    for (size_t t = 0; t < in->n; t++)
        for (size_t o = 0; o < rows; o++) {
            const uint8_t *row = w + o * (cols / 2);
            const float *scales = scale + o * bm_i4_groups(cols);
            const void *values = values_of(in, t, cols);
            float sum = precision == BM_EXACT
                            ? dot_codes_f32(row, scales, values, cols)
                            : dot_codes_i16(row, scales, values,
                                            bm_act_scales(in->act + t * in->stride), cols);
            y[t * y_stride + o] = in->c[t] + sum;
        }
}

static void dense_f16(float *restrict y, size_t y_stride, const uint16_t *restrict w, size_t rows,
                      size_t cols, const bm_inputs *in) {
    for (size_t t = 0; t < in->n; t++) {
        float *out = y + t * y_stride;
        head_f16(out, w, rows, cols, values_of(in, t, cols));
        for (size_t o = 0; o < rows; o++)
            out[o] = in->c[t] + out[o];
    }
}

const bm_kernels bm_kernels_ref = {
    .name = "ref",
    .signs_bytes = signs_bytes,
    .signs_write = signs_write,
    .table_bytes = table_bytes,
    .quantize = quantize,
    .tabulate = tabulate,
    .uses_tables = uses_tables,
    .matmul_scratch = matmul_scratch,
    .matmul = matmul,
    .dense_i8 = dense_i8,
    .dense_i4 = dense_i4,
    .dense_f16 = dense_f16,
    .norm_scale = norm_scale,
    .conv_silu = conv_silu,
    .gate = gate,
    .abs_max = abs_max,
    .scan_f32 = scan_f32,
    .scan_i16 = scan_i16,
    .head_i8 = head_i8,
    .head_i4 = head_i4,
    .head_f32 = head_f32,
    .head_f16 = head_f16,
};
