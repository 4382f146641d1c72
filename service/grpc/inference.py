"""The calls of `inference.GRPCInferenceService`. `server` hands them in; the dataplane answers, as it does for REST."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import msgspec

from service.errors import Reason, RequestError
from service.grpc.codec import parse, read, write
from service.grpc.refusals import refuse
from service.grpc.schema import SERVICE, message
from service.http.exchange import Exchange
from service.http.keys import Guard
from service.http.predict import CLIENT_GONE
from service.http.problems import STATUS, headers
from service.http.records import Records
from service.http.status import Status
from service.oip.dataplane import Dataplane
from service.runtime import Runtime
from service.waiting import wait

logger = logging.getLogger(__name__)
_ROUTE = f"/{SERVICE.full_name}/ModelInfer"
_AT_ONCE = 64  # requests of one stream that are under way together
_LATE = 0.1  # seconds; a client that goes so shortly before its deadline goes for that: its clock started earlier
_LOOK_EVERY = 0.01  # seconds, while the server stops
_FINAL = "triton_final_response"  # Triton's word that a request of a stream gets no further response
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class Inference:
    """A method for each call of the service, under its name in snake case."""

    def __init__(self, runtime: Runtime, dataplane: Dataplane, status: Status, guard: Guard) -> None:
        self._dataplane, self._status, self._guard = dataplane, status, guard
        self._records = Records(runtime)
        self._open = set[Any]()  # the contexts of calls that are not over
        self._taking = set[asyncio.Task[None]]()  # what reads the requests of streams

    async def finish(self) -> None:
        """Take nothing more from streams, and wait until every call is over."""
        for taking in self._taking:
            taking.cancel()
        while self._open:
            await asyncio.sleep(_LOOK_EVERY)

    def handlers(self) -> Any:
        """Make what a server takes: every call of the service, with its messages."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name, {method.name: self._handler(method) for method in SERVICE.methods}
        )

    def _handler(self, method: Any) -> Any:
        """Make one call's handler. Requests come as bytes: gRPC would take broken ones for faults of ours."""
        call = getattr(self, _WORD.sub("_", method.name).lower())
        serializer = message(method.output_type.name).SerializeToString
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(call, response_serializer=serializer)
        answer = self._refusing(call, message(method.input_type.name))
        return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serializer)

    def _refusing(
        self, call: Callable[[Any, Any], Awaitable[Any]], kind: Any
    ) -> Callable[[bytes, Any], Awaitable[Any]]:
        """Wrap a call so that an error ends it with a status."""

        async def answer(request: bytes, context: Any) -> Any:
            self._note(context)
            try:
                return await call(parse(kind, request), context)
            except Exception as error:
                await refuse(context, _refusal(error))

        return answer

    def _note(self, context: Any) -> None:
        self._open.add(context)
        context.add_done_callback(self._open.discard)

    async def server_live(self, _: Any, __: Any) -> Any:
        return message("ServerLiveResponse")(live=self._status.live)

    async def server_ready(self, _: Any, __: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._status.ready)

    async def model_ready(self, request: Any, context: Any) -> Any:
        self._check(context)
        try:
            self._dataplane.model(request.name, request.version)
        except RequestError as error:
            if error.reason not in (Reason.UNKNOWN_MODEL, Reason.NOT_READY):
                raise
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def server_metadata(self, _: Any, context: Any) -> Any:
        self._check(context)
        return _filled("ServerMetadataResponse", self._dataplane.server())

    async def model_metadata(self, request: Any, context: Any) -> Any:
        self._check(context)
        fields = msgspec.to_builtins(self._dataplane.metadata(request.name, request.version))
        return message("ModelMetadataResponse")(properties=fields.pop("parameters"), **fields)

    async def model_config(self, request: Any, context: Any) -> Any:
        self._check(context)
        fields = msgspec.to_builtins(self._dataplane.config(request.name, request.version))
        for output in fields["output"]:
            del output["optional"]  # Triton's messages know it of inputs alone
        return message("ModelConfigResponse")(config=fields)

    async def model_statistics(self, request: Any, context: Any) -> Any:
        self._check(context)
        counted = await asyncio.to_thread(self._dataplane.statistics, request.name, request.version)
        return _filled("ModelStatisticsResponse", counted)

    async def repository_index(self, request: Any, context: Any) -> Any:
        self._check(context)
        entries = self._dataplane.index(ready=request.ready)
        return message("RepositoryIndexResponse")(models=msgspec.to_builtins(entries))

    async def repository_model_load(self, request: Any, context: Any) -> Any:
        self._guard.check_admin(_metadata(context))
        name = request.model_name or request.repository_name
        await self._dataplane.load(name, request.parameters)
        return message("RepositoryModelLoadResponse")(model_name=name, isLoaded=True)

    async def repository_model_unload(self, request: Any, context: Any) -> Any:
        self._guard.check_admin(_metadata(context))
        name = request.model_name or request.repository_name
        await self._dataplane.unload(name)
        return message("RepositoryModelUnloadResponse")(model_name=name, isUnloaded=True)

    async def model_infer(self, request: Any, context: Any) -> Any:
        exchange = _exchange(context)
        try:
            return await self._infer(request, context, exchange)
        finally:
            said = exchange.headers(0)
            context.set_trailing_metadata(
                tuple((name.decode(), value.decode()) for name, value in said if not name.startswith(b"content-"))
            )

    async def model_stream_infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """Answer the requests of a stream in their order. One that is refused ends the stream for no other."""
        self._note(context)
        under_way: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        tasks = set[asyncio.Task[Any]]()
        room = asyncio.Semaphore(_AT_ONCE)

        async def take() -> None:
            try:
                async for request in requests:
                    await room.acquire()
                    task = asyncio.create_task(self._in_stream(request, context))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    under_way.put_nowait(task)
            finally:
                under_way.put_nowait(None)

        taking = asyncio.create_task(take())
        self._taking.add(taking)
        try:
            while (task := await under_way.get()) is not None:
                response = await task
                room.release()
                yield response
        finally:
            self._taking.discard(taking)
            for task in (taking, *tasks):
                task.cancel()

    async def _in_stream(self, data: bytes, context: Any) -> Any:
        request, error = message("ModelInferRequest")(), ""
        try:
            request = parse(type(request), data)
            response = await self._infer(request, context, _exchange(context))
        except RequestError as refused:
            response, error = message("ModelInferResponse")(id=request.id), refused.detail
            refused.forget()
        response.parameters[_FINAL].bool_param = True
        return message("ModelStreamInferResponse")(error_message=error, infer_response=response)

    async def _infer(self, request: Any, context: Any, exchange: Exchange) -> Any:
        """Answer one request to infer, and keep its record, whatever it ends with. A client that goes abandons it."""
        task = ""
        try:
            if not self._guard.open:
                self._guard.check(exchange.request_headers)
            model = self._dataplane.model(request.model_name, request.model_version)
            task, exchange.model = model.card.task, model.card.name
            call, raw = read(request)
            left = context.time_remaining()
            call.timeout_ms = None if left is None else 1000 * left  # counted from now on
            exchange.lap("read")
            submitted = self._dataplane.submit(call)
            await wait(submitted.jobs, submitted.deadline)
            answer = submitted.answer()
            exchange.answered(submitted.jobs)
            response = write(answer, raw=raw)
            exchange.lap("encode")
        except asyncio.CancelledError:
            left = context.time_remaining()
            late = left is not None and left < _LATE
            exchange.status, exchange.refusal = (
                (STATUS[Reason.DEADLINE], Reason.DEADLINE) if late else (CLIENT_GONE, None)
            )
            raise
        except Exception as error:
            refused = _refusal(error)
            exchange.status, exchange.refusal = STATUS[refused.reason], refused.reason
            exchange.extra = headers(refused)
            refused.forget()
            raise refused from None
        finally:
            asyncio.get_running_loop().call_soon(self._records.note, task, exchange)
        return response

    def _check(self, context: Any) -> None:
        if not self._guard.open:
            self._guard.check(_metadata(context))


def _refusal(error: Exception) -> RequestError:
    """An error for the client. What is no refusal is a fault of ours: it is logged, not told."""
    if isinstance(error, RequestError):
        return error
    logger.error("a call failed", exc_info=error)
    return RequestError(Reason.INTERNAL, "The server failed on this request; its log says why.")


def _filled(name: str, struct: msgspec.Struct) -> Any:
    """A message whose fields are called as those of a struct."""
    return message(name)(**msgspec.to_builtins(struct))


def _exchange(context: Any) -> Exchange:
    return Exchange({"headers": _metadata(context).items(), "query_string": b""}, _ROUTE)


def _metadata(context: Any) -> dict[bytes, bytes]:
    """A call's metadata as HTTP's headers, which is what they are on the wire."""
    given = context.invocation_metadata() or ()
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in given}
