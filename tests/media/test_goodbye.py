"""A room says goodbye to its viewers before recordings are closed: one who cannot be told must not keep it waiting."""

import asyncio
import hashlib
import time

import pytest

pytest.importorskip("aiortc")

from aioice import stun

from streamer.media.ice import IceServer
from streamer.media.webrtc import Room, RoomLimits
from streamer.proof.viewers import Viewer

REALM, USER, PASSWORD = "here", "me", "secret"
KEY = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).digest()  # RFC 8489, 9.2.2


class Relay(asyncio.DatagramProtocol):
    """As much of a TURN server (RFC 8656) as it takes to be given up: it allocates, relays nothing, and may die."""

    def __init__(self) -> None:
        self.alive = True
        self.allocated = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = stun.parse_message(data)
        if not self.alive or asked.message_class != stun.Class.REQUEST:
            return
        known = "MESSAGE-INTEGRITY" in asked.attributes
        kind = stun.Class.RESPONSE if known else stun.Class.ERROR
        answer = stun.Message(asked.message_method, kind, transaction_id=asked.transaction_id)
        if not known:
            answer.attributes.update({"ERROR-CODE": (401, "who?"), "REALM": REALM, "NONCE": b"once"})
        else:
            answer.attributes["LIFETIME"] = 600
            if asked.message_method == stun.Method.ALLOCATE:
                self.allocated += 1
                answer.attributes.update(
                    {"XOR-MAPPED-ADDRESS": addr, "XOR-RELAYED-ADDRESS": ("127.0.0.1", 50_000)}
                )
            answer.add_message_integrity(KEY)
        self.transport.sendto(bytes(answer), addr)


def test_a_viewer_behind_a_relay_that_has_died_is_not_waited_for() -> None:
    async def test() -> float:
        loop = asyncio.get_running_loop()
        transport, relay = await loop.create_datagram_endpoint(Relay, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        server = IceServer(f"turn:127.0.0.1:{port}?transport=udp", USER, PASSWORD)
        room = Room(want_key=lambda: None, limits=RoomLimits(ice_servers=(server,)))
        client = Viewer()
        await room.join(await client.offer())
        assert relay.allocated
        relay.alive = False
        since_s = time.monotonic()
        async with asyncio.timeout(20):
            await room.leave_all()
        took_s = time.monotonic() - since_s
        assert len(room) == 0
        await client.leave()
        return took_s

    assert asyncio.run(test()) < 10


def test_a_goodbye_that_fails_keeps_no_other_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> list[str]:
        room = Room(want_key=lambda: None)
        clients = [Viewer(), Viewer()]
        first, second = [await room.join(await client.offer()) for client in clients]

        async def fail() -> None:
            raise ConnectionError("no network")

        monkeypatch.setattr(first, "hang_up", fail)
        await room.leave_all()
        for client in clients:
            await client.leave()
        monkeypatch.undo()
        await first.hang_up()
        return [second.state]

    assert asyncio.run(test()) == ["closed"]
