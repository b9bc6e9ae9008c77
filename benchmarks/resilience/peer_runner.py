"""One scenario of a peer, in the peers' own environment: `peer_runner.py SCENARIO PEER URL` prints a line of JSON."""

import importlib
import json
import os
import sys
import warnings


def main() -> None:
    scenario, peer, url = sys.argv[1:]
    warnings.simplefilter("ignore")
    module = importlib.import_module(f"peer_{peer.replace('-', '_')}")
    found = module.SCENARIOS[scenario]
    text = found if isinstance(found, str) else found(url)
    print(json.dumps({"text": text}), flush=True)
    os._exit(0)  # whatever still hangs in a thread


if __name__ == "__main__":
    main()
