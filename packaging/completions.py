"""What bash, zsh and fish offer while a command of edgeblock or edgeblock-fetch is typed: bash(), zsh(), fish().

In: the arguments as the two cli.py declare them. Out: one text a shell. Nothing is said here that is not said there.
"""

import argparse
from collections.abc import Iterator

from edgeblock.cli import make_parser
from edgeblock.fleet import cli as fleet

PROGRAMS = {"edgeblock": make_parser, "edgeblock-fetch": fleet.make_parser}


def commands(program: str = "edgeblock") -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Each command's name, its summary in one line, and its parser."""
    [sub] = [one for one in PROGRAMS[program]()._actions if isinstance(one, argparse._SubParsersAction)]
    for choice in sub._choices_actions:
        yield choice.dest, choice.help or "", sub.choices[choice.dest]


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [one for one in parser._actions if "--help" not in one.option_strings]


def bash(program: str = "edgeblock") -> str:
    """Commands, then each command's options and choices, and files where a value is awaited."""
    cases, names, own = [], [], program.replace("-", "_")
    for name, _, parser in commands(program):
        names.append(name)
        words = [option for one in parser._actions for option in one.option_strings if option.startswith("--")]
        words += [str(choice) for one in arguments(parser) if not one.option_strings for choice in one.choices or ()]
        free = "|".join(option for one in arguments(parser) for option in one.option_strings
                        if one.nargs != 0 and not one.choices)
        values = [(option, one) for one in arguments(parser) for option in one.option_strings if one.nargs != 0]
        chosen = "".join(f"            {option}) words='{' '.join(map(str, one.choices))}' ;;\n"
                         for option, one in values if one.choices)
        cases.append(f"    {name})\n        case $before in\n{chosen}"
                     f"            {free or '-'}) words= ;;\n"
                     f"            *) words='{' '.join(words)}' ;;\n        esac ;;\n")
    return f"""# Completion of {program}'s commands and options for bash; made by packaging/completions.py.
_{own}() {{
    local words word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W '{' '.join(names)}' -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{''.join(cases)}    *) return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _{own} {program}
"""


def zsh(program: str = "edgeblock") -> str:
    """With what each command and option is for; files where a value is awaited that has no choices."""
    cases = []
    for name, _, parser in commands(program):
        specs = ["'(- *)'{-h,--help}'[show the help of this command]'"]
        for one in arguments(parser):
            value = f":{one.dest}:" + (f"({' '.join(map(str, one.choices))})" if one.choices else "_files")
            if one.option_strings:
                specs += [quoted(f"{option}[{bracketed(one.help or '')}]" + (value if one.nargs != 0 else ""))
                          for option in one.option_strings]
            else:
                specs.append(quoted(f"{'*' if one.nargs in ('+', '*') else ''}{value}"))
        cases.append(f"    {name}) _arguments {' '.join(specs)} ;;\n")
    offers = " ".join(quoted(f"{name}:{summary}") for name, summary, _ in commands(program))
    return f"""#compdef {program}
# Completion of {program}'s commands and options for zsh; made by packaging/completions.py.
local -a commands=({offers})
if (( CURRENT == 2 )); then
    _describe command commands
    return
fi
shift words
(( CURRENT-- ))
case $words[1] in
{''.join(cases)}esac
"""


def fish(program: str = "edgeblock") -> str:
    lines = [f"# Completion of {program}'s commands and options for fish; made by packaging/completions.py.",
             f"complete -c {program} -n __fish_use_subcommand -f"]
    for name, summary, parser in commands(program):
        lines.append(f"complete -c {program} -n __fish_use_subcommand -f -a {name} -d {quoted(summary)}")
        when = f"complete -c {program} -n {quoted(f'__fish_seen_subcommand_from {name}')}"
        for one in arguments(parser):
            offered = f" -x -a {quoted(' '.join(map(str, one.choices)))}" if one.choices else ""
            for option in one.option_strings:
                kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                value = offered or (" -r" if one.nargs != 0 else "")
                lines.append(f"{when} {kind}{value} -d {quoted(one.help or '')}")
            if offered and not one.option_strings:
                lines.append(f"{when}{offered}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """As one word of zsh and of fish, which read what is between single quotes alike but for these two signs."""
    return "'" + text.replace("\\", "").replace("'", "\u2019") + "'"


def bracketed(text: str) -> str:
    """As the explanation of an option of zsh."""
    return text.replace("[", "(").replace("]", ")").replace(":", ",")
