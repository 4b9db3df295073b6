//! The runtime and the worker on real containerd, runc and registries. These tests need root, containerd, runc,
//! busybox-static, docker-registry and skopeo, so they are ignored unless asked for: `cargo nextest run --test runtime
//! --run-ignored all`.

mod confined;
mod host;
mod images;
mod input;
mod logs;
mod measure;
mod tasks;
mod volumes;
