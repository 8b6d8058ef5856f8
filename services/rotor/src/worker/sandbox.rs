//! What the kernel lets a worker do: compute, and speak over the sockets it has.
//!
//! A list of what is allowed, so that a system call nobody thought of is refused. Refused calls fail with `EPERM`
//! rather than end the process: libraries that try something optional go on without it.
//!
//! Installed for all threads before the engine starts, and verified by trying: a worker that can still open a
//! socket or a file does not run anybody's code.

use std::collections::BTreeMap;
use std::ffi::c_long;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::SocketAddrUnix;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};
use serde::Serialize;

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("no system call table for this processor")]
    Processor,
    #[error("the filter cannot be made")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the kernel does not take the filter")]
    Install(#[from] seccompiler::Error),
    #[error("the kernel took the filter but still allows: {0}")]
    Open(String),
}

/// Memory, threads of this process, time, randomness, and what is open already.
const ALLOWED: &[c_long] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    // threads and signals
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // time and facts about the machine
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // descriptors that are open already
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_writev,
    // wake-ups of the runtime
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
];

/// Calls that exist under an older number on this processor only.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Installs the filters for every thread of this process and all that it will start.
pub(super) fn install() -> Result<(), SandboxError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| SandboxError::Processor)?;
    // The flags of clone3 lie in memory, where a filter cannot see them. "No such call" makes libc use clone.
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::ENOSYS)),
        arch,
    )?;
    let listed = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
        arch,
    )?;
    for filter in [no_clone3, listed] {
        apply_filter_all_threads(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

fn rules() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, SandboxError> {
    let mut rules: BTreeMap<_, _> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    let bits = u64::from(libc::CLONE_THREAD.unsigned_abs());
    rules.insert(
        libc::SYS_clone,
        vec![only(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(bits),
            bits,
        )?],
    );
    // Signals to this process, which is how abort works.
    let this = u64::from(std::process::id());
    rules.insert(
        libc::SYS_tgkill,
        vec![only(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, this)?],
    );
    let name = |option: i32| {
        only(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(option.unsigned_abs()),
        )
    };
    rules.insert(
        libc::SYS_prctl,
        vec![name(libc::PR_SET_NAME)?, name(libc::PR_SET_VMA)?],
    );
    // Asking for limits (the stack's) is fine, setting them is not.
    rules.insert(
        libc::SYS_prlimit64,
        vec![only(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?],
    );
    Ok(rules)
}

fn only(
    argument: u8,
    length: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, SandboxError> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(
        argument, length, op, value,
    )?])?)
}

fn errno(code: i32) -> u32 {
    code.unsigned_abs()
}

/// What each attempt met: an error's text, or nothing where it was let through.
#[derive(Debug, Serialize)]
pub(super) struct Probe {
    socket: Option<String>,
    connect: Option<String>,
    open: Option<String>,
    open_for_writing: Option<String>,
    execve: Option<String>,
    fork: Option<String>,
}

/// Tries what must fail. `socket` is any socket that is open.
pub(super) fn probe(socket: BorrowedFd<'_>) -> Probe {
    let text = |error: io::Error| error.to_string();
    let temporary = std::env::temp_dir().join(format!("millrace-probe-{}", std::process::id()));
    let opened = OpenOptions::new().create(true).append(true).open(&temporary);
    if opened.is_ok() {
        drop(std::fs::remove_file(&temporary));
    }
    let connected = SocketAddrUnix::new("/dev/null")
        .and_then(|address| rustix::net::connect(socket, &address))
        .map_err(io::Error::from);
    let forked = Command::new("/bin/true").status();
    let fork = forked.err().map(text);
    Probe {
        socket: UdpSocket::bind("127.0.0.1:0").err().map(text),
        connect: connected.err().map(text),
        open: File::open("/dev/null").err().map(text),
        open_for_writing: opened.err().map(text),
        // On success this would end the process as another program; a process that could fork can also exec.
        execve: fork.is_some().then(|| text(Command::new("/bin/true").exec())),
        fork,
    }
}

/// Tries what must fail and refuses to go on when something does not.
pub(super) fn verify(socket: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let probe = probe(socket);
    let refused = io::Error::from_raw_os_error(libc::EPERM).to_string();
    let open: Vec<_> = [
        ("socket", probe.socket),
        ("connect", probe.connect),
        ("open", probe.open),
        ("open for writing", probe.open_for_writing),
        ("execve", probe.execve),
        ("fork", probe.fork),
    ]
    .into_iter()
    .filter(|(_, met)| met.as_deref() != Some(&refused))
    .map(|(name, _)| name)
    .collect();
    if open.is_empty() {
        Ok(())
    } else {
        Err(SandboxError::Open(open.join(", ")))
    }
}
