"""Consumer groups of the classic protocol, their offsets, and who coordinates them."""

import concurrent.futures
import time
import uuid

from sides import case, simple

UNKNOWN_ID = uuid.UUID("00000000-0000-0000-0000-0000deadbeef")


def protocols(*names, metadata=b"m"):
    return [{"Name": name, "Metadata": metadata} for name in names]


def join_body(group, member="", instance=None, names=("range",), kind="consumer", session=10000, rebalance=10000):
    return {
        "GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": rebalance, "MemberId": member, "GroupInstanceId": instance,
        "ProtocolType": kind, "Protocols": protocols(*names),
    }


def coordinated(side):
    """Waits until the coordinator serves, as a client does."""
    if getattr(side, "coordinator_ready", False):
        return
    for _ in range(400):
        found = side.ask("FindCoordinator", 1, {"Key": "ready", "KeyType": 0})
        if found["ErrorCode"] == 0 and side.ask("Heartbeat", 0, {"GroupId": "ready", "GenerationId": 1, "MemberId": "m"})["ErrorCode"] not in (14, 15, 16):
            # Other groups live on other partitions of the offsets topic, which load one after another.
            if all(
                side.ask("OffsetFetch", 5, {"GroupId": f"ready-{index}", "Topics": []})["ErrorCode"] == 0 for index in range(60)
            ):
                side.coordinator_ready = True
                return
        time.sleep(0.05)
    raise AssertionError("no coordinator within 20 s")


def joined(side, group, instance=None, names=("range",), kind="consumer", version=5):
    """A stable group of one member; (member id, generation)."""
    coordinated(side)
    body = join_body(group, instance=instance, names=names, kind=kind)
    answer = side.ask("JoinGroup", version, body)
    if answer["ErrorCode"] == 79:
        answer = side.ask("JoinGroup", version, {**body, "MemberId": answer["MemberId"]})
    assert answer["ErrorCode"] == 0, f"cannot join {group}: {answer}"
    member, generation = answer["MemberId"], answer["GenerationId"]
    answer = side.ask("SyncGroup", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": instance, "Assignments": [{"MemberId": member, "Assignment": b"a"}]})
    assert answer["ErrorCode"] == 0, f"cannot sync {group}: {answer}"
    return member, generation


def left(side, group, member):
    side.ask("LeaveGroup", 1, {"GroupId": group, "MemberId": member})


# -- FindCoordinator --

simple("FindCoordinator", "a group", lambda side, version: coordinated(side) or {"Key": "g", "KeyType": 0, "CoordinatorKeys": ["g"]})
simple("FindCoordinator", "the empty group", {"Key": "", "KeyType": 0, "CoordinatorKeys": [""]})
simple("FindCoordinator", "several", {"KeyType": 0, "CoordinatorKeys": ["a", "b", "a", ""]}, first=4)
simple("FindCoordinator", "none", {"KeyType": 0, "CoordinatorKeys": []}, first=4)
simple("FindCoordinator", "a transactional id", {"Key": "t", "KeyType": 1, "CoordinatorKeys": ["t"]}, first=1)
simple("FindCoordinator", "an unknown kind", {"Key": "t", "KeyType": 9, "CoordinatorKeys": ["t"]}, first=1)


# -- JoinGroup --


@case("JoinGroup", "a new member, twice")
def _(side, version):
    coordinated(side)
    group = f"join-v{version}"
    first = side.ask("JoinGroup", version, join_body(group))
    results = {"first": first}
    if first["ErrorCode"] == 79:
        results["second"] = first = side.ask("JoinGroup", version, join_body(group, first["MemberId"]))
    member = first["MemberId"]
    results["again"] = side.ask("JoinGroup", version, join_body(group, member))
    results["unknown member"] = side.ask("JoinGroup", version, join_body(group, "nobody"))
    results["another protocol"] = side.ask("JoinGroup", version, join_body(group, names=("other",)))
    results["another type"] = side.ask("JoinGroup", version, join_body(group, kind="connect"))
    left(side, group, member)
    return results


def join_case(title, first=None, **how):
    @case("JoinGroup", title, first)
    def _(side, version):
        coordinated(side)
        group = f"join-{title.replace(' ', '-')}-v{version}"
        return side.ask("JoinGroup", version, join_body(**{"group": group, **how}))


join_case("unknown member id", member="nobody")
join_case("empty group", group="")
join_case("session timeout too short", session=10)
join_case("session timeout too long", session=10_000_000)
join_case("negative session timeout", session=-5)
join_case("no protocols", names=())
join_case("no protocol type", kind="")
join_case("unknown member id with an instance", first=5, member="nobody", instance="i")


@case("JoinGroup", "a static member, and its fencing", 5)
def _(side, version):
    group = f"static-v{version}"
    member, generation = joined(side, group, instance="one")
    results = {
        "the same again": side.ask("JoinGroup", version, join_body(group, member, "one")),
        "wrong id": side.ask("JoinGroup", version, join_body(group, "one-00000000-0000-0000-0000-000000000000", "one")),
        "heartbeat of another": side.ask("Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": "other", "GroupInstanceId": "one"}),
        "commit of another": side.ask("OffsetCommit", 7, {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": "other", "GroupInstanceId": "one", "Topics": []}),
        "sync of another": side.ask("SyncGroup", 3, {"GroupId": group, "GenerationId": generation, "MemberId": "other", "GroupInstanceId": "one", "Assignments": []}),
        "leave of another": side.ask("LeaveGroup", 3, {"GroupId": group, "Members": [{"MemberId": "other", "GroupInstanceId": "one"}]}),
        "it comes back": side.ask("JoinGroup", version, join_body(group, "", "one")),
        "leave by instance": side.ask("LeaveGroup", 3, {"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "one"}, {"MemberId": "", "GroupInstanceId": "two"}]}),
    }
    return results


@case("JoinGroup", "two members share a group")
def _(side, version):
    group = f"pair-v{version}"
    member, generation = joined(side, group, names=("range", "roundrobin"))
    results = {}
    with side.connect(client_id="second") as connection, concurrent.futures.ThreadPoolExecutor(1) as pool:
        side.requests += 3
        answer = connection.request("JoinGroup", version, join_body(group, names=("roundrobin",)))
        results["second, first answer"] = answer["ErrorCode"]
        body = join_body(group, answer["MemberId"] if answer["ErrorCode"] == 79 else "", names=("roundrobin",))
        second = pool.submit(connection.request, "JoinGroup", version, body) if answer["ErrorCode"] else None
        deadline = time.monotonic() + 5
        while (code := side.ask("Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member})["ErrorCode"]) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        results["the first is told"] = code
        results["the first again"] = side.ask("JoinGroup", version, join_body(group, member, names=("range", "roundrobin")))
        results["the second"] = second.result() if second else answer
        results["described"] = side.ask("DescribeGroups", 5, {"Groups": [group]})
    left(side, group, member)
    return results


# -- SyncGroup, Heartbeat, LeaveGroup --


@case("SyncGroup", "states and mistakes")
def _(side, version):
    group = f"sync-v{version}"
    member, generation = joined(side, group)

    def sync(**changes):
        body = {"GroupId": group, "GenerationId": generation, "MemberId": member, "ProtocolType": "consumer", "ProtocolName": "range", "Assignments": []}
        return side.ask("SyncGroup", version, {**body, **changes})

    results = {
        "stable": sync(), "older generation": sync(GenerationId=generation - 1), "newer generation": sync(GenerationId=generation + 1),
        "unknown member": sync(MemberId="nobody"), "unknown group": sync(GroupId="nobody"), "empty group": sync(GroupId=""), "empty member": sync(MemberId=""),
    }
    if version >= 5:
        results |= {
            "other type": sync(ProtocolType="connect"), "other name": sync(ProtocolName="roundrobin"),
            "no type": sync(ProtocolType=None), "no name": sync(ProtocolName=None),
        }
    left(side, group, member)
    return results


@case("Heartbeat", "states and mistakes")
def _(side, version):
    group = f"beat-v{version}"
    member, generation = joined(side, group)

    def beat(**changes):
        return side.ask("Heartbeat", version, {"GroupId": group, "GenerationId": generation, "MemberId": member, **changes})

    results = {
        "stable": beat(), "older generation": beat(GenerationId=generation - 1), "unknown member": beat(MemberId="nobody"), "empty member": beat(MemberId=""),
        "unknown group": beat(GroupId="nobody"), "empty group": beat(GroupId=""), "unknown instance": beat(GroupInstanceId="x") if version >= 3 else None,
    }
    left(side, group, member)
    results["left"] = beat()
    return results


@case("LeaveGroup", "states and mistakes")
def _(side, version):
    group = f"leave-v{version}"
    member, _ = joined(side, group)

    def leave(who, name=group):
        return side.ask("LeaveGroup", version, {"GroupId": name, "MemberId": who, "Members": [{"MemberId": who}]})

    results = {
        "unknown member": leave("nobody"), "unknown group": leave("m", "nobody"), "empty group": leave("m", ""), "empty member": leave(""),
        "itself": leave(member), "again": leave(member),
    }
    if version >= 3:
        results["nobody at all"] = side.ask("LeaveGroup", version, {"GroupId": group, "Members": []})
    return results


# -- offsets --


def commit_body(side, group, topic="meta", offset=5, partition=0, metadata="kept", member="", generation=-1, **more):
    one = {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedLeaderEpoch": 0, "CommittedMetadata": metadata}
    return {
        "GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "RetentionTimeMs": -1,
        "Topics": [{"Name": topic, "TopicId": side.id(topic) if topic != "nowhere" else UNKNOWN_ID, "Partitions": [one]}], **more,
    }


@case("OffsetCommit", "without members")
def _(side, version):
    coordinated(side)
    side.topic("meta", 3)
    group = f"commit-v{version}"
    ask = lambda **how: side.ask("OffsetCommit", version, commit_body(side, how.pop("group", group), **how))  # noqa: E731
    return {
        "plain": ask(), "again, lower": ask(offset=2), "negative": ask(offset=-1), "null metadata": ask(metadata=None), "empty metadata": ask(metadata=""),
        "longest metadata": ask(metadata="x" * 4096), "metadata too long": ask(metadata="x" * 4097), "unknown topic": ask(topic="nowhere"),
        "unknown partition": ask(partition=9), "negative partition": ask(partition=-1), "generation to an unknown group": ask(group=f"none-v{version}", generation=3),
        "member to an unknown group": ask(group=f"none-v{version}", member="m", generation=3), "empty group": ask(group=""), "member of a group without": ask(member="m"),
        "no topics": side.ask("OffsetCommit", version, {"GroupId": group, "Topics": []}),
        "there": side.ask("OffsetFetch", 5, {"GroupId": group, "Topics": None}),
    }


@case("OffsetCommit", "of a member")
def _(side, version):
    side.topic("meta", 3)
    group = f"commit-member-v{version}"
    member, generation = joined(side, group)
    ask = lambda **how: side.ask("OffsetCommit", version, commit_body(side, group, **{"member": member, "generation": generation, **how}))  # noqa: E731
    results = {
        "its own": ask(), "older generation": ask(generation=generation - 1), "newer generation": ask(generation=generation + 1), "unknown member": ask(member="nobody"),
        "without member": ask(member="", generation=-1), "empty member with a generation": ask(member=""), "unknown topic": ask(topic="nowhere"),
    }
    left(side, group, member)
    return results


@case("OffsetFetch", "what is there and what is not")
def _(side, version):
    coordinated(side)
    side.topic("meta", 3)
    group = f"offsets-v{version}"
    side.ask("OffsetCommit", 8, commit_body(side, group))
    results = {}

    def ask(title, name, topics, **more):
        asked = None if topics is None else [{"Name": topic, "PartitionIndexes": parts} for topic, parts in topics]
        if version >= 8:
            asked = asked and [{**one, "TopicId": UNKNOWN_ID if one["Name"] == "nowhere" else side.id(one["Name"])} for one in asked]
        body = {"GroupId": name, "Topics": asked} if version < 8 else {"Groups": [{"GroupId": name, "Topics": asked}]}
        results[title] = side.ask("OffsetFetch", version, {**body, **more})

    ask("committed", group, [("meta", [0])])
    ask("committed and not", group, [("meta", [0, 1, 9])])
    ask("unknown topic", group, [("nowhere", [0])])
    ask("unknown group", "nobody-ever", [("meta", [0])])
    ask("empty group", "", [("meta", [0])])
    ask("nothing", group, [])
    if version >= 2:
        ask("all", group, None)
        ask("all of an unknown group", "nobody-ever", None)
    if version >= 7:
        ask("stable", group, [("meta", [0])], RequireStable=True)
    if version >= 8:
        asked = [{"Name": "meta", "TopicId": side.id("meta"), "PartitionIndexes": [0]}]
        results["several"] = side.ask("OffsetFetch", version, {"Groups": [{"GroupId": one, "Topics": asked} for one in (group, "nobody-ever", group)]})
        results["none"] = side.ask("OffsetFetch", version, {"Groups": []})
    if version >= 9:
        results["a member of nothing"] = side.ask("OffsetFetch", version, {"Groups": [{"GroupId": group, "MemberId": "m", "MemberEpoch": 3, "Topics": None}]})
    return results


@case("OffsetDelete", "states and mistakes")
def _(side, version):
    coordinated(side)
    side.topic("meta", 3)
    ask = lambda group, topic, *parts: side.ask("OffsetDelete", version, {"GroupId": group, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": one} for one in parts]}]})  # noqa: E731
    side.ask("OffsetCommit", 8, commit_body(side, "offset-delete"))
    results = {
        "unknown group": ask("nobody-ever", "meta", 0), "empty group": ask("", "meta", 0), "unknown topic": ask("offset-delete", "nowhere", 0),
        "unknown partition": ask("offset-delete", "meta", 9), "there": ask("offset-delete", "meta", 0), "again": ask("offset-delete", "meta", 0),
    }
    subscription = b"\0\0\0\0\0\1\0\4meta\xff\xff\xff\xff"
    body = {**join_body("offset-delete-active"), "Protocols": protocols("range", metadata=subscription)}
    answer = side.ask("JoinGroup", 5, body)
    answer = side.ask("JoinGroup", 5, {**body, "MemberId": answer["MemberId"]})
    member, generation = answer["MemberId"], answer["GenerationId"]
    side.ask("SyncGroup", 3, {"GroupId": "offset-delete-active", "GenerationId": generation, "MemberId": member, "Assignments": [{"MemberId": member, "Assignment": b""}]})
    side.ask("OffsetCommit", 8, commit_body(side, "offset-delete-active", member=member, generation=generation))
    results["subscribed"] = ask("offset-delete-active", "meta", 0)
    left(side, "offset-delete-active", member)
    return results


# -- seeing and deleting groups --


@case("DescribeGroups", "every state")
def _(side, version):
    coordinated(side)
    side.topic("meta", 3)
    group = f"described-v{version}"
    member, _ = joined(side, group)
    side.ask("OffsetCommit", 8, commit_body(side, f"empty-v{version}"))
    results = {
        "stable": side.ask("DescribeGroups", version, {"Groups": [group]}),
        "only offsets": side.ask("DescribeGroups", version, {"Groups": [f"empty-v{version}"]}),
        "unknown": side.ask("DescribeGroups", version, {"Groups": ["nobody-ever"]}),
        "empty name": side.ask("DescribeGroups", version, {"Groups": [""]}),
        "none": side.ask("DescribeGroups", version, {"Groups": []}),
        "twice": side.ask("DescribeGroups", version, {"Groups": [group, group]}),
    }
    if version >= 3:
        results["authorized operations"] = side.ask("DescribeGroups", version, {"Groups": [group], "IncludeAuthorizedOperations": True})
    left(side, group, member)
    results["empty"] = side.ask("DescribeGroups", version, {"Groups": [group]})
    return results


@case("ListGroups", "filters")
def _(side, version):
    group = f"listed-v{version}"
    member, _ = joined(side, group, kind="connect")

    def mine(answer):
        # Groups of other cases come and go.
        return {**answer, "Groups": [one for one in answer["Groups"] if one["GroupId"].startswith("listed-")]} if isinstance(answer, dict) else answer

    results = {"all": mine(side.ask("ListGroups", version, {}))}
    if version >= 4:
        for states in (["Stable"], ["stable"], ["Empty"], ["Dead", "Stable"], ["Nonsense"]):
            results[f"states {states}"] = mine(side.ask("ListGroups", version, {"StatesFilter": states}))
    if version >= 5:
        for kinds in (["classic"], ["Classic"], ["consumer"], ["Nonsense"]):
            results[f"types {kinds}"] = mine(side.ask("ListGroups", version, {"TypesFilter": kinds}))
    left(side, group, member)
    side.ask("DeleteGroups", 1, {"GroupsNames": [group]})
    return results


@case("DeleteGroups", "every state")
def _(side, version):
    group = f"deleted-v{version}"
    side.topic("meta", 3)
    member, _ = joined(side, group)
    ask = lambda *names: side.ask("DeleteGroups", version, {"GroupsNames": list(names)})  # noqa: E731
    results = {"active": ask(group), "unknown": ask("nobody-ever"), "empty name": ask(""), "none": ask(), "two": ask(group, "nobody-ever"), "twice": ask("nobody-ever", "nobody-ever")}
    left(side, group, member)
    results |= {"empty": ask(group), "again": ask(group)}
    return results
