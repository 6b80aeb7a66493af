"""The gateway: sessions that outlive their sockets, sequence numbers, replay.

From Discord's gateway pages (v10): HELLO first; IDENTIFY answered by READY and one GUILD_CREATE
per guild; every dispatch numbered; RESUME replays what was missed and ends with RESUMED;
op 9 tells whether trying to resume again makes sense; close codes 4001 to 4014.
A client that closes with 1000 or 1001 gives its session up.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import payloads, permissions
from .connection import Connection, UnsupportedCompression
from .world import Channel, Guild, Member, StoredMessage

if TYPE_CHECKING:
    from .peer import DiscordPeer

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE_STATE, RESUME = 0, 1, 2, 3, 4, 6
RECONNECT, REQUEST_MEMBERS, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 7, 8, 9, 10, 11
GUILDS, GUILD_MEMBERS, GUILD_PRESENCES = 1 << 0, 1 << 1, 1 << 8
GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 9, 1 << 12, 1 << 15
PRIVILEGED = GUILD_MEMBERS | GUILD_PRESENCES | MESSAGE_CONTENT
KNOWN_INTENTS = (1 << 26) - 1
ANYTHING = 0
"""Events that need no intent."""


@dataclass(eq=False)
class Session:
    """One identified session; `connection` is None while its socket is gone."""

    id: str
    intents: int
    shard: tuple[int, int]
    properties: dict[str, Any]
    buffer: deque[tuple[int, dict[str, Any]]]
    connection: Connection | None = None
    seq: int = 0
    presence: dict[str, Any] | None = None
    identified_at: float = field(default_factory=time.time)

    def serves(self, guild_id: int | None) -> bool:
        """Whether this shard hears of the guild; DMs go to shard 0."""
        if guild_id is None:
            return self.shard[0] == 0
        return (guild_id >> 22) % self.shard[1] == self.shard[0]


class Gateway:
    """All sessions of one bot."""

    def __init__(self, peer: DiscordPeer) -> None:
        self._peer = peer
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.up = True
        self.ack_heartbeats = True
        self.heartbeat_interval_s = 41.25
        self.allowed_privileged_intents = 0
        self.replay_limit = 250
        self.identify_spacing_s = 0.0
        self._last_identify = float("-inf")

    # Sockets

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One websocket, from the handshake to the end."""
        stats = self._peer.stats
        if not self.up:
            stats.refused_connections += 1
            return web.Response(status=503)
        if request.path.endswith("-resume"):
            stats.resume_url_used += 1
        try:
            connection = Connection(request, self.heartbeat_interval_s)
        except UnsupportedCompression as error:
            return web.Response(status=400, text=str(error))
        await connection.open()
        stats.connections += 1
        self.connections.add(connection)
        self._peer.changed()
        try:
            if request.query.get("v", "10") not in ("9", "10"):
                await connection.close(4012)
            elif request.query.get("encoding", "json") != "json":
                await connection.close(4002)
            else:
                connection.send(HELLO, {"heartbeat_interval": int(self.heartbeat_interval_s * 1e3)})
                async for op, data in connection.messages():
                    await self._receive(connection, op, data)
        finally:
            self.connections.discard(connection)
            self._detach(connection)
            await connection.finish()
            self._peer.changed()
        return connection.socket

    def _detach(self, connection: Connection) -> None:
        for session in list(self.sessions.values()):
            if session.connection is connection:
                session.connection = None
                if connection.client_close_code in (1000, 1001):
                    del self.sessions[session.id]

    async def _receive(self, connection: Connection, op: Any, data: Any) -> None:
        if op == HEARTBEAT:
            self._peer.stats.heartbeats += 1
            self._peer.changed()
            if self.ack_heartbeats:
                connection.send(HEARTBEAT_ACK, None)
            return
        session = self.session_of(connection)
        if op == IDENTIFY:
            await (connection.close(4005) if session else self._identify(connection, data))
        elif op == RESUME:
            await (connection.close(4005) if session else self._resume(connection, data))
        elif op not in (PRESENCE, VOICE_STATE, REQUEST_MEMBERS):
            await connection.close(4001)
        elif session is None:
            await connection.close(4003)
        elif op == PRESENCE:
            if not isinstance(data, dict) or not {"status", "since", "afk"} <= data.keys():
                await connection.close(4002)
                return
            session.presence = data
            self._peer.changed()
        elif op == REQUEST_MEMBERS:
            self._send_members(session, data)

    def session_of(self, connection: Connection) -> Session | None:
        for session in self.sessions.values():
            if session.connection is connection:
                return session
        return None

    # Sessions

    async def _identify(self, connection: Connection, data: Any) -> None:
        stats = self._peer.stats
        stats.identifies += 1
        if not isinstance(data, dict) or not isinstance(data.get("properties"), dict):
            await connection.close(4002)
            return
        if data.get("token") != self._peer.token:
            await connection.close(4004)
            return
        intents = data.get("intents")
        stats.identify_payloads.append({key: data[key] for key in data if key != "token"})
        if not isinstance(intents, int) or intents & ~KNOWN_INTENTS:
            await connection.close(4013)
            return
        if intents & PRIVILEGED & ~self.allowed_privileged_intents:
            await connection.close(4014)
            return
        shard = data.get("shard") or [0, 1]
        if len(shard) != 2 or not 0 <= shard[0] < shard[1]:
            await connection.close(4010)
            return
        now = time.monotonic()
        if now - self._last_identify < self.identify_spacing_s:
            connection.send(INVALID_SESSION, False)
            return
        self._last_identify = now
        session = Session(
            secrets.token_hex(16),
            intents,
            (shard[0], shard[1]),
            data["properties"],
            deque(maxlen=self.replay_limit),
            connection,
            presence=data.get("presence"),
        )
        self.sessions[session.id] = session
        self._greet(session, named_shard="shard" in data)
        self._peer.changed()

    def _greet(self, session: Session, *, named_shard: bool) -> None:
        """READY, then each guild of the shard."""
        world = self._peer.world
        guilds = [guild for guild in world.guilds.values() if session.serves(guild.id)]
        ready: dict[str, Any] = {
            "v": 10,
            "user_settings": {},
            "user": payloads.own_user(world.bot),
            "session_type": "normal",
            "session_id": session.id,
            "resume_gateway_url": self._peer.resume_gateway_url,
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"unavailable": True, "id": str(guild.id)} for guild in guilds],
            "guild_join_requests": [],
            "application": {"id": str(world.application_id), "flags": 1 << 23},
            "_trace": ["peer"],
        }
        if named_shard:
            ready["shard"] = list(session.shard)
        self._put(session, "READY", ready)
        if session.intents & GUILDS:
            for guild in guilds:
                if not guild.unavailable:
                    self._put(session, "GUILD_CREATE", self._guild_create(session, guild))

    async def _resume(self, connection: Connection, data: Any) -> None:
        stats = self._peer.stats
        stats.resumes += 1
        if not isinstance(data, dict) or data.get("token") != self._peer.token:
            await connection.close(4004 if isinstance(data, dict) else 4002)
            return
        session = self.sessions.get(str(data.get("session_id")))
        seq = data.get("seq")
        if session is None:
            connection.send(INVALID_SESSION, False)
            return
        if not isinstance(seq, int) or seq > session.seq:
            await connection.close(4007)
            return
        missed = [item for item in session.buffer if item[0] > seq]
        if len(missed) != session.seq - seq:  # the buffer no longer reaches back far enough
            del self.sessions[session.id]
            connection.send(INVALID_SESSION, False)
            return
        if session.connection is not None:
            await session.connection.close(4000)
        session.connection = connection
        for number, payload in missed:
            connection.send(DISPATCH, payload["d"], seq=number, event=payload["t"])
        self._put(session, "RESUMED", {"_trace": ["peer"]})
        stats.resumed += 1
        self._peer.changed()

    def forget_sessions(self) -> None:
        """As if all sessions had timed out: the next RESUME is refused."""
        for session in list(self.sessions.values()):
            if session.connection is None:
                del self.sessions[session.id]

    # Dispatching

    def dispatch(
        self, event: str, data: dict[str, Any], guild_id: int | None, intent: int = ANYTHING
    ) -> int:
        """Send an event to every session concerned, connected or not; returns how many."""
        count = 0
        for session in self.sessions.values():
            if session.serves(guild_id) and session.intents & intent == intent:
                self._put(session, event, data)
                count += 1
        return count

    def _put(self, session: Session, event: str, data: dict[str, Any]) -> None:
        session.seq += 1
        frozen = json.loads(json.dumps(data))
        session.buffer.append((session.seq, {"t": event, "d": frozen}))
        if session.connection is not None:
            session.connection.send(DISPATCH, frozen, seq=session.seq, event=event)

    def message_event(self, event: str, message: StoredMessage) -> None:
        """MESSAGE_CREATE, _UPDATE or _DELETE to the sessions that may see it."""
        channel, guild = message.channel, message.channel.guild
        bot = self._peer.world.bot
        if guild is not None and not permissions.has(channel, bot.id, "view_channel"):
            return
        intent = DIRECT_MESSAGES if guild is None else GUILD_MESSAGES
        guild_id = guild.id if guild else None
        if event == "MESSAGE_DELETE":
            data = {"id": str(message.id), "channel_id": str(channel.id)}
            if guild is not None:
                data["guild_id"] = str(guild.id)
            self.dispatch(event, data, guild_id, intent)
            return
        own = message.author is bot or guild is None or bot.id in message.mention_users
        for session in self.sessions.values():
            if session.serves(guild_id) and session.intents & intent:
                visible = own or bool(session.intents & MESSAGE_CONTENT)
                self._put(
                    session,
                    event,
                    payloads.gateway_message(message, self._peer.world, content_visible=visible),
                )

    def channel_event(self, event: str, channel: Channel) -> None:
        guild_id = channel.guild.id if channel.guild else None
        self.dispatch(event, payloads.channel(channel), guild_id, GUILDS)

    def guild_create(self, guild: Guild) -> None:
        for session in self.sessions.values():
            if session.serves(guild.id) and session.intents & GUILDS:
                self._put(session, "GUILD_CREATE", self._guild_create(session, guild))

    def _guild_create(self, session: Session, guild: Guild) -> dict[str, Any]:
        members = list(guild.members.values())
        if not session.intents & GUILD_MEMBERS:
            members = [item for item in members if item.user is self._peer.world.bot]
        return payloads.guild_create(guild, members)

    def _send_members(self, session: Session, data: Any) -> None:
        guild = self._peer.world.guilds.get(int(data["guild_id"]))
        if guild is None:
            return
        wanted = {int(item) for item in data.get("user_ids") or []}
        prefix = (data.get("query") or "").lower()

        def fits(member: Member) -> bool:
            if wanted:
                return member.user.id in wanted
            return member.user.name.lower().startswith(prefix)

        found = [item for item in guild.members.values() if fits(item)]
        chunk = {
            "guild_id": str(guild.id),
            "members": [payloads.member(item) for item in found[: data.get("limit") or None]],
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [],
        }
        if data.get("nonce"):
            chunk["nonce"] = data["nonce"]
        self._put(session, "GUILD_MEMBERS_CHUNK", chunk)

    # Trouble

    async def drop(self, code: int | None, *, resumable: bool) -> None:
        """Close every socket, with a code or by cutting the connection."""
        for connection in list(self.connections):
            if code is None:
                connection.cut()
            else:
                await connection.close(code)
        if not resumable:
            self.sessions.clear()

    async def invalidate(self, *, resumable: bool) -> None:
        """Op 9 to every connected session."""
        for session in list(self.sessions.values()):
            if session.connection is not None:
                session.connection.send(INVALID_SESSION, resumable)
                if not resumable:
                    self.sessions.pop(session.id, None)

    async def ask_to_reconnect(self) -> None:
        """Op 7 to every connection."""
        for connection in list(self.connections):
            connection.send(RECONNECT, None)
