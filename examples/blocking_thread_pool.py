"""Use the blocking client from many threads: one pipeline, one set of connections, breakers and limits.

    python examples/blocking_thread_pool.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from resilient_ai import ChatResult, Client, TextDelta

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def main() -> None:
    """Answer 24 questions on 8 threads, then stream one answer."""
    with Client() as ai:

        def ask(n: int) -> ChatResult:
            return ai.chat(MODEL, f"What is {n} * {n}?", max_tokens=30)

        with ThreadPoolExecutor(max_workers=8) as pool:
            answers = list(pool.map(ask, range(1, 25)))
        spent = sum((answer.cost.amount for answer in answers if answer.cost), Decimal(0))
        print(f"{len(answers)} answers on 8 threads, {spent:f} USD; the last: {answers[-1].text.strip()}")

        with ai.stream(MODEL, "Why do tides rise? One sentence.", max_tokens=80) as stream:
            text = "".join(event.text for event in stream if isinstance(event, TextDelta))
        print(f"streamed: {text.strip()}")


if __name__ == "__main__":
    main()
