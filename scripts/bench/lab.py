"""Hosts on one machine, made so that other orchestrators can be measured in the same way.

A host is a network namespace (eth0, a veth into a bridge that stands in a namespace of its own) and a mount, PID, UTS,
IPC and cgroup namespace, with `/run` of its own and a cpuacct cgroup in which everything on it is counted: the daemon,
containerd, shims, log writers and containers. Its death is link down and SIGKILL of its pid 1: every process on it ends in
the same instant, as with a power cut. Nothing listens outside, and all of it goes away with the lab.
"""

import glob
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse

SUBNET = "10.98.0"
CPUACCT = "/sys/fs/cgroup/cpuacct"
API = "/v1.41"


def run(*words, check=True, timeout=120):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(map(str, words)), (done.stderr or done.stdout).strip()))
    return done.stdout.strip()


class Api(http.client.HTTPConnection):
    """A keep-alive connection to a daemon's unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("flok", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def call(self, method, path, body=None, raw=False):
        content = None if body is None else json.dumps(body)
        self.request(method, API + path, content, {"Content-Type": "application/json"})
        answer = self.getresponse()
        data = answer.read()
        if raw:
            return answer.status, data
        try:
            return answer.status, json.loads(data) if data else None
        except ValueError:
            return answer.status, data.decode("utf8", "replace")

    def tasks(self, **filters):
        status, tasks = self.call("GET", "/tasks?filters=" + urllib.parse.quote(json.dumps(filters)))
        if status != 200:
            raise RuntimeError("GET /tasks: %s" % tasks)
        return tasks


class Host:
    def __init__(self, lab, index):
        self.lab, self.index = lab, index
        self.name = "%s-n%d" % (lab.name, index)
        self.link = "%sv%d" % (lab.name, index)
        self.dir = os.path.join(lab.dir, "n%d" % index)
        self.addr = "%s.%d" % (SUBNET, index)
        self.sock = os.path.join(self.dir, "flok.sock")
        self.cgroup = os.path.join(CPUACCT, lab.name, "n%d" % index)
        self.pid = None
        self.parents = []

    def boot(self):
        """Makes the namespaces and starts pid 1, which only reaps."""
        os.makedirs(self.dir)
        os.makedirs(self.cgroup)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.link, "netns", self.lab.switch, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "-n", self.lab.switch, "link", "set", self.link, "master", "br0", "up")
        run("ip", "-n", self.name, "addr", "add", self.addr + "/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "route", "add", "default", "via", SUBNET + ".254")
        # A cgroup namespace: the containers' cgroups are made below the host's, and so counted.
        script = """
            set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /run
            mount -t proc proc /proc
            if [ -d /sys/fs/cgroup/cpuacct ]; then
              umount /sys/fs/cgroup/cpuacct
              mount -t cgroup -o cpuacct cgroup /sys/fs/cgroup/cpuacct
            fi
            hostname n%d
            touch %s/up
            while :; do sleep 1000 & wait -n; done""" % (self.index, self.dir)
        words = ["nsenter", "--net=/run/netns/" + self.name, "unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup",
                 "--fork", "--kill-child", "bash", "-c", script]
        parent = self.spawn(words, os.path.join(self.dir, "init.log"))
        wait_for("host n%d to boot" % self.index, 20, lambda: os.path.exists(self.dir + "/up"))
        self.pid = int(children(parent.pid)[0])

    def spawn(self, words, log):
        with open(log, "ab") as out:
            parent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                                      preexec_fn=self.enter_cgroup)
        self.parents.append(parent)
        return parent

    def enter_cgroup(self):
        with open(self.cgroup + "/cgroup.procs", "w") as procs:
            procs.write("0")

    def inside(self, *words):
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i", "-C", "--"] + [str(word) for word in words]

    def start_daemon(self):
        """Starts the daemon and loads the image; returns the seconds until the API answered."""
        start = time.monotonic()
        words = self.inside(self.lab.flok, "daemon", "--data-dir", self.dir + "/data", "--socket", self.sock,
                            "--listen-addr", self.addr, "--log-level", self.lab.log_level)
        self.spawn(words, self.dir + "/daemon.log")
        wait_for("the daemon of n%d" % self.index, 30, self.answers)
        took = time.monotonic() - start
        self.cli("image", "load", "-i", self.lab.image)
        return took

    def answers(self):
        try:
            return self.call("GET", "/_ping", timeout=2)[0] == 200
        except OSError:
            return False

    def api(self, timeout=30):
        return Api(self.sock, timeout)

    def call(self, method, path, body=None, timeout=30):
        connection = self.api(timeout)
        try:
            return connection.call(method, path, body)
        finally:
            connection.close()

    def cli(self, *words, **options):
        return run(self.lab.flok, "--host", "unix://" + self.sock, *words, **options)

    def ctr(self, *words):
        """Words that run `ctr` on the host's containerd, outside the host's cgroup: its own CPU time is not counted."""
        return self.inside("ctr", "-a", self.dir + "/data/containerd/containerd.sock", "-n", "bare", *words)

    def cpu(self):
        with open(self.cgroup + "/cpuacct.usage") as usage:
            return int(usage.read()) / 1e9

    def processes(self):
        """(pid, command line) of all that runs on the host."""
        found = []
        for path in glob.glob(self.cgroup + "/**/cgroup.procs", recursive=True):
            try:
                with open(path) as procs:
                    pids = procs.read().split()
            except OSError:
                continue
            for pid in pids:
                try:
                    with open("/proc/%s/cmdline" % pid, "rb") as file:
                        found.append((int(pid), file.read().decode("utf8", "replace").split("\0")))
                except OSError:
                    continue
        return found

    def lose(self, percent):
        """Drops this share of what the host receives, and of what it sends."""
        rule = "type filter hook %s device eth0 priority 0; numgen random mod 100 < %d drop;"
        run(*self.inside("nft", "table netdev loss { chain in { %s }; chain out { %s }; }" % (
            rule % ("ingress", percent), rule % ("egress", percent))))

    def lose_nothing(self):
        run(*self.inside("nft", "delete table netdev loss"))

    def die(self):
        run("ip", "-n", self.lab.switch, "link", "set", self.link, "down", check=False)
        if self.pid:
            os.kill(self.pid, 9)
            self.pid = None

    def remove(self):
        """What a dead host leaves."""
        if self.pid:
            self.die()
        for parent in self.parents:
            try:
                parent.wait(5)
            except subprocess.TimeoutExpired:
                parent.kill()
        run("ip", "-n", self.lab.switch, "link", "del", self.link, check=False)
        run("ip", "netns", "del", self.name, check=False)
        containers = [os.path.basename(path) for path in glob.glob(self.cgroup + "/flok/*") + glob.glob(self.cgroup + "/bare/*")]
        for _ in range(50):
            if not os.path.isdir(self.cgroup):
                break
            run("find", self.cgroup, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+", check=False)
            time.sleep(0.1)
        for container in containers:
            for path in glob.glob("/sys/fs/cgroup/*/*/" + container) + glob.glob("/sys/fs/cgroup/memory/*/*/*/" + container):
                run("find", path, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+", check=False)
        if self.lab.keep_logs and os.path.exists(self.dir + "/daemon.log"):
            shutil.copy(self.dir + "/daemon.log", os.path.join(self.lab.keep_logs, "n%d.log" % self.index))
        shutil.rmtree(self.dir, ignore_errors=True)


class Lab:
    def __init__(self, flok, image, log_level="info", keep_logs=None):
        self.flok, self.image, self.log_level, self.keep_logs = flok, image, log_level, keep_logs
        self.name = "fb%d" % os.getpid()
        self.switch = self.name + "-sw"
        self.dir = tempfile.mkdtemp(prefix="flokb-", dir="/var/tmp")
        self.hosts, self.made = [], 0
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        run("ip", "-n", self.switch, "link", "set", "lo", "up")
        run("ip", "-n", self.switch, "addr", "add", SUBNET + ".254/24", "dev", "br0")

    def add(self):
        """A new host with its daemon; its index is never used again."""
        self.made += 1
        host = Host(self, self.made)
        self.hosts.append(host)
        host.boot()
        host.started_in = host.start_daemon()
        return host

    def kill(self, host):
        host.die()
        self.hosts.remove(host)

    def cpu(self):
        try:
            with open(os.path.join(CPUACCT, self.name, "cpuacct.usage")) as usage:
                return int(usage.read()) / 1e9
        except OSError:
            return 0.0

    def empty(self):
        for host in self.hosts:
            host.die()
        for host in self.hosts:
            host.remove()
        self.hosts = []

    def close(self):
        self.empty()
        run("ip", "netns", "del", self.switch, check=False)
        run("find", os.path.join(CPUACCT, self.name), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


def children(pid):
    found = []
    for path in glob.glob("/proc/%s/task/*/children" % pid):
        try:
            with open(path) as file:
                found += file.read().split()
        except OSError:
            pass
    return found


def wait_for(what, within, look, pause=0.02):
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError("waited %s s for %s" % (within, what))
        time.sleep(pause)
