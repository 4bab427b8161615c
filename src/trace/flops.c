/*
 * Shapes of inputs: FLOPs and the text to group by (see keys.h). Pure.
 *
 * torch does not write FLOPs into its traces, but the dimensions that it computes them from.
 */
#include "trace/keys.h"

#include <string.h>

#define MAX_INPUTS 8
#define MAX_DIMS 16

struct input {
    int64_t dim[MAX_DIMS];
    unsigned n;
    bool is_list; /* holds lists itself: a list of tensors, or no dimensions at all */
};

/* A whole number; moves *p behind it. */
static bool number(const char **p, int64_t *ret)
{
    const char *s = *p;
    bool negative = *s == '-';
    int64_t value = 0;
    if (negative)
        s++;
    if (*s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9'; s++)
        value = value > INT64_MAX / 16 ? value : value * 10 + (*s - '0');
    *ret = negative ? -value : value;
    *p = s;
    return true;
}

/* "[[2, 3], [], 7]" into inputs; those beyond MAX_INPUTS are dropped. */
static unsigned parse_dims(const char *text, struct input inputs[MAX_INPUTS])
{
    unsigned n = 0, depth = 0;
    memset(inputs, 0, MAX_INPUTS * sizeof(*inputs));
    for (const char *p = text; *p != '\0';) {
        int64_t value;
        if (*p == '[') {
            depth++;
            if (depth == 3 && n < MAX_INPUTS)
                inputs[n].is_list = true;
            p++;
        } else if (*p == ']') {
            if (depth == 2 && ++n == MAX_INPUTS)
                return n;
            if (depth > 0)
                depth--;
            p++;
        } else if (number(&p, &value)) {
            if (depth == 2 && n < MAX_INPUTS && inputs[n].n < MAX_DIMS)
                inputs[n].dim[inputs[n].n++] = value;
            if (depth == 1 && ++n == MAX_INPUTS)
                return n;
        } else {
            p++;
        }
    }
    return n;
}

static uint64_t product(const struct input *input)
{
    uint64_t value = 1;
    for (unsigned i = 0; i < input->n; i++)
        value *= (uint64_t)input->dim[i];
    return value;
}

/* 2 n k m for matrices n x k and k x m, times the batch that the second one carries. */
static uint64_t matrix_flops(const struct input *left, const struct input *right, bool batched)
{
    if (left->n == 0)
        return 0;
    uint64_t overlap = (uint64_t)left->dim[left->n - 1];
    uint64_t batch = batched ? (uint64_t)left->dim[0] : 1;
    if (overlap == 0 || batch == 0)
        return 0;
    return product(left) / overlap / batch * product(right) * 2;
}

/* The i-th concrete input, "[1, 1]" or "1": up to two numbers, how many. */
static unsigned concrete_numbers(const char *text, unsigned index, int64_t ret[2])
{
    const char *p = text;
    unsigned n = 0;
    /* Inputs are strings: "Concrete Inputs": ["", "", "", "[1, 1]", …]. */
    for (unsigned i = 0; *p != '\0'; i++) {
        p = strchr(p, '"');
        const char *end = p != NULL ? strchr(p + 1, '"') : NULL;
        if (end == NULL)
            return 0;
        if (i == index) {
            for (p++; p < end;) {
                if (n < 2 && number(&p, &ret[n]))
                    n++;
                else
                    p++;
            }
            return n;
        }
        p = end + 1;
    }
    return 0;
}

/* conv2d(input, weight, bias, stride, padding, dilation, groups) */
static uint64_t convolution_flops(const struct input inputs[MAX_INPUTS], const char *concrete)
{
    const struct input *input = &inputs[0], *weight = &inputs[1];
    int64_t stride[2], padding[2], dilation[2], groups[2];
    if (input->n != 4 || weight->n != 4)
        return 0;
    if (concrete_numbers(concrete, 3, stride) != 2 || concrete_numbers(concrete, 4, padding) != 2 ||
        concrete_numbers(concrete, 5, dilation) != 2 || concrete_numbers(concrete, 6, groups) != 1)
        return 0;
    if (stride[0] <= 0 || stride[1] <= 0 || groups[0] <= 0)
        return 0;
    uint64_t flops = 2 * (uint64_t)input->dim[0];
    for (unsigned i = 0; i < 2; i++) {
        uint64_t kernel = (uint64_t)weight->dim[2 + i];
        int64_t reach = (int64_t)((uint64_t)dilation[i] * (kernel - 1));
        int64_t room =
            (int64_t)((uint64_t)input->dim[2 + i] + 2 * (uint64_t)padding[i]) - reach - 1;
        flops *= (uint64_t)(room / stride[i] + 1) * kernel;
    }
    return flops * (uint64_t)input->dim[1] * (uint64_t)weight->dim[0] / (uint64_t)groups[0];
}

uint64_t pm_flops(const char *name, const char *dims, const char *concrete)
{
    struct input inputs[MAX_INPUTS];
    if (strncmp(name, "aten::", 6) != 0)
        return 0;
    name += 6;
    bool mm = strcmp(name, "mm") == 0, bmm = strcmp(name, "bmm") == 0;
    bool addmm = strcmp(name, "addmm") == 0, baddbmm = strcmp(name, "baddbmm") == 0;
    bool each = strcmp(name, "mul") == 0 || strcmp(name, "add") == 0;
    bool convolution = strcmp(name, "conv2d") == 0;
    if (!mm && !bmm && !addmm && !baddbmm && !each && !convolution)
        return 0;
    unsigned n = parse_dims(dims, inputs), first = addmm || baddbmm ? 1 : 0;
    if (each)
        return n >= 1 && !inputs[0].is_list ? product(&inputs[0]) : 0;
    if (n < first + 2)
        return 0;
    if (convolution)
        return convolution_flops(inputs, concrete);
    return matrix_flops(&inputs[first], &inputs[first + 1], bmm || baddbmm);
}

size_t pm_shapes_text(const char *dims, char *out, size_t size)
{
    size_t n = 0;
    unsigned depth = 0;
    for (const char *p = dims; *p != '\0' && n + 2 < size; p++) {
        char c = *p;
        if (c == '[')
            depth++;
        bool keep = depth <= 2 && c != ' ' && c != '\n' && c != '\t' && c != '\r';
        if (c == ']' && depth > 0)
            depth--;
        /* Between the tensors of a list: the list shows as []. */
        if (c == ',' && depth == 2 && n > 0 && out[n - 1] == '[')
            keep = false;
        if (!keep)
            continue;
        out[n++] = c;
        if (c == ',' && n + 1 < size)
            out[n++] = ' ';
    }
    out[n] = '\0';
    return n;
}
