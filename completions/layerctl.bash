# Completion for bash. What is offered is read from disk; no daemon is asked.

_layerctl() {
    # bash splits words at ':' and '=': what no blank divides is put together again.
    local line=${COMP_LINE:0:COMP_POINT} words=() piece rest i
    rest=$line
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        local trimmed=${rest#"${rest%%[![:space:]]*}"}
        ((i == COMP_CWORD && ${#piece} > ${#trimmed})) && piece=$trimmed
        if ((i > 0)) && [[ $trimmed == "$rest" && -n $piece ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
        rest=${trimmed#"$piece"}
    done
    local current=${words[-1]} quote=
    case $current in
        [\'\"]*) quote=${current:0:1} current=${current:1} ;;
        *) current=${current//\\/} ;;
    esac
    words[-1]=$current
    # bash puts in what is behind the last ':' or '=' only.
    local before=
    if [[ -z $quote && $current == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then
        before=${current%"${current##*[:=]}"}
    fi
    COMPREPLY=()
    local reply
    while IFS= read -r reply; do
        if [[ -n $quote ]]; then
            # Within quotes nothing can be quoted again.
            [[ $reply == *[^[:alnum:]_./:@%+=,-]* ]] && continue
        else
            reply=${reply#"$before"}
            if [[ $reply == "~"*/* ]]; then
                # The shell has to see whose directory that is.
                local home=${reply%%/*}
                printf -v reply %q "${reply#*/}"
                reply=$home/$reply
            else
                printf -v reply %q "$reply"
            fi
            [[ $reply == "''" ]] && continue
        fi
        COMPREPLY+=("$reply")
    done < <(
        COMPLETE=bash _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) \
            layerctl -- "${words[@]}" 2>/dev/null
    )
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[:/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o nosort -F _layerctl layerctl 2>/dev/null || complete -F _layerctl layerctl
