"""Viewers over WebRTC who decode what they get and look for the face in it (needs the extra `serve`)."""

import asyncio
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from streamer.proof.scene import luma_of, shows_face


async def _swallow(*_: object, **__: object) -> None:
    """Nothing is done with a packet."""


class Viewer:
    """One WHEP viewer of aiortc's. An idle one takes the packets and decodes nothing, so that many fit on a machine."""

    def __init__(self, *, idle: bool = False) -> None:
        self.pictures = self.leaks = 0
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTransceiver("video", direction="recvonly")
        self._tracks: list[Any] = []
        self.peer.on("track", self._tracks.append)
        for receiver in self.peer.getReceivers() if idle else []:
            setattr(receiver, "_handle_rtp_packet", _swallow)  # noqa: B010 - mypy knows it as a method

    async def offer(self) -> str:
        """The SDP to post."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def take(self, answer: str) -> None:
        """The SDP that came back: the connection begins."""
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def watch(self, pictures: int, timeout_s: float = 40) -> None:
        """Decode until so many pictures were seen in all. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while self.pictures < pictures:
                picture = await self._tracks[0].recv()
                self.pictures += 1
                self.leaks += shows_face(luma_of(picture))

    async def leave(self) -> None:
        """Hang up without a word."""
        await self.peer.close()
