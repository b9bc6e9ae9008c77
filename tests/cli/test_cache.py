import asyncio
import gzip
import json
import secrets

import pytest

from resilient_ai.cli._cache_dump import add, dump
from resilient_ai.middleware._cache_key import model_part, tenant_part
from resilient_ai.stores import DiskStore, EncryptedStore

from ..stores.redis_server import start_redis  # noqa: TID252 - the tests have no package above them

MODEL = "BAAI/bge-m3"
HEAD = '{"format": "resilient-ai cache", "version": 1}'


def key(number, *, model=MODEL, tenant=None):
    return tenant_part(tenant) + model_part(model) + f"{number:064x}"


ENTRIES = {
    key(1): b"one",
    key(2, tenant="acme"): b"two, twice as long",
    key(3, model="own/model"): b"three",
    key(4, model="own/model", tenant="acme"): b"four",
}


def with_store(folder, work):
    async def run():
        store = DiskStore(folder / "home" / "cache")
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def kept(folder):
    """Return everything that is in the cache."""

    async def read(store):
        found = {}
        async for entries in store.scan():
            found.update(entries)
        return found

    return with_store(folder, read)


@pytest.fixture
def filled(offline, tmp_path):
    with_store(tmp_path, lambda store: store.set_many(ENTRIES))
    return offline


def test_stats_tell_what_there_is_by_model(filled, tmp_path):
    """The largest model comes first; one that the catalogue does not know is shown by its digits."""
    result = filled.run("cache", "stats")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["Model", "Entries", "Size"],
        [MODEL, "2", "21", "bytes"],
        [model_part("own/model"), "2", "9", "bytes"],
        ["Total", "4", "30", "bytes"],
    ]
    said = result.stderr.replace("\n", "")
    assert f"{tmp_path / 'home' / 'cache'}" in said
    assert " of 2.1 GB, overhead included" in said


def test_stats_as_json(filled):
    """Programs get numbers, and the digits of every model."""
    document = json.loads(filled.run("cache", "stats", "--json").stdout)
    assert (document["stores"][0]["entries"], document["stores"][0]["limit"]) == (4, 2 << 30)
    assert document["models"][1] == {"model": None, "digest": model_part("own/model"), "entries": 2, "size": 9}


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--yes"], []),
        (["--model", MODEL], [3, 4]),
        (["--tenant", "acme"], [1, 3]),
        (["--tenant", "acme", "-m", "own/model"], [1, 2, 3]),
        (["--tenant", "nobody"], [1, 2, 3, 4]),
    ],
)
def test_clear_forgets_what_was_named(filled, tmp_path, args, left):
    """Tenant and model narrow it down; the number says what went."""
    result = filled.run("cache", "clear", *args)
    assert f"{4 - len(left)} entr" in result.stderr
    assert sorted(int(name[32:], 16) for name in kept(tmp_path)) == left


def test_clearing_everything_needs_a_yes(filled, tmp_path, monkeypatch):
    """A script says --yes; a person is asked, and may change their mind."""
    assert "give --yes" in filled.run("cache", "clear").stderr
    monkeypatch.setattr("resilient_ai.cli.cache._is_terminal", lambda: True)
    assert filled.run("cache", "clear", stdin="n\n").exit_code == 130
    assert len(kept(tmp_path)) == 4
    assert "4 entries cleared" in filled.run("cache", "clear", stdin="y\n").stderr
    assert json.loads(filled.run("cache", "clear", "--json", "--yes").stdout) == {"cleared": 0}


def test_an_export_is_read_back_elsewhere(filled, tmp_path):
    """All entries come back as they were in another home; nobody else can read the file."""
    assert "4 entries written to cache.gz" in filled.run("cache", "export", "cache.gz").stderr
    assert (tmp_path / "cache.gz").stat().st_mode & 0o777 == 0o600
    (tmp_path / "home").rename(tmp_path / "old home")
    assert "4 entries read from cache.gz" in filled.run("cache", "import", "cache.gz").stderr
    assert kept(tmp_path) == ENTRIES
    assert json.loads(filled.run("cache", "export", "--json", "cache.gz").stdout)["entries"] == 4
    assert json.loads(filled.run("cache", "import", "--json", "cache.gz").stdout) == {"entries": 4, "skipped": 0}


def test_what_was_embedded_is_a_hit_elsewhere(shell, simulator, tmp_path):
    """An export carries real vectors: the other machine sends nothing."""
    shell.run("embed", "-t", "Kiel", "-t", "Emden")
    shell.run("cache", "export", "cache.gz")
    (tmp_path / "home").rename(tmp_path / "old home")
    shell.run("cache", "import", "cache.gz")
    assert "2 from the cache" in shell.run("embed", "-t", "Kiel", "-t", "Emden").stderr
    assert simulator.stats().embedded_texts == 2


def test_many_entries_are_all_kept(offline, tmp_path):
    """A file of more entries than may wait to be written loses none of them."""
    lines = [{"key": key(number), "value": "A" * 16_000} for number in range(1500)]
    write(tmp_path / "cache.gz", HEAD, *map(json.dumps, lines))
    offline.run("cache", "import", "cache.gz")
    assert len(kept(tmp_path)) == 1500


def write(path, *lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def test_what_is_no_entry_is_skipped_and_counted(offline, tmp_path):
    """A damaged line costs one entry, not the file."""
    bad = ["nonsense", "[]", "7", '{"value": "AA=="}', '{"key": 1, "value": "AA=="}']
    bad += [json.dumps({"key": name, "value": "AA=="}) for name in ("", "A" * 96, "0" * 95, "0" * 97, "0" * 96 + "\n")]
    bad += [json.dumps({"key": "0" * 96, "value": value}) for value in ("?", "AA=", None, 1, "Ä")]
    good = json.dumps({"key": key(1), "value": "b25l"})
    write(tmp_path / "cache.gz", HEAD, *bad, good)
    result = offline.run("cache", "import", "cache.gz")
    assert "15 lines skipped, as they are no entries of a cache" in result.stderr
    assert "1 entry read from cache.gz" in result.stderr
    assert kept(tmp_path) == {key(1): b"one"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"Kiel\n", "cache.gz: is no export of a cache"),
        (b"", "cache.gz: is no export of a cache"),
        (gzip.compress(b"Kiel\n"), "cache.gz: is no export of a cache"),
        (gzip.compress(b"[]\n"), "cache.gz: is no export of a cache"),
        (gzip.compress(HEAD.replace("1", "2").encode()), "cache.gz: is an export of version 2, this is for 1"),
        (gzip.compress(b"")[:-4], "cache.gz: is no export of a cache"),
        (
            gzip.compress(f"{HEAD}\n".encode())[:-4],
            "cache.gz: was cut short or damaged; what stood before that was read: 0 entries",
        ),
        (None, "cache.gz: No such file or directory"),
    ],
    ids=["text", "empty", "packed text", "packed list", "version", "packed nothing", "cut", "missing"],
)
def test_other_files_are_refused(offline, tmp_path, content, sentence):
    """What this program has not written, or not to its end, is told apart in one sentence."""
    if content is not None:
        (tmp_path / "cache.gz").write_bytes(content)
    result = offline.run("cache", "import", "cache.gz")
    assert (result.exit_code, f"error: {sentence}\n" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["nowhere/cache.gz", "folder"])
def test_an_export_needs_a_place(filled, tmp_path, name):
    """A file that cannot be written is complained about before anything is read."""
    (tmp_path / "folder").mkdir()
    result = filled.run("cache", "export", name)
    assert (result.exit_code, f"error: {name}: cannot be written" in result.stderr) == (2, True)


def test_without_a_cache_there_is_nothing_to_do(offline, tmp_path):
    """A folder that is not there is an empty cache, and none is made by looking."""
    assert "the cache is empty" in offline.run("cache", "stats").stderr
    assert json.loads(offline.run("cache", "stats", "--json").stdout) == {"stores": [], "models": []}
    assert "0 entries cleared" in offline.run("cache", "clear", "--yes").stderr
    assert not (tmp_path / "home").exists()
    assert "0 entries written to cache.gz" in offline.run("cache", "export", "cache.gz").stderr
    assert "0 entries read" in offline.run("cache", "import", "cache.gz").stderr


def test_a_store_that_cannot_be_used_is_an_error(filled, tmp_path):
    """Half an export is none: what could not be read is told, and the old file stays."""
    (tmp_path / "cache.gz").write_bytes(b"old")
    (tmp_path / "home" / "cache").chmod(0o777)
    result = filled.run("cache", "export", "cache.gz")
    assert result.exit_code == 1
    assert "can be changed by others" in result.stderr.replace("\n", " ")
    assert (tmp_path / "cache.gz").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.gz", "home"]


def test_two_exports_at_once_are_both_whole(tmp_path):
    """They have no draft in common, so that the one that ends last is the file; an older draft of any mode is left alone."""
    (tmp_path / ".cache.gz.draft").touch(0o666)
    with dump(tmp_path / "cache.gz") as first:
        add(first, {key(1): b"first"})
        with dump(tmp_path / "cache.gz") as second:
            add(second, {key(2): b"second"})
    lines = gzip.decompress((tmp_path / "cache.gz").read_bytes()).splitlines()
    assert [json.loads(line).get("key") for line in lines] == [None, key(1)]
    assert (tmp_path / "cache.gz").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.gz.draft", "cache.gz"]


@pytest.mark.parametrize("count", [1, 700])
def test_what_stands_before_the_damage_is_kept(offline, tmp_path, count):
    """An export that was cut short gives all that can be read of it, and the message says how much that is."""
    lines = [json.dumps({"key": key(number), "value": "b25l"}) for number in range(count)]
    write(tmp_path / "cache.gz", HEAD, *lines, "nonsense")
    (tmp_path / "cache.gz").write_bytes((tmp_path / "cache.gz").read_bytes()[:-4])
    result = offline.run("cache", "import", "cache.gz")
    read = f"{count} {'entry' if count == 1 else 'entries'}"
    assert result.exit_code == 2
    assert "1 line skipped" in result.stderr
    assert f"was cut short or damaged; what stood before that was read: {read}\n" in result.stderr
    assert len(kept(tmp_path)) == count


@pytest.fixture
def encrypted(offline):
    """A cache of four entries, the key of which is set."""
    pytest.importorskip("cryptography")
    offline.env["RESILIENT_AI_CACHE_ENCRYPTION_KEYS"] = EncryptedStore.new_key()
    plain = [json.dumps({"key": name, "value": "b25l"}) for name in ENTRIES]
    write(offline.folder / "in.gz", HEAD, *plain)
    offline.run("cache", "import", "in.gz")
    return offline


UNREADABLE = "could not be read with the keys and the secret that are set"


def test_stats_tell_what_cannot_be_read(encrypted):
    """With another key a full cache is not called empty; with its own nothing is said."""
    assert UNREADABLE not in encrypted.run("cache", "stats").stderr
    other = {"RESILIENT_AI_CACHE_ENCRYPTION_KEYS": EncryptedStore.new_key()}
    result = encrypted.run("cache", "stats", **other)
    assert (result.exit_code, f"4 entries {UNREADABLE}\n" in result.stderr) == (0, True)
    assert "empty" not in result.stderr
    (store,) = json.loads(encrypted.run("cache", "stats", "--json", **other).stdout)["stores"]
    assert (store["entries"], store["unreadable"]) == (4, 4)


def test_an_export_of_nothing_readable_is_none(encrypted, tmp_path):
    """With another key the exit code is 1, and an earlier export stays."""
    (tmp_path / "out.gz").write_bytes(b"old")
    result = encrypted.run("cache", "export", "out.gz", RESILIENT_AI_CACHE_ENCRYPTION_KEYS=EncryptedStore.new_key())
    assert (result.exit_code, f"error: 4 entries {UNREADABLE}\n" in result.stderr) == (1, True)
    assert (tmp_path / "out.gz").read_bytes() == b"old"


def test_an_export_of_a_part_says_so(encrypted, tmp_path):
    """What can be read is written, and the exit code tells that it is not all."""
    write(tmp_path / "in.gz", HEAD, json.dumps({"key": key(5), "value": "b25l"}))
    other = {"RESILIENT_AI_CACHE_ENCRYPTION_KEYS": EncryptedStore.new_key()}
    encrypted.run("cache", "import", "in.gz", **other)
    result = encrypted.run("cache", "export", "out.gz", **other)
    assert (result.exit_code, f"error: 4 entries {UNREADABLE}\n" in result.stderr) == (1, True)
    assert "1 entry written to out.gz" in result.stderr
    assert key(5).encode() in gzip.decompress((tmp_path / "out.gz").read_bytes())


@pytest.mark.parametrize("command", [("stats",), ("export", "out.gz")])
def test_another_secret_of_redis_is_told(offline, tmp_path, command):
    """Entries that were sealed with another secret are counted, not passed over."""
    redis = start_redis(tmp_path)
    try:
        offline.env["RESILIENT_AI_CACHE_REDIS_URL"] = redis.url
        write(tmp_path / "in.gz", HEAD, json.dumps({"key": key(1), "value": "b25l"}))
        offline.run("cache", "import", "in.gz", RESILIENT_AI_CACHE_SECRET=secrets.token_hex())
        result = offline.run("cache", *command, RESILIENT_AI_CACHE_SECRET=secrets.token_hex())
    finally:
        redis.stop()
    assert (result.exit_code, f"1 entry {UNREADABLE}\n" in result.stderr) == (int(command != ("stats",)), True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-m", "baai/bge-m4"], "0 entries cleared; did you mean BAAI/bge-m3, which has 2 entries?"),
        (["-m", "bge-m3", "--tenant", "acme"], "0 entries cleared; did you mean BAAI/bge-m3, which has 1 entry?"),
        (["-m", "bge-m3", "--tenant", "nobody"], "0 entries cleared"),
        (["-m", "nothing/like-it"], "0 entries cleared"),
        (["-m", MODEL], "2 entries cleared"),
    ],
)
def test_a_model_that_is_not_there_has_one_like_it(filled, args, said):
    """Where nothing matched, a model of that tenant that has entries is named, if its id is similar."""
    assert filled.run("cache", "clear", *args).stderr.splitlines()[-1] == said


def test_help_says_which_of_several_models_counts(offline):
    """Entries of a call that names several models are kept under the first, whichever answered."""
    shown = " ".join(offline.run("cache", "clear", "--help", COLUMNS="200").stdout.replace("│", " ").split())
    assert "where a call names several, the first of them counts" in shown
