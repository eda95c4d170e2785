"""Makes kernels/streamer.fatbin from the sources: `python kernels/build.py` where nvcc 13 is installed.

The fatbin holds machine code for every GPU from Turing to Blackwell and PTX for later ones.
`streamer.fatbin.json` says what it was made of; a test compares. `-fmad=false` keeps every rounding where the
CPU has it: kernels/README.md.
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


def digest() -> str:
    """The SHA-256 of sources and flags."""
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


def main() -> int:
    """Build, and write down of what."""
    target = HERE / "streamer.fatbin"
    compiled(target)
    facts = {
        "sources": digest(),
        "fatbin": hashlib.sha256(target.read_bytes()).hexdigest(),
        "nvcc": version(),
    }
    (HERE / "streamer.fatbin.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
