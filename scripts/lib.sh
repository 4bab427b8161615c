# Shared by the scripts here; sourced, not run. Needs `here`, the checkout's folder.

# Where environments that are worth keeping between checkouts lie.
cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/profilemate

say() { printf '[%s] %s\n' "$(basename "$0")" "$*" >&2; }

# logged LOG COMMAND...: runs quietly; on failure shows the end of what it said and where all of it is.
logged() {
    local log=$1 status=0
    shift
    mkdir -p "$(dirname "$log")"
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        say "failed with $status: $*"
        tail -n 25 "$log" | sed 's/^/    /' >&2
        say "all of it is in $log"
    fi
    return "$status"
}

# locked FILE: waits until no other run holds the file's lock, and holds it until this script ends.
locked() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "waiting for another run that is setting this up"
        flock 9
    fi
}

# python_named X.Y: prints the path of a working CPython of that version, from the PATH or from pyenv; else fails.
python_named() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions/$1".*/bin/python3; do
        if command -v "$candidate" >/dev/null 2>&1 \
            && [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}
