"""Completion scripts for shells, written from the description of the command line. Pure.

All three do the same: walk over the words before the cursor, remember which verb they have reached (`verb`, its words joined by
spaces) and which flag waits for its value (`flag`), and stop at a program in the guest, of which we know nothing.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from utilityvm.cli.describe import Argument, Command

_FOLDERS: Final = frozenset({"DIR"})
_FILES: Final = frozenset({"FILE", "PATH"})


def bash(top: Command) -> str:
    """Return the script for bash 4 or newer."""
    return _filled(
        _BASH,
        top,
        FLAGS=_cases(top, lambda command: f'echo "{" ".join(name for flag in command.flags for name in flag.names)}"'),
        WORDS=_cases(top, lambda command: f'echo "{" ".join(_words(command))}"'),
        VALUES="\n".join(f'        "{verb} {name}") {_bash_value(flag)} ;;' for verb, flag in _valued(top) for name in flag.names),
        RESTS="|".join(f'"{verb}"' for verb in _resting(top)),
    )


def zsh(top: Command) -> str:
    """Return the script for zsh."""
    return _filled(
        _ZSH,
        top,
        FLAGS=_cases(
            top,
            lambda command: "offered=(" + " ".join(_zsh_said(name, flag.meaning) for flag in command.flags for name in flag.names) + ")",
        ),
        WORDS=_cases(top, lambda command: "offered=(" + " ".join(_zsh_said(word, said) for word, said in _words(command).items()) + ")"),
        VALUES="\n".join(f'        "{verb} {name}") {_zsh_value(flag)} ;;' for verb, flag in _valued(top) for name in flag.names),
        RESTS="|".join(f'"{verb}"' for verb in _resting(top)),
    )


def fish(top: Command) -> str:
    """Return the script for fish."""
    lines = []
    for command in top.walk():
        at = f"-n {_quoted('__uvm_at ' + _quoted(_verb(command)))}"
        lines += [f"complete -c uvm {at} -a {_quoted(word)} -d {_quoted(said)}" for word, said in _words(command).items()]
        lines += [f"complete -c uvm {at} {_fish_flag(flag)} -d {_quoted(flag.meaning)}" for flag in command.flags]
    return _filled(
        _FISH,
        top,
        VERBS=" ".join(_quoted(_verb(command)) for command in top.walk()),
        VALUED=" ".join(_quoted(f"{verb} {name}") for verb, flag in _valued(top) for name in flag.names),
        RESTS=" ".join(_quoted(verb) for verb in _resting(top)),
        COMPLETIONS="\n".join(lines),
    )


SHELLS: Final[Mapping[str, Callable[[Command], str]]] = MappingProxyType({"bash": bash, "zsh": zsh, "fish": fish})


def _verb(command: Command) -> str:
    return " ".join(command.path[1:])


def _words(command: Command) -> dict[str, str]:
    """Return what may stand as the next word that is no flag, with its meaning: a verb, or a choice."""
    choices = {word: argument.meaning for argument in command.positionals for word in argument.choices}
    return {verb.path[-1]: verb.purpose for verb in command.commands} | choices


def _valued(top: Command) -> list[tuple[str, Argument]]:
    return [(_verb(command), flag) for command in top.walk() for flag in command.flags if flag.value]


def _resting(top: Command) -> list[str]:
    return [_verb(command) for command in top.walk() if any(argument.rest for argument in command.positionals)]


def _cases(top: Command, line: Callable[[Command], str]) -> str:
    return "\n".join(f'        "{_verb(command)}") {line(command)} ;;' for command in top.walk())


def _filled(template: str, top: Command, **parts: str) -> str:
    parts.setdefault("VERBS", "|".join(f'"{_verb(command)}"' for command in top.walk()))
    parts.setdefault("VALUED", "|".join(f'"{verb} {name}"' for verb, flag in _valued(top) for name in flag.names))
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


def _quoted(text: str) -> str:
    """Quote for fish, where a backslash escapes itself and the quote within single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _bash_value(flag: Argument) -> str:
    if flag.choices:
        return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(flag.choices)}" -- "$word")'
    if flag.value in _FOLDERS:
        return 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$word")'
    if flag.value in _FILES:
        return 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word")'
    return ":"


def _zsh_said(word: str, said: str) -> str:
    """Quote a word and its meaning for `_describe`, which parts them at the first colon."""
    return "'" + f"{word}:{said}".replace("'", "'\\''") + "'"


def _zsh_value(flag: Argument) -> str:
    if flag.choices:
        return f"compadd -- {' '.join(flag.choices)}"
    if flag.value in _FOLDERS:
        return "_files -/"
    return "_files" if flag.value in _FILES else f"_message '{flag.value}'"


def _fish_flag(flag: Argument) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
    if not flag.value:
        return names
    if flag.choices:
        return f"{names} -x -a {_quoted(' '.join(flag.choices))}"
    if flag.value in _FOLDERS:
        return f"{names} -x -a '(__fish_complete_directories)'"
    return f"{names} -r -F" if flag.value in _FILES else f"{names} -x"


_BASH: Final = """\
# Completes the command line of uvm. Made by `uvm completion bash`; source it, or put it into
# ~/.local/share/bash-completion/completions/uvm

_uvm_flags() {
    case $1 in
@FLAGS@
    esac
}

_uvm_words() {
    case $1 in
@WORDS@
    esac
}

_uvm_value() {
    case "$1 $2" in
@VALUES@
    esac
}

_uvm() {
    local word=${COMP_WORDS[COMP_CWORD]} verb="" flag="" rest="" before index
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        before=${COMP_WORDS[index]}
        if [[ $before == "=" ]]; then continue; fi  # bash parts --flag=value into three words
        if [[ -n $flag ]]; then flag=""; continue; fi
        case $before in
            --) rest=1 ;;
            -*) case "$verb $before" in @VALUED@) flag=$before ;; esac ;;
            *)
                case "${verb:+$verb }$before" in
                    @VERBS@) verb="${verb:+$verb }$before" ;;
                    *) case $verb in @RESTS@) rest=1 ;; esac ;;
                esac
                ;;
        esac
        if [[ -n $rest ]]; then return; fi
    done
    if [[ $word == "=" ]]; then word=""; fi
    if [[ -n $flag ]]; then
        _uvm_value "$verb" "$flag"
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_uvm_flags "$verb")" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$(_uvm_words "$verb")" -- "$word")
    fi
}

complete -F _uvm uvm
"""

_ZSH: Final = """\
#compdef uvm
# Completes the command line of uvm. Made by `uvm completion zsh`; source it after compinit, or name it _uvm in a folder of $fpath.

_uvm_flags() {
    case $1 in
@FLAGS@
    esac
}

_uvm_words() {
    case $1 in
@WORDS@
    esac
}

_uvm_value() {
    case "$1 $2" in
@VALUES@
    esac
}

_uvm() {
    local verb="" flag="" before
    local -a offered
    for before in "${(@)words[2,CURRENT-1]}"; do
        if [[ -n $flag ]]; then flag=""; continue; fi
        case $before in
            --) return 1 ;;
            -*) case "$verb $before" in @VALUED@) flag=$before ;; esac ;;
            *)
                case "${verb:+$verb }$before" in
                    @VERBS@) verb="${verb:+$verb }$before" ;;
                    *) case $verb in @RESTS@) return 1 ;; esac ;;
                esac
                ;;
        esac
    done
    if [[ -z $flag && $PREFIX == --*=* ]]; then
        flag=${PREFIX%%=*}
        compset -P '*='
    fi
    if [[ -n $flag ]]; then
        _uvm_value "$verb" "$flag"
    elif [[ $PREFIX == -* ]]; then
        _uvm_flags "$verb"
        _describe -o flag offered
    else
        _uvm_words "$verb"
        _describe word offered
    fi
}

if [[ $funcstack[1] == _uvm ]]; then _uvm "$@"; else compdef _uvm uvm; fi
"""

_FISH: Final = """\
# Completes the command line of uvm. Made by `uvm completion fish`; put it into ~/.config/fish/completions/uvm.fish

# Succeeds where the words before the cursor have reached this verb, and no program in the guest.
function __uvm_at
    set -l verb ''
    set -l flag ''
    for before in (commandline -opc)[2..-1]
        if test -n "$flag"
            set flag ''
            continue
        end
        switch $before
            case --
                return 1
            case '-*'
                if contains -- "$verb $before" @VALUED@
                    set flag $before
                end
            case '*'
                set -l longer (string trim -- "$verb $before")
                if contains -- $longer @VERBS@
                    set verb $longer
                else if contains -- $verb @RESTS@
                    return 1
                end
        end
    end
    test "$verb" = "$argv[1]"
end

complete -c uvm -f
@COMPLETIONS@
"""
