"""The calls of `inference.GRPCInferenceService`. `server` hands them in; the dataplane answers, as it does for REST."""

import asyncio
import re
from contextlib import suppress
from time import perf_counter
from typing import Any

import grpc
import msgspec

from service.errors import Reason, RequestError
from service.grpc.calls import Calls, metadata_of, refusal_of
from service.grpc.codec import parse, read, write, write_in_stream, write_refusal
from service.grpc.places import Place
from service.grpc.schema import SERVICE, message
from service.grpc.wire import Request, split
from service.http.exchange import Exchange
from service.http.keys import Guard
from service.http.predict import CLIENT_GONE
from service.http.problems import STATUS, headers
from service.http.records import Records
from service.http.status import Status
from service.oip.dataplane import Dataplane
from service.oip.messages import size_of
from service.oip.takes import Takes, check_size
from service.runtime import Runtime
from service.waiting import wait

_ROUTE = f"/{SERVICE.full_name}/ModelInfer"
_AT_ONCE = 64  # requests of one stream that are under way together
_LATE = 0.1  # seconds; a client that goes so shortly before its deadline goes for that: its clock started earlier
_LOOK_EVERY = 0.01  # seconds, while the server stops
_IDLE_S = 300.0  # seconds after which a stream ends in which its client sends no further request
_LARGE = 1 << 16  # bytes of typed contents, elements: what has more is converted beside the event loop
_LARGE_RAW = 1 << 22  # bytes of raw contents, which may have to be copied
_SMALL = 1 << 16  # bytes, the most of a request that is none to infer
_PROBES = frozenset({"ServerLive", "ServerReady"})  # need no key and have places of their own
_ADMINISTRATION = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class Inference:
    """A method for each call of the service, under its name in snake case."""

    def __init__(self, runtime: Runtime, dataplane: Dataplane, status: Status, guard: Guard, calls: Calls) -> None:
        self._dataplane, self._status, self._guard, self._calls = dataplane, status, guard, calls
        self._settings = runtime.settings
        self._records = Records(runtime)
        self._taking = set[asyncio.Task[None]]()  # what reads the requests of streams

    async def finish(self) -> None:
        """Take nothing more from streams, and wait until every call is over."""
        for taking in self._taking:
            taking.cancel()
        while self._calls.open:
            await asyncio.sleep(_LOOK_EVERY)

    def handlers(self) -> Any:
        """Make what a server takes: every call of the service."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name, {method.name: self._handler(method) for method in SERVICE.methods}
        )

    def _handler(self, method: Any) -> Any:
        """Make one call's handler, with the check that its caller must pass."""
        call = getattr(self, _WORD.sub("_", method.name).lower())
        if method.name in ("ModelInfer", "ModelStreamInfer"):
            return self._calls.handler(call, self._check_infer, streams=method.server_streaming)
        kind = message(method.input_type.name)

        async def answer(place: Place, context: Any) -> bytes:
            data = await place.message(context, self._settings.receive_s)
            if len(data or b"") > _SMALL:
                raise RequestError(Reason.TOO_LARGE, f"The request has more than {_SMALL} bytes, the limit.")
            response: bytes = (await call(parse(kind, data or b""))).SerializeToString()
            return response

        if method.name in _PROBES:
            return self._calls.probe_handler(answer)
        administers = method.name in _ADMINISTRATION
        return self._calls.handler(answer, self._guard.check_admin if administers else self.check)

    async def server_live(self, _: Any) -> Any:
        return message("ServerLiveResponse")(live=self._status.live)

    async def server_ready(self, _: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._status.ready)

    async def model_ready(self, request: Any) -> Any:
        try:
            self._dataplane.model(request.name, request.version)
        except RequestError as error:
            if error.reason not in (Reason.UNKNOWN_MODEL, Reason.NOT_READY):
                raise
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def server_metadata(self, _: Any) -> Any:
        return _filled("ServerMetadataResponse", self._dataplane.server())

    async def model_metadata(self, request: Any) -> Any:
        fields = msgspec.to_builtins(self._dataplane.metadata(request.name, request.version))
        return message("ModelMetadataResponse")(properties=fields.pop("parameters"), **fields)

    async def model_config(self, request: Any) -> Any:
        fields = msgspec.to_builtins(self._dataplane.config(request.name, request.version))
        for output in fields["output"]:
            del output["optional"]  # Triton's messages know it of inputs alone
        return message("ModelConfigResponse")(config=fields)

    async def model_statistics(self, request: Any) -> Any:
        counted = await asyncio.to_thread(self._dataplane.statistics, request.name, request.version)
        return _filled("ModelStatisticsResponse", counted)

    async def repository_index(self, request: Any) -> Any:
        entries = self._dataplane.index(ready=request.ready)
        return message("RepositoryIndexResponse")(models=msgspec.to_builtins(entries))

    async def repository_model_load(self, request: Any) -> Any:
        name = request.model_name or request.repository_name
        await self._dataplane.load(name, request.parameters)
        return message("RepositoryModelLoadResponse")(model_name=name, isLoaded=True)

    async def repository_model_unload(self, request: Any) -> Any:
        name = request.model_name or request.repository_name
        await self._dataplane.unload(name)
        return message("RepositoryModelUnloadResponse")(model_name=name, isUnloaded=True)

    async def model_infer(self, place: Place, context: Any) -> bytes:
        exchange = _exchange(context)
        try:
            asked = _Asked(await place.message(context, self._settings.receive_s) or b"")
            return await self._infer(asked, context, exchange)
        finally:
            said = exchange.headers(0)
            context.set_trailing_metadata(
                tuple((name.decode(), value.decode()) for name, value in said if not name.startswith(b"content-"))
            )

    async def model_stream_infer(self, place: Place, context: Any) -> None:
        """Answer the requests of a stream in their order. One that is refused ends the stream for no other."""
        under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        tasks = set[asyncio.Task[bytes]]()
        room = asyncio.Semaphore(_AT_ONCE)

        async def take() -> None:
            seconds = self._settings.receive_s
            try:
                while (data := await place.message(context, seconds)) is not None:
                    seconds = max(seconds, _IDLE_S)
                    await room.acquire()
                    asked = _Asked(data)
                    task = asyncio.create_task(self._in_stream(asked, context))
                    del data, asked
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
                await context.write(response)
            with suppress(asyncio.CancelledError):  # the server stops
                await taking
        finally:
            self._taking.discard(taking)
            taking.cancel()
            for left in tasks:
                left.cancel()

    async def _in_stream(self, asked: "_Asked", context: Any) -> bytes:
        try:
            return write_in_stream(await self._infer(asked, context, _exchange(context), final=True))
        except RequestError as refused:
            refused.forget()
            return write_refusal(refused.detail, asked.head.id)

    async def _infer(self, asked: "_Asked", context: Any, exchange: Exchange, *, final: bool = False) -> bytes:
        """Answer one request to infer, and keep its record, whatever it ends with. A client that goes abandons it."""
        try:
            with self._calls.holding(asked.size):
                return await self._answer(asked, context, exchange, final=final)
        except asyncio.CancelledError:
            left = context.time_remaining()
            late = left is not None and left < _LATE
            exchange.status, exchange.refusal = (
                (STATUS[Reason.DEADLINE], Reason.DEADLINE) if late else (CLIENT_GONE, None)
            )
            raise
        except Exception as error:
            refused = refusal_of(error)
            exchange.status, exchange.refusal = STATUS[refused.reason], refused.reason
            exchange.extra = headers(refused)
            refused.forget()
            raise refused from None
        finally:
            asyncio.get_running_loop().call_soon(self._records.note, asked.task, exchange)

    async def _answer(self, asked: "_Asked", context: Any, exchange: Exchange, *, final: bool) -> bytes:
        asked.take_apart()
        head = asked.head
        model = self._dataplane.model(head.model_name, head.model_version)
        asked.task, exchange.model = model.card.task, model.card.name
        takes = self._dataplane.takes(head.model_name, head.model_version)
        if asked.is_large(takes):
            call, raw = await asyncio.to_thread(read, head, asked.request, takes)
        else:
            call, raw = read(head, asked.request, takes)
        call.started = exchange.start
        left = context.time_remaining()
        call.timeout_ms = None if left is None else 1000 * (left + perf_counter() - exchange.start)
        exchange.lap("read")
        submitted = self._dataplane.submit(call)
        asked.drop()
        await wait(submitted.jobs, submitted.deadline)
        answer = submitted.answer()
        exchange.answered(submitted.jobs)
        size = size_of(answer)
        check_size(size, self._settings)
        if size > _LARGE:
            response = await asyncio.to_thread(write, answer, raw=raw, final=final)
        else:
            response = write(answer, raw=raw, final=final)
        exchange.lap("encode")
        return response

    def check(self, given: dict[bytes, bytes]) -> None:
        """Raise `RequestError` (`unauthorised`) where a key is due and the metadata bring none."""
        if not self._guard.open:
            self._guard.check(given)

    def _check_infer(self, given: dict[bytes, bytes]) -> None:
        """The same, and keep a record of who is refused."""
        try:
            self.check(given)
        except RequestError as refused:
            exchange = Exchange({"headers": given.items(), "query_string": b""}, _ROUTE)
            exchange.status, exchange.refusal = STATUS[refused.reason], refused.reason
            self._records.note("", exchange)
            raise


class _Asked:
    """A request to infer on its way from its bytes.

    Attributes:
        head: its message without its tensors, once it is taken apart.
        request: its parts, until they are dropped.
        size: bytes that came.
        task: of its model, once that is known.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.task = data, len(data), ""
        self.head = message("ModelInferRequest")()
        self.request = Request(b"", [], [])

    def take_apart(self) -> None:
        self.request = split(self._data)
        self.head = parse(type(self.head), self.request.head)

    def is_large(self, takes: Takes) -> bool:
        """Whether to convert its tensors beside the event loop."""
        contents = sum(len(part) for parts in self.request.contents for part in parts or ())
        raws = sum(map(len, self.request.raws))
        return contents > _LARGE or raws > _LARGE_RAW or (raws > _LARGE and takes.texts > _LARGE)

    def drop(self) -> None:
        """Let go of the bytes: encoded images were copied out of them, numbers keep them themselves."""
        self._data, self.request = b"", Request(b"", [], [])


def _filled(name: str, struct: msgspec.Struct) -> Any:
    """A message whose fields are called as those of a struct."""
    return message(name)(**msgspec.to_builtins(struct))


def _exchange(context: Any) -> Exchange:
    return Exchange({"headers": metadata_of(context).items(), "query_string": b""}, _ROUTE)
