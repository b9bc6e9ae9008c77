"""Makes the environment of the peers: `python3 -m benchmarks.cached_embeddings.install_peers FOLDER`.

The work is done by the script of the resilience benchmark; only the list is another.
"""

from pathlib import Path

from benchmarks.resilience import install_peers

if __name__ == "__main__":
    install_peers.PEERS = Path(__file__).with_name("peers.txt")
    install_peers.main()
