//! The real BIND on a loopback port, with zones of the test's own.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// One zone.
pub(crate) struct Zone {
    name: String,
    records: String,
    /// Statements inside the zone's clause, such as an update policy.
    statements: String,
}

impl Zone {
    /// Makes a zone out of its records; SOA and NS are added.
    pub(crate) fn new(name: &str, records: &str) -> Self {
        let head = format!(
            "$TTL 30\n$ORIGIN {name}.\n@ SOA ns hostmaster 1 3600 600 86400 20\n@ NS ns\nns A 127.0.0.1\n"
        );
        Self {
            name: name.to_owned(),
            records: head + records + "\n",
            statements: String::new(),
        }
    }

    /// Makes a zone out of a whole file.
    pub(crate) fn verbatim(name: &str, file: &str) -> Self {
        Self {
            name: name.to_owned(),
            records: file.to_owned(),
            statements: String::new(),
        }
    }

    /// Makes a zone that the server cannot load, so that it answers SERVFAIL.
    pub(crate) fn broken(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            records: "this is no zone\n".to_owned(),
            statements: String::new(),
        }
    }

    /// Gives answers the shortest time to live that a look heeds, so that the next one comes soon.
    pub(crate) fn hurried(mut self) -> Self {
        let head = [("$TTL 30", "$TTL 5"), (" 86400 20\n", " 86400 5\n")];
        for (slow, quick) in head {
            self.records = self.records.replacen(slow, quick, 1);
        }
        self
    }

    /// Adds records.
    pub(crate) fn and(mut self, records: &str) -> Self {
        self.records.push_str(records);
        self
    }

    /// Adds statements to the clause of the zone.
    pub(crate) fn with(mut self, statements: &str) -> Self {
        statements.clone_into(&mut self.statements);
        self
    }
}

/// A running name server. It ends when it is dropped.
pub(crate) struct Bind {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Bind {
    /// Starts a server on loopback, or says once why it cannot.
    pub(crate) fn start(zones: &[Zone], keys: &str) -> Option<Self> {
        let address = free_port();
        Self::start_at(address, zones, keys, &[])
    }

    /// Starts a server at an address, behind a command such as `ip netns exec NAME`. Where the
    /// statements begin with those of a `tls test`, it listens for DNS over TLS.
    pub(crate) fn start_at(
        address: SocketAddr,
        zones: &[Zone],
        keys: &str,
        before: &[&str],
    ) -> Option<Self> {
        if !installed() {
            skip("named is not installed (Debian package bind9)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let mut config = format!(
            "options {{ directory \"{path}\"; pid-file none; session-keyfile none; recursion no;\n\
             listen-on port {port} {tls} {{ {ip}; }}; listen-on-v6 {{ none; }}; dnssec-validation no;\n\
             allow-transfer {{ any; }}; notify no; max-records-per-type 0; max-types-per-name 0; }};\n\
             controls {{ }};\n{keys}\n",
            path = path.display(),
            port = address.port(),
            tls = if keys.starts_with("tls ") {
                "tls test"
            } else {
                ""
            },
            ip = address.ip(),
        );
        for zone in zones {
            fs::write(path.join(&zone.name), &zone.records).expect("writable");
            writeln!(
                config,
                "zone {:?} {{ type primary; file {:?}; {} }};",
                zone.name, zone.name, zone.statements
            )
            .expect("a string takes everything");
        }
        let file = path.join("named.conf");
        fs::write(&file, config).expect("writable");
        let log = fs::File::create(path.join("log")).expect("writable");
        let mut words = before.to_vec();
        words.extend(["named", "-g", "-n", "1", "-c"]);
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg(&file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("named starts");
        let server = Self {
            child,
            address,
            directory,
        };
        server.wait();
        Some(server)
    }

    /// Returns the address as the settings take it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the keys that the server has made to sign a zone, as DNSKEY records.
    pub(crate) fn zone_keys(&self, zone: &str) -> String {
        let files = fs::read_dir(self.directory.path()).expect("readable");
        let keys = files.filter_map(|file| {
            let file = file.expect("readable").path();
            let name = file.file_name()?.to_str()?.to_owned();
            let public = file.extension().is_some_and(|kind| kind == "key");
            if !public || !name.starts_with(&format!("K{zone}.")) {
                return None;
            }
            let text = fs::read_to_string(file).expect("readable");
            let record = text.lines().find(|line| !line.starts_with(';'))?;
            Some(format!("{record}\n"))
        });
        keys.collect()
    }

    /// Returns what the server has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().lines().any(|line| line.ends_with(" running")) {
            assert!(
                Instant::now() < deadline,
                "named did not start:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
        if self.address.ip().is_loopback() {
            TcpStream::connect(self.address).expect("named listens");
        }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGKILL).ok();
        drop(self.child.wait());
    }
}

/// Says once why tests are skipped, past the capture of what tests print.
pub(crate) fn skip(why: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        writeln!(std::io::stderr(), "skipped: {why}").ok();
    }
}

/// Says whether BIND is on this machine.
pub(crate) fn installed() -> bool {
    ["/usr/sbin/named", "/usr/bin/named"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or_default())
}

/// Returns a loopback address whose port is free for UDP and TCP.
pub(crate) fn free_port() -> SocketAddr {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = socket.local_addr().expect("an address");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
