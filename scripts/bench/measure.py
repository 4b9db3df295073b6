"""Clocks and statistics of the benchmarks: wall time, CPU time, memory, closed loops of clients."""

import os
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
now = time.monotonic


def busy():
    """CPU seconds that the whole machine has spent."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4] - fields[7]) / TICKS


class Span:
    """Wall time, CPU time of the lab's hosts, and CPU time of everything else on the machine meanwhile."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        self.cpu, self.busy, self.start = self.lab.cpu(), busy(), now()
        return self

    def __exit__(self, *_):
        self.wall = now() - self.start
        self.hosts = self.lab.cpu() - self.cpu
        self.others = max(0.0, busy() - self.busy - self.hosts)

    def figures(self):
        return {"wall_s": round(self.wall, 3), "hosts_cpu_s": round(self.hosts, 2), "other_cpu_s": round(self.others, 2)}


def spread(values):
    """min / median / max."""
    values = sorted(value for value in values if value is not None)
    if not values:
        return None
    half = len(values) // 2
    median = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    return {"min": round(values[0], 3), "median": round(median, 3), "max": round(values[-1], 3), "n": len(values),
            "values": [round(value, 3) for value in values]}


def percentiles(seconds, *wanted):
    seconds = sorted(seconds)
    return {"p%g" % p: round(seconds[min(len(seconds) - 1, int(len(seconds) * p / 100))] * 1e3, 2) for p in wanted}


def memory(pid):
    """(RSS, PSS) in MiB."""
    rss = pss = 0
    try:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            for line in file:
                if line.startswith("Rss:"):
                    rss = int(line.split()[1])
                elif line.startswith("Pss:"):
                    pss = int(line.split()[1])
    except OSError:
        pass
    return rss / 1024, pss / 1024


def cpu_of(pid):
    """CPU seconds of a process and of those it has waited for."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / TICKS
    except OSError:
        return 0.0


def fdatasync(directory, count=200, size=2048):
    """Milliseconds of write + fdatasync, one after another: what a durable write costs on this disk at this moment."""
    path = os.path.join(directory, "fdatasync")
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    took = []
    for _ in range(count):
        start = now()
        os.write(file, b"x" * size)
        os.fdatasync(file)
        took.append(now() - start)
    os.close(file)
    os.unlink(path)
    return dict(percentiles(took, 50, 99), per_s=round(count / sum(took), 1))


def storm(lab, hosts, ask, seconds, most, clients=16):
    """A closed loop: each client asks one request at a time on a connection of its own, until time or requests run out."""
    took, errors, given = [], [], [0]
    lock, end = threading.Lock(), now() + seconds

    def client(number):
        host = hosts[number % len(hosts)]
        connection = host.api()
        while now() < end:
            with lock:
                if given[0] >= most:
                    break
                turn = given[0]
                given[0] += 1
            start = now()
            try:
                status, answer = ask(connection, turn)
            except Exception as error:
                errors.append(repr(error))
                connection.close()
                connection = host.api()
                continue
            if status < 300:
                took.append(now() - start)
            else:
                errors.append(str(answer)[:200])
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    with Span(lab) as span:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = dict(span.figures(), clients=clients, ok=len(took), errors=len(errors), per_s=round(len(took) / span.wall, 1))
    if took:
        found["latency_ms"] = percentiles(took, 50, 95, 99)
        found["hosts_cpu_ms_each"] = round(span.hosts * 1e3 / len(took), 2)
    if errors:
        found["first_error"] = errors[0]
    return found


class Spinners:
    """Processes that do nothing but use CPU time."""

    def __init__(self, count):
        self.pids = []
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                while True:
                    pass
            self.pids.append(pid)

    def stop(self):
        for pid in self.pids:
            os.kill(pid, 9)
        for pid in self.pids:
            os.waitpid(pid, 0)
