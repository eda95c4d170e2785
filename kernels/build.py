"""Makes what ships of the sources: `python kernels/build.py fatbin` where nvcc 13 is installed, `... library` with gcc.

The fatbin holds machine code for every GPU from Turing to Blackwell and PTX for later ones, the library that of
64-bit x86 with AVX2. A JSON file beside each says what it was made of; tests compare. `-fmad=false` and
`-ffp-contract=off` keep every rounding where NumPy has it: kernels/README.md.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
FLAGS = (
    "-fatbin",
    "-O3",
    "-std=c++17",
    "-fmad=false",
    "-Xptxas=-v",
    "--compress-mode=size",
    *(f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES),
    "-gencode=arch=compute_75,code=compute_75",
)


LIBRARY_FLAGS = (
    *("-O3", "-mavx2", "-std=c17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"),
    *("-nostdlib", "-Wl,--build-id=none", "-s"),  # memset and memcpy are those of the process that loads it
)


def digest() -> str:
    """The SHA-256 of the fatbin's sources and flags."""
    state = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(HERE.glob("*.cu*")):
        state.update(source.name.encode() + b"\0" + source.read_bytes())
    return state.hexdigest()


def compiled(target: Path, flags: tuple[str, ...] = FLAGS) -> str:
    """Compile into `target` and return what ptxas says; raises RuntimeError where a kernel spills or fails."""
    command = ["nvcc", *flags, "-o", str(target), str(HERE / "streamer.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    spilled = [line for line in done.stderr.splitlines() if re.search(r"[1-9]\d* bytes spill", line)]
    if spilled:
        raise RuntimeError("a kernel spills registers: " + spilled[0].strip())
    return done.stderr


def version() -> str:
    """That of the nvcc which is found here."""
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return str(re.findall(r"V([\d.]+)", said)[0])


def digest_of_library() -> str:
    """The SHA-256 of the library's source and flags."""
    state = hashlib.sha256(" ".join(LIBRARY_FLAGS).encode())
    state.update((HERE / "redact.c").read_bytes())
    return state.hexdigest()


def compiled_library(target: Path, flags: tuple[str, ...] = LIBRARY_FLAGS) -> None:
    """Compile into `target`; raises RuntimeError with gcc's words."""
    command = ["gcc", *flags, "-o", str(target), str(HERE / "redact.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def gcc_version() -> str:
    """That of the gcc which is found here, with the name of its packager."""
    said = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]


def _fatbin() -> None:
    target = HERE / "streamer.fatbin"
    compiled(target)
    _write_facts(target.with_suffix(".fatbin.json"), digest(), fatbin=target, nvcc=version())


def _library() -> None:
    target = HERE / "redact.x86_64.so"
    compiled_library(target)
    _write_facts(target.with_suffix(".json"), digest_of_library(), library=target, gcc=gcc_version())


def _write_facts(file: Path, sources: str, **made: Path | str) -> None:
    facts = {
        name: hashlib.sha256(what.read_bytes()).hexdigest() if isinstance(what, Path) else what
        for name, what in made.items()
    }
    file.write_text(json.dumps({"sources": sources, **facts}, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Build, and write down of what."""
    builders = {"fatbin": _fatbin, "library": _library}
    if len(sys.argv) != 2 or sys.argv[1] not in builders:
        sys.exit("usage: python kernels/build.py fatbin|library")
    builders[sys.argv[1]]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
