"""The Kafka protocol from Kafka's own message schemas, read out of the kafka-clients jar when needed.

Written apart from Millrace's codec, so that a mistake there cannot hide itself here. Requests and answers are dicts with
Kafka's field names; a field that a dict leaves out takes its default, one that the schema does not know is a mistake.
"""

import json
import os
import pathlib
import re
import socket
import struct
import uuid
import zipfile

INTEROP = pathlib.Path(os.environ.get("MILLRACE_INTEROP_DIR", "target/interop")).resolve()
NO_UUID = uuid.UUID(int=0)


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class Malformed(Exception):
    """The bytes are not what the schema says."""


def _range(text):
    """'3-9', '3+', '4' or 'none' as (first, last)."""
    if text is None or text == "none":
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), 32767)
    first, _, last = text.partition("-")
    return (int(first), int(last or first))


def _within(bounds, version):
    return bounds[0] <= version <= bounds[1]


class Field:
    def __init__(self, raw, structs):
        self.name = raw["name"][0].upper() + raw["name"][1:]
        self.type = raw["type"]
        self.versions = _range(raw.get("versions", "0+"))
        self.nullable = _range(raw.get("nullableVersions"))
        self.tagged = _range(raw.get("taggedVersions"))
        self.tag = raw.get("tag")
        self.never_flexible = raw.get("flexibleVersions") == "none"
        self.element = self.type[2:] if self.type.startswith("[]") else None
        self.raw_default = raw.get("default")
        self.fields = None
        inner = self.element or self.type
        if "fields" in raw:
            self.fields = [Field(one, structs) for one in raw["fields"]]
            structs.setdefault(inner, self.fields)
        elif inner[0].isupper():
            self.fields = structs[inner]

    def default(self):
        if self.raw_default == "null":
            return None
        if self.element is not None:
            return []
        if self.type in ("string",):
            return self.raw_default or ""
        if self.type in ("bytes", "records"):
            return b""
        if self.type == "uuid":
            return NO_UUID
        if self.type == "bool":
            return str(self.raw_default).lower() == "true"
        if self.type == "float64":
            return float(self.raw_default or 0)
        if self.fields is not None:
            return {one.name: one.default() for one in self.fields}
        return int(str(self.raw_default), 0) if self.raw_default is not None else 0


class Message:
    """One schema: encodes and decodes a version of it."""

    def __init__(self, raw):
        self.name = raw["name"]
        self.api_key = raw.get("apiKey")
        self.valid = _range(raw["validVersions"])
        self.flexible = _range(raw.get("flexibleVersions"))
        # Common structs name each other, so all are there, empty, before the first is filled.
        structs = {common["name"]: [] for common in raw.get("commonStructs", [])}
        for common in raw.get("commonStructs", []):
            structs[common["name"]].extend(Field(one, structs) for one in common["fields"])
        self.fields = [Field(one, structs) for one in raw["fields"]]

    def encode(self, version, values):
        out = bytearray()
        self._write_struct(out, self.fields, version, values, self.name)
        return bytes(out)

    def decode(self, version, data, position=0):
        """The values, and where they end."""
        reader = _Reader(data, position)
        return self._read_struct(reader, self.fields, version), reader.position

    def _write_struct(self, out, fields, version, values, where):
        unknown = set(values) - {field.name for field in fields}
        if unknown:
            raise KeyError(f"{where} has no field {sorted(unknown)}")
        flexible = _within(self.flexible, version)
        tagged = []
        for field in fields:
            if not _within(field.versions, version):
                continue
            value = values.get(field.name, field.default())
            if _within(field.tagged, version):
                if field.name in values:
                    body = bytearray()
                    self._write(body, field, version, value, flexible, where)
                    tagged.append((field.tag, bytes(body)))
                continue
            self._write(out, field, version, value, flexible and not field.never_flexible, where)
        if flexible:
            _put_varint(out, len(tagged))
            for tag, body in sorted(tagged):
                _put_varint(out, tag)
                _put_varint(out, len(body))
                out += body

    def _write(self, out, field, version, value, flexible, where):
        where = f"{where}.{field.name}"
        if field.element is not None:
            _put_length(out, None if value is None else len(value), flexible, wide=True)
            for one in value or []:
                if field.fields is not None:
                    self._write_struct(out, field.fields, version, one, where)
                else:
                    _put_scalar(out, field.element, one, flexible)
        elif field.fields is not None:
            if _within(field.nullable, version):
                out += struct.pack(">b", -1 if value is None else 1)
            if value is not None:
                self._write_struct(out, field.fields, version, value, where)
        else:
            _put_scalar(out, field.type, value, flexible)

    def _read_struct(self, reader, fields, version):
        flexible = _within(self.flexible, version)
        values = {}
        tagged = {}
        for field in fields:
            if not _within(field.versions, version):
                continue
            if _within(field.tagged, version):
                tagged[field.tag] = field
                values[field.name] = field.default()
                continue
            values[field.name] = self._read(reader, field, version, flexible and not field.never_flexible)
        if flexible:
            for _ in range(reader.varint()):
                tag, size = reader.varint(), reader.varint()
                end = reader.position + size
                if tag in tagged:
                    values[tagged[tag].name] = self._read(reader, tagged[tag], version, flexible)
                else:
                    values[f"UnknownTag{tag}"] = reader.take(size)
                if reader.position != end:
                    raise Malformed(f"tagged field {tag} says {size} bytes and has other")
        return values

    def _read(self, reader, field, version, flexible):
        if field.element is not None:
            count = reader.length(flexible, wide=True)
            if count is None:
                return None
            if count > len(reader.data) - reader.position:
                raise Malformed(f"{field.name}: {count} elements in {len(reader.data) - reader.position} bytes")
            if field.fields is not None:
                return [self._read_struct(reader, field.fields, version) for _ in range(count)]
            return [reader.scalar(field.element, flexible) for _ in range(count)]
        if field.fields is not None:
            if _within(field.nullable, version) and reader.unpack(">b") < 0:
                return None
            return self._read_struct(reader, field.fields, version)
        return reader.scalar(field.type, flexible)


_FORMATS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


def _put_varint(out, value):
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_length(out, length, flexible, wide):
    if flexible:
        _put_varint(out, 0 if length is None else length + 1)
    else:
        out += struct.pack(">i" if wide else ">h", -1 if length is None else length)


def _put_scalar(out, kind, value, flexible):
    if kind in _FORMATS:
        out += struct.pack(_FORMATS[kind], value)
    elif kind == "bool":
        out.append(1 if value else 0)
    elif kind == "uuid":
        out += value.bytes
    else:
        data = value.encode() if isinstance(value, str) else value
        _put_length(out, None if data is None else len(data), flexible, wide=kind != "string")
        out += data or b""


class _Reader:
    def __init__(self, data, position):
        self.data = data
        self.position = position

    def take(self, count):
        if count < 0 or self.position + count > len(self.data):
            raise Malformed(f"{count} bytes wanted at {self.position} of {len(self.data)}")
        piece = bytes(self.data[self.position : self.position + count])
        self.position += count
        return piece

    def unpack(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 35:
                raise Malformed("varint of more than five bytes")

    def length(self, flexible, wide):
        length = self.varint() - 1 if flexible else self.unpack(">i" if wide else ">h")
        return None if length < 0 else length

    def scalar(self, kind, flexible):
        if kind in _FORMATS:
            return self.unpack(_FORMATS[kind])
        if kind == "bool":
            return self.take(1)[0] != 0
        if kind == "uuid":
            return uuid.UUID(bytes=self.take(16))
        length = self.length(flexible, wide=kind != "string")
        if length is None:
            return None
        data = self.take(length)
        return data.decode() if kind == "string" else data


class Schemas:
    """All requests and answers, by Kafka's name without its ending: `schemas.requests["Fetch"]`."""

    def __init__(self):
        self.requests, self.responses, self.others = {}, {}, {}
        jars = sorted((INTEROP / "kafka" / "libs").glob("kafka-clients-*.jar"))
        if not jars:
            raise FileNotFoundError(f"no kafka-clients jar under {INTEROP}: run `cargo xtask install`")
        with zipfile.ZipFile(jars[-1]) as jar:
            for entry in jar.namelist():
                if not re.fullmatch(r"common/message/\w+\.json", entry):
                    continue
                lines = jar.read(entry).decode().splitlines()
                text = "\n".join(line for line in lines if not line.lstrip().startswith("//"))
                try:
                    raw = json.loads(text)
                except json.JSONDecodeError:
                    raw = json.loads(re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*', lambda match: match.group(1) or "", text))
                kind = raw["type"]
                if raw.get("validVersions") == "none":
                    continue
                if kind == "request":
                    self.requests[raw["name"].removesuffix("Request")] = Message(raw)
                elif kind == "response":
                    self.responses[raw["name"].removesuffix("Response")] = Message(raw)
                else:
                    self.others[raw["name"]] = Message(raw)


_schemas = None


def schemas():
    global _schemas
    if _schemas is None:
        _schemas = Schemas()
    return _schemas


def request_frame(api, version, body, correlation_id=1, client_id="suite", raw_body=None, api_key=None):
    """A whole request, size first. `raw_body` stands in for the encoded body."""
    message = schemas().requests[api]
    encoded = raw_body if raw_body is not None else message.encode(version, body)
    header = bytearray(struct.pack(">hhi", message.api_key if api_key is None else api_key, version, correlation_id))
    _put_scalar(header, "string", client_id, False)
    if _within(message.flexible, version):
        header.append(0)
    payload = bytes(header) + encoded
    return struct.pack(">i", len(payload)) + payload


def decode_response(api, version, payload):
    """(correlation id, values); every byte must be used."""
    message = schemas().responses[api]
    reader = _Reader(payload, 0)
    correlation_id = reader.unpack(">i")
    if _within(message.flexible, version) and api != "ApiVersions":
        for _ in range(reader.varint()):
            reader.varint()
            reader.take(reader.varint())
    values, end = message.decode(version, payload, reader.position)
    if end != len(payload):
        raise Malformed(f"{api} v{version}: {len(payload) - end} bytes after the answer")
    return correlation_id, values


class Connection:
    """A blocking connection that sends one request after another."""

    def __init__(self, host, port, timeout_s=30, client_id="suite"):
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client_id = client_id
        self.correlation_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send_raw(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            raise Closed from None

    def receive_payload(self):
        size = struct.unpack(">i", self._exactly(4))[0]
        return self._exactly(size)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError:
                raise Closed from None
            if not piece:
                raise Closed
            data += piece
        return bytes(data)

    def send(self, api, version, body, **how):
        self.correlation_id += 1
        how.setdefault("client_id", self.client_id)
        self.send_raw(request_frame(api, version, body, self.correlation_id, **how))
        return self.correlation_id

    def receive(self, api, version):
        correlation_id, values = decode_response(api, version, self.receive_payload())
        if correlation_id != self.correlation_id:
            raise Malformed(f"{api} v{version}: answer to {correlation_id}, expected {self.correlation_id}")
        return values

    def request(self, api, version, body, **how):
        self.send(api, version, body, **how)
        return self.receive(api, version)
