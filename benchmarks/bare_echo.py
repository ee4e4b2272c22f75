"""A bare grpc.aio stream that echoes: what no framework on this transport can be cheaper than."""

from __future__ import annotations

import subprocess

from listening import start

ECHOED_BYTES = 100
_SERVER = f"""
import asyncio, grpc
async def echo(_, context):
    while (data := await context.read()) is not grpc.aio.EOF:
        await context.write(data[:{ECHOED_BYTES}])
async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("Echo", {{"Echo": handler}}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{{port}}", flush=True)
    await server.wait_for_termination()
try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""
ECHO = "/Echo/Echo"


def start_echo() -> tuple[subprocess.Popen[str], str]:
    """A server that answers each message of a stream with its first `ECHOED_BYTES`."""
    return start(["-c", _SERVER])
