/*
 * The terminal of `profilemate top`: ncurses paints the sheet and hands over the keys. Signals stay
 * as they are but for SIGWINCH, which ncurses takes (see top.h).
 */
#include "cmd/top.h"

#include <langinfo.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#ifdef PM_HAVE_CURSES

#define NCURSES_WIDECHAR 1
#include <ncursesw/ncurses.h>

static const struct {
    short foreground, background;
    attr_t with, without; /* attributes with colours, and where there are none */
} inks[PM_INK_COUNT] = {
    [PM_INK_PLAIN] = {-1, -1, A_NORMAL, A_NORMAL},
    [PM_INK_BOLD] = {-1, -1, A_BOLD, A_BOLD},
    [PM_INK_DIM] = {-1, -1, A_DIM, A_NORMAL},
    [PM_INK_TITLE] = {COLOR_BLACK, COLOR_CYAN, A_NORMAL, A_REVERSE},
    [PM_INK_HEAD] = {COLOR_BLACK, COLOR_GREEN, A_NORMAL, A_REVERSE},
    [PM_INK_SELECT] = {COLOR_BLACK, COLOR_CYAN, A_NORMAL, A_REVERSE},
    [PM_INK_GOOD] = {COLOR_GREEN, -1, A_NORMAL, A_NORMAL},
    [PM_INK_WARN] = {COLOR_YELLOW, -1, A_NORMAL, A_BOLD},
    [PM_INK_BAD] = {COLOR_RED, -1, A_BOLD, A_BOLD},
    [PM_INK_ALERT] = {COLOR_WHITE, COLOR_RED, A_BOLD, A_REVERSE | A_BOLD},
    [PM_INK_COOL] = {COLOR_CYAN, -1, A_NORMAL, A_NORMAL},
};

static bool coloured;

static void begin_colours(bool wanted)
{
    coloured = wanted && has_colors() && start_color() == OK;
    if (!coloured)
        return;
    use_default_colors();
    for (short i = 0; i < PM_INK_COUNT; i++)
        init_pair((short)(i + 1), inks[i].foreground, inks[i].background);
}

static void paint(const struct pm_canvas *canvas)
{
    for (int row = 0; row < canvas->height; row++)
        for (int column = 0; column < canvas->width; column++) {
            const struct pm_cell *cell =
                &canvas->cells[(size_t)row * (size_t)canvas->width + (size_t)column];
            wchar_t text[2] = {(wchar_t)cell->code, L'\0'};
            const attr_t attributes = coloured ? inks[cell->ink].with : inks[cell->ink].without;
            cchar_t out;
            setcchar(&out, text, attributes, coloured ? (short)(cell->ink + 1) : (short)0, NULL);
            mvadd_wch(row, column, &out);
        }
    refresh();
}

/* The terminal is gone: its end of file comes at once, again and again. */
static bool terminal_gone(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) == 1 && (input.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

static void read_clock(struct pm_top *top)
{
    struct tm local;
    const time_t now = time(NULL);
    if (top->at_ns != 0 || localtime_r(&now, &local) == NULL)
        return;
    strftime(top->clock, sizeof(top->clock), "%H:%M:%S", &local);
}

/* A key while the filter is typed. */
static void type(struct pm_top *top, int key)
{
    const size_t used = strlen(top->filter);
    if (key == '\n' || key == '\r' || key == KEY_ENTER) {
        top->typing = false;
    } else if (key == 27) {
        top->typing = false;
        top->filter[0] = '\0';
    } else if ((key == KEY_BACKSPACE || key == 127 || key == 8) && used > 0) {
        top->filter[used - 1] = '\0';
    } else if (key >= 0x20 && key < 0x7f && used + 1 < sizeof(top->filter)) {
        top->filter[used] = (char)key;
        top->filter[used + 1] = '\0';
    }
}

static void choose_server(struct pm_top *top, int by)
{
    if (top->n_servers == 0)
        return;
    top->selected = (top->selected + top->n_servers + (size_t)by) % top->n_servers;
    top->engine = 0;
    top->scroll = 0;
}

static void set_interval(struct pm_top *top, bool faster)
{
    static const unsigned steps[] = {250, 500, 1000, 2000, 5000, 10000};
    const size_t n = sizeof(steps) / sizeof(steps[0]);
    size_t i = 0;
    while (i + 1 < n && steps[i] < top->interval_ms)
        i++;
    i = faster ? (i > 0 ? i - 1 : 0) : (i + 1 < n ? i + 1 : i);
    top->interval_ms = steps[i];
}

/* false: leave. */
static bool press(struct pm_top *top, int key, int page)
{
    if (key != KEY_RESIZE)
        top->note[0] = '\0';
    if (top->typing) {
        type(top, key);
        return true;
    }
    if (top->help && key != 'q' && key != KEY_RESIZE) {
        top->help = false;
        return true;
    }
    switch (key) {
    case 'q':
    case KEY_F(10):
        return false;
    case 'h':
    case '?':
    case KEY_F(1):
        top->help = true;
        break;
    case ' ':
    case 'p':
        top->paused = !top->paused;
        break;
    case 's':
        top->sort = (enum pm_top_sort)((top->sort + 1) % PM_TOP_SORT_COUNT);
        break;
    case 'S':
        top->sort = (enum pm_top_sort)((top->sort + PM_TOP_SORT_COUNT - 1) % PM_TOP_SORT_COUNT);
        break;
    case 'r':
    case 'I':
        top->reverse = !top->reverse;
        break;
    case '/':
    case KEY_F(4):
        top->typing = true;
        break;
    case 27:
        top->filter[0] = '\0';
        break;
    case 'f':
        top->follow = !top->follow;
        snprintf(top->note, sizeof(top->note), "Following restarts is %s",
                 top->follow ? "on" : "off");
        break;
    case 'e':
        top->engine++; /* the sheet begins anew behind the last */
        top->scroll = 0;
        break;
    case '\t':
    case KEY_RIGHT:
        choose_server(top, 1);
        break;
    case KEY_BTAB:
    case KEY_LEFT:
        choose_server(top, -1);
        break;
    case KEY_DOWN:
        top->scroll++;
        break;
    case KEY_UP:
        top->scroll -= top->scroll > 0;
        break;
    case KEY_NPAGE:
        top->scroll += (size_t)page;
        break;
    case KEY_PPAGE:
        top->scroll -= top->scroll > (size_t)page ? (size_t)page : top->scroll;
        break;
    case KEY_HOME:
        top->scroll = 0;
        break;
    case KEY_END:
        top->scroll = SIZE_MAX / 2;
        break;
    case '+':
    case '=':
        set_interval(top, true);
        break;
    case '-':
        set_interval(top, false);
        break;
    default:
        break;
    }
    return true;
}

int pm_top_screen(struct pm_top *top, bool colour)
{
    struct pm_canvas canvas = {0};
    SCREEN *screen = newterm(NULL, stdout, stdin);
    int rc = 0;
    if (screen == NULL)
        return -PM_EUNSUPPORTED;
    set_term(screen);
    begin_colours(colour);
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    set_escdelay(50);
    curs_set(0);
    canvas.ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0;

    uint64_t due_ns = 0;
    for (bool going = true; going && rc == 0;) {
        const uint64_t now_ns = pm_clock_vdso_ns();
        if (now_ns >= due_ns) {
            if (!top->paused) {
                pm_top_refresh(top);
                pm_top_look(top);
            }
            read_clock(top);
            due_ns = now_ns + (uint64_t)top->interval_ms * 1000000u;
        }
        if (canvas.width != COLS || canvas.height != LINES || canvas.cells == NULL) {
            rc = pm_canvas_size(&canvas, COLS > 0 ? COLS : 80, LINES > 0 ? LINES : 24);
            clear();
        }
        if (rc != 0)
            break;
        pm_top_draw(&canvas, top);
        paint(&canvas);
        const uint64_t drawn_ns = pm_clock_vdso_ns();
        timeout(due_ns > drawn_ns ? (int)((due_ns - drawn_ns) / 1000000u + 1) : 0);
        const int key = getch();
        if (key == ERR) {
            going = !terminal_gone();
            continue;
        }
        going = press(top, key, canvas.height / 2);
    }
    endwin();
    delscreen(screen);
    pm_canvas_release(&canvas);
    return rc;
}

#else

int pm_top_screen(struct pm_top *top, bool colour)
{
    (void)top;
    (void)colour;
    return -PM_EUNSUPPORTED;
}

#endif
