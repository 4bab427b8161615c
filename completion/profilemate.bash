# Completion of profilemate for bash. The commands and options come from the program's own help.
_profilemate()
{
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} i
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$1" help | sed -n 's/^  \([a-z]*\)  \+[a-z].*/\1/p') --help --version" -- "$word")
        return
    fi
    # After `--` stands another command: its own completion, files at least. (diff has sessions there.)
    for ((i = 2; i < COMP_CWORD; i++)); do
        if [ "${COMP_WORDS[i]}" = -- ] && [ "$command" != diff ]; then
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
    # The formats of export, behind --format, --format= (bash makes a word of the sign) and -f.
    if [ "$command" = export ]; then
        local before=${COMP_WORDS[COMP_CWORD - 1]}
        [ "$before" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}
        [ "$word" = = ] && word= && before=${COMP_WORDS[COMP_CWORD - 1]}
        if [ "$before" = --format ] || [ "$before" = -f ]; then
            mapfile -t COMPREPLY < <(compgen -W "$("$1" help export | sed -n 's/^  \([a-z-]*\)   *[a-zA-Z].*/\1/p')" -- "$word")
            return
        fi
    fi
    if [ "$command" = trace ]; then
        local before=${COMP_WORDS[COMP_CWORD - 1]}
        [ "$before" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}
        [ "$word" = = ] && word= && before=${COMP_WORDS[COMP_CWORD - 1]}
        if [ "$before" = --format ]; then
            mapfile -t COMPREPLY < <(compgen -W "$("$1" help trace | sed -n 's/^ *--format=\([a-z|]*\).*/\1/p' | tr '|' ' ')" -- "$word")
            return
        fi
    fi
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
        export | report | functions | explain | doctor | top | serve | postmortem | diff | ship)
            mapfile -t COMPREPLY < <(compgen -W "$("$1" sessions 2>/dev/null | sed -n 's/^\(session_[^ ]*\) .*/\1/p')" -- "$word"
                compgen -d -- "$word")
            ;;
        fleet)
            mapfile -t COMPREPLY < <(compgen -W "$("$1" help fleet | sed -n 's/^  \([a-z]*\)   *[a-zA-Z].*/\1/p')" -- "$word"
                compgen -d -- "$word")
            ;;
        set | start | stop)
            # Servers by name, and settings with their equals sign; behind `=` stand values.
            if [[ ${COMP_WORDS[COMP_CWORD - 1]} == = || $word == = ]]; then
                [ "$word" = = ] && word=
                mapfile -t COMPREPLY < <(compgen -W "on off" -- "$word")
                return
            fi
            mapfile -t COMPREPLY < <(
                [ "$command" = start ] || compgen -W "$("$1" sessions 2>/dev/null | sed -n 's/^\(session_[^ ]*\) .*/\1/p')" -- "$word"
                [ "$command" = set ] || compgen -W all -- "$word"
                [ "$command" = stop ] || compgen -W "$("$1" help "$command" | sed -n 's/^  \([a-z_]*=\).*/\1/p')" -- "$word")
            [ "${#COMPREPLY[@]}" -eq 1 ] && [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
            ;;
        *)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            ;;
        esac
        ;;
    esac
}
complete -F _profilemate profilemate
