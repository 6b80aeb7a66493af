"""A strict Discord on loopback: gateway v10, REST v10, interactions, webhooks.

Run it alone with `python -m tests.peers.discord --port 9999`.
"""

from .acting import NoAnswer
from .commands import BadOptions, NotRegistered
from .errors import ApiError
from .faults import Fault, FaultKind
from .interactions import InteractionResult
from .peer import DiscordPeer, Stats
from .ratelimit import Limit
from .rest import RequestRecord
from .world import Channel, Guild, Member, Pings, Role, StoredMessage, User, Webhook

__all__ = [
    "ApiError",
    "BadOptions",
    "Channel",
    "DiscordPeer",
    "Fault",
    "FaultKind",
    "Guild",
    "InteractionResult",
    "Limit",
    "Member",
    "NoAnswer",
    "NotRegistered",
    "Pings",
    "RequestRecord",
    "Role",
    "Stats",
    "StoredMessage",
    "User",
    "Webhook",
]
