"""Where a script's results stay: raw.json with every run, written after each of them, and what is made of it.

A run may be done in pieces: with the directory of an earlier one, new runs are added to those that are there. Knows JSON;
knows no broker.
"""

import json
import pathlib

from . import machine


class Kept:
    """`pieces`: machine and command of each time the script ran. `runs[row][side]`: the generator's results, in order."""

    def __init__(self, script, into=None, machine_name=None):
        self.directory = pathlib.Path(into) if into else machine.results_directory(script, machine_name)
        self.directory.mkdir(parents=True, exist_ok=True)
        raw = self.directory / "raw.json"
        self.found = json.loads(raw.read_text()) if raw.exists() else {"pieces": [], "runs": {}, "other": {}}

    @property
    def runs(self):
        return self.found["runs"]

    @property
    def other(self):
        """What is no run of the generator's, by name."""
        return self.found["other"]

    @property
    def pieces(self):
        return self.found["pieces"]

    def begin(self, described, command, settings):
        self.pieces.append({"machine": described, "command": command, "settings": settings})

    def add(self, row, side, run):
        run["piece"] = len(self.pieces) - 1
        self.runs.setdefault(row, {}).setdefault(side, []).append(run)
        self.save()

    @property
    def failures(self):
        """Runs that came to no end: row, side, what the generator said."""
        return self.other.get("failures", [])

    def add_failure(self, row, side, told):
        self.other.setdefault("failures", []).append({"row": row, "side": side, "told": told, "piece": len(self.pieces) - 1})
        self.save()

    def save(self):
        # Whoever is stopped while it writes has the old one still.
        whole = self.directory / "raw.json.new"
        whole.write_text(json.dumps(self.found, indent=1) + "\n")
        whole.rename(self.directory / "raw.json")

    def write(self, name, text):
        (self.directory / name).write_text(text)
