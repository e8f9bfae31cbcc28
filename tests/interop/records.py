"""The records that every client writes and every client must read back, and what they look like when read. Knows no client."""

import base64
import hashlib
import json
import random
import time

# An hour ago: retention leaves it alone.
TIMESTAMP = int(time.time()) * 1000 - 3_600_000
BIG_BYTES = 900_000
SMALL_RECORDS = 60


def build(headers="ordered", both_null=True, nul_in_headers=True):
    """(key, value, headers) in order. Clients that hold headers in a map cannot interleave or repeat names: see arranged().

    Some refuse to send a record that has neither key nor value: both_null is False for them.
    """
    noise = random.Random(7).randbytes(BIG_BYTES)
    text = (b"the same line again and again, because it compresses; " * (BIG_BYTES // 54 + 1))[:BIG_BYTES]
    interleaved = [("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"1")]
    binary = bytes(range(0 if nul_in_headers else 1, 256))
    records = [
        (b"key", b"value", []),
        (None, b"value without key", []),
        (b"key without value", None, []),
        (None, None, [("only", b"a header")]),
        (b"", b"", []),
        (b"headers", b"twice the same name", [("a", b"1"), ("a", b"2"), ("b", b"3")]),
        (b"headers", b"order", interleaved),
        (b"headers", b"empty and binary content", [("empty", b""), ("binary", binary)]),
        (bytes(range(256)), bytes(range(255, -1, -1)), []),
        ("ключ".encode(), "значение".encode(), [("имя", "содержание".encode())]),
        (b"big text", text, []),
        (b"big noise", noise, [("after", b"a big one")]),
    ]
    records += [(b"k%d" % index, b"small record %d" % index, []) for index in range(SMALL_RECORDS)]
    records = [(key, value, arranged(held, headers)) for key, value, held in records]
    return records if both_null else [one for one in records if one[:2] != (None, None)]


def arranged(headers, how):
    """The headers as a client has them that holds them so: in order, grouped by name, or as a sorted map, where the last one stays."""
    if how == "map":
        return [list(one) for one in sorted(dict(headers).items())]
    if how == "grouped":
        names = list(dict.fromkeys(name for name, _ in headers))
        return [[name, content] for wanted in names for name, content in headers if name == wanted]
    return headers


def to_json(records):
    """What a client is given: base64, so that every language reads it alike."""
    return json.dumps([
        {
            "key": encoded(key),
            "value": encoded(value),
            "headers": [[name, encoded(content)] for name, content in headers],
            "timestamp": TIMESTAMP + index,
        }
        for index, (key, value, headers) in enumerate(records)
    ])


def expected(records, timestamps=True):
    """What a client prints when it reads them, one entry a record; without the timestamps that its writer could not set."""
    return [
        {
            "offset": index,
            "key": encoded(key),
            "value": None if value is None else hashlib.sha256(value).hexdigest(),
            "size": -1 if value is None else len(value),
            "headers": [[name, encoded(content)] for name, content in headers],
            **({"timestamp": TIMESTAMP + index} if timestamps else {}),
        }
        for index, (key, value, headers) in enumerate(records)
    ]


def encoded(data):
    return None if data is None else base64.b64encode(data).decode()
