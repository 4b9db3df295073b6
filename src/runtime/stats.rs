//! What a task uses: CPU, memory, processes and disk of its cgroup, as containerd reads them. Cgroups of version 1 and 2
//! come in messages of their own; of both only the fields that are shown are declared here.

use containerd_client::services::v1::MetricsRequest;
use containerd_client::services::v1::snapshots::{StatSnapshotRequest, UsageRequest};
use prost::Message;

use super::Runtime;
use super::client::{LONG, SHORT, SNAPSHOTTER, call};
use super::containers::container_id;
use super::error::{Result, RuntimeError};
use crate::spec::TaskId;

/// Of one image; more than a container's root can be put together of.
const MAX_LAYERS: usize = 512;

/// What a container's files take; volumes are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// In its writable layer.
    pub written_bytes: u64,
    /// Its image's layers with it.
    pub whole_bytes: u64,
}

/// Totals since the start, but for memory and processes, which are as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskStats {
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    /// Without the page cache that the kernel gives back first, as Docker shows it.
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub processes: u64,
    pub processes_limit: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl Runtime {
    pub async fn stats(&self, task: TaskId) -> Result<TaskStats> {
        let id = container_id(task);
        let request = MetricsRequest { filters: vec![format!("id=={id}")] };
        let answer = call("measuring", &id, SHORT, self.shared.client.tasks().metrics(request)).await?;
        let metric = answer.metrics.into_iter().find(|metric| metric.id == id).and_then(|metric| metric.data);
        let data = metric.ok_or(RuntimeError::NotRunning(task))?;
        decode(&data.type_url, &data.value).ok_or(RuntimeError::NotRunning(task))
    }

    /// What the container's files take. Walks those of its writable layer: not for every second.
    pub async fn disk_usage(&self, task: TaskId) -> Result<DiskUsage> {
        let id = container_id(task);
        let written_bytes = self.snapshot_bytes(&id).await?;
        let mut usage = DiskUsage { written_bytes, whole_bytes: written_bytes };
        let mut layer = self.snapshot_below(&id).await?;
        for _ in 0..MAX_LAYERS {
            let Some(key) = layer else { break };
            usage.whole_bytes += self.snapshot_bytes(&key).await?;
            layer = self.snapshot_below(&key).await?;
        }
        Ok(usage)
    }

    async fn snapshot_bytes(&self, key: &str) -> Result<u64> {
        let request = UsageRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let usage = call("measuring the files of", key, LONG, self.shared.client.snapshots().usage(request)).await?;
        Ok(u64::try_from(usage.size).unwrap_or(0))
    }

    async fn snapshot_below(&self, key: &str) -> Result<Option<String>> {
        let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let found = call("looking at the layers of", key, SHORT, self.shared.client.snapshots().stat(request)).await?;
        Ok(found.info.map(|info| info.parent).filter(|parent| !parent.is_empty()))
    }
}

fn decode(type_url: &str, bytes: &[u8]) -> Option<TaskStats> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    match name {
        "io.containerd.cgroups.v1.Metrics" => v1::Metrics::decode(bytes).ok().map(|metrics| metrics.stats()),
        "io.containerd.cgroups.v2.Metrics" => v2::Metrics::decode(bytes).ok().map(|metrics| metrics.stats()),
        _ => None,
    }
}

/// From `containerd/cgroups/cgroup1/stats/metrics.proto`.
mod v1 {
    use super::TaskStats;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metrics {
        #[prost(message, optional, tag = "2")]
        pub pids: Option<Pids>,
        #[prost(message, optional, tag = "3")]
        pub cpu: Option<Cpu>,
        #[prost(message, optional, tag = "4")]
        pub memory: Option<Memory>,
        #[prost(message, optional, tag = "5")]
        pub blkio: Option<Blkio>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Pids {
        #[prost(uint64, tag = "1")]
        pub current: u64,
        #[prost(uint64, tag = "2")]
        pub limit: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Cpu {
        #[prost(message, optional, tag = "1")]
        pub usage: Option<CpuUsage>,
        #[prost(message, optional, tag = "2")]
        pub throttling: Option<Throttle>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CpuUsage {
        #[prost(uint64, tag = "1")]
        pub total: u64,
        #[prost(uint64, tag = "2")]
        pub kernel: u64,
        #[prost(uint64, tag = "3")]
        pub user: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Throttle {
        #[prost(uint64, tag = "2")]
        pub throttled_periods: u64,
        #[prost(uint64, tag = "3")]
        pub throttled_time: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Memory {
        #[prost(uint64, tag = "28")]
        pub total_inactive_file: u64,
        #[prost(message, optional, tag = "33")]
        pub usage: Option<MemoryEntry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MemoryEntry {
        #[prost(uint64, tag = "1")]
        pub limit: u64,
        #[prost(uint64, tag = "2")]
        pub usage: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Blkio {
        #[prost(message, repeated, tag = "1")]
        pub service_bytes: Vec<BlkioEntry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BlkioEntry {
        #[prost(string, tag = "1")]
        pub op: String,
        #[prost(uint64, tag = "5")]
        pub value: u64,
    }

    impl Metrics {
        pub fn stats(self) -> TaskStats {
            let cpu = self.cpu.unwrap_or_default();
            let usage = cpu.usage.unwrap_or_default();
            let throttling = cpu.throttling.unwrap_or_default();
            let memory = self.memory.unwrap_or_default();
            let entry = memory.usage.unwrap_or_default();
            let pids = self.pids.unwrap_or_default();
            let blocks = self.blkio.unwrap_or_default().service_bytes;
            let bytes = |op: &str| blocks.iter().filter(|e| e.op.eq_ignore_ascii_case(op)).map(|e| e.value).sum();
            TaskStats {
                cpu_total_ns: usage.total,
                cpu_user_ns: usage.user,
                cpu_system_ns: usage.kernel,
                throttled_periods: throttling.throttled_periods,
                throttled_ns: throttling.throttled_time,
                memory_bytes: entry.usage.saturating_sub(memory.total_inactive_file),
                memory_limit_bytes: entry.limit,
                processes: pids.current,
                processes_limit: pids.limit,
                read_bytes: bytes("read"),
                written_bytes: bytes("write"),
            }
        }
    }
}

/// From `containerd/cgroups/cgroup2/stats/metrics.proto`.
mod v2 {
    use super::TaskStats;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metrics {
        #[prost(message, optional, tag = "1")]
        pub pids: Option<super::v1::Pids>,
        #[prost(message, optional, tag = "2")]
        pub cpu: Option<Cpu>,
        #[prost(message, optional, tag = "4")]
        pub memory: Option<Memory>,
        #[prost(message, optional, tag = "6")]
        pub io: Option<Io>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Cpu {
        #[prost(uint64, tag = "1")]
        pub usage_usec: u64,
        #[prost(uint64, tag = "2")]
        pub user_usec: u64,
        #[prost(uint64, tag = "3")]
        pub system_usec: u64,
        #[prost(uint64, tag = "5")]
        pub nr_throttled: u64,
        #[prost(uint64, tag = "6")]
        pub throttled_usec: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Memory {
        #[prost(uint64, tag = "17")]
        pub inactive_file: u64,
        #[prost(uint64, tag = "32")]
        pub usage: u64,
        #[prost(uint64, tag = "33")]
        pub usage_limit: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Io {
        #[prost(message, repeated, tag = "1")]
        pub usage: Vec<IoEntry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct IoEntry {
        #[prost(uint64, tag = "3")]
        pub rbytes: u64,
        #[prost(uint64, tag = "4")]
        pub wbytes: u64,
    }

    impl Metrics {
        pub fn stats(self) -> TaskStats {
            let cpu = self.cpu.unwrap_or_default();
            let memory = self.memory.unwrap_or_default();
            let pids = self.pids.unwrap_or_default();
            let io = self.io.unwrap_or_default().usage;
            TaskStats {
                cpu_total_ns: cpu.usage_usec.saturating_mul(1000),
                cpu_user_ns: cpu.user_usec.saturating_mul(1000),
                cpu_system_ns: cpu.system_usec.saturating_mul(1000),
                throttled_periods: cpu.nr_throttled,
                throttled_ns: cpu.throttled_usec.saturating_mul(1000),
                memory_bytes: memory.usage.saturating_sub(memory.inactive_file),
                memory_limit_bytes: memory.usage_limit,
                processes: pids.current,
                processes_limit: pids.limit,
                read_bytes: io.iter().map(|entry| entry.rbytes).sum(),
                written_bytes: io.iter().map(|entry| entry.wbytes).sum(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_counts_microseconds_and_leaves_the_cache_out() {
        let metrics = v2::Metrics {
            cpu: Some(v2::Cpu { usage_usec: 5, ..Default::default() }),
            memory: Some(v2::Memory { usage: 100, inactive_file: 30, usage_limit: 500 }),
            ..Default::default()
        };
        let stats = decode("io.containerd.cgroups.v2.Metrics", &metrics.encode_to_vec()).unwrap();
        assert_eq!((stats.cpu_total_ns, stats.memory_bytes, stats.memory_limit_bytes), (5000, 70, 500));
    }

    #[test]
    fn an_unknown_kind_of_metrics_is_none() {
        assert_eq!(decode("type.example/x", &[]), None);
    }
}
