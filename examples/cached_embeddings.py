"""Embed a set of documents again and again, and pay for each text once.

Vectors are kept text by text, on disk, so a list of which most texts are known sends only the others. Run it twice: the second
run sends nothing at all.

    python examples/cached_embeddings.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio

from resilient_ai import AsyncClient, EmbedResult

MODEL = "BAAI/bge-m3"


async def main() -> None:
    """Embed 300 texts, embed them again, then change one."""
    texts = [f"Paragraph {n} of the handbook: every sluice has a log of its own." for n in range(300)]
    async with AsyncClient() as ai:
        show("at first", await ai.embed(MODEL, texts))
        show("once more", await ai.embed(MODEL, texts))
        texts[17] = "Paragraph 17 was rewritten."
        show("one changed", await ai.embed(MODEL, texts))

        # For a model that was updated in place: send again, and replace what is kept.
        show("refreshed", await ai.with_options(cache="refresh").embed(MODEL, texts))


def show(when: str, result: EmbedResult) -> None:
    """Print where the vectors came from, and for what."""
    known = f"{result.hits} of {len(result.vectors)} texts from the cache"
    print(f"{when}: {known}, {result.attempts} requests, {result.cost}")


if __name__ == "__main__":
    asyncio.run(main())
