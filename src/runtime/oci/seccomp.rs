//! Docker's default seccomp profile: a list of allowed system calls, widened by the capabilities a container holds.
//!
//! The semantics are those of moby's `profiles/seccomp/default.json` (with `io_uring_*` left out, as Docker does since
//! version 25). Its one kernel condition, ptrace from 4.8 on, always holds here: the network room needs far newer kernels.
//! runc skips names its libseccomp does not know, so the list may run ahead of the machine.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Every `CLONE_NEW*` flag that makes a namespace: none may be set without `CAP_SYS_ADMIN`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Personalities that change nothing about security: `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `AF_VSOCK` reaches the hypervisor and knows no network namespaces.
const AF_VSOCK: u64 = 40;

/// Allowed to every container.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek
lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir
mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2
prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed on one architecture (in OCI's words) or another.
const BY_ARCHITECTURE: [(&[&str], &str); 5] = [
    (&["amd64"], "arch_prctl modify_ldt"),
    (&["386"], "modify_ldt"),
    (&["arm", "arm64"], "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    (&["ppc64le"], "swapcontext sync_file_range2"),
    (&["riscv64"], "riscv_flush_icache riscv_hwprobe"),
];

/// Allowed with a capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr
         move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns statmount syslog umount
         umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The profile for a container that holds `caps` (`CAP_SYS_ADMIN`...) on `arch` (`amd64` or `x86_64`).
pub fn default_profile(caps: &BTreeSet<String>, arch: &str) -> LinuxSeccomp {
    let arch = oci_architecture(arch);
    let mut calls = vec![allow(ALLOWED), allow_when("socket", LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK)];
    calls.extend(PERSONALITIES.map(|value| allow_when("personality", LinuxSeccompOperator::ScmpCmpEq, value)));
    calls.extend(BY_ARCHITECTURE.iter().filter(|(on, _)| on.contains(&arch.as_str())).map(|(_, names)| allow(names)));
    calls.extend(BY_CAPABILITY.iter().filter(|(cap, _)| caps.contains(*cap)).map(|(_, names)| allow(names)));
    if !caps.contains("CAP_SYS_ADMIN") {
        calls.extend(namespaces_refused());
    }

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(filtered_architectures(&arch)))
        .set_syscalls(Some(calls));
    profile
}

/// `clone` without namespace flags; `clone3` as if the kernel had none, because its flags are in memory where the filter
/// cannot look, and libc falls back to `clone` on `ENOSYS` alone.
fn namespaces_refused() -> [LinuxSyscall; 2] {
    let flags = first_argument(LinuxSeccompOperator::ScmpCmpMaskedEq, CLONE_NAMESPACES).value_two(0u64);
    let mut clone = allow("clone");
    clone.set_args(Some(vec![built(flags)]));
    let mut clone3 = allow("clone3");
    clone3.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(Some(ENOSYS));
    [clone, clone3]
}

fn allow(names: &str) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.split_whitespace().map(str::to_owned).collect()).set_action(LinuxSeccompAction::ScmpActAllow);
    call
}

/// Allowed when its first argument compares so.
fn allow_when(name: &str, op: LinuxSeccompOperator, value: u64) -> LinuxSyscall {
    let mut call = allow(name);
    call.set_args(Some(vec![built(first_argument(op, value))]));
    call
}

fn first_argument(op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArgBuilder {
    LinuxSeccompArgBuilder::default().index(0usize).op(op).value(value)
}

fn built(argument: LinuxSeccompArgBuilder) -> LinuxSeccompArg {
    argument.build().expect("every field of the builder has a default")
}

fn oci_architecture(arch: &str) -> String {
    crate::spec::Platform { os: String::new(), architecture: arch.to_owned() }.normalized().architecture
}

/// The kernel's own and those whose programs it also runs. An unknown one is left to runc, which then filters the native.
fn filtered_architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "amd64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "arm64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "arm" => vec![Arch::ScmpArchArm],
        "386" => vec![Arch::ScmpArchX86],
        "ppc64le" => vec![Arch::ScmpArchPpc64le],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(caps: &[&str], arch: &str) -> LinuxSeccomp {
        default_profile(&caps.iter().map(|cap| (*cap).to_owned()).collect(), arch)
    }

    /// Rules that name `call`, in order.
    fn rules<'a>(profile: &'a LinuxSeccomp, call: &str) -> Vec<&'a LinuxSyscall> {
        let calls = profile.syscalls().as_ref().expect("a profile lists calls");
        calls.iter().filter(|rule| rule.names().iter().any(|name| name == call)).collect()
    }

    #[test]
    fn what_is_not_listed_fails_with_eperm() {
        let profile = profile(&[], "amd64");
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(profile.default_errno_ret(), Some(EPERM));
        for refused in ["mount", "bpf", "kexec_load", "keyctl", "io_uring_setup", "userfaultfd", "unshare", "reboot"] {
            assert!(rules(&profile, refused).is_empty(), "{refused}");
        }
        for allowed in ["read", "openat", "execve", "futex", "ptrace"] {
            assert_eq!(rules(&profile, allowed).len(), 1, "{allowed}");
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        assert_eq!(rules(&profile(&["CAP_SYS_CHROOT"], "amd64"), "chroot").len(), 1);
        let admin = profile(&["CAP_SYS_ADMIN"], "amd64");
        assert_eq!(rules(&admin, "mount").len(), 1);
        assert_eq!(rules(&admin, "clone3")[0].action(), LinuxSeccompAction::ScmpActAllow);
        assert!(rules(&admin, "clone")[0].args().is_none());
    }

    #[test]
    fn without_sys_admin_no_namespace_can_be_made() {
        let profile = profile(&[], "amd64");
        let clone = rules(&profile, "clone");
        let argument = clone[0].args().as_ref().expect("clone looks at its flags")[0];
        assert_eq!(argument.op(), LinuxSeccompOperator::ScmpCmpMaskedEq);
        assert_eq!((argument.value(), argument.value_two()), (2_114_060_288, Some(0)));
        let clone3 = rules(&profile, "clone3");
        assert_eq!((clone3[0].action(), clone3[0].errno_ret()), (LinuxSeccompAction::ScmpActErrno, Some(ENOSYS)));
    }

    #[test]
    fn personality_is_allowed_for_harmless_values_only() {
        let profile = profile(&[], "amd64");
        let values: Vec<u64> =
            rules(&profile, "personality").iter().map(|rule| rule.args().as_ref().unwrap()[0].value()).collect();
        assert_eq!(values, [0, 8, 131_072, 131_080, 4_294_967_295]);
    }

    #[test]
    fn each_architecture_has_its_own_calls_and_filters() {
        let amd64 = profile(&[], "x86_64");
        assert_eq!(rules(&amd64, "arch_prctl").len(), 1);
        assert_eq!(amd64.architectures().as_ref().unwrap().len(), 3);
        let arm64 = profile(&[], "aarch64");
        assert!(rules(&arm64, "arch_prctl").is_empty());
        assert_eq!(rules(&arm64, "cacheflush").len(), 1);
        assert_eq!(arm64.architectures().as_ref().unwrap(), &[Arch::ScmpArchAarch64, Arch::ScmpArchArm]);
    }

    #[test]
    fn no_call_is_listed_twice_for_everyone() {
        let names: Vec<&str> = ALLOWED.split_whitespace().collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    }
}
