"""Builds the core with both sanitizers and libFuzzer, makes seeds, and fuzzes each game for a share of the time.

    python -m tests.fuzz.run [--seconds N] [--games tls,http,...] [--corpus DIR] [--cores N]

In: the sources, the samples, and the folder of captures that EDGEBLOCK_EVASION names, if any. Out: one line for each
game with its executions and executions a second; exit status 1 where one found something (its input is left in the
corpus folder, named by libFuzzer). Needs clang and its compiler-rt; on Debian the packages clang and libclang-rt-dev.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.core.protocols import READERS

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
# Besides each reader's. Of a game whose input is a script of short orders, a longer one is only slower.
LONGEST = {"packets": 65_536, "hide": 240, "innocent": 240, "initials": 65_536, "hide-quic": 240, "recall": 240,
           "netlink": 65_536, "answers": 2000, "defragment": 2000, "answered": 2000, "marking": 200}
GAMES = (*READERS, *LONGEST)
CORE = sorted(path.stem for path in (ROOT / "edgeblock" / "core").glob("*.pyx"))
COMPILED = (*(f"core/{name}" for name in CORE), "netfilter/stage1/structures", "source/recall", "source/marking")
FLAGS = ["-O2", "-g", "-fno-strict-aliasing", "-fno-omit-frame-pointer", "-w", "-fPIC",
         "-fsanitize=address,undefined", "-fno-sanitize=function,pointer-overflow",  # Cython adds 0 to NULL
         "-fno-sanitize-recover=all"]
# Edges only: traced comparisons cost four fifths of the speed, and the samples hold the magic words already.
PLAIN = ["-fno-sanitize-coverage=trace-cmp,trace-div,trace-gep,indirect-calls"]
DIRECTIVES = ["boundscheck=True", "wraparound=False", "cdivision=True"]


def find_clang() -> list[str]:
    """The compiler's command, through ccache where that is installed."""
    if not shutil.which("clang"):
        sys.exit("fuzz: no clang; on Debian or Ubuntu: apt install clang libclang-rt-dev")
    return ["ccache", "clang"] if shutil.which("ccache") else ["clang"]


def newer(target: Path, *sources: Path) -> bool:
    return not target.exists() or any(source.stat().st_mtime > target.stat().st_mtime for source in sources)


def build() -> Path:
    """The fuzzer's binary, with the core's modules as shared objects beside copies of its Python files."""
    clang = find_clang()
    include = f"-I{sysconfig.get_path('include')}"
    package = BUILD / "edgeblock"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    # What is not watched but imported comes as it was built for use.
    used = [path for path in (ROOT / "edgeblock").rglob(f"*{suffix}")
            if str(path.relative_to(ROOT / "edgeblock")).removesuffix(suffix) not in COMPILED]
    for source in [*(ROOT / "edgeblock").rglob("*.p[yx]*"), *(ROOT / "edgeblock").rglob("*.h"),
                   *(ROOT / "edgeblock").rglob("*.html"), *(ROOT / "edgeblock").rglob("*.toml"), *used]:
        copy = BUILD / source.relative_to(ROOT)
        if source.suffix != ".pyc" and newer(copy, source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    structures = ["-I", str(package / "netfilter" / "stage1")]
    declared = [*package.rglob("*.pxd"), *package.rglob("structures.h")]
    here = ROOT / "tests" / "fuzz"
    harness = here / "harness.pyx"
    library = [f"-L{sysconfig.get_config_var('LIBDIR')}", f"-lpython{sysconfig.get_config_var('LDVERSION')}"]
    jobs = []
    for source in [*(package / f"{name}.pyx" for name in COMPILED), here / "initials.pyx"]:
        place = BUILD if source.parent == here else source.parent
        module = place / f"{source.stem}{suffix}"
        if newer(module, source, *declared):
            jobs.append((source, place / f"{source.stem}.c", [*structures, "-fsanitize=fuzzer-no-link", *PLAIN],
                         ["-shared", "-fsanitize=fuzzer-no-link", "-lsodium", "-lcrypto"], module))
    binary = BUILD / "fuzzer"
    if jobs or newer(binary, harness, here / "main.c"):
        jobs.append((harness, BUILD / "harness.c", ["-I", str(BUILD), *structures],
                     [include, str(here / "main.c"), "-fsanitize=fuzzer", "-Wl,-z,muldefs", "-rdynamic",
                      *library], binary))

    def compile_one(job):
        source, generated, compiling, linking, target = job
        options = [option for directive in DIRECTIVES for option in ("-X", directive)]
        made = generated.with_suffix(".o")
        subprocess.run([sys.executable, "-m", "cython", "-3", *options, "-I", str(BUILD), "-I", str(here),
                        str(source), "-o", str(generated)], check=True, cwd=BUILD)
        subprocess.run([*clang, *FLAGS, include, *compiling, "-c", str(generated), "-o", str(made)], check=True)
        subprocess.run([clang[-1], *FLAGS, str(made), *linking, "-o", str(target)], check=True)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, jobs))
    return binary


def make_seeds(corpus: Path) -> None:
    """Seeds for every game, from the samples and from the captures where they are."""
    from tests.fuzz import seeds
    for game in GAMES:
        folder = corpus / game
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.of(game):
            (folder / name).write_bytes(data)


def fuzz(binary: Path, game: str, corpus: Path, seconds: int, max_len: int) -> tuple[int, int]:
    """Runs one game; returns (executions, exit status)."""
    path = os.pathsep.join([str(BUILD), str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])
    environment = {**os.environ, "EDGEBLOCK_FUZZ": game, "PYTHONPATH": path, "PYTHONMALLOC": "malloc",
                   "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_abort=1:"
                                   "malloc_context_size=2:quarantine_size_mb=8"}
    log = corpus / f"{game}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [str(binary), f"-max_total_time={seconds}", f"-max_len={max_len}", "-timeout=10", "-rss_limit_mb=4096",
             "-print_final_stats=1", "-entropic=0", f"-artifact_prefix={corpus / game}-", str(corpus / game)],
            env=environment, stdout=output, stderr=subprocess.STDOUT)
    text = log.read_text(errors="replace")
    counted = re.search(r"stat::number_of_executed_units: *(\d+)", text) or re.search(r"(?s).*#(\d+)\s", text)
    return int(counted[1]) if counted else 0, done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz the compiled core")
    parser.add_argument("--seconds", type=int, default=600, help="for all games together, on one core")
    parser.add_argument("--games", default=",".join(GAMES))
    parser.add_argument("--corpus", type=Path, default=BUILD / "corpus")
    given = parser.parse_args()
    games = [game for game in given.games.split(",") if game]
    if unknown := set(games) - set(GAMES):
        parser.error(f"no such game: {', '.join(sorted(unknown))}; there are {', '.join(GAMES)}")
    binary = build()
    make_seeds(given.corpus)
    total = 0
    failed = []
    for game in games:
        seconds = max(1, given.seconds // len(games))
        count, status = fuzz(binary, game, given.corpus, seconds, LONGEST.get(game, 65_536))
        total += count
        print(f"{game:10} {count:>12,} executions  {count / seconds:>10,.0f}/s  {'ok' if status == 0 else 'FAILED'}",
              flush=True)
        if status:
            failed.append(game)
            print((given.corpus / f"{game}.log").read_text(errors="replace")[-4000:])
    print(f"{'all':10} {total:>12,} executions")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
