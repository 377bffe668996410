//! An API on loopback with a stock kubectl that speaks to it.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a rig that cannot be set up fails its test"
)]

use landbridge::kubeapi::{KubeApi, Options, loopback, store};
use serde_json::Value;
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const PLACE: &str = "/usr/lib/google-cloud-sdk/bin";

/// A running API; it ends with this value.
pub(crate) struct Cluster {
    kubectl: PathBuf,
    home: TempDir,
    address: String,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
    served: Option<JoinHandle<Result<(), landbridge::kubeapi::Error>>>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Cluster {
    /// Starts an API with all definitions, or says why it cannot be tested here.
    pub(crate) fn start() -> Result<Self, String> {
        let kubectl = find_kubectl()?;
        let home = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let (address, served) = runtime.block_on(serve(home.path(), shutdown.clone()));
        Ok(Self {
            kubectl,
            home,
            address,
            runtime: Some(runtime),
            shutdown,
            served: Some(served),
        })
    }

    /// Runs a command of words without spaces and returns what it said.
    pub(crate) fn run(&self, words: &str) -> Answer {
        self.try_args(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command that must succeed and returns what it printed.
    pub(crate) fn ok(&self, words: &str) -> String {
        let answer = self.run(words);
        assert!(answer.success, "kubectl {words}: {answer:?}");
        answer.stdout
    }

    /// Runs a command that must print JSON.
    pub(crate) fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(words)).unwrap()
    }

    /// Runs a command that must succeed.
    pub(crate) fn args(&self, args: &[&str]) -> String {
        let answer = self.try_args(args);
        assert!(answer.success, "kubectl {args:?}: {answer:?}");
        answer.stdout
    }

    /// Runs a command and returns what it said.
    pub(crate) fn try_args(&self, args: &[&str]) -> Answer {
        finish(self.command().args(args), "")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn with_input(&self, words: &str, input: &str) -> Answer {
        // An old kubectl takes what begins with a brace for JSON.
        let input = format!("# manifest\n{input}");
        finish(self.command().args(words.split_whitespace()), &input)
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        let answer = self.with_input("apply -f -", manifest);
        assert!(answer.success, "{answer:?}");
        answer.stdout
    }

    /// Runs a command whose editor is this sed script.
    pub(crate) fn edit(&self, words: &str, script: &str) -> Answer {
        let editor = format!("sed -i '{script}'");
        finish(
            self.command()
                .env("KUBE_EDITOR", editor)
                .args(words.split_whitespace()),
            "",
        )
    }

    /// Runs a command without a kubeconfig.
    pub(crate) fn stranger(&self, words: &str) -> Answer {
        let server = format!("--server={}", self.address);
        let mut command = self.command();
        command
            .env("KUBECONFIG", self.home.path().join("none"))
            .args([
                &server,
                "--insecure-skip-tls-verify",
                "--username=a",
                "--password=b",
            ])
            .args(words.split_whitespace());
        finish(&mut command, "")
    }

    /// From now on commands are those of this kubectl.
    pub(crate) fn use_kubectl(&mut self, kubectl: PathBuf) {
        self.kubectl = kubectl;
    }

    /// Runs commands as another user, who gets a certificate.
    pub(crate) fn as_user(&self, user: &str) -> impl Fn(&str) -> Answer {
        let mut issue = Command::new(env!("CARGO_BIN_EXE_landbridge"));
        issue
            .args(["kubeconfig", "--user", user, "--group", "dev"])
            .arg("--data-dir")
            .arg(self.home.path());
        let issued = finish(&mut issue, "");
        assert!(issued.success, "{issued:?}");
        let path = self.home.path().join(user);
        std::fs::write(&path, issued.stdout).unwrap();
        move |words| {
            let mut command = self.command();
            command.env("KUBECONFIG", &path);
            finish(command.args(words.split_whitespace()), "")
        }
    }

    /// Starts a command that goes on, to read its lines.
    pub(crate) fn follow(&self, words: &str) -> Follower {
        let mut child = self
            .command()
            .args(words.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Follower { child, lines }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("KUBECACHEDIR", self.home.path().join("cache"))
            .env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let (Some(runtime), Some(served)) = (self.runtime.take(), self.served.take()) {
            let ended = runtime.block_on(served);
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A command that is still running; it is ended with this value.
pub(crate) struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    /// The next line that it prints.
    pub(crate) fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for its end, and tells whether it succeeded.
    pub(crate) fn ends_well(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve(
    home: &Path,
    shutdown: CancellationToken,
) -> (String, JoinHandle<Result<(), landbridge::kubeapi::Error>>) {
    let api = KubeApi::open(Options {
        backend: Box::new(store::Sqlite::open(home.join("store.db")).unwrap()),
        commit: store::Commit::Threaded,
        clock: Arc::new(jiff::Timestamp::now),
        crds: landbridge::api::crds(),
    })
    .await
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let credentials = loopback::Credentials::load_or_create(home, jiff::Timestamp::now()).unwrap();
    // Written here too: the first command must not be faster than the listener.
    credentials.write_kubeconfig(&address).unwrap();
    let served =
        tokio::spawn(async move { loopback::serve(listener, api, &credentials, shutdown).await });
    (address, served)
}

fn finish(command: &mut Command, input: &str) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Answer {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The newest kubectl that can be found; `LANDBRIDGE_KUBECTL` names another.
fn find_kubectl() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("LANDBRIDGE_KUBECTL") {
        return Ok(PathBuf::from(named));
    }
    let numbered = (29..60)
        .rev()
        .map(|minor| Path::new(PLACE).join(format!("kubectl.1.{minor}")));
    let paths = env::var_os("PATH").unwrap_or_default();
    let plain: Vec<PathBuf> = env::split_paths(&paths)
        .map(|path| path.join("kubectl"))
        .collect();
    numbered
        .chain(plain)
        .find(|path| minor_version(path).is_some_and(|minor| minor >= 29))
        .ok_or_else(|| "there is no kubectl 1.29 or newer".to_owned())
}

/// Every numbered kubectl on this machine, the oldest first.
pub(crate) fn every_kubectl() -> Vec<(u32, PathBuf)> {
    (27..60)
        .map(|minor| (minor, Path::new(PLACE).join(format!("kubectl.1.{minor}"))))
        .filter(|(minor, path)| minor_version(path) == Some(*minor))
        .collect()
}

fn minor_version(kubectl: &Path) -> Option<u32> {
    let output = Command::new(kubectl)
        .args(["version", "--client", "-o", "json"])
        .output()
        .ok()?;
    let version: Value = serde_json::from_slice(&output.stdout).ok()?;
    let minor = version.pointer("/clientVersion/minor")?.as_str()?;
    minor.trim_end_matches('+').parse().ok()
}
