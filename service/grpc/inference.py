"""The methods of `inference.GRPCInferenceService`. `server` registers them; the dataplane answers, as for REST."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter

import grpc
import msgspec
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from service.errors import Reason, RequestError
from service.grpc.calls import Calls, Context, Place, metadata_of
from service.grpc.codec import parse, read, write, write_in_stream, write_refusal
from service.grpc.schema import SERVICE, IndexRequest, ModelRequest, RepositoryRequest, made, message
from service.grpc.wire import Request, split
from service.health import Health
from service.limits import Share
from service.oip.dataplane import Dataplane
from service.oip.takes import Takes, check_size, size_of
from service.request import Lifecycle, RequestContext
from service.settings import Settings
from service.waiting import wait

_ROUTE = f"/{SERVICE.full_name}/ModelInfer"
_AT_ONCE = 64  # requests of one stream that are processed concurrently
_LOOK_EVERY = 0.01  # seconds, while the server stops
_IDLE_S = 300.0  # seconds without a further request after which a stream ends
_LARGE = 1 << 16  # bytes of typed contents, or elements: larger ones are converted on another thread
_LARGE_RAW = 1 << 22  # the same for bytes of raw contents, of which only some are copied
_SMALL = 1 << 16  # the most bytes of requests other than for inference
_PROBES = frozenset({"ServerLive", "ServerReady"})  # these need no key and have their own places
_ADMINISTRATION = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Inference:
    """The service: for each RPC a method with its name in snake case."""

    def __init__(
        self, lifecycle: Lifecycle, dataplane: Dataplane, health: Health, settings: Settings, calls: Calls
    ) -> None:
        self._lifecycle, self._dataplane, self._health = lifecycle, dataplane, health
        self._settings, self._calls = settings, calls
        self._readers = set[asyncio.Task[None]]()  # these read the requests of streams

    async def finish(self) -> None:
        """Stop reading from streams, and wait until every call has ended."""
        for reader in self._readers:
            reader.cancel()
        while self._calls.open:
            await asyncio.sleep(_LOOK_EVERY)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Make the handlers of every call of the service."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name, {method.name: self._handler(method) for method in SERVICE.methods}
        )

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler:
        """Make a method's handler, with the check of its key."""
        call = getattr(self, _CAPITAL.sub("_", method.name).lower())
        if method.name in ("ModelInfer", "ModelStreamInfer"):
            return self._calls.handler(call, self._check_infer, streams=method.server_streaming)
        kind = message(method.input_type.name)

        async def answer(place: Place, context: Context) -> bytes:
            data = await place.message(context, self._settings.receive_s)
            if len(data or b"") > _SMALL:
                raise RequestError(Reason.TOO_LARGE, f"The request has more than {_SMALL} bytes, the limit.")
            response: bytes = (await call(parse(kind, data or b""))).SerializeToString()
            return response

        if method.name in _PROBES:
            return self._calls.handler(answer, None)
        guard = self._lifecycle.guard
        administers = method.name in _ADMINISTRATION
        return self._calls.handler(answer, guard.check_admin if administers else guard.check)

    async def server_live(self, _: object) -> Message:
        return made("ServerLiveResponse", live=self._health.live)

    async def server_ready(self, _: object) -> Message:
        return made("ServerReadyResponse", ready=self._health.ready)

    async def model_ready(self, request: ModelRequest) -> Message:
        try:
            self._dataplane.card(request.name, request.version)
        except RequestError as error:
            if error.reason not in (Reason.UNKNOWN_MODEL, Reason.NOT_READY):
                raise
            return made("ModelReadyResponse", ready=False)
        return made("ModelReadyResponse", ready=True)

    async def server_metadata(self, _: object) -> Message:
        return made("ServerMetadataResponse", **msgspec.to_builtins(self._dataplane.server()))

    async def model_metadata(self, request: ModelRequest) -> Message:
        fields = msgspec.to_builtins(self._dataplane.metadata(request.name, request.version))
        return made("ModelMetadataResponse", properties=fields.pop("parameters"), **fields)

    async def model_config(self, request: ModelRequest) -> Message:
        fields = msgspec.to_builtins(self._dataplane.config(request.name, request.version))
        for output in fields["output"]:
            del output["optional"]  # in Triton's messages, only inputs have this field
        return made("ModelConfigResponse", config=fields)

    async def model_statistics(self, request: ModelRequest) -> Message:
        counted = await asyncio.to_thread(self._dataplane.statistics, request.name, request.version)
        return made("ModelStatisticsResponse", **msgspec.to_builtins(counted))

    async def repository_index(self, request: IndexRequest) -> Message:
        entries = self._dataplane.index(ready=request.ready)
        return made("RepositoryIndexResponse", models=msgspec.to_builtins(entries))

    async def repository_model_load(self, request: RepositoryRequest) -> Message:
        name = request.model_name or request.repository_name
        await self._dataplane.load(name, request.parameters)
        return made("RepositoryModelLoadResponse", model_name=name, isLoaded=True)

    async def repository_model_unload(self, request: RepositoryRequest) -> Message:
        name = request.model_name or request.repository_name
        await self._dataplane.unload(name)
        return made("RepositoryModelUnloadResponse", model_name=name, isUnloaded=True)

    async def model_infer(self, place: Place, call: Context) -> bytes:
        context = self._context(call)
        try:
            request = _InferRequest(await place.message(call, self._settings.receive_s) or b"")
            return await self._infer(request, context)
        finally:
            timing, request_id = context.server_timing().decode(), context.request_id.decode()
            call.set_trailing_metadata((("server-timing", timing), ("x-request-id", request_id)))

    async def model_stream_infer(self, place: Place, call: Context) -> None:
        """Answer the requests of a stream in their order. An error of one request does not end the stream."""
        running: asyncio.Queue[asyncio.Task[tuple[bytes, int]] | None] = asyncio.Queue()
        tasks = set[asyncio.Task[tuple[bytes, int]]]()
        limit, untaken = asyncio.Semaphore(_AT_ONCE), self._calls.untaken()

        async def read_requests() -> None:
            seconds = self._settings.receive_s
            try:
                while (data := await place.message(call, seconds)) is not None:
                    seconds = max(seconds, _IDLE_S)
                    await limit.acquire()
                    task = asyncio.create_task(self._in_stream(_InferRequest(data), call, untaken))
                    del data
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    running.put_nowait(task)
            finally:
                running.put_nowait(None)

        reader = asyncio.create_task(read_requests())
        self._readers.add(reader)
        try:
            while (task := await running.get()) is not None:
                response, counted = await task
                limit.release()
                await call.write(response)
                untaken.free(counted)
            with suppress(asyncio.CancelledError):  # the server stops
                await reader
        finally:
            self._readers.discard(reader)
            reader.cancel()
            for left in tasks:
                left.cancel()
            untaken.end()

    async def _in_stream(self, request: "_InferRequest", call: Context, untaken: Share) -> tuple[bytes, int]:
        """Answer a request of a stream. Also returns how many bytes of the answer count as untaken."""
        try:
            response = write_in_stream(await self._infer(request, self._context(call), final=True))
            untaken.add(len(response))
        except RequestError as refused:
            response = b""  # the error's traceback refers to this frame
            refused.forget()
            return write_refusal(refused.detail, request.head.id), 0
        return response, len(response)

    async def _infer(self, request: "_InferRequest", context: RequestContext, *, final: bool = False) -> bytes:
        """Answer one inference request. It is cancelled if its client hangs up.

        Raises:
            RequestError: the request is refused or failed.
        """
        with context, self._calls.holding(request.size):
            return await self._answer(request, context, final=final)
        assert context.error is not None  # noqa: S101 - the block above returns, or ends with an error
        raise context.error

    async def _answer(self, request: "_InferRequest", context: RequestContext, *, final: bool) -> bytes:
        request.split()
        head = request.head
        await self._dataplane.admit(context, head.model_name, head.model_version)
        takes = self._dataplane.takes(head.model_name, head.model_version)
        if request.is_large(takes):
            call, raw = await asyncio.to_thread(read, head, request.parts, takes)
        else:
            call, raw = read(head, request.parts, takes)
        call.started, call.deadline = context.start, context.deadline
        context.lap("read")
        submitted = self._dataplane.submit(call)
        request.drop()
        await wait(submitted.jobs, submitted.deadline)
        answer = submitted.answer()
        context.answered(submitted.jobs)
        size = size_of(answer)
        check_size(size, self._settings)
        if size > _LARGE:
            response = await asyncio.to_thread(write, answer, raw=raw, final=final)
        else:
            response = write(answer, raw=raw, final=final)
        context.lap("encode")
        return response

    def _context(self, call: Context) -> RequestContext:
        """Make the context of a request. Its deadline is the call's or the server's, whichever is earlier."""
        context = RequestContext(self._lifecycle, metadata_of(call), _ROUTE)
        left = call.time_remaining()
        if left is not None:
            context.deadline = min(context.deadline, perf_counter() + left)
        return context

    def _check_infer(self, metadata: Mapping[bytes, bytes]) -> None:
        """Raise `RequestError` and record the request if the server has keys and the request has none of them."""
        try:
            self._lifecycle.guard.check(metadata)
        except RequestError as refused:
            context = RequestContext(self._lifecycle, metadata, _ROUTE)
            context.fail(refused)
            self._lifecycle.record(context)
            raise


class _InferRequest:
    """An inference request that is being read.

    Attributes:
        head: its message without its tensors, after `split`.
        parts: the result of `wire.split`, from `split` to `drop`.
        size: of the request in bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)
        self.head = message("ModelInferRequest")()
        self.parts = Request(b"", [], [])

    def split(self) -> None:
        self.parts = split(self._data)
        self.head = parse(type(self.head), self.parts.head)

    def is_large(self, takes: Takes) -> bool:
        """Return whether to convert its tensors on another thread."""
        contents = sum(len(part) for parts in self.parts.contents for part in parts or ())
        raws = sum(map(len, self.parts.raws))
        return contents > _LARGE or raws > _LARGE_RAW or (raws > _LARGE and takes.texts > _LARGE)

    def drop(self) -> None:
        """Release the bytes: encoded images are copies, and arrays of numbers refer to them as long as they need."""
        self._data, self.parts = b"", Request(b"", [], [])
