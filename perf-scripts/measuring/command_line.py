"""Options that the scripts share. Knows no broker."""

import pathlib
import sys


def measuring(parser, seconds, warmup_seconds, rows, sides):
    """What is measured, and for how long."""
    parser.add_argument("--seconds", type=float, default=seconds, help="measured seconds of a run (default %(default)s)")
    parser.add_argument("--warmup-seconds", type=float, default=warmup_seconds, help="before them (default %(default)s)")
    parser.add_argument("--rows", help=f"which loads, by commas, or none: {', '.join(rows)}; default all")
    parser.add_argument("--sides", help=f"who is measured, by commas: {', '.join(sides)}; default all")
    parser.add_argument("--into", type=pathlib.Path, metavar="DIR", help="add to the results that are kept there")
    parser.add_argument("--spin", action="store_true", help="the generator polls instead of sleeping")


def common(parser):
    """Where things are."""
    parser.add_argument("--broker-core", type=int, default=0, help="the brokers' core (default %(default)s)")
    parser.add_argument("--load-core", type=int, default=1, help="the load's core (default %(default)s)")
    parser.add_argument("--release-binary", type=pathlib.Path, help="a built millrace; else target/release/millrace is built")
    parser.add_argument("--directory", type=pathlib.Path, help="where brokers keep their data: the disk that is measured "
                        "(default: under the build directory)")
    parser.add_argument("--ports", help="take ports from this range, like 21000-21999")
    parser.add_argument("--machine", help="the machine's name in the results' path")


def sides(asked, known):
    """The chosen sides."""
    wanted = asked.sides.split(",") if asked.sides else list(known)
    for side in wanted:
        if side not in known:
            raise SystemExit(f"no side {side}; there are {', '.join(known)}")
    return wanted


# Where things are on this machine changes no figure.
PLACES = ("--release-binary", "--directory", "--kafka-libraries", "--into", "--ports", "--machine")


def told():
    """The command as it was given, without the places of this machine."""
    words, left_out = [], False
    for word in sys.argv[1:]:
        if not left_out and word.split("=")[0] not in PLACES:
            words.append(word)
        left_out = word in PLACES
    return " ".join([f"perf-scripts/{pathlib.Path(sys.argv[0]).name}", *words])


def settings(asked, **more):
    """What a reader must know of how it was measured."""
    names = ("seconds", "warmup_seconds", "broker_core", "load_core", "spin")
    return {**{name: getattr(asked, name) for name in names}, **more}
