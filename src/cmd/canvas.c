/* See canvas.h. */
#include "cmd/canvas.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

int pm_canvas_size(struct pm_canvas *canvas, int width, int height)
{
    if (width < 1 || height < 1 || width > 4096 || height > 4096)
        return -PM_EINVALID;
    struct pm_cell *cells = calloc((size_t)width * (size_t)height, sizeof(*cells));
    if (cells == NULL)
        return -PM_ENOMEM;
    free(canvas->cells);
    canvas->cells = cells;
    canvas->width = width;
    canvas->height = height;
    pm_canvas_clear(canvas);
    return 0;
}

void pm_canvas_clear(struct pm_canvas *canvas)
{
    for (size_t i = 0; i < (size_t)canvas->width * (size_t)canvas->height; i++)
        canvas->cells[i] = (struct pm_cell){.code = ' '};
}

void pm_canvas_release(struct pm_canvas *canvas)
{
    free(canvas->cells);
    canvas->cells = NULL;
}

static struct pm_cell *cell_at(const struct pm_canvas *canvas, int row, int column)
{
    if (row < 0 || column < 0 || row >= canvas->height || column >= canvas->width)
        return NULL;
    return &canvas->cells[(size_t)row * (size_t)canvas->width + (size_t)column];
}

/* What fills one column on every terminal, and turns nothing round. */
static bool is_plain(uint32_t code)
{
    return (code >= 0x20 && code < 0x7f) || (code >= 0xa1 && code < 0x300 && code != 0xad) ||
           (code >= 0x370 && code < 0x483) || (code >= 0x48a && code < 0x530) ||
           (code >= 0x2010 && code < 0x2028) || (code >= 0x2190 && code < 0x2200) ||
           (code >= 0x2500 && code < 0x2600);
}

/* The characters that the screens use, in a terminal that knows ASCII alone. */
static uint32_t to_ascii(uint32_t code)
{
    static const char levels[] = "_.,-=+*#";
    if (code < 0x80)
        return code;
    if (code >= 0x2581 && code <= 0x2588)
        return (uint32_t)(unsigned char)levels[code - 0x2581];
    switch (code) {
    case 0xb5:
        return 'u';
    case 0x2026:
        return '.';
    case 0x2502:
        return '|';
    case 0x2500:
    case 0x2013:
    case 0x2014:
        return '-';
    default:
        return '?';
    }
}

static void put(struct pm_canvas *canvas, int row, int column, enum pm_ink ink, uint32_t code)
{
    struct pm_cell *cell = cell_at(canvas, row, column);
    if (cell != NULL)
        *cell =
            (struct pm_cell){.code = canvas->ascii ? to_ascii(code) : code, .ink = (uint8_t)ink};
}

/* The next character of a text, `?` for what may not be shown. */
static uint32_t next_code(const char **text)
{
    const unsigned char *s = (const unsigned char *)*text;
    const size_t bytes = pm_utf8_length(*text, strnlen(*text, 4));
    uint32_t code = '?';
    if (bytes <= 1)
        code = s[0];
    else if (bytes == 2)
        code = (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    else if (bytes == 3)
        code = (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    *text += bytes > 0 ? bytes : 1;
    return bytes > 0 && is_plain(code) ? code : '?';
}

int pm_canvas_text(struct pm_canvas *canvas, int row, int column, enum pm_ink ink, const char *text)
{
    while (*text != '\0' && column < canvas->width)
        put(canvas, row, column++, ink, next_code(&text));
    return column;
}

int pm_canvas_printf(struct pm_canvas *canvas, int row, int column, enum pm_ink ink,
                     const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return pm_canvas_text(canvas, row, column, ink, text);
}

static int columns_of(const char *text)
{
    int columns = 0;
    while (*text != '\0') {
        (void)next_code(&text);
        columns++;
    }
    return columns;
}

void pm_canvas_right(struct pm_canvas *canvas, int row, int end, enum pm_ink ink, const char *text)
{
    pm_canvas_text(canvas, row, end - columns_of(text), ink, text);
}

int pm_canvas_cut(struct pm_canvas *canvas, int row, int column, int columns, enum pm_ink ink,
                  const char *text)
{
    const bool cut = columns_of(text) > columns;
    for (int i = 0; i < columns && *text != '\0'; i++) {
        const uint32_t code = next_code(&text);
        put(canvas, row, column + i, ink, cut && i == columns - 1 ? 0x2026 : code);
    }
    return column + columns;
}

void pm_canvas_cut_middle(struct pm_canvas *canvas, int row, int column, int columns,
                          enum pm_ink ink, const char *text)
{
    const int all = columns_of(text), head = columns / 2;
    int skip = 0;
    for (int i = 0; i < all; i++) {
        const uint32_t code = next_code(&text);
        if (all > columns && i == head) {
            put(canvas, row, column + i, ink, 0x2026);
            skip = all - columns;
        } else if (skip == 0 || i > head + skip) {
            put(canvas, row, column + i - skip, ink, code);
        }
    }
}

void pm_canvas_ink(struct pm_canvas *canvas, int row, int from, int to, enum pm_ink ink)
{
    for (int column = from; column < to; column++) {
        struct pm_cell *cell = cell_at(canvas, row, column);
        if (cell != NULL)
            cell->ink = (uint8_t)ink;
    }
}

void pm_canvas_meter(struct pm_canvas *canvas, int row, int column, int columns, double share,
                     enum pm_ink ink, const char *label)
{
    const int inside = columns - 2, label_columns = columns_of(label);
    if (inside < 1)
        return;
    put(canvas, row, column, PM_INK_BOLD, '[');
    put(canvas, row, column + columns - 1, PM_INK_BOLD, ']');
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    int filled = (int)(share * inside + 0.5);
    if (share > 0 && filled == 0)
        filled = 1;
    for (int i = 0; i < filled; i++)
        put(canvas, row, column + 1 + i, ink, '|');
    int at = column + 1 + inside - label_columns;
    if (at < column + 1)
        at = column + 1;
    for (int i = at; *label != '\0' && i < column + columns - 1; i++)
        put(canvas, row, i, i - column - 1 < filled ? ink : PM_INK_DIM, next_code(&label));
}

void pm_canvas_spark(struct pm_canvas *canvas, int row, int column, int columns,
                     const double *values, size_t n, double ceiling, enum pm_ink ink)
{
    const size_t shown = columns > 0 && (size_t)columns < n ? (size_t)columns : n;
    double largest = ceiling;
    if (columns <= 0)
        return;
    for (size_t i = n - shown; i < n && ceiling <= 0; i++)
        largest = values[i] > largest ? values[i] : largest;
    for (size_t i = 0; i < shown; i++) {
        const double value = values[n - shown + i];
        const int at = column + columns - (int)shown + (int)i;
        if (value < 0)
            continue;
        int level = largest > 0 ? (int)(value / largest * 7.999) : 0;
        level = level < 0 ? 0 : level > 7 ? 7 : level;
        put(canvas, row, at, value > 0 ? ink : PM_INK_DIM, 0x2581u + (unsigned)level);
    }
}

void pm_cell_text(const struct pm_cell *cell, char out[5])
{
    const uint32_t code = cell->code;
    size_t n = 0;
    if (code < 0x80) {
        out[n++] = (char)code;
    } else if (code < 0x800) {
        out[n++] = (char)(0xc0 | code >> 6);
        out[n++] = (char)(0x80 | (code & 0x3f));
    } else {
        out[n++] = (char)(0xe0 | code >> 12);
        out[n++] = (char)(0x80 | (code >> 6 & 0x3f));
        out[n++] = (char)(0x80 | (code & 0x3f));
    }
    out[n] = '\0';
}

void pm_canvas_print(const struct pm_canvas *canvas, FILE *stream)
{
    for (int row = 0; row < canvas->height; row++) {
        int end = canvas->width;
        while (end > 0 && cell_at(canvas, row, end - 1)->code == ' ')
            end--;
        for (int column = 0; column < end; column++) {
            char text[5];
            pm_cell_text(cell_at(canvas, row, column), text);
            fputs(text, stream);
        }
        fputc('\n', stream);
    }
}
