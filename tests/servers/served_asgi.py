"""A FastAPI program whose lifespan opens and closes the buffer: in each worker one of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mbframework import AsyncMessageBuffer


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncMessageBuffer(os.environ["OUTBOX"], os.environ["DESTINATION"], mode="always") as app.state.buffer:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def pid() -> int:
    return os.getpid()


@app.get("/{number}")
async def served(number: str) -> int:
    await app.state.buffer.write("served", number)
    return os.getpid()
