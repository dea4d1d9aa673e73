"""The routes, and nothing else: what each means is said in the module of its name.

POST /v1/completions  /v1/chat/completions  /v1/classify  /v1/prompts      GET /v1/models  /v1/models/{id}
POST /tokenize  /detokenize    GET /tokenizer_info  /health  /ready  /metrics
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response

from epigraph.errors import EpigraphError
from epigraph.library.card import package_version
from epigraph.serve import chatting, classifying, completing, describing, listing, tokenizing
from epigraph.serve.access import Access
from epigraph.serve.faults import Refused, refusal_of, refusal_of_fields
from epigraph.serve.keys import Key
from epigraph.serve.limits import BODIES, Door
from epigraph.serve.responding import respond
from epigraph.serve.service import Service
from epigraph.serve.streaming import unless_gone
from epigraph.serve.uploads import take_upload
from epigraph.serve.wire.chat import ChatCompletion, ChatRequest
from epigraph.serve.wire.classify import Classified, ClassifyRequest
from epigraph.serve.wire.completions import Completion, CompletionRequest
from epigraph.serve.wire.models import ModelCard, ModelList, State, Uploaded, UploadRequest
from epigraph.serve.wire.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest, TokenizerInfo


def create_app(service: Service) -> FastAPI:
    """The application; its lifetime is the backend's."""

    @asynccontextmanager
    async def lifetime(_app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: _tell(service, told))
        await to_thread.run_sync(service.open)
        yield
        await to_thread.run_sync(service.close)

    app = FastAPI(
        title="Epigraph",
        description="Named soft prompts on one frozen base. The prompt's name is the model.",
        version=package_version(),
        lifespan=lifetime,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    _add_answers(app, service)
    _add_library(app, service)
    _add_tokens(app, service)
    _add_state(app, service)
    _add_faults(app)
    config = service.config
    largest = int(config.body * 1e6)
    held = min(BODIES * largest, config.held_bytes)
    app.add_middleware(Door, most_bytes=largest, most_requests=4 * config.queue, most_held=max(largest, held))
    app.add_middleware(Access, service=service)
    if config.allowed_origins:
        app.add_middleware(CORSMiddleware, allow_origins=config.allowed_origins, allow_methods=["*"], allow_headers=["*"])
    app.openapi = lambda: describing.describe(app)  # type: ignore[method-assign]
    return app


def _tell(service: Service, told: dict[str, Any]) -> None:
    """What went wrong in the loop where nobody waited for it: the loop's own words hold the error's, and thus a user's."""
    error = told.get("exception")
    service.log.fault(error if isinstance(error, BaseException) else RuntimeError(told.get("message")), route="loop")


def _key(request: Request) -> Key:
    key: Key = request.state.key
    return key


Admitted = Annotated[Key, Depends(_key)]


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", response_model=Completion, responses=describing.WRITTEN)
    async def completions(asked: CompletionRequest, request: Request, key: Admitted) -> Response:
        """Go on from a prompt: a task request through the prompt's template, or raw."""
        completing.check(asked)
        exchange = await unless_gone(request, service.begin(key, completing.question(asked)))
        return await respond(request, asked, exchange, completing.Shape(asked, exchange))

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=describing.WRITTEN)
    async def chat_completions(asked: ChatRequest, request: Request, key: Admitted) -> Response:
        """Answer a conversation; a task answers its last user message."""
        chatting.check(asked)
        exchange = await unless_gone(request, service.begin(key, chatting.question(asked)))
        return await respond(request, asked, exchange, chatting.Shape(asked, exchange))

    @app.post("/v1/classify", responses=describing.CLASSIFY)
    async def classify(asked: ClassifyRequest, request: Request, key: Admitted) -> Classified:
        """The label of a text, or of many, with the probability of every label."""
        request.state.facts = {"said": partial(asked.model_dump, exclude_unset=True)}
        found = await unless_gone(request, classifying.classify(service, key, asked))
        request.state.facts["model"] = asked.model  # known now: what names no prompt may be a user's words
        return found


def _add_library(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=describing.MODELS)
    def models(key: Admitted) -> ModelList:
        """What requests may name as their model."""
        return listing.models(service, key)

    @app.get("/v1/models/{model:path}", responses=describing.MODEL)
    def model(model: str, key: Admitted) -> ModelCard:
        """One of them; versions such as routing@3 as well."""
        return listing.model(service, key, model)

    if not service.config.uploads:
        return

    @app.post("/v1/prompts", status_code=201, responses=describing.UPLOAD)
    def upload(asked: UploadRequest, key: Admitted) -> Uploaded:
        """Add a prompt to the library, as the next version of its name."""
        if not key.uploads:
            raise Refused(403, "this key may not upload prompts.", code="uploads_not_allowed")
        key.check(asked.name)
        stored = take_upload(asked, service.base, service.library, computes_here=service.computes_here)
        return Uploaded(prompt=stored.reference)


def _add_tokens(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize", responses=describing.TOKENS)
    def tokenize(asked: TokenizeRequest) -> Tokenized:
        """The token ids of a text, or of a chat."""
        return tokenizing.tokenize(service, asked)

    @app.post("/detokenize", responses=describing.TOKENS)
    def detokenize(asked: DetokenizeRequest) -> Detokenized:
        """The text of token ids."""
        return tokenizing.detokenize(service, asked)

    @app.get("/tokenizer_info", responses=describing.TOKENIZER)
    def tokenizer_info() -> TokenizerInfo:
        """The tokenizer's special tokens and chat template."""
        return tokenizing.tokenizer_info(service)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses=describing.HEALTH)
    async def health() -> State:
        """Whether the process answers."""
        return State(status="ok")

    @app.get("/ready", responses=describing.READY)
    async def ready(response: Response) -> State:
        """Whether requests should be sent here."""
        response.status_code = 503 if service.closing else 200
        return State(status="closing" if service.closing else "ready")

    @app.get("/metrics", response_class=Response, responses=describing.METRICS)
    def metrics(key: Admitted) -> PlainTextResponse:
        """Counts for Prometheus, of all keys together."""
        if not key.metrics:
            raise Refused(
                403,
                "this key may not read /metrics: it counts what all keys have asked.",
                "Make one that may: epigraph serve --keys FILE --new-key NAME --metrics",
                code="metrics_not_allowed",
            )
        return PlainTextResponse(service.meters.text(), media_type="text/plain")


def _add_faults(app: FastAPI) -> None:
    @app.exception_handler(EpigraphError)
    async def refuse(request: Request, error: EpigraphError) -> JSONResponse:
        return _refusal(request, refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(request, refusal_of_fields(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, Refused):  # raised while the body was read
            return _refusal(request, error.__cause__)
        found = _refusal(request, Refused(error.status_code, f"{error.detail}: {request.method} {request.url.path[:200]}."))
        found.headers.update(error.headers or {})
        return found


def _refusal(request: Request, refused: Refused) -> JSONResponse:
    request.scope.setdefault("state", {})["code"] = refused.code
    return JSONResponse(refused.body, refused.status, refused.headers)
