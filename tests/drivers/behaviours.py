"""What the Python scripts share: the list of behaviours and the form of an outcome."""

import datetime
import decimal
import hashlib
import json
import threading
import uuid

SAYING = threading.Lock()
GROUPS = {"alone": [], "together": [], "large": []}
LARGE = 200_000_000


def behaviour(group="alone"):
    """Registers a behaviour under its function's name."""

    def register(function):
        GROUPS[group].append((function.__name__, function))
        return function

    return register


def in_turn(group, client):
    """The group's behaviours, each client starting elsewhere so that neighbours differ."""
    behaviours = GROUPS[group]
    start = client * 7 % len(behaviours)
    return behaviours[start:] + behaviours[:start]


def digest(text):
    data = text.encode() if isinstance(text, str) else bytes(text)
    return [len(data), hashlib.md5(data).hexdigest()]


def canonical(value):
    if isinstance(value, (list, tuple)):
        return [canonical(part) for part in value]
    if isinstance(value, dict):
        return {str(key): canonical(part) for key, part in value.items()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "hex:" + bytes(value).hex()
    if isinstance(value, (datetime.date, datetime.time, datetime.datetime, datetime.timedelta)):
        return str(value)
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return f"{type(value).__name__}: {value}"


def say(client, name, outcome):
    line = {"client": client, "behaviour": name, "outcome": canonical(outcome)}
    with SAYING:
        print(json.dumps(line, sort_keys=True), flush=True)
