"""LangChain's `CacheBackedEmbeddings`, over bytes in memory and over a file for each vector."""

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.embeddings import Embeddings
from langchain_core.stores import InMemoryByteStore

from benchmarks.cached_embeddings.case import MODEL, Case


class Service(Embeddings):
    """Answers from the case while the cache is filled, and refuses while it is read."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.open = True

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if not self.open:
            raise RuntimeError(f"{len(texts)} of {self.case.count} texts were not in the cache")
        return [self.case.vector_of(text).tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class LangChain:
    """Reads by `embed_documents`, its quicker way: the asynchronous one does the same in a thread."""

    def __init__(self, case: Case, *, files: bool = False) -> None:
        self.case = case
        self.service = Service(case)
        store = LocalFileStore(case.folder / "files") if files else InMemoryByteStore()
        self.cache = CacheBackedEmbeddings.from_bytes_store(
            self.service, store, namespace=MODEL.replace("/", "-"), key_encoder="sha256"
        )

    async def fill(self) -> None:
        self.cache.embed_documents(self.case.texts)
        self.service.open = False

    async def prepare(self) -> None:
        """Nothing comes before."""

    async def read(self) -> list[list[float]]:
        return self.cache.embed_documents(self.case.texts)

    def shown(self, answer: list[list[float]], place: int) -> list[float]:
        return answer[place]

    async def aclose(self) -> None:
        """There is nothing to close."""
