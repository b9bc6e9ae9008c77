"""Makes the environment of the peers: `python3 install_peers.py FOLDER`.

Each line of `peers.txt` is installed alone, so that one that cannot be had keeps none of the others away. Why one is missing
is written into `missing.json` of the folder.
"""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).with_name("peers.txt")


def main() -> None:
    folder = Path(sys.argv[1])
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    missing = {}
    for spec in PEERS.read_text().split():
        reason = install(python, spec)
        if reason:
            reason = install_piecemeal(python, spec) and reason
        if reason:
            missing[re.split(r"[=\[]", spec)[0]] = reason
            print(f"{spec} could not be installed: {reason}")
    (folder / "missing.json").write_text(json.dumps(missing))


def install(python: str, *arguments: str) -> str:
    """Return why pip failed, or nothing."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return "" if done.returncode == 0 else (errors[-1] if errors else done.stderr[-200:])[:200]


def install_piecemeal(python: str, spec: str) -> str:
    """Install a package whose requirements nothing can fulfil with the nearest there is of each of them."""
    reason = install(python, "--no-deps", spec)
    if reason:
        return reason
    name = re.split(r"[=\[]", spec)[0]
    ask = f"import importlib.metadata as m, json; print(json.dumps(m.requires({name!r}) or []))"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    needed = [need for need in json.loads(found) if "extra ==" not in need]
    while reason := install(python, *needed):
        nowhere = re.search(r"No matching distribution found for ([\w.-]+)", reason)
        if nowhere is None or nowhere[1] in needed:
            return reason
        needed = [nowhere[1] if re.match(rf"{re.escape(nowhere[1])}\b", need) else need for need in needed]
    return ""


if __name__ == "__main__":
    main()
