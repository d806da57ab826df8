"""Holds deploy/fleet.sql against a thousand hosts: reports of captured ones, each under other names.

    queries.py FLEET_SQL HOSTS BASE.jsonl...

Every answer of DuckDB is computed once more from the rows, in Python.
"""

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone

import duckdb

sql, count, bases = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
bases = [[json.loads(line) for line in open(base)] for base in bases]
begin = datetime(2026, 11, 1, tzinfo=timezone.utc)


def day(number):
    return (begin + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def renamed(row, number, at):
    """A row of another host: its ids of containers are others, digests of content are the same."""
    row = json.loads(json.dumps(row))
    row["host_id"], row["host"], row["time"] = f"id-{number}", f"node-{number}", at
    if row["record"] == "container":
        row["name"] = f"{row['name']}-{number}"
    if "target" in row:
        row["target"] = f"{row['target']}-{number}"
    return row


fleet = []  # the last whole report of each host
earlier = {}  # the disk of each container a day before
with tempfile.TemporaryDirectory() as directory:
    for number in range(count):
        base = bases[number % len(bases)]
        for at in (0, 1):
            rows = [renamed(row, number, day(at)) for row in base]
            for row in rows:
                if row["record"] == "space" and row["kind"] == "container":
                    if at == 0:
                        earlier[row["host_id"], row["engine"], row["id"]] = row["disk"]
                    elif number % 7 == 0:
                        row["disk"] += 1000 * (number + 1)
            if at == 1 and number % 50 == 0:
                planted = dict(rows[0], record="change", target=f"docker:app-{number}", change="added",
                               path="/opt/app/lib/log4j-core-2.14.1.jar")
                planted = {key: planted[key] for key in
                           ("schema_version", "host_id", "host", "time", "record", "target", "change", "path")}
                rows.insert(1, planted)
            if at == 1 and number % 40 == 0:
                orphan = {key: rows[0][key] for key in ("schema_version", "host_id", "host", "time")}
                orphan.update(record="orphan", engine="docker", kind="directory", disk=4096 * (number + 1),
                              path=f"/var/lib/docker/overlay2/lost-{number}", why="no record has it")
                rows.insert(1, orphan)
            is_cut = at == 1 and number % 250 == 3
            if is_cut:
                rows.pop()
            with open(os.path.join(directory, f"node-{number}-{at}.jsonl"), "w") as file:
                for row in rows:
                    file.write(json.dumps(row) + "\n")
            if at == 0:
                first = rows
            elif is_cut:
                fleet.extend(first)
            else:
                fleet.extend(rows)

    con = duckdb.connect()
    con.execute(f"SET VARIABLE reports = '{directory}/*.jsonl'")
    con.execute(open(sql).read())

    def ask(what, query, expected):
        begun = time.monotonic()
        answer = con.execute(query).fetchall()
        took = time.monotonic() - begun
        print(f"{what}: {len(answer)} rows in {took:.2f} s", flush=True)
        assert answer == expected, (what, answer[:3], expected[:3], len(answer), len(expected))
        assert took < 60, (what, took)
        return answer

    def of(record):
        return [row for row in fleet if row["record"] == record]

    # Which nodes run an image with this layer?
    digests = defaultdict(set)
    for row in of("layer"):
        if row.get("diff_id"):
            digests[row["diff_id"]].update((row["host_id"], row["engine"], image["id"]) for image in row["images"])
    checked = 0
    for digest in sorted(digests)[:: max(1, len(digests) // 3)]:
        runs = sorted(
            {(c["host_id"], c["host"], c["target"], c["state"], c["image"]) for c in of("container")
             if (c["host_id"], c["engine"], c["image_id"]) in digests[digest]}
        )
        ask(f"hosts with layer {digest[:19]}", f"FROM hosts_with_layer('{digest}')", runs)
        checked += len(runs)
    assert checked > 0

    # Is an image the same one everywhere?
    tags = sorted({tag for row in of("image") for tag in row["tags"]})
    for tag in tags[:2]:
        ids = defaultdict(set)
        for row in of("image"):
            if tag in row["tags"]:
                ids[row["id"]].add(row["host_id"])
        same = [(id, len(hosts), sorted(hosts)) for id, hosts in ids.items()]
        same.sort(key=lambda row: (-row[1], row[0]))
        ask(f"hosts with image {tag}", f"FROM hosts_with_image('{tag}')", same)

    # log4j on which nodes?
    jars = sorted((row["host_id"], row["host"], row["target"], row["change"], row["path"]) for row in of("change")
                  if row["change"] != "deleted" and isinstance(row["path"], str) and "/log4j-core-" in row["path"])
    assert len(jars) == len([n for n in range(count) if n % 50 == 0 and n % 250 != 3])
    ask("log4j", "FROM changed_files('log4j-core-%.jar')", jars)

    # Who grew since yesterday?
    grown = []
    for row in of("space"):
        if row["kind"] == "container" and row["time"] == day(1):
            more = row["disk"] - earlier[row["host_id"], row["engine"], row["id"]]
            if more > 0:
                grown.append((row["host_id"], row["host"], row["target"], more, row["disk"]))
    grown.sort(key=lambda row: (-row[3], row))
    assert grown
    ask("grown", f"FROM grown_since('{day(0)}')", grown)

    # Orphans by reason
    reasons = defaultdict(lambda: [0, set(), None])
    for row in of("orphan"):
        reason = reasons[row["engine"], row["kind"], row["why"]]
        reason[0] += 1
        reason[1].add(row["host_id"])
        if "disk" in row:
            reason[2] = (reason[2] or 0) + row["disk"]
    answer = con.execute("FROM orphans_by_reason").fetchall()
    expected = {key: (n, len(hosts), disk) for key, (n, hosts, disk) in reasons.items()}
    assert {row[:3]: row[3:] for row in answer} == expected, answer
    assert [row[5] or -1 for row in answer] == sorted((row[5] or -1 for row in answer), reverse=True)
    print(f"orphans by reason: {len(answer)}")

    free = con.execute("FROM free_by_host").fetchall()
    sums = defaultdict(lambda: [0, 0])
    for row in of("orphan") + of("unused"):
        sums[row["host_id"]][row["record"] == "unused"] += row.get("disk", 0)
    assert {row[0]: list(row[2:]) for row in free} == dict(sums)
    print(f"free by host: {len(free)}")

    # A report that was cut off is not the last one of its host.
    assert con.execute("SELECT count(DISTINCT host_id) FROM latest").fetchone() == (count,)
    cut = con.execute("SELECT count(*) FROM latest WHERE time = ? AND record = 'end'", [begin.replace(tzinfo=None)]).fetchone()
    assert cut == (len([n for n in range(count) if n % 250 == 3]),), cut
    unknown = con.execute("FROM not_known").fetchall()
    assert len(unknown) == len(of("problem")), unknown[:3]
    # Every key of a row that has a column is in it, whatever the host.
    total = con.execute("SELECT count(*) FROM report").fetchone()[0]
    print(f"{count} hosts, {total} rows: all answers are right")
