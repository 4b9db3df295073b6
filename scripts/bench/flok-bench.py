#!/usr/bin/env python3
"""Measures flok on five simulated hosts (three managers, two workers) on this machine.

  scripts/bench/flok-bench.py                      everything (about 40 minutes)
  scripts/bench/flok-bench.py --short              one quick pass over everything, to see that it works (for CI)
  scripts/bench/flok-bench.py --phases cycle,idle  some of it

Phases:
  single      one host: init until `node ls` answers, service creates a second on one manager
  cycle       --reps times: the same number of containers by bare containerd and by flok, death of a worker,
              death of the leader, both hosts replaced by new ones
  idle        memory and CPU time of flok and containerd at rest, and a task's process killed until it runs again
  update      rolling update, ten at a time
  write       service creates a second with 16 clients on three managers: all on the leader, and spread over them
  read        GET /services and GET /tasks on the leader and on a follower
  saturation  false verdicts while 8 processes spin on all CPUs and containers start and end in bursts
  loss        false verdicts while each host loses 20 % of what it receives and 20 % of what it sends
  scheduler   placements a CPU second: cargo bench --bench scheduler

Durations count from the moment before the first byte of a request, or before the kill. Services are `sleep` with stop
signal SIGKILL, since `sleep` as pid 1 ignores SIGTERM. "CPU" is that of all processes on the hosts: flok, containerd,
shims, log writers, containers. Needs root, cgroup v1 with cpuacct, and the Debian packages containerd (with ctr), runc,
iproute2, nftables, busybox-static, and python3. A table goes to stderr, JSON to stdout.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import Lab, run, wait_for  # noqa: E402
from measure import Span, Spinners, fdatasync, now, percentiles, spread, storm  # noqa: E402
from report import machine, rows  # noqa: E402
from swarm import Swarm, Writes, parts, pause, running, sleepers, spec  # noqa: E402

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PHASES = ["single", "cycle", "idle", "update", "write", "read", "saturation", "loss", "scheduler"]
START = now()


def say(*words):
    print("[%6.1f]" % (now() - START), *words, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options):
        self.options, self.count = options, options.replicas
        self.results = {"replicas": self.count, "managers": options.managers, "workers": options.workers, "failed": []}
        self.lab = Lab(options.flok, options.image, options.log_level, options.keep_logs)
        self.swarm = None

    # ---- the phases -------------------------------------------------------------------------------------------------

    def single(self):
        inits = []
        for _ in range(1 if self.options.short else 3):
            self.lab.empty()
            self.swarm = Swarm(self.lab)
            host = self.swarm.init()
            inits.append(self.swarm.init_took)
        found = {"init_to_node_ls_s": spread(inits), "write": self.write_rate([host], "one")}
        self.lab.empty()
        return found

    def boot(self):
        start = now()
        self.swarm = Swarm(self.lab)
        host = self.swarm.init()
        for _ in range(self.options.managers - 1):
            self.swarm.join(host, "manager")
        for _ in range(self.options.workers):
            self.swarm.join(host, "worker")
        say("swarm of %d in %.1f s" % (len(self.lab.hosts), now() - start))

    def cycle(self):
        found = {"bare": [], "create": [], "worker": [], "leader": []}
        for number in range(self.options.reps):
            name = "c%d" % number
            found["bare"].append(self.bare())
            found["create"].append(self.create(name))
            pause(2)
            found["worker"].append(self.worker_death(name))
            if self.options.managers >= 3:
                found["leader"].append(self.leader_death(name))
            self.swarm.remove(self.any(), name)
            if self.options.managers >= 3:
                self.swarm.join(self.any(), "manager")
            self.swarm.join(self.any(), "worker")
            pause(1)
        return found

    def any(self):
        """A host that manages and has a quorum."""
        def look():
            for host in self.lab.hosts:
                try:
                    if host.call("GET", "/nodes", timeout=3)[0] == 200:
                        return host
                except OSError:
                    pass
        return wait_for("a manager that answers", 30, look)

    def bare(self):
        """As many containers on as many hosts by `ctr run -d`, two at a time on each; ctr's own CPU time is left out."""
        for host in self.lab.hosts:
            run(*host.ctr("images", "import", self.options.image))
        image = run(*self.lab.hosts[0].ctr("images", "ls", "-q")).split()[0]
        work = [(host, number) for number in range(self.count // len(self.lab.hosts)) for host in self.lab.hosts]
        self.bare_round(image, [(host, number) for host, number in work if number == 0], "warm")
        with Span(self.lab) as span:
            self.bare_round(image, work, "b", 2 * len(self.lab.hosts))
        figures = dict(span.figures(), containers=len(work), cpu_s_each=round(span.hosts / len(work), 3))
        for host in self.lab.hosts:
            for name in run(*host.ctr("tasks", "ls", "-q")).split():
                run(*host.ctr("tasks", "rm", "-f", name), check=False)
            for name in run(*host.ctr("containers", "ls", "-q")).split():
                run(*host.ctr("containers", "rm", name), check=False)
        say("bare containerd: %s" % figures)
        return figures

    def bare_round(self, image, work, prefix, clients=5):
        work, lock = list(work), threading.Lock()

        def client():
            while True:
                with lock:
                    if not work:
                        return
                    host, number = work.pop(0)
                run(*host.ctr("run", "-d", "--null-io", image, "%s%d" % (prefix, number), "sleep", "1000001"))
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def create(self, name):
        host = self.any()
        with Span(self.lab) as span:
            start = now()
            self.swarm.create(host, name, self.count)
            took = self.swarm.until_running(host, name, self.count, start)
        figures = dict(span.figures(), all_running_s=round(took, 3), cpu_s_each=round(span.hosts / self.count, 3))
        say("create %d: %s" % (self.count, figures))
        return figures

    def worker_death(self, name):
        host = self.any()
        nodes = self.swarm.nodes(host)
        victim = next(other for other in self.lab.hosts if not nodes[other.index].get("ManagerStatus"))
        figures = self.death(victim, nodes[victim.index]["ID"], host, name)
        self.forget(victim, nodes[victim.index]["ID"], host)
        say("worker's death: %s" % figures)
        return figures

    def leader_death(self, name):
        host = self.any()
        victim = self.swarm.leader(host)
        node = self.swarm.nodes(host)[victim.index]["ID"]
        rest = [other for other in self.swarm.managers(host) if other is not victim]
        figures = self.death(victim, node, rest[0], name, rest)
        host = rest[0]
        for service in host.call("GET", "/services")[1]:
            if service["Spec"]["Name"].startswith("w-"):
                host.call("DELETE", "/services/" + service["ID"])
        self.forget(victim, node, host)
        say("leader's death: %s" % figures)
        return figures

    def death(self, victim, node, host, name, writers=()):
        """Kills a host; until it is Down, until a write is taken on one of `writers`, until all tasks run elsewhere."""
        connection = host.api()
        lost = sum(running(task) and task.get("NodeID") == node for task in connection.tasks(service=[name]))
        connection.close()
        figures = {"tasks_lost": lost, "down_s": None, "all_running_s": None}
        with Span(self.lab) as span:
            start = now()
            self.lab.kill(victim)
            writes = Writes(writers, start) if writers else None
            while now() - start < 90 and None in figures.values():
                try:
                    self.watch_death(host, node, name, start, figures)
                except (OSError, RuntimeError):
                    pass
                pause(0.05)
            if writes:
                figures.update(writes.finish())
        return dict(figures, **span.figures())

    def watch_death(self, host, node, name, start, figures):
        if figures["down_s"] is None:
            status, found = host.call("GET", "/nodes/" + node, timeout=5)
            if status == 200 and found["Status"]["State"] == "down":
                figures["down_s"] = round(now() - start, 3)
        connection = host.api(5)
        try:
            elsewhere = sum(running(task, node) for task in connection.tasks(service=[name]))
        finally:
            connection.close()
        if elsewhere >= self.count:
            figures["all_running_s"] = round(now() - start, 3)

    def forget(self, victim, node, host):
        """Takes a dead node out of the swarm."""
        def gone():
            host.cli("node", "demote", node, check=False, timeout=30)
            host.cli("node", "rm", "--force", node, check=False, timeout=30)
            return victim.index not in self.swarm.nodes(host)
        wait_for("n%d to be removed" % victim.index, 60, gone, 0.25)
        victim.remove()

    def idle(self):
        host, seconds = self.any(), 10 if self.options.short else 60
        self.create("base")
        pause(5)
        nodes, leader = self.swarm.nodes(host), self.swarm.leader(host)
        before = {other: parts(other) for other in self.lab.hosts}
        with Span(self.lab) as span:
            pause(seconds)
        found = {"window_s": round(span.wall, 1), "other_cpu_s": round(span.others, 2), "hosts": {}}
        for other in self.lab.hosts:
            role = "leader" if other is leader else "manager" if nodes[other.index].get("ManagerStatus") else "worker"
            after = parts(other)
            row = {"role": role, "tasks": len([one for one in sleepers(self.lab) if one[0] is other])}
            for part, figures in after.items():
                row[part] = dict(figures, cpu_s_a_minute=round((figures["cpu_s"] - before[other].get(part, figures)["cpu_s"]) * 60 / span.wall, 2))
            found["hosts"]["n%d" % other.index] = row
            say("idle: %s" % row)
        found["restart_s"] = self.restarts(host, "base")
        return found

    def restarts(self, host, name):
        """SIGKILLs the processes of some tasks, one after another: seconds until the full number runs again."""
        took = []
        for victim, pid in sleepers(self.lab)[:: max(1, self.count // 5)][:5]:
            known = {task["ID"] for task in host.call("GET", "/tasks")[1]}
            start = now()
            os.kill(pid, signal.SIGKILL)
            connection = host.api()
            while now() - start < 40:
                tasks = [task for task in connection.tasks(service=[name]) if running(task)]
                if len(tasks) >= self.count and any(task["ID"] not in known for task in tasks):
                    took.append(now() - start)
                    break
                pause(0.02)
            connection.close()
        say("a task's process killed until it runs again: %s" % took)
        return spread(took)

    def update(self):
        host = self.any()
        status, service = host.call("GET", "/services/base")
        if status != 200:
            self.create("base")
            status, service = host.call("GET", "/services/base")
        with Span(self.lab) as span:
            start = now()
            status, answer = host.call("POST", "/services/%s/update?version=%d" % (service["ID"], service["Version"]["Index"]),
                                       spec("base", self.count, ["A=new"]))
            if status != 200:
                raise RuntimeError("update: %s" % answer)
            took = self.swarm.until_running(host, "base", self.count, start, 150,
                                            lambda task: "A=new" in (task["Spec"]["ContainerSpec"].get("Env") or []))
        figures = dict(span.figures(), all_new_running_s=round(took, 3))

        def completed():
            return (host.call("GET", "/services/base")[1].get("UpdateStatus") or {}).get("State") == "completed"
        try:
            wait_for("the update to be called complete", 30, completed, 0.1)
            figures["completed_s"] = round(now() - start, 3)
        except RuntimeError:
            figures["completed_s"] = None
            figures["status"] = host.call("GET", "/services/base")[1].get("UpdateStatus")
        say("rolling update: %s" % figures)
        return figures

    def write_rate(self, hosts, tag):
        seconds, most = (1, 100) if self.options.short else (4, 4000)
        found = {"managers_asked": len(hosts), "fdatasync_ms": fdatasync(self.lab.dir)}
        ask = lambda prefix: lambda connection, turn: connection.call("POST", "/services/create", spec("%s-%s%d" % (tag, prefix, turn), 0))
        found["create_1_client"] = storm(self.lab, hosts[:1], ask("a"), seconds / 2, most, 1)
        found["create"] = storm(self.lab, hosts, ask(""), seconds, most)
        ids = [service["ID"] for service in hosts[0].call("GET", "/services")[1] if service["Spec"]["Name"].startswith(tag + "-")]
        found["delete"] = storm(self.lab, hosts, lambda connection, turn: connection.call("DELETE", "/services/" + ids[turn]), 60, len(ids))
        say("writes, %d managers asked: %s" % (len(hosts), {key: found[key].get("per_s") for key in ("create_1_client", "create", "delete")}), found["fdatasync_ms"])
        return found

    def write(self):
        leader = self.swarm.leader(self.any())
        return {"leader": self.write_rate([leader], "wl"), "spread": self.write_rate(self.swarm.managers(leader), "ws")}

    def read(self):
        host = self.any()
        leader = self.swarm.leader(host)
        follower = next(other for other in self.swarm.managers(host) if other is not leader)
        if host.call("GET", "/services/base")[0] != 200:
            self.create("base")
        for number in range(99):
            self.swarm.create(leader, "r-%d" % number, 0)
        found = {"leader": self.reads(leader), "follower": self.reads(follower)}
        for number in range(99):
            leader.call("DELETE", "/services/r-%d" % number)
        say("reads: %s" % found)
        return found

    def reads(self, host):
        found, connection = {}, host.api()
        for path in ("/services", "/tasks", "/nodes"):
            took = []
            for _ in range(20 if self.options.short else 300):
                start = now()
                status, answer = connection.call("GET", path, raw=True)
                took.append(now() - start)
            found["GET " + path] = dict(percentiles(took, 50, 99), objects=len(json.loads(answer)), bytes=len(answer))
        connection.close()
        return found

    def saturation(self):
        spinners = Spinners(8)
        try:
            return self.verdicts("saturation", self.burst)
        finally:
            spinners.stop()

    def burst(self, number):
        """Containers that start and end."""
        host = self.any()
        self.swarm.create(host, "burst-%d" % number, 2 * len(self.lab.hosts))
        pause(12)
        host.call("DELETE", "/services/burst-%d" % number)
        pause(8)

    def loss(self):
        for host in self.lab.hosts:
            host.lose(20)
        try:
            return self.verdicts("loss", lambda number: pause(5))
        finally:
            for host in self.lab.hosts:
                host.lose_nothing()

    def verdicts(self, what, meanwhile):
        """What the log says of deaths, while nobody dies."""
        logs = {host: os.path.getsize(host.dir + "/daemon.log") for host in self.lab.hosts}
        start, number, trouble = now(), 0, []
        with Span(self.lab) as span:
            while now() - start < self.options.minutes * 60:
                try:
                    meanwhile(number)
                except (OSError, RuntimeError) as error:
                    trouble.append(str(error)[:200])
                number += 1
        found = dict(span.figures(), down=0, elections=0, requests_failed=len(trouble), rounds=number)
        for host, size in logs.items():
            with open(host.dir + "/daemon.log", errors="replace") as log:
                log.seek(size)
                for line in log:
                    found["down"] += "node is down" in line
                    found["elections"] += "this node leads" in line
        if trouble:
            found["first_failure"] = trouble[0]
        say("%s: %s" % (what, found))
        return found

    def scheduler(self):
        words = ["cargo", "bench", "--bench", "scheduler"] + (["--", "--short"] if self.options.short else [])
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        lines = done.stdout.strip().splitlines()
        say("\n".join(lines))
        return lines

    # ---- running them -----------------------------------------------------------------------------------------------

    def run(self):
        self.results["machine"] = machine(self.options.flok)
        self.results["load_before"] = os.getloadavg()
        self.results["fdatasync_before_ms"] = fdatasync(self.lab.dir)
        phases = self.options.phases
        if "single" in phases:
            self.attempt("single")
        if set(phases) - {"single", "scheduler"}:
            self.boot()
        for phase in PHASES[1:]:
            if phase in phases:
                self.attempt(phase)
        if self.swarm:
            self.results["join_ready_s"] = {role: spread(took) for role, took in self.swarm.joins.items()}
        self.results["fdatasync_after_ms"] = fdatasync(self.lab.dir)
        self.results["load_after"] = os.getloadavg()

    def attempt(self, phase):
        try:
            self.results[phase] = getattr(self, phase)()
        except Exception as error:
            traceback.print_exc()
            self.results["failed"].append("%s: %s" % (phase, error))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", default=",".join(PHASES), help="comma-separated; default: all")
    parser.add_argument("--reps", type=int, default=5, help="repeats of cycle (default 5)")
    parser.add_argument("--replicas", type=int, default=50, help="(default 50)")
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10, help="of saturation and of loss (default 10)")
    parser.add_argument("--short", action="store_true", help="1 repeat, 10 replicas, 30 s of saturation and loss each")
    parser.add_argument("--flok", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", REPO + "/target"), "release/flok"),
                        help="the binary (default: the release build)")
    parser.add_argument("--out", metavar="FILE", help="write the JSON there, too")
    parser.add_argument("--log-level", default="info", help="of the daemons")
    parser.add_argument("--keep-logs", metavar="DIR", help="keep the daemons' logs there")
    options = parser.parse_args()
    options.phases = options.phases.split(",")
    unknown = set(options.phases) - set(PHASES)
    if unknown:
        parser.error("unknown phases: %s (--help lists them)" % ", ".join(sorted(unknown)))
    if options.short:
        options.reps, options.replicas, options.minutes = 1, 10, 0.5
    if os.geteuid() != 0:
        parser.error("making hosts needs root")
    if not os.path.exists("/sys/fs/cgroup/cpuacct/cpuacct.usage"):
        parser.error("CPU time is read from cgroup v1's cpuacct, which is not mounted at /sys/fs/cgroup/cpuacct")
    if not os.path.exists(options.flok):
        parser.error("%s is missing: build it by `cargo build --release`, or name one by --flok" % options.flok)
    if options.keep_logs:
        os.makedirs(options.keep_logs, exist_ok=True)
    return options


def main():
    options = arguments()
    images = "/var/tmp/flok-bench-images"
    run(REPO + "/docker/images.sh", images, "busybox")
    options.image = images + "/busybox.tar"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options)
    try:
        bench.run()
    finally:
        bench.lab.close()
    results = bench.results
    table = rows(results)
    width = max((len(what) for what, _ in table), default=0)
    print("\nmin / median / max", file=sys.stderr)
    for what, figure in table:
        print(what.ljust(width + 2) + figure, file=sys.stderr)
    text = json.dumps(results, indent=1)
    if options.out:
        with open(options.out, "w") as out:
            out.write(text + "\n")
    print(text)
    for failure in results["failed"]:
        print("failed: " + failure, file=sys.stderr)
    false = sum(results.get(phase, {}).get("down", 0) for phase in ("saturation", "loss"))
    sys.exit(1 if results["failed"] or (options.short and false) else 0)


if __name__ == "__main__":
    main()
