//! The built program on loopback, without a LAN and without a tunnel.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;

/// A running daemon; it ends when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts a daemon on its own API, or on that of a kubeconfig.
    pub(crate) fn start(name: &str, kubeconfig: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Self::command(directory.path(), name, &[]);
        if let Some(kubeconfig) = kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        Self::spawn(directory, command)
    }

    /// Writes the settings of a daemon into a directory and returns what runs it, `wrapper` before
    /// the program.
    pub(crate) fn command(directory: &Path, name: &str, wrapper: &[&str]) -> Command {
        let path = |file: &str| directory.join(file);
        fs::write(path("secret"), "0123456789abcdef".repeat(4)).expect("writable");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path("secret"), private).expect("our own file");
        let settings = json!({
            "cluster": {"name": name},
            "dataDir": path("data"),
            "peer": {"listen": "127.0.0.1:0"},
            "tunnel": {"mode": "off"},
            "api": {"listen": "127.0.0.1:0"},
            "dashboard": {"listen": "127.0.0.1:0"},
            "lan": {"enabled": false},
            "trust": {"fleetSecretFile": path("secret")},
        });
        fs::write(path("landbridge.yaml"), settings.to_string()).expect("writable");
        let program = env!("CARGO_BIN_EXE_landbridge");
        let mut words = wrapper.iter().copied().chain([program]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("run").arg("--config");
        command.arg(path("landbridge.yaml")).stdin(Stdio::null());
        command
    }

    /// Starts what [`Daemon::command`] made.
    pub(crate) fn spawn(directory: TempDir, mut command: Command) -> Self {
        let log = fs::File::create(directory.path().join("log")).expect("writable");
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        Self {
            child: child.expect("the program starts"),
            directory,
        }
    }

    /// Returns the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Returns what was logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Returns the URL of the peer endpoint, once the daemon says its port.
    pub(crate) fn endpoint(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("Landbridge runs"))?;
        let port = line.split("port=").nth(1)?.split_whitespace().next()?;
        Some(format!("https://127.0.0.1:{port}"))
    }

    /// Runs a verb against the daemon and returns what it said.
    pub(crate) fn landbridge(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_landbridge"))
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data())
            .output()
            .expect("the program runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        drop(self.child.wait());
    }
}
