"""The machine and the checkout: what a report must state about them, where results are kept, and /proc of a process.

Knows no broker and no workload.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def read(path, otherwise=""):
    try:
        return pathlib.Path(path).read_text(errors="replace").strip()
    except OSError:
        return otherwise


def output_of(*command):
    """A command's output without its end of line; empty if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def target():
    """Cargo's build directory."""
    return (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()


def processor():
    found = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def file_system(directory):
    """Type, device and mount options of the file system that holds a directory."""
    text = output_of("findmnt", "-n", "-o", "FSTYPE,SOURCE,OPTIONS", "-T", str(directory))
    return " ".join(text.split())


def block_device(directory):
    """Model and queue settings of the disk under a directory, as far as the kernel tells."""
    device = os.stat(directory).st_dev
    base = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not (base / "queue").exists():
        base = base.resolve().parent
    return {name: read(base / "queue" / name, "?") for name in ("scheduler", "write_cache", "rotational", "dma_alignment")}


def describe(data_directory, binary=None):
    """Everything about the machine that a figure depends on."""
    meminfo = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read("/proc/meminfo"), re.MULTILINE))
    governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none (the hypervisor's)")
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(meminfo.get("MemTotal", 0)) / 2**20, 1),
        "kernel": platform.release(),
        "file_system": file_system(data_directory),
        "block_device": block_device(data_directory),
        "governor": governor,
        "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled", "?"),
        "commit": output_of("git", "rev-parse", "--short=12", "HEAD")
        + (" with changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") else ""),
        "rustc": output_of("rustc", "--version"),
        "python": platform.python_version(),
    }
    if binary:
        found["millrace"] = output_of(str(binary), "--version")
    return found


def results_directory(script, machine=None):
    """A new directory for one run's results: perf-scripts/results/<date>-<machine>/<script>, numbered when it exists."""
    machine = machine or re.sub(r"[^a-z0-9]+", "-", f"{processor()} {os.cpu_count()} cores".lower()).strip("-")
    base = ROOT / "perf-scripts" / "results" / f"{datetime.date.today().isoformat()}-{machine}"
    for number in range(1, 1000):
        directory = base / (script if number == 1 else f"{script}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
    raise SystemExit(f"{base} is full of results of {script}")


def keep(directory, name, value):
    """Writes a value as JSON, or a text as it is."""
    text = value if isinstance(value, str) else json.dumps(value, indent=1) + "\n"
    (directory / name).write_text(text)


def usage(pid):
    """CPU seconds, peak resident bytes and context switches of a process so far."""
    stat = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    status = read(f"/proc/{pid}/status")
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    switches = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", read(thread / "status"), re.MULTILINE)
        switches += int(found.group(1)) if found else 0
    return {
        "cpu_seconds": (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND,
        "resident_bytes_max": int(peak.group(1)) * 1024 if peak else 0,
        "voluntary_switches": switches,
    }


def busy_seconds():
    """CPU seconds that all cores have spent on anything so far."""
    ticks = [int(part) for part in read("/proc/stat").split("\n")[0].split()[1:9]]
    # All but idle and waiting for the disk; what the hypervisor took for others counts.
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_SECOND
