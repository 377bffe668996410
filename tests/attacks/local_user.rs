//! Another user of the same machine: at the files of the daemon, and at its API on loopback.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::geteuid;

use crate::{
    daemon::Daemon,
    lab::{installed, skip},
};

/// Whoever is nobody in particular on a Linux machine.
const NOBODY: u32 = 65534;
/// How long a start may take before a run counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn nothing_in_the_data_directory_is_open_to_others_whatever_the_umask() {
    let daemon = started(&["sh", "-c", "umask 000; exec \"$@\"", "sh"]);
    let mut seen = 0;
    walk(&daemon.data(), &mut |path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o777, wanted, "{}", path.display());
        seen += 1;
    });
    assert!(seen > 5, "{seen} files");
}

#[test]
fn a_data_directory_that_others_can_change_is_refused_with_the_mend() {
    for (mode, above) in [(0o775, 0o755), (0o707, 0o755), (0o700, 0o777)] {
        let home = tempfile::tempdir().unwrap();
        let outer = home.path().join("outer");
        fs::create_dir_all(outer.join("data")).unwrap();
        set_mode(&outer.join("data"), mode);
        set_mode(&outer, above);
        let said = refused(Daemon::command(&outer, "rome", &[]));
        assert!(said.contains("chmod"), "{mode:o} in {above:o}: {said}");
        let left = fs::read_dir(outer.join("data")).unwrap().count();
        assert_eq!(left, 0, "nothing was written");
    }
}

#[test]
fn a_data_directory_of_another_user_is_refused() {
    if !geteuid().is_root() {
        return skip("only root can give a directory away");
    }
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    chown(home.path().join("data"), Some(NOBODY), None).unwrap();
    let said = refused(Daemon::command(home.path(), "rome", &[]));
    assert!(said.contains("belongs to user 65534"), "{said}");
}

#[test]
fn links_that_were_laid_out_beforehand_are_not_followed() {
    for place in ["data", "data/lock", "data/identity.pem"] {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        if place == "data" {
            fs::create_dir(&victim).unwrap();
        } else {
            fs::create_dir(home.path().join("data")).unwrap();
            fs::write(&victim, "precious").unwrap();
            set_mode(&victim, 0o600);
        }
        symlink(&victim, home.path().join(place)).unwrap();
        let said = refused(Daemon::command(home.path(), "rome", &[]));
        let name = home.path().join(place);
        assert!(said.contains(name.to_str().unwrap()), "{place}: {said}");
        if place == "data" {
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
        } else {
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        }
    }
}

#[test]
fn a_fleet_secret_that_others_can_read_is_warned_of_with_the_mend() {
    for (mode, is_told) in [(0o600, false), (0o644, true)] {
        let home = tempfile::tempdir().unwrap();
        let command = Daemon::command(home.path(), "rome", &[]);
        let secret = home.path().join("secret");
        set_mode(&secret, mode);
        let daemon = Daemon::spawn(home, command);
        until_it_runs(&daemon);
        let mend = format!("is open to others: chmod o-rw {}", secret.display());
        assert_eq!(daemon.log().contains(&mend), is_told, "{}", daemon.log());
    }
}

#[test]
fn another_user_reads_no_key_and_is_not_let_in_by_the_api() {
    if !geteuid().is_root() || !installed(&["curl", "cat"]) {
        return skip("it takes root and curl to be somebody else");
    }
    let daemon = started(&[]);
    let kubeconfig = daemon.data().join("kubeconfig");
    for file in [
        "kubeconfig",
        "identity.pem",
        "api/credentials.pem",
        "store.db",
    ] {
        let output = as_nobody("cat", &[daemon.data().join(file).to_str().unwrap()]);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{file}"
        );
    }
    let text = fs::read_to_string(kubeconfig).unwrap();
    let line = text.lines().find(|line| line.contains("server: ")).unwrap();
    let server = line.split_once("server: ").unwrap().1;
    let asks = |path: &str, more: &[&str]| {
        let url = format!("{server}{path}");
        let shown = ["--silent", "--insecure", "--write-out", "\n%{http_code}"];
        let output = as_nobody("curl", &[&shown, more, &[&url]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    };
    assert_eq!(asks("/readyz", &[]).0, "200", "health is nobody's secret");
    for path in ["/api/v1/secrets", "/apis", "/api/v1/namespaces/liqo"] {
        assert_eq!(asks(path, &[]).0, "403", "{path}");
        let token = ["--header", "Authorization: Bearer guess"];
        assert_eq!(asks(path, &token).0, "401", "{path}");
    }
    for version in ["--http1.1", "--http2"] {
        let (code, body) = asks("/readyz", &[version, "--header", "Host: evil.example"]);
        assert_eq!(code, "421", "{version}: {body}");
    }
    let elsewhere = ["--header", "Origin: https://evil.example", "--include"];
    let (_, answer) = asks("/readyz", &elsewhere);
    assert!(
        !answer.to_lowercase().contains("access-control"),
        "{answer}"
    );
}

#[test]
fn the_memory_of_a_daemon_is_for_root_alone() {
    if !geteuid().is_root() || !installed(&["setpriv"]) {
        return skip("it takes root and setpriv to run a daemon as somebody else");
    }
    let home = tempfile::tempdir().unwrap();
    let nobody = format!("{NOBODY}");
    let wrapper = [
        "setpriv",
        "--reuid",
        &nobody,
        "--regid",
        &nobody,
        "--clear-groups",
    ];
    let command = Daemon::command(home.path(), "rome", &wrapper);
    for path in [
        home.path().to_owned(),
        home.path().join("secret"),
        home.path().join("landbridge.yaml"),
    ] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut probe = Command::new(wrapper[0]);
    let reachable = probe
        .args(&wrapper[1..])
        .args([env!("CARGO_BIN_EXE_landbridge"), "version"]);
    if !reachable
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return skip("nobody cannot run the program from where it was built");
    }
    let daemon = Daemon::spawn(home, command);
    until_it_runs(&daemon);
    // The kernel gives the files of a process that may not be dumped to root (proc(5)).
    let memory = fs::metadata(format!("/proc/{}/mem", daemon.id())).unwrap();
    assert_eq!(memory.uid(), 0);
    let process = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    assert!(process.contains("Uid:\t65534"), "{process}");
}

fn started(wrapper: &[&str]) -> Daemon {
    let home = tempfile::tempdir().unwrap();
    let command = Daemon::command(home.path(), "rome", wrapper);
    let daemon = Daemon::spawn(home, command);
    until_it_runs(&daemon);
    daemon
}

fn until_it_runs(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    while daemon.endpoint().is_none() {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a daemon that must not start, and returns what it says.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn as_nobody(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).uid(NOBODY).gid(NOBODY).current_dir("/");
    command.output().unwrap()
}

fn walk(path: &Path, look: &mut impl FnMut(&Path)) {
    look(path);
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), look);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
