//! The name server of the demo: BIND, with one zone that takes signed updates.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{lab::STATE, sandbox};
use crate::cli::{Failure, fleet_secret};

/// The domain that lists the clusters.
pub(super) const DOMAIN: &str = "clusters.example.com";
/// Where the name server is.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);
/// Where distributions install it; an ordinary user's `PATH` may not say so.
const PROGRAMS: [&str; 3] = ["/usr/sbin/named", "/usr/bin/named", "/usr/local/sbin/named"];
/// Where a confined BIND may read and write on Debian and its kin (AppArmor). Ours is empty.
const CACHE: &str = "/var/cache/bind";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running name server. It ends with the demo.
#[derive(Debug)]
pub(super) struct NameServer(Child);

/// Returns where the program is.
pub(super) fn program() -> Result<PathBuf, Failure> {
    let installed = PROGRAMS.iter().map(Path::new).find(|path| path.exists());
    installed.map(Path::to_owned).ok_or_else(|| {
        Failure::NotSo(
            "the scenario dns needs BIND, and named is not installed: install bind9 (Debian, Ubuntu) or bind (Fedora, Arch), or use --scenario lan".to_owned(),
        )
    })
}

/// Returns the settings by which a daemon asks the name server and publishes itself there.
pub(super) fn settings() -> [(&'static str, String); 4] {
    [
        ("LANDBRIDGE_DNS_SERVERS", ADDRESS.to_string()),
        ("LANDBRIDGE_DNS_PUBLISH_ZONE", DOMAIN.to_owned()),
        ("LANDBRIDGE_DNS_PUBLISH_SERVER", ADDRESS.to_string()),
        ("LANDBRIDGE_DNS_PUBLISH_TSIG_KEY_FILE", key_file()),
    ]
}

fn key_file() -> String {
    format!("{STATE}/tsig.key")
}

impl NameServer {
    /// Starts it and waits until it answers.
    pub(super) fn start() -> Result<Self, Failure> {
        let program = program()?;
        let directory = if Path::new(CACHE).is_dir() {
            sandbox::empty(CACHE)?;
            CACHE
        } else {
            STATE
        };
        // Hexadecimal digits are base64 as well.
        let log = write_files(directory, &fleet_secret::make()?)
            .map_err(|error| Failure::NotSo(format!("cannot write {directory}: {error}")))?;
        let child = Command::new(program)
            .args(["-g", "-n", "1", "-c"])
            .arg(format!("{directory}/named.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::NotSo(format!("named cannot be started: {error}")))?;
        let mut server = Self(child);
        server.wait(directory)?;
        Ok(server)
    }

    fn wait(&mut self, directory: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let address = SocketAddr::from((ADDRESS, 53));
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = matches!(self.0.try_wait(), Ok(Some(_)));
            if ended || Instant::now() >= deadline {
                let log = fs::read_to_string(format!("{directory}/log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it says nothing");
                return Err(Failure::NotSo(format!("named does not answer: {last}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // It may have ended already, and the kernel ends it with the demo at the latest.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes settings, zone and key, and opens the log.
fn write_files(directory: &str, secret: &str) -> std::io::Result<File> {
    let key = format!("key \"demo\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n");
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(true).mode(0o600);
    private.open(key_file())?.write_all(key.as_bytes())?;
    let config = format!(
        "{key}options {{ directory \"{directory}\"; pid-file none; session-keyfile none;\n\
         listen-on {{ {ADDRESS}; }}; listen-on-v6 {{ none; }}; recursion no; notify no; dnssec-validation no; }};\n\
         controls {{ }};\n\
         zone \"{DOMAIN}\" {{ type primary; file \"zone\"; update-policy {{ grant demo zonesub ANY; }}; }};\n"
    );
    fs::write(format!("{directory}/named.conf"), config)?;
    let zone = format!("$TTL 5\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns A {ADDRESS}\n");
    fs::write(format!("{directory}/zone"), zone)?;
    File::create(format!("{directory}/log"))
}
