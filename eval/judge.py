"""Runs the program on standard input and says the word given as argument if it ends well. It is written by a model: it gets little time and memory,
no files to write, no processes and no network. This keeps accidents small; it is no prison for a program that means harm."""

import builtins
import resource
import sys

SECONDS = 5
MEMORY = 1 << 30
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.kill",
             "os.chmod", "os.truncate", "shutil.", "ctypes.", "pty.", "webbrowser.")  # fmt: skip


def forbid(event: str, args: tuple) -> None:
    writes = event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+")
    if writes or event.startswith(FORBIDDEN):
        raise PermissionError(event)


def main() -> None:
    word = sys.argv.pop()
    program = sys.stdin.read()
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    code = compile(program, "program", "exec")
    say = builtins.print
    builtins.print = lambda *args, **options: None
    sys.addaudithook(forbid)
    exec(code, {"__name__": "program"})
    say(word, flush=True)


main()
