//! How long a look at a DNS domain takes and what it costs: `cargo bench --bench domain [-- ROUNDS]`.
//!
//! A BIND on loopback serves domains of 10, 100 and 1000 clusters in either style. A look asks for
//! PTR, SRV, TXT, A and AAAA records of each: a thousand clusters are 4000 questions.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and cannot go on without its rig"
)]

#[path = "../tests/dns/bind.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod bind;
#[path = "../tests/support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;

use std::{
    fmt::Write as _,
    process::id,
    time::{Duration, Instant},
};

use bind::{Bind, Zone};
use landbridge::discovery::dns::{Servers, look};
use process::Process;

const ROUNDS: usize = 20;
const SIZES: [usize; 3] = [10, 100, 1000];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let rounds = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(ROUNDS);
    let zones: Vec<Zone> = SIZES.iter().flat_map(|size| zones(*size)).collect();
    let Some(bind) = Bind::start(&zones, "") else {
        return;
    };
    let servers = Servers::parse(&[bind.address()]).expect("an address");
    println!(
        "n = {rounds}, BIND on loopback; resident set at the start {} kB",
        Process(id()).resident()
    );
    for size in SIZES {
        for style in ["rfc6763", "liqo"] {
            let mut times: Vec<Duration> = Vec::new();
            for _ in 0..rounds {
                let begun = Instant::now();
                let looked = look(&servers, &format!("{style}-{size}.test")).await;
                times.push(begun.elapsed());
                assert_eq!((looked.entries.len(), looked.incomplete), (size, None));
            }
            times.sort();
            let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
            let (min, median, p99) = (at(0), at(50), at(99));
            println!(
                "{size:>4} clusters, {style:<8} min {min:>9.1?}  median {median:>9.1?}  p99 {p99:>9.1?}  resident set at most {} kB",
                Process(id()).most_resident()
            );
        }
    }
}

/// A domain of so many clusters, in both styles.
fn zones(size: usize) -> [Zone; 2] {
    let (mut described, mut plain) = (String::new(), String::new());
    for number in 0..size {
        let (high, low) = (number / 250, number % 250 + 1);
        writeln!(
            described,
            "_landbridge._tcp PTR c{number}._landbridge._tcp\n\
             c{number}._landbridge._tcp SRV 0 0 5870 c{number}.host\n\
             c{number}._landbridge._tcp TXT \"v=1\" \"id=c{number}\"\n\
             c{number}.host A 192.0.{high}.{low}"
        )
        .expect("a string takes everything");
        writeln!(
            plain,
            "@ PTR c{number}\nc{number} SRV 0 0 5870 c{number}.host\nc{number}.host A 192.0.{high}.{low}"
        )
        .expect("a string takes everything");
    }
    [
        Zone::new(&format!("rfc6763-{size}.test"), &described),
        Zone::new(&format!("liqo-{size}.test"), &plain),
    ]
}
