"""Runs shares of a benchmark or an evaluation side by side on a machine without a network, detached from whoever starts them.

  python3 WORK/shards.py start NAME [options] -- bench replay --only ours,file     (or: bench cache --only lookups, eval quality, ...)
  python3 WORK/shards.py start NAME [options] -- program python3 -m nosa_train.train ...   any other program, once, in WORK/training
  python3 WORK/shards.py status NAME                    what has ended, and what the others said last
  python3 WORK/shards.py collect NAME FILE.tgz          answers, figures and logs so far, at any time; more than 16 MB in pieces
  python3 WORK/shards.py stop NAME

  --shards N      shares that the work is dealt into (as many as processes)      --take 0,3   only these of them
  --processes P   at a time (one for each GPU, or one)                           --gpus G     (all that there are; 0: the cores compute)
  --cores C       dealt evenly to the processes (all)                            --seconds S  whatever runs after so long is ended

Several runs share a machine by what they may use: CUDA_VISIBLE_DEVICES and taskset before `start` name the GPUs and cores that it deals out.

WORK is the folder that unpack.sh filled; what a run leaves lies in WORK/runs/NAME. README.md beside this file in the sources tells how the shares are merged.
Needs Python 3.8 and nothing else.
"""

import argparse
import collections
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

WORK = pathlib.Path(__file__).resolve().parent
PIECE_BYTES = 16_000_000
# These deal themselves out, and take the number of their threads.
DEALT = {("bench", "replay"), ("bench", "cache"), ("eval", "quality")}


def main():
    words = sys.argv[1:]
    own, told = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("start", "supervise", "status", "collect", "stop"):
        one = commands.add_parser(command)
        one.add_argument("name")
        if command == "start":
            for option in ("--shards", "--processes", "--gpus", "--cores"):
                one.add_argument(option, type=int)
            one.add_argument("--take", default="")
            one.add_argument("--seconds", type=float, default=float("inf"))
        if command == "collect":
            one.add_argument("file")
    options = parser.parse_args(own)
    run = WORK / "runs" / options.name
    if options.command == "start":
        start(run, options, told)
    elif options.command == "supervise":
        supervise(run)
    elif not run.is_dir():
        sys.exit(f"There is no run {options.name} in {run.parent}.")
    elif options.command == "status":
        status(run)
    elif options.command == "collect":
        collect(run, pathlib.Path(options.file))
    else:
        stop(run)


def start(run, options, told):
    """Writes down what is to be done, and leaves a supervisor behind."""
    if not told or told[0] not in ("bench", "eval", "program") or len(told) < 2:
        sys.exit("Say behind -- what to run: bench NAME, eval NAME or program COMMAND.")
    if supervisor_of(run) is not None:
        sys.exit(f"{run.name} runs already.")
    gpus = gpus_here()[: options.gpus]
    processes = options.processes or max(1, len(gpus))
    shards = options.shards or processes
    if tuple(told[:2]) not in DEALT:
        processes = shards = 1
    elif "--shard" in told:
        sys.exit("The shares are dealt here: leave --shard out.")
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    plan = {
        "told": told,
        "shards": shards,
        "take": [int(each) for each in options.take.split(",") if each] or list(range(shards)),
        "processes": processes,
        "gpus": gpus,
        "cores": cores,
        "until": time.time() + options.seconds if options.seconds < float("inf") else None,
    }
    run.mkdir(parents=True, exist_ok=True)
    for old in ("state.json", "supervisor.pid"):
        (run / old).unlink(missing_ok=True)
    write(run / "plan.json", plan)
    with open(run / "supervisor.log", "ab") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "supervise", run.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    write(run / "supervisor.pid", child.pid)
    print(f"{run.name}: {len(plan['take'])} of {shards} shares, {processes} at a time, {len(cores)} cores, {len(gpus)} GPUs")


def supervise(run):
    """Gives every slot its next share until there is none left, or the time is over."""
    plan = json.loads((run / "plan.json").read_text())
    waiting = collections.deque(plan["take"])
    running = {}
    state = {}
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    while waiting or running:
        late = plan["until"] is not None and time.time() > plan["until"]
        if late or stopping:
            waiting.clear()
            end([child for _, child in running.values()])
        for slot in range(plan["processes"]):
            if slot not in running and waiting:
                shard = waiting.popleft()
                running[slot] = (shard, launch(run, plan, slot, shard))
                state[shard] = {"pid": running[slot][1].pid, "since": time.time()}
        for slot, (shard, child) in list(running.items()):
            code = child.poll()
            if code is None:
                continue
            state[shard].update(code=code, seconds=round(time.time() - state[shard]["since"], 1))
            if late or stopping:
                state[shard]["ended"] = "the time was over" if late else "stopped"
            del running[slot]
        write(run / "state.json", state)
        time.sleep(0.5)


def launch(run, plan, slot, shard):
    """Starts one share on the cores and the GPU of its slot."""
    kind, name, *rest = plan["told"]
    cores = plan["cores"][slot :: plan["processes"]] or plan["cores"]
    (run / "results").mkdir(exist_ok=True)
    tmp = run / "tmp" / str(shard)
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    env = {
        **os.environ,
        "PATH": f"{WORK / 'node' / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "TMPDIR": str(tmp),
        "NOSA_HOME": str(WORK / "home"),
        "NOSA_MODELS_HOME": str(WORK / "models"),
        "NOSA_BENCH_CACHE": str(WORK / "cache"),
    }
    library = WORK / "nosa" / "dist" / "libnosa_cuda.so"
    if kind != "program":
        env["CUDA_VISIBLE_DEVICES"] = plan["gpus"][slot % len(plan["gpus"])] if plan["gpus"] else ""
        if plan["gpus"] and library.exists():
            env["NOSA_BENCH_CUDA"] = str(library)
    if kind == "program":
        words, cwd = [name, *rest], WORK / "training"
        cwd = cwd if cwd.is_dir() else WORK
    else:
        words, cwd = [str(WORK / "node" / "bin" / "node"), f"{kind}/run.mjs", name, *rest], WORK / "nosa"
        if (kind, name) in DEALT:
            words += ["--shard", f"{shard}/{plan['shards']}"] if plan["shards"] > 1 else []
            words += [] if "--threads" in rest else ["--threads", str(len(cores))]
        words += output_of(run, kind, name, shard)
    if (kind, name) == ("bench", "replay"):
        env["NOSA_BENCH_CACHE"] = str(own_cache(run, shard))
    log = open(run / f"log-{shard}.txt", "ab")
    return subprocess.Popen(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def output_of(run, kind, name, shard):
    """Where it is told to leave its figures."""
    results = run / "results"
    if name == "replay":
        return ["--results", str(results / f"replay-{shard}")]
    if name == "cache":
        return ["--results", str(results)]
    return ["--json", str(results / f"{name}-{shard}.json")]


def own_cache(run, shard):
    """Shares of replay keep their answers apart; the releases they all read."""
    folder = run / "cache" / str(shard)
    folder.mkdir(parents=True, exist_ok=True)
    releases = WORK / "cache" / "releases"
    link = folder / "releases"
    if releases.is_dir() and not link.is_symlink():
        link.symlink_to(releases)
    return folder


def status(run):
    plan = json.loads((run / "plan.json").read_text())
    state = json.loads((run / "state.json").read_text()) if (run / "state.json").exists() else {}
    print(f"{run.name}: {'runs' if supervisor_of(run) is not None else 'has ended'}")
    for shard in plan["take"]:
        log = run / f"log-{shard}.txt"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        own = state.get(str(shard))
        if own is None:
            what = "waits"
        elif "code" in own:
            what = f"{own.get('ended', 'ended')} with {own['code']} after {own['seconds']} s"
        else:
            what = f"runs for {time.time() - own['since']:.0f} s"
        print(f"  share {shard} {what}{': ' + lines[-1][:140] if lines else ''}")


def collect(run, file):
    """One archive of everything small that a merge needs. What is being written right now is left for the next time."""
    with tarfile.open(file, "w:gz") as archive:
        for each in sorted([*run.glob("*.json"), *run.glob("log-*.txt"), *run.glob("supervisor.log")]):
            archive.add(each, f"{run.name}/{each.name}")
        for each in sorted((run / "results").rglob("*")):
            if each.is_file() and each.suffix != ".part" and is_whole(each):
                archive.add(each, f"{run.name}/results/{each.relative_to(run / 'results')}")
        kept = collections.defaultdict(list)
        for each in sorted(run.glob("cache/*/replay/*.jsonl")):
            text = each.read_text()
            kept[each.name].append(text[: text.rfind("\n") + 1])
        for name, texts in kept.items():
            joined = "".join(texts).encode()
            entry = tarfile.TarInfo(f"{run.name}/replay/{name}")
            entry.size, entry.mtime = len(joined), int(time.time())
            archive.addfile(entry, io.BytesIO(joined))
            answers = joined.count(b"\n")
            print(f"  {name}: {answers} answers")
    size = file.stat().st_size
    print(f"{file}: {size / 1e6:.1f} MB")
    if size <= PIECE_BYTES:
        return
    data = file.read_bytes()
    for at in range(0, size, PIECE_BYTES):
        pathlib.Path(f"{file}.{at // PIECE_BYTES:02d}").write_bytes(data[at : at + PIECE_BYTES])
    file.unlink()
    print(f"  as {file}.00 and on: cat them together")


def is_whole(file):
    if file.suffix != ".json":
        return True
    try:
        json.loads(file.read_text())
        return True
    except ValueError:
        return False


def stop(run):
    pid = supervisor_of(run)
    if pid is None:
        print(f"{run.name} has ended.")
        return
    os.kill(pid, signal.SIGTERM)
    while supervisor_of(run) is not None:
        time.sleep(0.2)
    print(f"{run.name} is stopped.")


def end(children):
    """Politely, then by force: whole groups, as they may have started others."""
    for how, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, how)
        until = time.time() + patience
        while any(child.poll() is None for child in children) and time.time() < until:
            time.sleep(0.1)


def supervisor_of(run):
    """Its process, while there is one and it is ours."""
    try:
        pid = int((run / "supervisor.pid").read_text())
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"supervise" in command and run.name.encode() in command else None


def gpus_here():
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES has them."""
    if shutil.which("nvidia-smi") is None:
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [each.strip() for each in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if each.strip()]
    listed = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [str(at) for at, line in enumerate(each for each in listed.stdout.splitlines() if each.startswith("GPU "))]


def write(file, value):
    aside = file.with_name(f"{file.name}.part")
    aside.write_text(json.dumps(value, indent=1))
    os.replace(aside, file)


if __name__ == "__main__":
    main()
