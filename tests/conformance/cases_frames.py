"""Frames, headers and versions: what is answered, and what closes the connection."""

import struct

from harness import wire
from sides import SERVED, case, once, simple

simple("ApiVersions", "plain", {"ClientSoftwareName": "suite", "ClientSoftwareVersion": "1.0"})
simple("ApiVersions", "empty software name", {"ClientSoftwareName": "", "ClientSoftwareVersion": "1"}, first=3)
simple("ApiVersions", "odd software name", {"ClientSoftwareName": "a b/c", "ClientSoftwareVersion": "1"}, first=3)
simple("ApiVersions", "empty software version", {"ClientSoftwareName": "a", "ClientSoftwareVersion": ""}, first=3)


def raw(side, data, answers=1):
    """What comes back for raw bytes on a connection of their own, then whether it still serves."""
    connection = side.connect()
    side.requests += 1
    heard = []
    try:
        connection.socket.settimeout(1.5)
        connection.send_raw(data)
        for _ in range(answers):
            heard.append(connection.receive_payload().hex())
    except wire.Closed:
        heard.append("closed")
    except OSError:
        heard.append("silence")
    finally:
        connection.close()
    return heard


def frame(payload):
    return struct.pack(">i", len(payload)) + payload


def header(key, version, client=b"suite", correlation=7):
    return struct.pack(">hhi", key, version, correlation) + (struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client)


@once("ApiVersions", "unknown versions are answered in v0 format")
def unknown_versions(side, _):
    results = []
    for version in (5, 6, 99, 32767):
        connection = side.connect()
        side.requests += 2
        connection.send_raw(frame(header(18, version) + b"\0" + b"\x02a\x02b\0"))
        results.append(wire.decode_response("ApiVersions", 0, connection.receive_payload())[1])
        results.append(connection.request("ApiVersions", 0, {})["ErrorCode"])
        connection.close()
    return results


@once("Frames", "unknown api keys")
def unknown_keys(side, _):
    return [raw(side, frame(header(key, 0) + b"\0\0\0\0")) for key in (93, 999, -1, 32767)]


@once("Frames", "sizes that are none")
def sizes(side, _):
    return [raw(side, struct.pack(">i", size) + b"\0" * 16) for size in (0, -1, -2147483648, 2147483647, 104857601, 1, 7)]


@once("Frames", "null, empty and long client ids")
def client_ids(side, _):
    return [raw(side, frame(header(3, 1, client) + struct.pack(">i", 0)))[0][:16] for client in (None, b"", b"x" * 5000)]


@once("Frames", "trailing bytes")
def trailing(side, _):
    return [raw(side, frame(header(3, 1) + struct.pack(">i", 0) + b"trailing"))[0][:16], raw(side, frame(header(12, 0) + b"\0\1g\0\0\0\1\0\1m" + b"more"))]


@once("Frames", "unknown tagged fields")
def tags(side, _):
    tagged = b"\x01\x63\x03abc"
    body = wire.schemas().requests["Heartbeat"].encode(4, {"GroupId": "nobody", "MemberId": "m"})
    return [raw(side, frame(header(12, 4) + b"\0" + body[:-1] + tagged)), raw(side, frame(header(12, 4) + tagged + body))]


@once("Frames", "answers come in the order of the requests")
def order(side, _):
    data = b"".join(frame(header(18, 0, correlation=index)) + frame(header(12, 0, correlation=index + 100) + b"\0\1g\0\0\0\1\0\1m") for index in range(20))
    connection = side.connect()
    side.requests += 40
    connection.send_raw(data)
    heard = [struct.unpack(">i", connection.receive_payload()[:4])[0] for _ in range(40)]
    connection.close()
    return str(heard)


def register_versions():
    for api, (low, high) in SERVED.items():
        if api == "ApiVersions":
            continue
        key = wire.schemas().requests[api].api_key
        outside = [high + 1, high + 50] + ([low - 1] if low > 0 and api != "Produce" else []) + ([0, 1, 2] if api == "Produce" else [])
        once(api, "versions outside the served range")(lambda side, _, key=key, outside=outside: [raw(side, frame(header(key, one) + b"\0" * 8)) for one in outside])

        def malformed(side, version, key=key, api=api):
            flexible = wire._within(wire.schemas().requests[api].flexible, version)
            start = header(key, version) + (b"\0" if flexible else b"")
            # What a garbled request asks for is not the point: whether it is answered is.
            bodies = (b"", b"\xff\xff\xff\xff\x0f", b"\x7f" * 7, b"\x80\x80\x80\x80\x80\x80")
            heard = [raw(side, frame(start + body))[0] for body in bodies]
            return [one if one in ("closed", "silence") else "answered" for one in heard]

        # Bodies that end early, claim too much, or are garbage.
        if api not in ("DescribeCluster", "ListGroups", "DescribeLogDirs", "ListConfigResources"):
            case(api, "malformed bodies")(malformed)


register_versions()
