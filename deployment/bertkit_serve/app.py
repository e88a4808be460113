"""The routes: the Open Inference Protocol, plain JSON, metrics, a page."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bertkit import Predictor, Prepared
from bertkit.plugin import INFER_HEADER as HEADER_LENGTH
from bertkit.plugin import JSON_TYPE, InferRequest, InferResponse, ServeOptions, UserError, json_object
from bertkit.plugin import TEXTS as BYTES
from bertkit.plugin import InferBody as Body
from bertkit.plugin import InferTensor as Tensor
from bertkit.plugin import decode_infer_request as decode_request
from bertkit.plugin import encode_infer_response as encode_response
from bertkit.plugin import infer_error as error_body
from bertkit.plugin import json_bytes as to_bytes
from bertkit_serve.faces import Face, TensorSpec, check_inputs, prepare_examples
from bertkit_serve.gate import Gate
from bertkit_serve.metrics import CONTENT_TYPE
from bertkit_serve.models import TEXT, VERSION, ServedModel
from bertkit_serve.plain import answer_of, examples_of
from bertkit_serve.refusals import (
    NOT_FOUND,
    NOT_READY,
    TOO_LARGE,
    TOO_MANY,
    TOO_SLOW,
    UNREADABLE,
    ClientGone,
    Refused,
)
from bertkit_serve.service import INLINE_BYTES, Service, Trace

SERVER = "bertkit"
POLL = 0.05  # seconds
MOST_HELD = 64  # bodies of the largest size that may be in memory at once
EXTENSIONS = ("binary_tensor_data", "statistics", "model_repository")
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
Said = TypeVar("Said")


def app_for(runs: Mapping[str, str | Path | Predictor], key: str, options: ServeOptions | None) -> Starlette:
    """As `bertkit_serve.make_app`."""
    folders = {name: "" if isinstance(run, Predictor) else str(run) for name, run in runs.items()}
    predictors = {name: run for name, run in runs.items() if isinstance(run, Predictor)}
    found = dataclasses.replace(options or ServeOptions(runs={}), runs=folders)
    return app_of(Service(found, key, predictors))


def app_of(service: Service, opens: Callable[[], bool] | None = None) -> Starlette:
    """The application of a service, which starts and ends with it. `opens`: no connection comes before every model
    answers and this says yes."""

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        service.start()
        while opens and not (service.failure or service.draining) and not (service.loaded and opens()):
            await asyncio.sleep(POLL)
        watch = asyncio.create_task(service.watch())
        yield
        watch.cancel()
        service.close()

    routes = Routes(service)
    app = Starlette(
        routes=routes.table(),
        middleware=[Middleware(Gate, service=service)],
        exception_handlers={HTTPException: _not_found},
        lifespan=life,
    )
    app.state.service = service
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    """What no route answers, in the form of all errors."""
    if not isinstance(error, HTTPException):
        raise error
    return Response(error_body(error.detail), error.status_code, error.headers, JSON_TYPE)


class Routes:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def table(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        named = [
            (path, endpoint, methods)
            for version in ("", "/versions/{version}")
            for path, endpoint, methods in (
                (f"/v2/models/{{name}}{version}", self.metadata, get),
                (f"/v2/models/{{name}}{version}/ready", self.model_ready, get),
                (f"/v2/models/{{name}}{version}/stats", self.statistics, get),
                (f"/v2/models/{{name}}{version}/infer", self.infer, post),
            )
        ]
        plain = [
            ("/", self.page, get),
            ("/predict", self.predict, post),
            ("/answer", self.answer, post),
            ("/metrics", self.prometheus, get),
            ("/v2", self.server, get),
            ("/v2/health/live", self.live, get),
            ("/v2/health/ready", self.ready, get),
            ("/v2/models/stats", self.statistics, get),
            ("/v2/repository/index", self.index, post),
            ("/v2/repository/models/{name}/load", self.load, post),
            ("/v2/repository/models/{name}/unload", self.unload, post),
        ]
        return [Route(path, endpoint, methods=methods) for path, endpoint, methods in [*plain, *named]]

    # ---- what the server is ----

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self.service.ready
        return _json({"ready": ready}, 200 if ready else NOT_READY)

    async def server(self, request: Request) -> Response:
        import bertkit

        return _json({"name": SERVER, "version": bertkit.__version__, "extensions": list(EXTENSIONS)})

    async def page(self, request: Request) -> Response:
        text = resources.files("bertkit_serve").joinpath("page.html").read_bytes()
        return Response(text, 200, {"Content-Security-Policy": PAGE_POLICY}, "text/html")

    async def prometheus(self, request: Request) -> Response:
        for name, model in self.service.models.items():
            self.service.metrics.waiting.labels(name).set(model.batcher.sequences)
        return Response(self.service.metrics.text(), 200, media_type=CONTENT_TYPE)

    # ---- what a model is ----

    async def metadata(self, request: Request) -> Response:
        _, face = self._named(request)
        return _json(
            {
                "name": request.path_params["name"],
                "versions": [VERSION],
                "platform": f"{SERVER}_{face.predictor.loaded.backend}",
                "inputs": [_spec(spec) for spec in face.inputs],
                "outputs": [_spec(spec) for spec in face.outputs],
                "parameters": _facts(face.predictor),
            }
        )

    async def model_ready(self, request: Request) -> Response:
        self._named(request)
        return _json({"name": request.path_params["name"], "ready": True})

    async def statistics(self, request: Request) -> Response:
        names = self.service.last
        if "name" in request.path_params:
            model, _ = self._named(request)
            names = {model.name: names[model.name]}
        return _json(self.service.metrics.statistics(names))

    async def index(self, request: Request) -> Response:
        states = {name: model.ready for name, model in self.service.models.items()}
        return _json(
            [
                {"name": name, "version": VERSION, "state": "READY" if ready else "LOADING", "reason": ""}
                for run, ready in states.items()
                for name in (run, run + TEXT)
            ]
        )

    async def load(self, request: Request) -> Response:
        model, _ = self.service.find(request.path_params["name"])
        await self.service.reload(model.name)
        self.service.ask_others(model.name)
        return _json({})

    async def unload(self, request: Request) -> Response:
        self.service.find(request.path_params["name"])
        raise UserError("models are not unloaded while the server runs", "end the server")

    def _named(self, request: Request) -> tuple[ServedModel, Face]:
        """The model that the path names. Raises Refused where there is none."""
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        found = self.service.find(name)
        if version != VERSION:
            raise Refused(NOT_FOUND, f"{name} has no version {version[:20]!r}", f"it has {VERSION}")
        return found

    # ---- what is asked of it ----

    async def infer(self, request: Request) -> Response:
        model, _ = self._named(request)  # before the body is read
        request.scope["trace"].model = model.name
        name, content = request.path_params["name"], await self._body(request)
        asked: list[InferRequest] = []

        def prepare(model: ServedModel, face: Face) -> Prepared[Body]:
            asked[:] = [decode_request(content, request.headers.get(HEADER_LENGTH))]
            inputs = check_inputs(face, asked[0])
            texts = [one.texts() for one in inputs.values() if one.datatype == BYTES]
            self._keep_texts(request, [text for each in texts for text in each])
            prepared = face.prepare(inputs)
            return Prepared(prepared.features, lambda outputs: _response(name, asked[0], prepared.finish(outputs)))

        body = await self._ask(request, name, prepare, len(content))
        return Response(body.content, 200, body.headers)

    async def predict(self, request: Request) -> Response:
        return await self._plain(request, of_spans=False)

    async def answer(self, request: Request) -> Response:
        return await self._plain(request, of_spans=True)

    async def _plain(self, request: Request, of_spans: bool) -> Response:
        content = await self._body(request)
        read = functools.partial(json_object, content, "the request")
        told = await self.service.aside(len(content) > INLINE_BYTES, read)
        name = self._meant(told.get("model"), of_spans)

        def prepare(model: ServedModel, face: Face) -> Prepared[bytes]:
            examples, listed = examples_of(face.predictor, told)
            self._keep_texts(request, [text for example in examples for text in example])
            prepared = prepare_examples(face.predictor, examples)

            def finish(outputs: Any) -> bytes:
                found = [answer_of(one) for one in prepared.finish(outputs)]
                return to_bytes(found if listed else found[0])

            return Prepared(prepared.features, finish)

        return Response(await self._ask(request, name, prepare, len(content)), 200, media_type=JSON_TYPE)

    def _meant(self, named: Any, of_spans: bool) -> str:
        """The model of a request in plain JSON: the one that it names, or the only one that can be meant."""
        if named is not None and not isinstance(named, str):
            raise UserError("'model' is not a text", "send a model's name")
        if named is not None:
            model, _ = self.service.find(named.removesuffix(TEXT))
            if (model.predictor is not None and model.predictor.task.head.kind == "span") != of_spans:
                raise UserError(f"{model.name} is not asked here", "POST to " + ("/predict" if of_spans else "/answer"))
            return model.name
        fitting = [
            name
            for name, model in self.service.models.items()
            if model.predictor is None or (model.predictor.task.head.kind == "span") == of_spans
        ]
        if len(fitting) != 1:
            several = f"name one as 'model': {', '.join(fitting)}"
            other = "POST to " + ("/predict" if of_spans else "/answer")
            raise UserError(f"{len(fitting)} models can be meant", several if fitting else other)
        return fitting[0]

    async def _ask(
        self,
        request: Request,
        name: str,
        prepare: Callable[[ServedModel, Face], Prepared[Said]],
        size: int,
    ) -> Said:
        trace: Trace = request.scope["trace"]
        gone = functools.partial(_gone, request)
        return await self.service.ask(name, prepare, size, gone, trace, self.service.options.timeout)

    def _keep_texts(self, request: Request, texts: list[str]) -> None:
        if self.service.options.log_texts:
            request.scope["trace"].texts = f"texts {texts!r}"

    def _hold(self, request: Request, count: int) -> None:
        """Count bytes that a request keeps in memory until it is answered. Raises Refused for too many."""
        request.scope["trace"].held += count
        self.service.held += count
        if self.service.held > MOST_HELD * self.service.options.body_bytes:
            raise Refused(TOO_MANY, "too much is being sent at once", "try again later", {"Retry-After": "1"})

    async def _body(self, request: Request) -> bytes:
        """The request's body. Raises Refused where it is too large, too slow, or compressed."""
        most = self.service.options.body_bytes
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(UNREADABLE, "the request is compressed", "send it as it is")
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told[:18]) > most:
            raise _too_large(most)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.service.options.timeout):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise _too_large(most)
                    self._hold(request, len(part))
                    parts.append(part)
        except TimeoutError:
            raise Refused(TOO_SLOW, "the request did not arrive in time", "send it faster") from None
        except ClientDisconnect:
            raise ClientGone from None
        return b"".join(parts)


def _too_large(most: int) -> Refused:
    return Refused(TOO_LARGE, f"the request has over {most:,} bytes", "divide it", {"Connection": "close"})


def _gone(request: Request) -> asyncio.Future[None]:
    """Is done when the client has gone away."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return asyncio.ensure_future(wait())


def _response(name: str, asked: InferRequest, found: list[Tensor]) -> Body:
    by_name = {each.name: each for each in found}
    wanted = [each.name for each in asked.outputs] or list(by_name)
    response = InferResponse(model=name, version=VERSION, id=asked.id, outputs=tuple(by_name[each] for each in wanted))
    return encode_response(response, [each for each in wanted if asked.wants_binary(each)])


def _spec(spec: TensorSpec) -> dict[str, Any]:
    told = {"name": spec.name, "datatype": spec.datatypes[0], "shape": list(spec.shape)}
    return told | ({"optional": True} if spec.optional else {})


def _facts(predictor: Predictor) -> dict[str, Any]:
    """What a client may want to know of a model besides."""
    return {
        "task": predictor.task.name,
        "kind": predictor.task.head.kind,
        "labels": list(predictor.labels),
        "seq_length": predictor.recipe.data.seq_length,
        "precision": predictor.loaded.precision,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_bytes(value), status, media_type=JSON_TYPE)
