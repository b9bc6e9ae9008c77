"""What the tests of faults share: a client of a server that sends whatever a test wants."""

import asyncio
import contextlib
import os
import subprocess
import sys

from resilient_ai import AsyncClient
from resilient_ai.middleware import Retry

from ..e2e.raw_server import RawServer  # noqa: TID252 - the tests have no package above them

BODY = b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}'
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
QUICK = Retry(attempts=3, wait_initial=0.01, wait_max=0.02)


def http(body=BODY, status="200 OK", *headers):
    """Return a whole answer as bytes."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunk(data):
    """Return `data` as one chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def client_of(answer, *stack, **options):
    """Give a client with this stack, and the server that it asks."""
    async with RawServer(answer) as server, AsyncClient(api_key="k", base_url=server.url, stack=stack, **options) as ai:
        yield ai, server


async def output_of(program, *arguments, **environment):
    """Run a program in an interpreter of its own, and return the lines it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-3000:]
    return out.decode().splitlines()
