//! What hostile peers and strangers cost the others: `cargo bench --bench hostile [-- SECONDS]`.
//!
//! The built program serves its peer endpoint on loopback. A well-behaved peer asks at a steady pace
//! for so many seconds: alone, then beside each attack, then alone again. Whoever attacks is a
//! process of its own with the lowest priority: on a network the attackers' processors are not ours.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark prints, and cannot go on without its rig"
)]

#[path = "hostile/attack.rs"]
mod attack;
#[path = "../tests/peer/crowd.rs"]
mod crowd;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "../tests/peer/rig.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod rig;

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use attack::Attack;
use peer::{Measured, Peer};

/// How long each part takes.
const SECONDS: u64 = 20;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let [word, name, address, seconds] = words.as_slice()
        && word == "attack"
    {
        let attack = Attack::named(name).unwrap();
        let time = Duration::from_secs(seconds.parse().unwrap());
        println!(
            "{}",
            runtime.block_on(attack.go_on(address.parse().unwrap(), time))
        );
        return;
    }
    let seconds = words.iter().find_map(|word| word.parse().ok());
    runtime.block_on(compare(seconds.unwrap_or(SECONDS)));
}

async fn compare(seconds: u64) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let peer = Peer::accepted(server.address).await;
    let time = Duration::from_secs(seconds);
    println!(
        "a well-behaved peer: {} reads, {} writes and {} new sessions a minute for {seconds} s",
        peer::READS,
        peer::WRITES,
        peer::SESSIONS
    );
    let alone = peer.measure(time).await;
    report("alone", &alone, &alone);
    for attack in Attack::ALL {
        let mut attacker = server.attacked_by(attack, seconds);
        let mut lines = BufReader::new(attacker.stdout.take().unwrap()).lines();
        let begun = lines.next_line().await.unwrap();
        assert!(begun.is_some(), "{} did not begin", attack.name());
        let beside = peer.measure(time).await;
        report(attack.name(), &beside, &alone);
        println!("  {}", lines.next_line().await.unwrap().unwrap_or_default());
        attacker.wait().await.unwrap();
    }
    report("alone again", &peer.measure(time).await, &alone);
}

fn report(title: &str, beside: &Measured, alone: &Measured) {
    println!("{title}");
    for (index, name) in ["read", "write", "new session"].into_iter().enumerate() {
        let (here, there) = (&beside.kinds[index], &alone.kinds[index]);
        let ratio = |percent| here.at(percent).as_secs_f64() / there.at(percent).as_secs_f64();
        println!(
            "  {name:<12} n {:>5}  failed {:>3}  p50 {:>9.2?} ({:>5.2}x)  p99 {:>9.2?} ({:>5.2}x)",
            here.count(),
            here.failed,
            here.at(50),
            ratio(50),
            here.at(99),
            ratio(99)
        );
    }
}

/// The built program on loopback.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(home: &Path) -> Self {
        // Free again when the listener is gone.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = address.unwrap();
        let path = |name: &str| home.join(name).display().to_string();
        fs::write(path("secret"), rig::SECRET).unwrap();
        let settings = format!(
            "{{peer: {{listen: \"{address}\"}}, api: {{listen: \"127.0.0.1:0\"}}, dashboard: {{listen: \"127.0.0.1:0\"}}, \
              lan: {{enabled: false}}, tunnel: {{mode: \"off\"}}}}"
        );
        fs::write(path("settings.yaml"), settings).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_landbridge"))
            .args(["run", "--config", &path("settings.yaml")])
            .args(["--data-dir", &path("data")])
            .args(["--fleet-secret-file", &path("secret")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn attacked_by(&self, attack: Attack, seconds: u64) -> tokio::process::Child {
        tokio::process::Command::new("nice")
            .args(["-n", "19"])
            .arg(env::current_exe().unwrap())
            .args(["attack", attack.name()])
            .args([self.address.to_string(), seconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
