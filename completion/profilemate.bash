# Completion of profilemate for bash. The commands and options come from the program's own help.
_profilemate()
{
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} i
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$1" help | sed -n 's/^  \([a-z]*\)  \+[a-z].*/\1/p') --help --version" -- "$word")
        return
    fi
    # After `--` stands another command: its own completion, files at least.
    for ((i = 2; i < COMP_CWORD; i++)); do
        if [ "${COMP_WORDS[i]}" = -- ]; then
            if declare -F _command_offset >/dev/null; then
                _command_offset $((i + 1))
            elif [ $((i + 1)) -eq "$COMP_CWORD" ]; then
                mapfile -t COMPREPLY < <(compgen -c -- "$word")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$word")
            fi
            return
        fi
    done
    case $word in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$("$1" help "$command" 2>/dev/null |
            sed -n -e 's/^  .\{4\}--\[no-\]\([a-z-]*\).*/--\1 --no-\1/p' -e 's/^  .\{4\}--\([a-z][a-z-]*\).*/--\1/p')" -- "$word")
        ;;
    *)
        case $command in
        help)
            mapfile -t COMPREPLY < <(compgen -W "$("$1" help | sed -n 's/^  \([a-z]*\)  \+[a-z].*/\1/p')" -- "$word")
            ;;
        export | report | doctor)
            mapfile -t COMPREPLY < <(compgen -W "$("$1" sessions 2>/dev/null | sed -n 's/^\(session_[^ ]*\) .*/\1/p')" -- "$word"
                compgen -d -- "$word")
            ;;
        *)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            ;;
        esac
        ;;
    esac
}
complete -F _profilemate profilemate
