"""One stream to the master, as its session uses it."""

import asyncio

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb

Call = grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]


class MasterStream:
    """Messages up, one at a time, and down; how it ended. All methods belong to one asyncio loop."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._writing = asyncio.Lock()

    async def write(self, message: pb.WorkerMessage) -> None:
        """Return when grpc has taken it, in the order of the calls. Raises ``AioRpcError``.

        Cancelled while grpc has it, this ends the whole stream: shield it where something is still to be said.
        """
        async with self._writing:
            try:
                await self._call.write(message)
            except asyncio.InvalidStateError:
                # The stream ended under our hands; its status says why.
                raise await self.error() from None

    async def read(self) -> pb.MasterMessage | None:
        """The next message; ``None`` when the master ended the stream with OK. Raises ``AioRpcError``."""
        message = await self._call.read()
        return message if isinstance(message, pb.MasterMessage) else None

    async def finish(self) -> None:
        """Nothing more will be written."""
        await self._call.done_writing()

    async def error(self) -> grpc.aio.AioRpcError:
        """The end of the stream as an error, also where the master ended it with OK."""
        code = await self._call.code()
        return grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(),
            details=await self._call.details() or "the master ended the stream",
        )  # fmt: skip
