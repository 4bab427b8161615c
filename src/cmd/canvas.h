/*
 * A sheet of character cells, drawn by the commands that show a screen and put out by whoever has
 * one: a terminal (top_screen.c), or a stream. One thread; owns its cells. What is drawn beyond its
 * edges is cut; hostile bytes become `?`; a cell is one column wide.
 */
#ifndef PM_CMD_CANVAS_H
#define PM_CMD_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* What a cell is, rather than its colour. */
enum pm_ink {
    PM_INK_PLAIN,
    PM_INK_BOLD,
    PM_INK_DIM,
    PM_INK_TITLE,  /* bars at the top and the bottom */
    PM_INK_HEAD,   /* heads of tables */
    PM_INK_SELECT, /* the chosen row */
    PM_INK_GOOD,
    PM_INK_WARN,
    PM_INK_BAD,
    PM_INK_ALERT, /* a sentence that must be seen */
    PM_INK_COOL,
    PM_INK_COUNT
};

struct pm_cell {
    uint32_t code; /* Unicode */
    uint8_t ink;
};

struct pm_canvas {
    int width, height;
    bool ascii; /* no block characters: the terminal's locale has no UTF-8 */
    struct pm_cell *cells;
};

/* A blank sheet; cells of one before are given back. 0 or -PM_ENOMEM. */
PM_MUST_USE int pm_canvas_size(struct pm_canvas *canvas, int width, int height);
void pm_canvas_clear(struct pm_canvas *canvas);
void pm_canvas_release(struct pm_canvas *canvas);

/* Text at a place; returns the column after it. */
int pm_canvas_text(struct pm_canvas *canvas, int row, int column, enum pm_ink ink,
                   const char *text);
int pm_canvas_printf(struct pm_canvas *canvas, int row, int column, enum pm_ink ink,
                     const char *format, ...) PM_PRINTF(5, 6);
/* The same, ending before column `end`. */
void pm_canvas_right(struct pm_canvas *canvas, int row, int end, enum pm_ink ink, const char *text);
/* Text cut to so many columns, with a mark where it was. */
int pm_canvas_cut(struct pm_canvas *canvas, int row, int column, int columns, enum pm_ink ink,
                  const char *text);
/* The same in the middle, so that its end stays. */
void pm_canvas_cut_middle(struct pm_canvas *canvas, int row, int column, int columns,
                          enum pm_ink ink, const char *text);
/* Gives all cells of a stretch an ink. */
void pm_canvas_ink(struct pm_canvas *canvas, int row, int from, int to, enum pm_ink ink);

/* `[|||||      label]` over so many columns; share 0..1. */
void pm_canvas_meter(struct pm_canvas *canvas, int row, int column, int columns, double share,
                     enum pm_ink ink, const char *label);
/* The newest of n values, one a column, scaled to the largest shown; below 0: a gap. */
void pm_canvas_spark(struct pm_canvas *canvas, int row, int column, int columns,
                     const double *values, size_t n, double ceiling, enum pm_ink ink);

/* The sheet as lines of text without trailing blanks. */
void pm_canvas_print(const struct pm_canvas *canvas, FILE *stream);
/* A cell's character as UTF-8, NUL-terminated (out holds 5 bytes). */
void pm_cell_text(const struct pm_cell *cell, char out[5]);

#endif
