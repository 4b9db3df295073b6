"""What was measured, as a table."""

import os

from lab import run
from measure import spread


def machine(flok):
    with open("/proc/meminfo") as info:
        memory_gib = int(info.readline().split()[1]) / 1024 / 1024
    return {"cpus": os.cpu_count(), "memory_gib": round(memory_gib, 1), "kernel": os.uname().release.split("-")[0],
            "containerd": run("containerd", "--version").split()[2], "runc": run("runc", "--version").split()[2],
            "flok": run(flok, "--version")}


def rows(results):
    """The table: (what, figure)."""
    def line(what, figures, unit="s"):
        if figures:
            table.append((what, "%s / %s / %s %s (n=%d)" % (figures["min"], figures["median"], figures["max"], unit, figures["n"])))
    table = []
    single, cycle, joins = results.get("single"), results.get("cycle"), results.get("join_ready_s", {})
    if single:
        line("init until node ls answers", single["init_to_node_ls_s"])
        table += writes("one manager", single["write"])
    line("join until ready, manager", joins.get("manager"))
    line("join until ready, worker", joins.get("worker"))
    if cycle:
        pick = lambda of, key: spread([run.get(key) for run in cycle[of]])
        line("bare containerd: %d containers" % results["replicas"], pick("bare", "wall_s"))
        line("  CPU each, without ctr's own", pick("bare", "cpu_s_each"))
        line("create %d until all run" % results["replicas"], pick("create", "all_running_s"))
        line("  CPU each", pick("create", "cpu_s_each"))
        line("worker host dies until it is Down", pick("worker", "down_s"))
        line("worker host dies until its tasks run elsewhere", pick("worker", "all_running_s"))
        line("leader host dies until a write is taken", pick("leader", "write_taken_s"))
        line("leader host dies until its tasks run elsewhere", pick("leader", "all_running_s"))
    if results.get("idle"):
        for name, row in results["idle"]["hosts"].items():
            flok, containerd = row["flok"], row["containerd"]
            table.append(("idle %s, %s, %d tasks" % (name, row["role"], row["tasks"]), "flok %s + containerd %s MiB RSS (%s + %s PSS), %s + %s CPU s a minute" % (
                flok["rss_mib"], containerd["rss_mib"], flok["pss_mib"], containerd["pss_mib"], flok["cpu_s_a_minute"], containerd["cpu_s_a_minute"])))
        line("a task's process killed until it runs again", results["idle"]["restart_s"])
    if results.get("update"):
        table.append(("rolling update: all new run / completed", "%s / %s s" % (results["update"]["all_new_running_s"], results["update"]["completed_s"])))
    for of, what in (("leader", "leader of three"), ("spread", "spread over three")):
        if results.get("write"):
            table += writes(what, results["write"][of])
        for path, row in (results.get("read", {}).get("leader" if of == "leader" else "follower") or {}).items():
            table.append(("%s %s (%d)" % ("leader" if of == "leader" else "follower", path, row["objects"]), "p50 %s, p99 %s ms" % (row["p50"], row["p99"])))
    for phase in ("saturation", "loss"):
        if results.get(phase):
            row = results[phase]
            table.append(("%s, %.0f s" % (phase, row["wall_s"]), "%d false verdicts, %d elections" % (row["down"], row["elections"])))
    return table


def writes(what, row):
    return [("service creates a second, " + what, "%s with 16 clients, %s with 1 (fdatasync p50 %s ms, %s/s)" % (
        row["create"]["per_s"], row["create_1_client"]["per_s"], row["fdatasync_ms"]["p50"], row["fdatasync_ms"]["per_s"]))]
