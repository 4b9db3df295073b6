"""The swarm of a lab's hosts: made, asked and changed through its API."""

import os
import threading

from lab import wait_for
from measure import cpu_of, memory, now

IMAGE = "flok/busybox:latest"


def spec(name, replicas, env=()):
    container = {"Image": IMAGE, "Args": ["sleep", "1000000"], "StopSignal": "SIGKILL", "Env": list(env)}
    return {"Name": name, "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": replicas}},
            "UpdateConfig": {"Parallelism": 10}}


def running(task, but=None):
    return task["Status"]["State"] == "running" and task["DesiredState"] == "running" and task.get("NodeID") != but


class Swarm:
    """The swarm of a lab's hosts, as its API shows it."""

    def __init__(self, lab):
        self.lab, self.joins = lab, {"manager": [], "worker": []}

    def init(self):
        host = self.lab.add()
        start = now()
        host.cli("swarm", "init", "--advertise-addr", host.addr)
        host.cli("node", "ls")
        self.init_took = now() - start
        return host

    def nodes(self, host):
        """Host index -> node."""
        status, nodes = host.call("GET", "/nodes", timeout=10)
        if status != 200:
            raise RuntimeError("GET /nodes: %s" % nodes)
        return {int(node["Description"]["Hostname"][1:]): node for node in nodes if node["Description"].get("Hostname")}

    def leader(self, host):
        """The leading host, as `host` sees it."""
        def look():
            for index, node in self.nodes(host).items():
                if (node.get("ManagerStatus") or {}).get("Leader"):
                    return next((host for host in self.lab.hosts if host.index == index), None)
        return wait_for("a leader", 20, look)

    def managers(self, host):
        nodes = self.nodes(host)
        return [other for other in self.lab.hosts if (nodes.get(other.index) or {}).get("ManagerStatus")]

    def join(self, via, role):
        host = self.lab.add()
        token = via.call("GET", "/swarm")[1]["JoinTokens"][role.capitalize()]
        start = now()
        host.cli("swarm", "join", "--token", token, via.addr + ":2377")

        def ready():
            node = self.nodes(via).get(host.index)
            return node and node["Status"]["State"] == "ready" and (
                role != "manager" or (node.get("ManagerStatus") or {}).get("Reachability") == "reachable")
        wait_for("n%d to be ready" % host.index, 60, ready, 0.05)
        self.joins[role].append(now() - start)
        return host

    def create(self, host, name, replicas):
        status, answer = host.call("POST", "/services/create", spec(name, replicas))
        if status != 201:
            raise RuntimeError("creating %s: %s" % (name, answer))

    def until_running(self, host, name, count, start, within=150, accept=lambda task: True):
        connection = host.api()
        try:
            while now() - start < within:
                if sum(running(task) and accept(task) for task in connection.tasks(service=[name])) >= count:
                    return now() - start
                pause(0.1)
        finally:
            connection.close()
        raise RuntimeError("%s has not %d tasks running after %s s" % (name, count, within))

    def remove(self, host, name):
        host.call("DELETE", "/services/" + name)
        wait_for("the containers of %s to end" % name, 90, lambda: not sleepers(self.lab), 0.1)


def pause(seconds):
    threading.Event().wait(seconds)


def sleepers(lab):
    """(host, pid) of the tasks' processes."""
    return [(host, pid) for host in lab.hosts for pid, line in host.processes() if line[:2] == ["sleep", "1000000"]]


class Writes:
    """A create every 100 ms on each manager, since one that is caught in an outage may hang: when the first was taken."""

    def __init__(self, hosts, start):
        self.hosts, self.start, self.won, self.errors = hosts, start, [], {}
        self.done, self.lock, self.threads = threading.Event(), threading.Lock(), []
        self.thread = threading.Thread(target=self.go)
        self.thread.start()

    def go(self):
        turn = 0
        while not self.done.is_set() and now() - self.start < 60:
            for host in self.hosts:
                thread = threading.Thread(target=self.write, args=(host, turn), daemon=True)
                thread.start()
                self.threads.append(thread)
            turn += 1
            self.done.wait(0.1)

    def write(self, host, turn):
        try:
            status, answer = host.call("POST", "/services/create", spec("w-%d-%d-%d" % (host.index, turn, self.start), 0), timeout=5)
            if status == 201:
                with self.lock:
                    self.won.append(now() - self.start)
                self.done.set()
                return
            error = str(answer)[:120]
        except Exception as failure:
            error = type(failure).__name__
        with self.lock:
            self.errors[error] = self.errors.get(error, 0) + 1

    def finish(self):
        self.thread.join()
        for thread in self.threads:
            thread.join()
        return {"write_taken_s": round(min(self.won), 3) if self.won else None, "write_errors": self.errors}


def parts(host):
    """Memory and CPU time of what runs on a host, by program."""
    found, flok = {}, os.path.basename(host.lab.flok)
    for pid, line in host.processes():
        program = os.path.basename(line[0])
        part = ("flok" if program == flok and "daemon" in line else "containerd" if program == "containerd" else
                "shims" if program.startswith("containerd-shim") else "log writers" if program == flok else None)
        if part:
            rss, pss = memory(pid)
            row = found.setdefault(part, {"processes": 0, "rss_mib": 0, "pss_mib": 0, "cpu_s": 0})
            row["processes"] += 1
            row["rss_mib"] = round(row["rss_mib"] + rss, 1)
            row["pss_mib"] = round(row["pss_mib"] + pss, 1)
            row["cpu_s"] = round(row["cpu_s"] + cpu_of(pid), 2)
    return found
