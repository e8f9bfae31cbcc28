"""A file system that forgets, for tests: in memory, mounted through /dev/fuse, without any library.

What was not flushed may be lost at a power cut, as POSIX allows and real disks do: of each file any subset of the 4 KiB
pages (or of the 512-byte sectors) written since its last fsync, each in any of the contents it had since then; a change of
length; and of each directory any subset of the creations, renames and removals since its fsync. O_DSYNC on a write makes
nothing durable here, as in most FUSE file systems. It can also be full, or answer EIO. Knows no broker.

`python forgetful.py MOUNTPOINT` serves until its standard input ends; commands and answers are JSON lines (`Forgetful`
below speaks them).
"""

import ctypes
import errno
import json
import os
import random
import select
import stat
import struct
import subprocess
import sys
import time

PAGE = 4096
SECTOR = 512
WRITE_BYTES_MAX = 1 << 20
VERSIONS_MAX = 4
ROOT = 1

MNT_FORCE, MNT_DETACH = 1, 2
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def private_mounts():
    """From here on this process and its children see mounts that nobody else sees and that end with them. To be called
    before any thread is started; raises OSError where the machine does not let us mount."""
    if os.geteuid() == 0:
        _check(_libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    else:
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare(CLONE_NEWUSER | CLONE_NEWNS)")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")


def why_not():
    """Why forgetful file systems cannot be mounted here, or None. Tries it in a process of its own."""
    probe = "import sys, os; sys.path.insert(0, sys.argv[1]); import forgetful; forgetful.private_mounts(); os.close(os.open('/dev/fuse', os.O_RDWR))"
    done = subprocess.run([sys.executable, "-c", probe, os.path.dirname(os.path.abspath(__file__))], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it cannot be tried"])[-1]


# ---- the content ----


class Node:
    def __init__(self, number, mode):
        self.number, self.mode = number, mode
        self.is_dir = stat.S_ISDIR(mode)
        self.modified = time.time()
        self.open_count = 0
        if self.is_dir:
            self.names = {}
            self.names_durable = {}
        else:
            self.size = 0
            self.pages = {}
            # What each page, and the length, was at the last fsync and at moments since then.
            self.older = {}
            self.sizes_older = [0]
            # Beyond the length, by fallocate.
            self.reserved = 0

    def room(self):
        return 0 if self.is_dir else -(-max(self.size, self.reserved) // PAGE) * PAGE

    def set_page(self, index, content):
        before = self.pages.get(index)
        versions = self.older.get(index)
        if versions is None:
            self.older[index] = [before]
        elif len(versions) < VERSIONS_MAX:
            versions.append(before)
        if content is None:
            self.pages.pop(index, None)
        else:
            self.pages[index] = content

    def set_size(self, size):
        if size == self.size:
            return
        if size < self.size:
            last = size // PAGE
            if size % PAGE and last in self.pages:
                self.set_page(last, self.pages[last][: size % PAGE] + bytes(PAGE - size % PAGE))
                last += 1
            elif size % PAGE:
                last += 1
            for index in [index for index in self.pages if index >= last]:
                self.set_page(index, None)
            self.reserved = min(self.reserved, size)
        self.sizes_older.append(self.size)
        self.size = size

    def write(self, offset, data):
        position, end = 0, len(data)
        while position < end:
            index, inside = divmod(offset + position, PAGE)
            length = min(PAGE - inside, end - position)
            piece = bytes(data[position : position + length])
            if length < PAGE:
                before = self.pages.get(index) or bytes(PAGE)
                piece = before[:inside] + piece + before[inside + length :]
            self.set_page(index, piece)
            position += length
        if offset + end > self.size:
            self.set_size(offset + end)

    def read(self, offset, length):
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        first, last = offset // PAGE, (end - 1) // PAGE
        zeros = bytes(PAGE)
        data = b"".join(self.pages.get(index, zeros) for index in range(first, last + 1))
        return data[offset - first * PAGE : end - first * PAGE]

    def flush(self):
        self.older.clear()
        self.sizes_older = [self.size]

    def forget(self, chance, keep, by_sector):
        """The power is cut: how many pages are not what they were."""
        lost = 0
        zeros = bytes(PAGE)
        for index, versions in self.older.items():
            live = self.pages.get(index)

            def chosen():
                return live if chance.random() < keep else chance.choice(versions)

            if by_sector:
                whole = b"".join(((chosen() or zeros)[at : at + SECTOR]) for at in range(0, PAGE, SECTOR))
            else:
                whole = chosen() or zeros
            lost += whole != (live or zeros)
            self.pages[index] = whole
        if len(self.sizes_older) > 1 or self.sizes_older[0] != self.size:
            if chance.random() >= keep:
                self.size = chance.choice(self.sizes_older)
        last = -(-self.size // PAGE)
        for index in [index for index in self.pages if index >= last]:
            del self.pages[index]
        if self.size % PAGE and last - 1 in self.pages:
            self.pages[last - 1] = self.pages[last - 1][: self.size % PAGE] + bytes(PAGE - self.size % PAGE)
        self.flush()
        return lost


class Content:
    """All nodes; changes of names are remembered until the directory is flushed."""

    def __init__(self):
        self.nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755)}
        self.next_number = ROOT + 1
        # Each change is {(directory, name): node number or None}.
        self.changes = []
        self.capacity = 1 << 40
        self.used = 0

    def new(self, mode):
        node = Node(self.next_number, mode)
        self.nodes[node.number] = node
        self.next_number += 1
        return node

    def change(self, assignments):
        for (directory, name), number in assignments.items():
            names = self.nodes[directory].names
            if number is None:
                names.pop(name, None)
            else:
                names[name] = number
        self.changes.append(assignments)

    def flush_names(self, directory):
        left, done = [], set()
        # The newest first: what it decides, an older one decides no more.
        for change in reversed(self.changes):
            if any(place[0] == directory for place in change):
                for place, number in change.items():
                    if place not in done:
                        done.add(place)
                        self._set_durable(place, number)
            else:
                change = {place: number for place, number in change.items() if place not in done}
                if change:
                    left.append(change)
        self.changes = left[::-1]
        self.collect()

    def _set_durable(self, place, number):
        directory = self.nodes.get(place[0])
        if directory is None:
            return
        if number is None:
            directory.names_durable.pop(place[1], None)
        else:
            directory.names_durable[place[1]] = number

    def collect(self):
        """Drops what no name leads to any more, now or after a cut."""
        reached = {ROOT}
        pending = [ROOT]
        for change in self.changes:
            pending += [number for number in change.values() if number is not None]
        reached.update(pending)
        while pending:
            node = self.nodes.get(pending.pop())
            if node is not None and node.is_dir:
                for number in (*node.names.values(), *node.names_durable.values()):
                    if number not in reached:
                        reached.add(number)
                        pending.append(number)
        for number in [number for number, node in self.nodes.items() if number not in reached and not node.open_count]:
            del self.nodes[number]
        self.used = sum(node.room() for node in self.live())

    def live(self):
        """The nodes that names lead to now."""
        pending = [self.nodes[ROOT]]
        while pending:
            node = pending.pop()
            yield node
            if node.is_dir:
                pending += [self.nodes[number] for number in node.names.values()]

    def cut(self, seed):
        """What the disk holds when the power comes back."""
        chance = random.Random(seed)
        keep = chance.choice((0.0, 0.1, 0.5, 0.9, 0.98))
        by_sector = chance.random() < 0.5
        # Journalled file systems keep a beginning of the changes of names, others any part.
        in_order = chance.random() < 0.5
        kept_until = chance.randint(0, len(self.changes))
        names_lost = 0
        for place, change in enumerate(self.changes):
            if place < kept_until if in_order else chance.random() < keep:
                for where, number in change.items():
                    self._set_durable(where, number)
            else:
                names_lost += 1
        self.changes = []
        pages_lost = 0
        for node in self.nodes.values():
            node.open_count = 0
            if node.is_dir:
                node.names_durable = {name: number for name, number in node.names_durable.items() if number in self.nodes}
                node.names = dict(node.names_durable)
            else:
                pages_lost += node.forget(chance, keep, by_sector)
        self.collect()
        return {"pages_lost": pages_lost, "names_lost": names_lost, "keep": keep, "by": "sectors" if by_sector else "pages", "in_order": in_order}


# ---- the kernel's protocol ----

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 9, 10, 11, 12, 14, 15, 16, 17, 18, 20
INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, RENAME2 = 26, 27, 28, 29, 30, 35, 36, 38, 42, 43, 45
ASYNC_READ, BIG_WRITES, ASYNC_DIO, PARALLEL_DIROPS, MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 18, 1 << 22
FATTR_SIZE, FATTR_MODE = 1 << 3, 1 << 0
NO_ANSWER = object()
# What can be told to fail.
FAILING = {"read": (READ,), "write": (WRITE, FALLOCATE, CREATE, MKDIR, RENAME, RENAME2, UNLINK, SETATTR), "sync": (FSYNC, FSYNCDIR)}


class Refused(Exception):
    def __init__(self, code):
        super().__init__(os.strerror(code))
        self.code = code


class Kernel:
    """The kernel's requests, answered from the content."""

    def __init__(self, content, mountpoint, direct=True, fallocate=True):
        self.content, self.mountpoint = content, mountpoint
        self.direct, self.fallocate = direct, fallocate
        self.device = None
        self.buffer = memoryview(bytearray(WRITE_BYTES_MAX + 65536))
        self.failing = {}
        self.frozen = False
        self.counts = {}
        self.handlers = {
            INIT: self.init, LOOKUP: self.lookup, GETATTR: self.getattr, SETATTR: self.setattr, MKDIR: self.mkdir, UNLINK: self.unlink,
            RMDIR: self.unlink, RENAME: self.rename, RENAME2: self.rename2, OPEN: self.open, READ: self.read, WRITE: self.write, STATFS: self.statfs,
            RELEASE: self.release, FSYNC: self.fsync, OPENDIR: self.opendir, READDIR: self.readdir, RELEASEDIR: self.done, FSYNCDIR: self.fsyncdir,
            CREATE: self.create, DESTROY: self.done, FALLOCATE: self.allocate, FORGET: self.silent, BATCH_FORGET: self.silent, INTERRUPT: self.silent,
        }

    def mount(self):
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        _check(_libc.mount(b"forgetful", os.fsencode(self.mountpoint), b"fuse.forgetful", 0, options.encode()), f"mounting {self.mountpoint}")

    def unmount(self):
        _libc.umount2(os.fsencode(self.mountpoint), MNT_FORCE | MNT_DETACH)
        if self.device is not None:
            os.close(self.device)
            self.device = None

    def serve_one(self):
        try:
            length = os.readv(self.device, [self.buffer])
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                return
            raise
        _, opcode, unique, number = struct.unpack_from("<IIQQ", self.buffer)
        self.counts[opcode] = self.counts.get(opcode, 0) + 1
        body = self.buffer[40:length]
        try:
            handler = self.handlers.get(opcode)
            if handler is None:
                raise Refused(errno.ENOSYS)
            if opcode in self.failing:
                raise Refused(self.failing[opcode])
            answer, code = handler(number, body), 0
        except Refused as refused:
            answer, code = b"", refused.code
        if answer is NO_ANSWER:
            return
        try:
            os.writev(self.device, [struct.pack("<IiQ", 16 + len(answer), -code, unique), answer])
        except OSError as error:
            # The asker was killed meanwhile.
            if error.errno != errno.ENOENT:
                raise

    # -- helpers --

    def node(self, number):
        node = self.content.nodes.get(number)
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    @staticmethod
    def name(body, start=0):
        return bytes(body[start:]).split(b"\0")[0]

    @staticmethod
    def attributes(node):
        size = 0 if node.is_dir else node.size
        seconds = int(node.modified)
        return struct.pack(
            "<QQQQQQIIIIIIIIII", node.number, size, node.room() // 512, seconds, seconds, seconds, 0, 0, 0, node.mode, 2 if node.is_dir else 1, 0, 0, 0, PAGE, 0
        )

    def entry(self, node):
        return struct.pack("<QQQQII", node.number, 0, 0, 1, 0, 0) + self.attributes(node)

    def take(self, node, room_before):
        """Accounts for what a node grew by, unless the disk is full: then it is not done."""
        self.content.used += node.room() - room_before

    def has_room(self, bytes_more):
        if bytes_more > 0 and self.content.used + bytes_more > self.content.capacity:
            raise Refused(errno.ENOSPC)

    # -- requests --

    def silent(self, _number, _body):
        return NO_ANSWER

    def done(self, _number, _body):
        return b""

    def init(self, _number, body):
        major, minor, readahead, flags = struct.unpack_from("<IIII", body)
        wanted = flags & (ASYNC_READ | BIG_WRITES | ASYNC_DIO | PARALLEL_DIROPS | MAX_PAGES)
        return struct.pack("<IIIIHHIIHHI28x", 7, min(minor, 38), readahead, wanted, 64, 48, WRITE_BYTES_MAX, 1, WRITE_BYTES_MAX // PAGE, 0, 0)

    def lookup(self, number, body):
        directory = self.node(number)
        found = directory.names.get(self.name(body)) if directory.is_dir else None
        if found is None:
            raise Refused(errno.ENOENT)
        return self.entry(self.node(found))

    def getattr(self, number, _body):
        return struct.pack("<QII", 1, 0, 0) + self.attributes(self.node(number))

    def setattr(self, number, body):
        node = self.node(number)
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & FATTR_SIZE and not node.is_dir:
            before = node.room()
            node.set_size(size)
            node.modified = time.time()
            self.take(node, before)
        if valid & FATTR_MODE:
            (mode,) = struct.unpack_from("<I", body, 68)
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return struct.pack("<QII", 1, 0, 0) + self.attributes(node)

    def make(self, number, name, mode):
        directory = self.node(number)
        if name in directory.names:
            raise Refused(errno.EEXIST)
        self.has_room(PAGE)
        node = self.content.new(mode)
        self.content.change({(number, name): node.number})
        return node

    def mkdir(self, number, body):
        (mode,) = struct.unpack_from("<I", body)
        return self.entry(self.make(number, self.name(body, 8), stat.S_IFDIR | stat.S_IMODE(mode)))

    def create(self, number, body):
        flags, mode = struct.unpack_from("<II", body)
        self.may_open(flags)
        node = self.make(number, self.name(body, 16), stat.S_IFREG | stat.S_IMODE(mode))
        node.open_count += 1
        return self.entry(node) + struct.pack("<QII", node.number, 0, 0)

    def unlink(self, number, body):
        directory, name = self.node(number), self.name(body)
        found = directory.names.get(name)
        if found is None:
            raise Refused(errno.ENOENT)
        node = self.node(found)
        if node.is_dir and node.names:
            raise Refused(errno.ENOTEMPTY)
        self.content.change({(number, name): None})
        # What is removed gives its room back at once, as real file systems do; a cut may bring it back.
        self.content.used -= node.room()
        return b""

    def rename2(self, number, body):
        if struct.unpack_from("<QI", body)[1]:
            raise Refused(errno.EINVAL)
        return self.rename(number, body, 16)

    def rename(self, number, body, names_at=8):
        (target,) = struct.unpack_from("<Q", body)
        old, new = bytes(body[names_at:]).split(b"\0")[:2]
        source, destination = self.node(number), self.node(target)
        moved = source.names.get(old)
        if moved is None:
            raise Refused(errno.ENOENT)
        replaced = destination.names.get(new)
        if replaced is not None and self.node(replaced).is_dir and self.node(replaced).names:
            raise Refused(errno.ENOTEMPTY)
        if replaced is not None:
            self.content.used -= self.node(replaced).room()
        self.content.change({(number, old): None, (target, new): moved})
        return b""

    def may_open(self, flags):
        if flags & os.O_DIRECT and not self.direct:
            raise Refused(errno.EINVAL)

    def open(self, number, body):
        (flags,) = struct.unpack_from("<I", body)
        self.may_open(flags)
        node = self.node(number)
        node.open_count += 1
        return struct.pack("<QII", number, 0, 0)

    def release(self, number, _body):
        node = self.content.nodes.get(number)
        if node is not None and node.open_count:
            node.open_count -= 1
        return b""

    def read(self, number, body):
        _, offset, length = struct.unpack_from("<QQI", body)
        return self.node(number).read(offset, length)

    def write(self, number, body):
        _, offset, length = struct.unpack_from("<QQI", body)
        node = self.node(number)
        before = node.room()
        self.has_room(-(-(offset + length) // PAGE) * PAGE - before)
        node.write(offset, body[40 : 40 + length])
        node.modified = time.time()
        self.take(node, before)
        return struct.pack("<II", length, 0)

    def allocate(self, number, body):
        if not self.fallocate:
            raise Refused(errno.EOPNOTSUPP)
        _, offset, length, mode = struct.unpack_from("<QQQI", body)
        KEEP_SIZE = 1
        if mode & ~KEEP_SIZE:
            raise Refused(errno.EOPNOTSUPP)
        node = self.node(number)
        before = node.room()
        self.has_room(-(-(offset + length) // PAGE) * PAGE - before)
        if mode & KEEP_SIZE:
            node.reserved = max(node.reserved, offset + length)
        elif offset + length > node.size:
            node.set_size(offset + length)
        self.take(node, before)
        return b""

    def fsync(self, number, _body):
        self.node(number).flush()
        return b""

    def opendir(self, number, _body):
        return struct.pack("<QII", number, 0, 0)

    def readdir(self, number, body):
        _, offset, length = struct.unpack_from("<QQI", body)
        out = bytearray()
        for place, (name, found) in enumerate(list(self.node(number).names.items())[offset:], start=offset + 1):
            mode = self.node(found).mode
            one = struct.pack("<QQII", found, place, len(name), stat.S_IFMT(mode) >> 12) + name
            one += bytes(-len(one) % 8)
            if len(out) + len(one) > length:
                break
            out += one
        return bytes(out)

    def fsyncdir(self, number, _body):
        self.content.flush_names(number)
        return b""

    def statfs(self, _number, _body):
        blocks = self.content.capacity // PAGE
        free = max(0, self.content.capacity - self.content.used) // PAGE
        return struct.pack("<QQQQQIIII24x", blocks, free, free, 1 << 20, 1 << 20, PAGE, 255, PAGE, 0)


def serve(mountpoint, options):
    content = Content()
    kernel = Kernel(content, mountpoint, direct="no-direct" not in options, fallocate="no-fallocate" not in options)
    kernel.mount()
    commands = os.fdopen(sys.stdin.fileno(), "rb", buffering=0)

    def answer(**what):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    answer(mounted=mountpoint)
    pending = b""
    while True:
        readers = [commands] + ([] if kernel.frozen or kernel.device is None else [kernel.device])
        ready, _, _ = select.select(readers, [], [])
        if kernel.device in ready:
            kernel.serve_one()
        if commands not in ready:
            continue
        read = commands.read(65536)
        if not read:
            kernel.unmount()
            return
        *lines, pending = (pending + read).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if command["do"] == "freeze":
                kernel.frozen = True
                answer(frozen=True)
            elif command["do"] == "cut":
                kernel.unmount()
                lost = content.cut(command["seed"])
                kernel.frozen = False
                kernel.mount()
                answer(**lost)
            elif command["do"] == "fail":
                kernel.failing = {opcode: command["errno"] for kind in command["kinds"] for opcode in FAILING[kind]}
                answer(failing=len(kernel.failing))
            elif command["do"] == "capacity":
                content.collect()
                content.capacity = content.used + command["free"]
                answer(used=content.used, capacity=content.capacity)
            elif command["do"] == "report":
                answer(used=content.used, nodes=len(content.nodes), counts={str(key): value for key, value in kernel.counts.items()})


class Forgetful:
    """A forgetful file system in a process of its own, mounted on a new directory."""

    def __init__(self, mountpoint, *options):
        os.makedirs(mountpoint, exist_ok=True)
        self.mountpoint = str(mountpoint)
        from . import server

        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), self.mountpoint, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=server.die_with_parent
        )
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the file system of {self.mountpoint} has ended with {self.process.wait()}")
        return json.loads(line)

    def _ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def freeze(self):
        """From now on nothing is answered any more."""
        return self._ask(do="freeze")

    def cut(self, seed):
        """The power is cut, and comes back: mounted again with what is left."""
        return self._ask(do="cut", seed=seed)

    def fail(self, code, *kinds):
        """Requests of these kinds ("read", "write", "sync") are answered with this error; none: all is well again."""
        return self._ask(do="fail", errno=code, kinds=kinds)

    def leave_free(self, free_bytes):
        """So much is free from now on."""
        return self._ask(do="capacity", free=free_bytes)

    def report(self):
        return self._ask(do="report")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
