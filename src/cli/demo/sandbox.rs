//! A place of our own: namespaces in which an ordinary user may build a network.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{getegid, geteuid},
};

use crate::cli::Failure;

/// Tells the process inside that it is there.
const MARK: &str = "LANDBRIDGE_DEMO_INSIDE";
/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";
/// Where distributions put `nft`, beside what PATH says.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// Returns whether this process is the one inside.
pub(super) fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// Makes the namespaces, runs this program again as process 1 of them, and returns its exit code.
pub(super) fn run_inside() -> Result<i32, Failure> {
    need("ip", "iproute2")?;
    need_packet_rules()?;
    enter().map_err(|error| refused("namespaces cannot be made", error))?;
    // Ctrl-C is for the process inside: it cleans up, and we wait for it.
    interrupt()
        .thread_block()
        .map_err(|error| refused("signals cannot be kept back", error))?;
    let status: io::Result<ExitStatus> = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .status();
    match status {
        Ok(status) => Ok(status.code().unwrap_or(1)),
        Err(error) => Err(Failure::NotSo(format!(
            "the demo cannot be started: {error}"
        ))),
    }
}

fn interrupt() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set
}

/// Leaves the machine's namespaces; needs a user namespace only without root.
fn enter() -> nix::Result<()> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    if geteuid().is_root() && unshare(flags).is_ok() {
        return Ok(());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(flags | CloneFlags::CLONE_NEWUSER)?;
    // One's own group may be mapped only after giving up setgroups (user_namespaces(7)).
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ] {
        fs::write(Path::new("/proc/self").join(file), line)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    }
    Ok(())
}

/// Makes `/run` our own, which is where `ip netns` keeps names and where the clusters keep state.
pub(super) fn settle() -> Result<(), Failure> {
    // Nobody outlives the process outside, which the user sees and which holds Ctrl-C back.
    prctl::set_pdeathsig(Signal::SIGTERM)
        .and_then(|()| interrupt().thread_unblock())
        .map_err(|error| refused("processes cannot be bound together", error))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none))
        .map_err(|error| refused("file systems cannot be mounted", error))?;
    let old = Path::new("/var/run");
    if old.is_dir() && fs::canonicalize(old).is_ok_and(|path| path != Path::new("/run")) {
        mount(Some("/run"), old, none, MsFlags::MS_BIND, none)
            .map_err(|error| refused("file systems cannot be mounted", error))?;
    }
    fs::create_dir_all(NAMESPACES)
        .map_err(|error| Failure::NotSo(format!("cannot write to /run: {error}")))?;
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .is_err()
    {
        return Err(Failure::NotSo(
            "/dev/net/tun cannot be opened, so there can be no tunnel: run the demo with sudo, or let everybody open it as udev does (chmod 666 /dev/net/tun); a container needs --device /dev/net/tun".to_owned(),
        ));
    }
    Ok(())
}

/// Covers a directory with an empty one of our own.
pub(super) fn empty(directory: &str) -> Result<(), Failure> {
    let none: Option<&str> = None;
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .map_err(|error| refused("file systems cannot be mounted", error))
}

fn refused(what: &str, error: Errno) -> Failure {
    let remedy = if geteuid().is_root() {
        "in a container, start it privileged"
    } else {
        "run it with sudo, or allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0 or kernel.unprivileged_userns_clone=1)"
    };
    Failure::NotSo(format!(
        "{what} here: {}: {remedy}",
        error.desc().to_lowercase()
    ))
}

/// Checks that a program is installed.
fn need(program: &str, package: &str) -> Result<(), Failure> {
    match Command::new(program).arg("-V").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::NotSo(format!(
            "{program} cannot be run ({error}): install {package}"
        ))),
    }
}

/// Checks that the daemons will find `nft`; an ordinary user's `PATH` may not lead to it.
fn need_packet_rules() -> Result<(), Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    if directories.any(|directory| directory.join("nft").is_file()) {
        return Ok(());
    }
    Err(Failure::NotSo(
        "the program nft is not installed, which the tunnels need: install nftables".to_owned(),
    ))
}

/// Runs commands of `ip`, all in one process, in a network namespace or in the outermost one.
pub(super) fn ip(namespace: Option<&str>, commands: &str) -> Result<(), Failure> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let path = format!("/run/ip-{}.batch", namespace.unwrap_or("lan"));
    let output = fs::write(&path, commands).and_then(|()| command.args(["-batch", &path]).output());
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let first = complaint.lines().next().unwrap_or("no reason given");
            Err(Failure::NotSo(format!(
                "the demo's network cannot be built: ip: {first}"
            )))
        }
        Err(error) => Err(Failure::NotSo(format!("ip cannot be run: {error}"))),
    }
}

/// Does work in a network namespace, in a thread of its own since a thread cannot be trusted to
/// come back.
pub(super) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let path = Path::new(NAMESPACES).join(namespace);
    let entered = thread::spawn(move || {
        let file = fs::File::open(path)?;
        setns(file, CloneFlags::CLONE_NEWNET)?;
        Ok::<T, io::Error>(work())
    });
    match entered.join() {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::NotSo(format!(
            "cannot enter the namespace {namespace}: {error}"
        ))),
        Err(_) => Err(Failure::NotSo(format!(
            "the work in the namespace {namespace} failed"
        ))),
    }
}

/// Returns the number of this process as the machine sees it: `/proc` is still the machine's.
pub(super) fn outer_pid() -> String {
    fs::read_link("/proc/self")
        .map(|link| link.display().to_string())
        .unwrap_or_default()
}
