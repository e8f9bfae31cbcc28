"""What a restart of the broker changes: leader epochs. Registered after all other cases, because both brokers are restarted."""

import time

from harness import batch
from sides import External, once


def restarted(side):
    side.broker.stop()
    if side.connection is not None:
        side.connection.close()
        side.connection = None
    side.broker.start()


def leader_epoch(side, name):
    """The epoch of partition 0's leader, once it leads."""
    deadline = time.monotonic() + 30
    while True:
        (found,) = side.ask("Metadata", 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"]
        if found["ErrorCode"] == 0 and found["Partitions"] and found["Partitions"][0]["LeaderId"] >= 0:
            side.settle(name, 1)
            return found["Partitions"][0]["LeaderEpoch"]
        assert time.monotonic() < deadline, f"{name} has no leader: {found}"
        time.sleep(0.05)


@once("OffsetForLeaderEpoch", "epochs between known ones and without records")
def _(side, _version):
    """How far an epoch rises at a restart differs; what is asked for and what comes back is named by its place among those that were."""
    if isinstance(side.broker, External):
        return "not with a broker that somebody else runs"
    name = side.filled("epochs-of-restarts")
    results, led = {}, []

    def ask(when):
        current = leader_epoch(side, name)
        between = [one for one in range(led[0], current) if one not in led]
        assert between, f"no epoch between {led} and {current}"
        asked = {f"led {index}": epoch for index, epoch in enumerate(led)}
        asked |= {"between": between[-1], "current": current, "above": current + 1, "far above": current + 100, "none": -1}
        names = {epoch: what for what, epoch in asked.items()}
        for what, epoch in asked.items():
            one = {"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": epoch}
            answer = side.ask("OffsetForLeaderEpoch", 4, {"ReplicaId": -1, "Topics": [{"Topic": name, "Partitions": [one]}]})
            found = answer["Topics"][0]["Partitions"][0]
            results[f"{when}: {what}"] = [found["ErrorCode"], names.get(found["LeaderEpoch"], found["LeaderEpoch"]), found["EndOffset"]]

    led.append(leader_epoch(side, name))
    while leader_epoch(side, name) < led[0] + 2:
        restarted(side)
    ask("nothing appended since")
    side.produce(name, batch.batch([batch.record(0, b"k", b"v")]))
    ask("one appended since")
    led.append(leader_epoch(side, name))
    while leader_epoch(side, name) < led[1] + 2:
        restarted(side)
    ask("twice led")
    return results
