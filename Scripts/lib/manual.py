"""Writes hub(1) in roff from what `hub --experimental-dump-help` prints, so that the page says what the program takes."""
import json
import sys


def text(words):
    """Roff's own characters made plain."""
    out = str(words or "").replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return "\\&" + out if out[:1] in ".'" else out


def names(argument):
    if argument["kind"] == "positional":
        return f"\\fI{text(argument['valueName'].upper())}\\fR"
    forms = [("\\-" if name["kind"] == "short" else "\\-\\-") + text(name["name"]) for name in argument.get("names", [])]
    bold = ", ".join(f"\\fB{form}\\fR" for form in forms)
    return f"{bold} \\fI{text(argument['valueName'].upper())}\\fR" if argument["kind"] == "option" else bold


def shown(arguments):
    return [a for a in arguments or [] if a.get("shouldDisplay", True) and not {"help", "version"} & {n["name"] for n in a.get("names") or []}]


def synopsis(command):
    parts = []
    for argument in shown(command.get("arguments")):
        form = names(argument) if argument["kind"] == "positional" else names(argument).split(", ")[0]
        parts.append(f"[{form}]" if argument.get("isOptional") else form)
    return " ".join(parts)


def describe(command, path):
    yield f".SS {' '.join(path)}"
    yield text(command.get("abstract"))
    yield f".PP\n\\fB{' '.join(path)}\\fR {synopsis(command)}"
    for argument in shown(command.get("arguments")):
        default = argument.get("defaultValue")
        tail = f" (default: {text(default)})" if default and default != "false" else ""
        yield f".TP\n{names(argument)}\n{text(argument.get('abstract'))}{tail}"
    for sub in command.get("subcommands") or []:
        if sub["commandName"] != "help":
            yield from describe(sub, path + [sub["commandName"]])


def main():
    command = json.load(sys.stdin)["command"]
    lines = [
        ".TH HUB 1",
        ".SH NAME",
        f"hub \\- {text(command['abstract'][:1].lower() + command['abstract'][1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B hub\n.I COMMAND\n[\\fIARGUMENT\\fR...]",
        ".SH DESCRIPTION",
        "One database is made the head office by \\fBhub init\\fR; its tables are tracked, branches are invited and join. "
        "\\fBhub run\\fR serves an office, each its own.",
        ".SH COMMANDS",
    ]
    for sub in command["subcommands"]:
        if sub["commandName"] != "help":
            lines += describe(sub, ["hub", sub["commandName"]])
    lines += [".SH ENVIRONMENT", "Instead of a \\fINAME\\fR that holds no path, \\fINAME\\fR_FILE may name a file whose first line is the value."]
    for name, what in (
        ("HUB_DATABASE_URL", "The office's database, any libpq URL. With {n}: the first of several that no other hub run has taken."),
        ("HUB_BROKER_URL", "The broker, amqp(s)://user:password@host/vhost."),
        ("HUB_BROKER_CA", "A PEM file with the broker's authority."),
        ("HUB_STATE_DIR", "Where the record beside the database lives."),
        ("HUB_JOIN_TOKEN", "hub run joins with this token if the database is no member yet."),
        ("HUB_JOIN_SECRET", "The same with the secret that hub invite --secret-file was given; needs HUB_OFFICE_NAME."),
        ("HUB_OFFICE_NAME", "The branch's name when it joins."),
        ("HUB_HEAD_NAME", "Head's name for HUB_JOIN_SECRET, if it is not head."),
        ("HUB_JOIN_EXISTING", "refuse, merge or replace: rows that the tables hold when it joins by itself."),
        ("HUB_RUNTIME_DIR", "Where hub run leaves the number of the database that it took."),
    ):
        lines.append(f".TP\n.B {name}\n{text(what)}")
    lines += [
        ".SH EXIT STATUS",
        ".TP\n.B 0\nDone.\n.TP\n.B 1\nFailed; one line on stderr says why.\n.TP\n.B 2\nUsage.\n.TP\n.B 3\nTimed out with work left.",
        ".SH FILES",
        ".TP\n.I /etc/hub/NAME.env\nSettings of the unit hub@NAME.\n.TP\n.I /var/lib/hub\\-NAME\nThe record beside its database.",
    ]
    print("\n".join(lines))


main()
