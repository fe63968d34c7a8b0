"""The routes: the API in OpenAI's form, health, metrics, the page.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models[/ID]   GET /health   GET /metrics   GET /

Notable: FastAPI's own pages of documentation are off, they load scripts from other hosts.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from nanochat.serving import answers
from nanochat.serving.errors import ApiError, invalid
from nanochat.serving.forms import ChatForm, Form
from nanochat.serving.generation import Generation
from nanochat.serving.guard import Access, Guard, refusal
from nanochat.serving.metrics import CONTENT_TYPE, Metrics
from nanochat.serving.page_files import page_routes
from nanochat.serving.prompts import chat_prompt, text_prompts
from nanochat.serving.protocol import ChatRequest, CompletionRequest, describe
from nanochat.serving.service import Service

LOG = logging.getLogger("nanochat.serving")
_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/"})


def create_app(service: Service, access: Access | None = None) -> FastAPI:
    """The app. It starts the service's replicas when it starts, and ends them when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()
        await service.join()

    access = access or Access()
    metrics = Metrics(service)
    app = FastAPI(title="nanochat", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    _add_answers(app, service, metrics)
    _add_information(app, service, metrics)
    app.include_router(page_routes())
    _add_errors(app)
    app.add_middleware(Guard, access=access, limits=service.limits, metrics=metrics, known=_PATHS)
    if access.origins:  # around the guard, so that a page of another host can read why it was refused
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    return app


def _add_answers(app: FastAPI, service: Service, metrics: Metrics) -> None:
    async def send(
        generation: Generation, form: type[Form], body: ChatRequest | CompletionRequest, request: Request
    ) -> Response:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        made = form(service.model, usage=usage)
        if body.stream:
            return await answers.stream(generation, made, usage=usage)
        return await answers.whole(generation, made, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        check_model(service, body.model)
        prompt = await asyncio.to_thread(chat_prompt, service, body)
        return await send(Generation(service, metrics, body, [prompt]), ChatForm, body, request)

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        check_model(service, body.model)
        prompts = await asyncio.to_thread(text_prompts, service, body)
        return await send(Generation(service, metrics, body, prompts), Form, body, request)


def _add_information(app: FastAPI, service: Service, metrics: Metrics) -> None:
    card = {
        "id": service.model,
        "object": "model",
        "created": service.created,
        "owned_by": "nanochat",
        "max_model_len": service.context,
        "max_tokens": service.max_tokens,
        "defaults": {"temperature": service.defaults.temperature, "top_k": service.defaults.top_k},
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        check_model(service, name)
        return card

    @app.get("/health")
    async def health() -> Response:
        answers_now = service.status in ("ok", "degraded")
        states = [worker.state for worker in service.workers]
        return JSONResponse({"status": service.status, "replicas": states}, 200 if answers_now else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def check_model(service: Service, name: str | None) -> None:
    """A request may leave the model out or call it by any of its names. Raises ApiError (404) for another."""
    if name is not None and name not in service.names:
        message = f"the model {name!r} is not served here; this is {service.model}"
        raise ApiError(404, message, param="model", code="model_not_found")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> Response:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return refusal(describe(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's word for a body that its parser gave up on
            return refusal(invalid("the body is not JSON: not UTF-8, nested too deeply, or a number too long"))
        place = f"{request.method} {request.url.path}"
        return refusal(ApiError(error.status_code, f"{place}: {error.detail}", code="unknown_url"))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return refusal(ApiError(500, "a defect of this server; its log says more"))
