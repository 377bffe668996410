//! The command line as people and scripts meet it: exit codes, one-line errors, generated texts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/https.rs"]
mod https;
#[path = "cli/prompt.rs"]
mod prompt;

#[test]
fn help_names_every_verb_and_the_exit_codes() {
    let output = landbridge(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for verb in [
        "run",
        "demo",
        "status",
        "get",
        "add",
        "join",
        "leave",
        "approve",
        "deny",
        "block",
        "token",
        "fleet-secret",
        "identity",
        "kubeconfig",
        "crd",
        "config",
        "completions",
        "man",
        "version",
    ] {
        assert!(
            help.contains(&format!("\n  {verb} ")),
            "{verb} is missing:\n{help}"
        );
    }
    assert!(help.contains("Exit codes: 0 well, 1 the thing asked for is not so, 2 usage, 3"));
}

#[test]
fn the_version_is_the_packages() {
    let output = landbridge(&["version"]);
    assert_eq!(
        text(&output.stdout),
        concat!("landbridge ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &["frob"][..],
        &["join"],
        &["status", "--wait=soon"],
        &["get", "-o", "xml"],
        &["run", "--kubeconfig", "f", "--in-cluster"],
        &["run", "--pod-cidr", "10.0.0.1"],
        &["run", "--config", "/nowhere/landbridge.yaml"],
        &["demo", "--scenario", "carrier-pigeon"],
        &["add", "http://milan"],
        &["version", "--log-level", "loud"],
    ] {
        let output = landbridge(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn no_daemon_is_3_in_one_line_with_the_mend() {
    for arguments in [
        &["status"][..],
        &["status", "--wait=0s"],
        &["get"],
        &["join", "milan"],
        &["leave", "milan"],
        &["approve", "milan"],
        &["add", "milan"],
        &["kubeconfig"],
        &["kubeconfig", "--path"],
        &["kubeconfig", "--user", "bob"],
    ] {
        let output = landbridge(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.starts_with("error: "), "{error}");
        assert!(error.contains("landbridge run"), "{error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_rust_log_says_to_other_programs_stops_no_verb() {
    let home = TempDir::new().expect("a directory");
    for (value, remarks) in [("hyper", 0), ("landbridge::peer", 0), ("hyper=loud", 1)] {
        let output = command(&home)
            .arg("version")
            .env("RUST_LOG", value)
            .output();
        let output = output.expect("the program runs");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{value}: {error}");
        assert_eq!(error.lines().count(), remarks, "{value}: {error}");
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_3() {
    let home = TempDir::new().expect("a directory");
    let kubeconfig = home.path().join("kubeconfig");
    fs::write(&kubeconfig, kubeconfig_of("https://127.0.0.1:1")).expect("writable");
    for proxy in ["", "http://ada:secret@127.0.0.1:1", "no proxy"] {
        let output = command(&home)
            .args(["get", "--kubeconfig"])
            .arg(&kubeconfig)
            .env("HTTPS_PROXY", proxy)
            .output();
        let output = output.expect("the program runs");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{proxy}: {error}");
        assert!(
            error.starts_with("error: the daemon cannot be reached: "),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_file_that_was_named_and_cannot_be_used_is_2() {
    let home = TempDir::new().expect("a directory");
    fs::create_dir_all(home.path().join("state/kubeconfig")).expect("writable");
    for arguments in [&["kubeconfig"][..], &["status"], &["run"]] {
        let output = command(&home)
            .args(arguments)
            .env("LANDBRIDGE_TRUST_FLEET_SECRET_FILE", "/nowhere/secret")
            .output()
            .expect("the program runs");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    }
}

#[test]
fn a_third_group_of_a_user_is_2() {
    let home = TempDir::new().expect("a directory");
    make_identity(&home, &home.path().join("state"));
    let user = ["kubeconfig", "--user", "ada"];
    let two = ["--group", "a", "--group", "b"];
    let issue = |groups: &[&str]| {
        let output = command(&home).args(user).args(groups).output();
        let output = output.expect("the program runs");
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(issue(&two).0, Some(0));
    let (code, error) = issue(&[&two[..], &["--group", "c"]].concat());
    assert_eq!(code, Some(2));
    assert!(
        error.contains("2 groups") && !error.contains("delete"),
        "{error}"
    );
}

#[test]
fn credentials_that_others_can_read_are_refused_with_the_mend() {
    use std::os::unix::fs::PermissionsExt as _;
    let (home, data, credentials) = with_credentials();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).expect("our own");
    let issue = ["kubeconfig", "--user", "ada"];
    for output in [
        end_of(command(&home).args(issue)),
        end_of(&mut daemon(&home, &data)),
    ] {
        let error = text(&output.stderr);
        assert!(
            error.contains("credentials.pem is open to others"),
            "{error}"
        );
        assert!(error.contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_kubeconfig_for_a_user_makes_no_second_authority() {
    let (home, _, credentials) = with_credentials();
    fs::remove_file(&credentials).expect("writable");
    let output = command(&home)
        .args(["kubeconfig", "--user", "ada"])
        .output();
    let output = output.expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(!credentials.exists());
}

#[test]
fn the_kubeconfig_of_the_user_is_not_touched_by_accident() {
    let home = TempDir::new().expect("a directory");
    let elsewhere = home.path().join("elsewhere");
    fs::write(&elsewhere, "{}").expect("writable");
    let output = command(&home)
        .args(["get"])
        .env("KUBECONFIG", &elsewhere)
        .output();
    let output = output.expect("the program runs");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn a_broken_file_is_one_line_with_key_and_place() {
    let home = TempDir::new().expect("a directory");
    let file = home.path().join("landbridge.yaml");
    for (content, complaint) in [
        (
            "cluster:\n  podCidr: 10.1.0.0/16\n",
            ":2: unknown key cluster.podCidr: did you mean cluster.podCIDR?",
        ),
        (
            "tunnel: {port: many}\n",
            ":1: tunnel.port: \"many\" is not a port",
        ),
        ("cluster: [\n", "not valid YAML"),
    ] {
        fs::write(&file, content).expect("writable");
        for verb in ["run", "status"] {
            let output = command(&home).arg(verb).arg("--config").arg(&file).output();
            let output = output.expect("the program runs");
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(error.contains(complaint), "{error}");
            assert!(error.contains("landbridge.yaml"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn config_show_tells_where_each_value_came_from() {
    let home = TempDir::new().expect("a directory");
    let folder = home.path().join(".config/landbridge");
    fs::create_dir_all(&folder).expect("writable");
    let file = home.path().join("landbridge.yaml");
    fs::write(&file, "tunnel:\n  port: 7\n").expect("writable");
    let output = command(&home)
        .args(["config", "show", "--origin", "--name", "rome"])
        .env("LANDBRIDGE_CONFIG", &file)
        .env("LANDBRIDGE_TUNNEL_MTU", "1400")
        .output()
        .expect("the program runs");
    let shown = text(&output.stdout);
    let row = |key: &str| -> Vec<&str> {
        let line = shown.lines().find(|line| line.starts_with(key));
        line.unwrap_or_else(|| panic!("no {key}:\n{shown}"))
            .split_whitespace()
            .collect()
    };
    assert_eq!(row("cluster.name"), ["cluster.name", "rome", "--name"]);
    assert_eq!(
        row("tunnel.mtu"),
        ["tunnel.mtu", "1400", "LANDBRIDGE_TUNNEL_MTU"]
    );
    assert!(
        row("tunnel.port")[2].ends_with("landbridge.yaml:2"),
        "{shown}"
    );
    assert_eq!(row("tunnel.mode"), ["tunnel.mode", "auto", "default"]);
}

#[test]
fn what_config_show_prints_can_be_read_back() {
    let home = TempDir::new().expect("a directory");
    let first = command(&home)
        .args(["config", "show"])
        .output()
        .expect("the program runs");
    let file = home.path().join("shown.yaml");
    fs::write(&file, &first.stdout).expect("writable");
    let second = command(&home)
        .args(["config", "show", "--config"])
        .arg(&file)
        .output();
    assert_eq!(
        text(&second.expect("the program runs").stdout),
        text(&first.stdout)
    );
}

#[test]
fn the_shipped_file_can_be_used_as_it_stands() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/landbridge.yaml");
    let output = landbridge(&["config", "show", "--config", file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_fleet_secret_is_new_each_time_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = TempDir::new().expect("a directory");
    let file = home.path().join("made/for/it/secret");
    let write = || {
        let output = command(&home).arg("fleet-secret").arg(&file).output();
        output.expect("the program runs")
    };
    assert_eq!(write().status.code(), Some(0));
    let mode = fs::metadata(&file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(write().status.code(), Some(1), "no secret is overwritten");
    let written = fs::read_to_string(&file).expect("ours");
    let printed = text(&landbridge(&["fleet-secret"]).stdout);
    assert_eq!(written.trim().len(), 64);
    assert_eq!(printed.trim().len(), 64);
    assert_ne!(written, printed);
}

#[test]
fn a_reinstalled_machine_is_the_same_cluster() {
    let home = TempDir::new().expect("a directory");
    let (old, new) = (home.path().join("old"), home.path().join("new"));
    let missing = identity(&home, "old", &["show"]);
    assert!(missing.contains("identity.pem does not exist"), "{missing}");
    let elsewhere = "Secret liqo/landbridge-identity";
    assert!(missing.contains(elsewhere), "{missing}");
    make_identity(&home, &old);
    let shown = identity(&home, "old", &["show"]);
    let exported = identity(&home, "old", &["export"]);
    assert!(exported.contains(" sealed in "), "{exported}");
    let sealed = home.path().join("sealed");
    assert_eq!(mode(&sealed), 0o600);
    let content = fs::read_to_string(&sealed).expect("readable");
    assert!(!content.contains("PRIVATE"));
    let again = identity(&home, "old", &["export"]);
    assert!(
        again.contains("cannot write"),
        "it is not overwritten: {again}"
    );

    let imported = identity(&home, "new", &["import"]);
    assert!(imported.starts_with("this machine is "), "{imported}");
    assert!(imported.contains(elsewhere), "{imported}");
    assert_eq!(identity(&home, "new", &["show"]), shown);
    assert_eq!(mode(&new.join("identity.pem")), 0o600);

    make_identity(&home, &home.path().join("other"));
    let refused = identity(&home, "other", &["import"]);
    assert!(refused.contains("--replace"), "{refused}");
    identity(&home, "other", &["import", "--replace"]);
    assert_eq!(identity(&home, "other", &["show"]), shown);
    let first: Vec<String> = kept(&home.path().join("other"));
    assert_eq!(first.len(), 1, "{first:?}");
    fs::remove_file(&sealed).expect("removable");
    make_identity(&home, &home.path().join("fourth"));
    identity(&home, "fourth", &["export"]);
    identity(&home, "other", &["import", "--replace"]);
    let both = kept(&home.path().join("other"));
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    fs::write(home.path().join("phrase"), "another horse battery").expect("writable");
    let wrong = identity(&home, "third", &["import"]);
    assert!(wrong.contains("the passphrase is wrong"), "{wrong}");
    assert!(!home.path().join("third/identity.pem").exists());
}

/// The names of the identities that an import replaced.
fn kept(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable");
    let names = entries.map(|entry| text(entry.expect("an entry").file_name().as_encoded_bytes()));
    names
        .filter(|name| name.starts_with("identity.pem."))
        .collect()
}

/// Runs a verb of the identity of one of several machines, and returns what it says.
fn identity(home: &TempDir, machine: &str, arguments: &[&str]) -> String {
    let phrase = home.path().join("phrase");
    if !phrase.exists() {
        fs::write(&phrase, "correct horse battery\n").expect("writable");
    }
    let mut command = command(home);
    command.arg("identity").args(arguments);
    if arguments != ["show"] {
        command
            .arg("--passphrase-file")
            .arg(&phrase)
            .arg(home.path().join("sealed"));
    }
    command.arg("--data-dir").arg(home.path().join(machine));
    let output = command.output().expect("the program runs");
    text(&[output.stdout, output.stderr].concat())
}

/// A daemon on loopback alone, with ports that nobody else has.
fn daemon(home: &TempDir, data: &Path) -> Command {
    let mut daemon = command(home);
    daemon
        .args(["run", "--log-level", "off", "--data-dir"])
        .arg(data)
        .env("LANDBRIDGE_PEER_LISTEN", "127.0.0.1:0")
        .env("LANDBRIDGE_API_LISTEN", "127.0.0.1:0")
        .env("LANDBRIDGE_TUNNEL_MODE", "off")
        .env("LANDBRIDGE_LAN_ENABLED", "false");
    daemon
}

#[test]
fn a_daemon_whose_api_cannot_be_reached_ends_and_says_why() {
    let home = TempDir::new().expect("a directory");
    let data = home.path().join("data");
    fs::create_dir(&data).expect("writable");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&data, private).expect("our own directory");
    fs::create_dir(data.join("kubeconfig")).expect("writable");
    let output = end_of(&mut daemon(&home, &data));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("data/kubeconfig"), "{said}");
}

/// What a daemon says that should end by itself.
fn end_of(daemon: &mut Command) -> Output {
    let mut child = daemon
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while child.try_wait().expect("our child").is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = child.kill();
    child.wait_with_output().expect("our child")
}

#[test]
fn a_terminal_that_goes_away_ends_a_daemon_well_unless_that_is_ignored() {
    let home = TempDir::new().expect("a directory");
    let (plain, kept) = (home.path().join("plain"), home.path().join("kept"));
    let mut child = daemon(&home, &plain).spawn().expect("the program runs");
    until_caught(child.id(), Signal::SIGTERM);
    signal(child.id(), Signal::SIGHUP);
    assert_eq!(child.wait().expect("our child").code(), Some(0));

    let told = daemon(&home, &kept);
    let mut child = Command::new("/bin/sh")
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(told.get_program())
        .args(told.get_args())
        .env_clear()
        .envs(
            told.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .spawn()
        .expect("the program runs");
    until_there(&kept.join("kubeconfig"));
    signal(child.id(), Signal::SIGHUP);
    let mut status = command(&home);
    let status = status.arg("status").arg("--data-dir").arg(&kept).output();
    assert_eq!(status.expect("the program runs").status.code(), Some(0));
    assert!(!catches(child.id(), Signal::SIGHUP));
    signal(child.id(), Signal::SIGTERM);
    assert_eq!(child.wait().expect("our child").code(), Some(0));
}

#[test]
fn a_signal_ends_the_start_as_well() {
    let home = TempDir::new().expect("a directory");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let kubeconfig = home.path().join("kubeconfig");
    let server = format!("http://{}", silent.local_addr().expect("bound"));
    fs::write(&kubeconfig, kubeconfig_of(&server)).expect("writable");
    let mut daemon = daemon(&home, &home.path().join("data"));
    daemon.arg("--kubeconfig").arg(&kubeconfig);
    let mut child = daemon.spawn().expect("the program runs");
    let _question = silent.accept().expect("the daemon asks");
    signal(child.id(), Signal::SIGTERM);
    assert_eq!(child.wait().expect("our child").code(), Some(0));
}

#[test]
fn an_api_on_another_address_of_loopback_is_used() {
    let home = TempDir::new().expect("a directory");
    let data = home.path().join("state");
    let mut daemon = daemon(&home, &data);
    daemon.env("LANDBRIDGE_API_LISTEN", "127.0.0.2:0");
    let mut child = daemon.spawn().expect("the program runs");
    until_there(&data.join("kubeconfig"));
    let output = command(&home).arg("get").output();
    signal(child.id(), Signal::SIGTERM);
    assert_eq!(child.wait().expect("our child").code(), Some(0));
    let output = output.expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).expect("a process number");
    kill(Pid::from_raw(process), signal).expect("our child");
}

/// Whether a process does something of its own at a signal (proc(5)).
fn catches(process: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a number");
    mask >> (signal as i32 - 1) & 1 == 1
}

fn until_caught(process: u32, signal: Signal) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !catches(process, signal) {
        assert!(std::time::Instant::now() < deadline, "it does not start");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Lets the first start of a daemon make an identity; it needs no network for that.
fn make_identity(home: &TempDir, data: &Path) {
    let mut daemon = daemon(home, data).spawn().expect("the program runs");
    until_there(&data.join("kubeconfig"));
    daemon.kill().expect("our child");
    daemon.wait().expect("our child");
}

/// A home in which a daemon has run, its data directory, and the credentials of its API there.
fn with_credentials() -> (TempDir, PathBuf, PathBuf) {
    let home = TempDir::new().expect("a directory");
    let data = home.path().join("state");
    make_identity(&home, &data);
    let credentials = data.join("api/credentials.pem");
    (home, data, credentials)
}

fn until_there(path: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "it does not start");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("it exists");
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[test]
fn completions_and_man_pages_come_from_the_definition() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = landbridge(&["completions", shell]);
        assert!(text(&output.stdout).contains("kubeconfig"), "{shell}");
    }
    let home = TempDir::new().expect("a directory");
    let pages = home.path().join("pages");
    let output = command(&home)
        .arg("man")
        .arg(&pages)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for page in ["landbridge.1", "landbridge-run.1", "landbridge-status.1"] {
        assert!(pages.join(page).is_file(), "{page} is missing");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    use std::process::Stdio;
    let home = TempDir::new().expect("a directory");
    let mut child = command(&home)
        .arg("crd")
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    for arguments in [&["--help"][..], &["crd"], &["config", "show", "--origin"]] {
        assert!(
            !landbridge(arguments).stdout.contains(&0x1b),
            "{arguments:?}"
        );
    }
}

fn landbridge(arguments: &[&str]) -> Output {
    let home = TempDir::new().expect("a directory");
    command(&home)
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// A kubeconfig of a cluster that asks nobody who they are.
fn kubeconfig_of(server: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}], users: [{{name: u, user: {{}}}}]}}"
    )
}

/// Runs the program with a home of its own, so that nothing of the machine's is found.
fn command(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env("LANDBRIDGE_DATA_DIR", home.path().join("state"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
