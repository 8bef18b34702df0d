"""The operators' face, on a port of its own: is the process alive, can it serve, what has it counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from core.errors import FlashproofError
from core.telemetry import flush_tallies

Check = Callable[[], Awaitable[dict[str, str]]]
_CHECK_S: Final = 3.0


def operations_app(check: Check) -> web.Application:
    """Return the application. ``check`` says for each thing needed ``ok`` or what is wrong; all ok is ready."""
    app = web.Application()

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_CHECK_S):
                found = await check()
        except TimeoutError:
            found = {"check": "did not finish in time"}
        except (FlashproofError, OSError) as error:
            found = {"check": str(error)}
        fit = all(word == "ok" for word in found.values())
        body = msgspec.json.encode({"ready": fit, **found})
        return web.Response(body=body, status=200 if fit else 503, content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        flush_tallies()
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry(support_collectors_without_names=True)
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        names = request.query.getall("name[]", [])  # as Prometheus's own clients restrict a page
        if names:  # a few names cost less than the thread for all of them
            text = generate_latest(registry.restricted_registry(names))
        else:
            text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    return app


async def serve_operations(check: Check, host: str, port: int) -> web.AppRunner:
    """Start the operators' face; call ``cleanup`` on what is returned to end it."""
    runner = web.AppRunner(operations_app(check), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port, reuse_address=True).start()
    return runner
